"""What is in the live regions of a process, read as it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from functools import cached_property
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.symbols import Symbols
from drain_gdb.debuggee.types import TypeReader, open_types
from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.index import HeapIndex
from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import ADDRESS_END, WORD
from drain_gdb.objects.recogniser import LARGE_LOOK, Region

PIECE = 1 << 16
"""Bytes of other memory that are read at once."""
PIECES_MAX = 1 << 10


class ProcessContents(ABC):
    """The memory of a process that stands still, and the names in it.

    Pieces that were read are remembered.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pieces: Dict[int, Optional[bytes]] = {}
        self._symbols = Symbols(target)
        self._types: Dict[str, Optional[TypeReader]] = {}

    def read(self, address: int, size: int) -> Optional[bytes]:
        """Bytes at any address; None where they cannot all be read."""
        parts = []
        at, end = address, address + size
        while at < end:
            base = at & -PIECE
            piece = self._piece(base)
            if piece is None:
                return self.fetch(address, size)
            parts.append(piece[at - base : end - base])
            at = base + PIECE
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def word(self, address: int) -> Optional[int]:
        """The 64-bit word at any address; None where it cannot be read."""
        data = self.read(address, WORD)
        return None if data is None else int.from_bytes(data, "little")

    @abstractmethod
    def bounds_at(self, address: int) -> Optional[Tuple[int, int]]:
        """Where the live region begins that holds ``address``, and its size."""

    def region_at(self, address: int) -> Optional[Region]:
        """The live region that holds ``address``, its first byte or another one."""
        bounds = self.bounds_at(address)
        if bounds is None:
            return None
        begin, size = bounds
        data = self.read(begin, min(size, LARGE_LOOK))
        return None if data is None else Region(begin, size, data)

    def _piece(self, base: int) -> Optional[bytes]:
        """Some memory at once; None where not all of it can be read."""
        if base not in self._pieces:
            if len(self._pieces) >= PIECES_MAX:
                self._pieces.clear()
            self._pieces[base] = self.fetch(base, PIECE)
        return self._pieces[base]

    def fetch(self, address: int, size: int) -> Optional[bytes]:
        """The same as :meth:`read` of what is not to be remembered."""
        if address < 0 or address + size > ADDRESS_END:
            return None
        try:
            return self._target.read(address, size)
        except UnreadableMemory:
            return None

    @cached_property
    def spans(self) -> List[Tuple[int, int]]:
        """``(start, end)`` of where files are loaded, ascending and apart."""
        mapped = [(each.start, each.end) for each in self._target.mappings()]
        sections = [(s.start, s.end) for m in self._target.modules() for s in m.sections]
        found: List[Tuple[int, int]] = []
        for start, end in sorted(mapped + sections):
            if found and start <= found[-1][1]:
                found[-1] = found[-1][0], max(end, found[-1][1])
            else:
                found.append((start, end))
        return found

    def in_module(self, address: int) -> bool:
        """Whether a program's or library's file is loaded there."""
        row = bisect_right(self.spans, (address, ADDRESS_END)) - 1
        return row >= 0 and address < self.spans[row][1]

    def variables(self) -> List[Tuple[int, int]]:
        """``(start, end)`` of where the program and its libraries keep their variables."""
        sections = [s for module in self._target.modules() for s in module.sections]
        return [(each.start, each.end) for each in sections if each.writable]

    def symbol_at(self, address: int) -> Optional[str]:
        """The name of the function or variable that holds ``address``; None if unknown."""
        return self._symbols.at(address)

    def symbol(self, name: str) -> Optional[int]:
        """The address of a variable; None where there is none of this name."""
        found = self._target.symbol(name)
        return None if found is None else found.address

    def types_at(self, address: int) -> Optional[TypeReader]:
        """The types of the file that is loaded at ``address``; None where it describes none."""
        module = self._symbols.module_at(address)
        if module is None:
            return None
        if module.path not in self._types:
            self._types[module.path] = open_types(module)
        return self._types[module.path]


class HeapContents(ProcessContents):
    """:class:`~drain_gdb.objects.recogniser.Contents` where all live regions are known."""

    def __init__(self, target: Target, live: LiveRegions) -> None:
        super().__init__(target)
        self.live = live

    def bounds_at(self, address: int) -> Optional[Tuple[int, int]]:
        """Where the live region begins that holds ``address``, and its size."""
        live = self.live
        row = live.row_at(address)
        if row is None:
            return None
        size = live.size[row]
        number = (address - live.start[row]) // size
        if not live.live[row] >> number & 1:
            return None
        return live.start[row] + number * size, size

    def regions(self, row: int) -> Iterator[Tuple[int, Region]]:
        """The live regions of a block, with their numbers; what cannot be read is left out."""
        live = self.live
        for number in live.regions(row):
            found = self.region_at(live.start[row] + (number - live.first[row]) * live.size[row])
            if found is not None:
                yield number, found


class IndexContents(ProcessContents):
    """:class:`~drain_gdb.objects.recogniser.Contents` where regions are looked up one by one."""

    def __init__(self, target: Target, indices: Sequence[HeapIndex]) -> None:
        super().__init__(target)
        self._indices = indices

    def bounds_at(self, address: int) -> Optional[Tuple[int, int]]:
        """Where the live region begins that holds ``address``, and its size."""
        found = (index.live_at(address) for index in self._indices)
        return next((bounds for bounds in found if bounds is not None), None)
