"""The names of addresses: functions and variables, by the symbol tables of the files.

The same whatever reads the process: debuggers add to names what their languages think of them.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Dict, List, Optional, Tuple

from drain_gdb.debuggee.elffile import ElfFile
from drain_gdb.debuggee.loaded import open_module
from drain_gdb.debuggee.protocol import Module, Section, Target

ADDRESS_END = 1 << 64


@dataclass(frozen=True)
class _Table:
    """The symbols of a file, ascending, at their addresses in the process."""

    starts: List[int]
    ends: List[int]
    names: List[str]


class Symbols:
    """Names of addresses in the files of a process; each file's table is read once."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tables: Dict[int, Optional[_Table]] = {}
        self._known: Dict[int, Optional[Tuple[str, int]]] = {}

    @cached_property
    def _sections(self) -> Tuple[List[int], List[Tuple[Section, Module]]]:
        found = sorted(
            ((s, module) for module in self._target.modules() for s in module.sections),
            key=lambda each: (each[0].start, each[0].end),
        )
        return [section.start for section, _ in found], found

    def section_at(self, address: int) -> Optional[Tuple[Section, Module]]:
        """The section that holds ``address``, and the program or library that has it."""
        starts, found = self._sections
        row = bisect_right(starts, address) - 1
        return found[row] if row >= 0 and address < found[row][0].end else None

    def module_at(self, address: int) -> Optional[Module]:
        """The program or library that has a section there."""
        found = self.section_at(address)
        return None if found is None else found[1]

    def at(self, address: int) -> Optional[str]:
        """The name of the function or variable that holds ``address``; None if unknown."""
        found = self.with_offset(address)
        return None if found is None else found[0]

    def with_offset(self, address: int) -> Optional[Tuple[str, int]]:
        """That name, and how far behind its first byte the address is."""
        if address not in self._known:
            self._known[address] = self._look(address)
        return self._known[address]

    def _look(self, address: int) -> Optional[Tuple[str, int]]:
        module = self.module_at(address)
        if module is None:
            return None
        key = id(module)
        if key not in self._tables:
            self._tables[key] = _table(module)
        table = self._tables[key]
        if table is None:
            return None
        row = bisect_right(table.starts, address) - 1
        if row < 0 or address >= table.ends[row]:
            return None
        return table.names[row], address - table.starts[row]


def _table(module: Module) -> Optional[_Table]:
    """The symbols of a file; None where it is not here, or another one."""
    found = open_module(module)
    if found is None:
        return None
    with closing(found.file.file):
        rows = sorted(_rows(found.file))
    starts = [start + found.bias for start, _, _ in rows]
    # One without a size reaches to the next.
    after = [*starts[1:], starts[-1] if starts else 0]
    ends = [start + size or stop for start, (_, size, _), stop in zip(starts, rows, after)]
    return _Table(starts, ends, [name for _, _, name in rows])


def _rows(file: ElfFile) -> List[Tuple[int, int, str]]:
    found: Dict[int, Tuple[int, str]] = {}
    for address, size, name in (*file.named(), *file.debug.named()):
        # Of several names of one place the first that has a size.
        if address not in found or (size and not found[address][0]):
            found[address] = size, name
    return [(address, size, name) for address, (size, name) in found.items()]
