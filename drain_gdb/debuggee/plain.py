"""A target made of plain bytes: for tests, and for anything already in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple
from typing import Mapping as MappingOf

from drain_gdb.debuggee.protocol import Mapping, Module, Process, Struct, Symbol, Thread
from drain_gdb.debuggee.residence import Residence
from drain_gdb.errors import UnreadableMemory


@dataclass
class BytesTarget:
    """Memory as a map of start address to bytes, with what else is said of it."""

    ranges: MappingOf[int, bytes]
    module_list: Sequence[Module] = ()
    mapping_list: Sequence[Mapping] = ()
    symbol_list: Sequence[Symbol] = ()
    structs: Dict[str, Struct] = field(default_factory=dict)
    thread_pointer_list: Sequence[int] = ()
    resident: Optional[Residence] = None
    described_as: Process = field(
        default_factory=lambda: Process("core", None, None, None, "none", None)
    )

    def process(self) -> Process:
        """Who is being looked at."""
        return self.described_as

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``, from one range or several adjacent ones."""
        parts: List[bytes] = []
        at = address
        while at < address + size:
            for start, data in self.ranges.items():
                if start <= at < start + len(data):
                    parts.append(bytes(data[at - start : address + size - start]))
                    at += len(parts[-1])
                    break
            else:
                raise UnreadableMemory(address, size, f"nothing is mapped at {at:#x}")
        return b"".join(parts)

    def modules(self) -> Sequence[Module]:
        """The modules it was made with."""
        return self.module_list

    def mappings(self) -> Sequence[Mapping]:
        """The mapped files it was made with."""
        return self.mapping_list

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """None: not known."""
        return None

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """Of the symbols it was made with, those whose name ends so."""
        return [s for s in self.symbol_list if s.name.endswith(endings)]

    def symbol(self, name: str) -> Optional[Symbol]:
        """The symbol it was made with under ``name``."""
        return next((s for s in self.symbol_list if s.name == name), None)

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """The struct it was made with under ``name``."""
        return self.structs.get(name)

    def thread_pointers(self) -> Sequence[int]:
        """Those it was made with."""
        return self.thread_pointer_list

    def threads(self) -> Sequence[Thread]:
        """None: there are but bytes."""
        return ()

    def auxiliary(self) -> MappingOf[int, int]:
        """Empty: not known."""
        return {}

    def residence(self) -> Optional[Residence]:
        """What it was made with."""
        return self.resident

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what it holds is to be found."""
        return None
