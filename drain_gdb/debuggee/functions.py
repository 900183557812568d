"""The functions of a loaded module: names and addresses, out of its symbol tables.

The table that the dynamic loader uses is part of every image in memory, so the
functions a library exports are found without its file, in a container or behind
gdbserver too.  The full table is in the file alone; the file is believed only
where its first page is the one in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.elf import PT_LOAD, SHT_SYMTAB, parse, text
from drain_gdb.debuggee.elffile import SYMBOL, ElfFile, open_elf
from drain_gdb.debuggee.identity import overlaps
from drain_gdb.debuggee.protocol import Mapping, Module, Target
from drain_gdb.errors import TargetError

STT_FUNC = 2
SAME = 4096
"""Bytes at the start of an image that tell whether a file is the one in memory."""


@dataclass(frozen=True)
class Function:
    """A function of a module: ``address`` of its first byte, ``size`` in bytes."""

    name: str
    address: int
    size: int

    @property
    def end(self) -> int:
        """The address after its last byte; it has at least one."""
        return self.address + max(self.size, 1)


def functions(target: Target, module: Module, files: Sequence[str]) -> List[Function]:
    """Every function of ``module`` that the process or one of ``files`` names.

    Of ``files`` the first is the module's own; the others are such as the debugger
    has matched to it.  What cannot be read is left out, and so are functions that
    are chosen at load time (STT_GNU_IFUNC): their symbol is that of the chooser.
    """
    start = _start(module, target.mappings())
    if start is None:
        return []

    def read(offset: int, size: int) -> bytes:
        size = min(size, start.end - start.start - offset)
        return target.read(start.start + offset, size) if size > 0 else b""

    try:
        image = parse(module.path, start.end - start.start, read)
        first = next(segment for segment in image.segments if segment.kind == PT_LOAD)
        bias = start.start - first.address + first.offset
        found = dict.fromkeys(_exported(target, module, bias))
    except (TargetError, StopIteration):
        return []
    for number, path in enumerate(files):
        file = open_elf(path)
        if file is None:
            continue
        with file.file:
            if number or file.file.read(0, SAME) == read(0, SAME):
                found.update(dict.fromkeys(_tabled(file, bias)))
    return list(found)


def exports(target: Target, module: Module, name: str) -> Optional[bool]:
    """Whether ``module`` defines a function ``name`` for others; None where that is not known.

    Its dynamic symbol table says so, which strip leaves.
    """
    strings = next((s for s in module.sections if s.name == ".dynstr"), None)
    if strings is None:
        return None
    try:
        names = target.read(strings.start, strings.end - strings.start)
    except TargetError:
        return None
    if name.encode() + b"\0" not in names:
        return False
    return any(function.name == name for function in functions(target, module, []))


def _start(module: Module, mappings: Sequence[Mapping]) -> Optional[Mapping]:
    """The mapping of the beginning of the module's file."""
    path = next((m.path for m in mappings if overlaps(m, module)), None)
    return next((m for m in mappings if m.path == path and m.offset == 0), None)


def _exported(target: Target, module: Module, bias: int) -> Iterator[Function]:
    """The functions of the dynamic symbol table, which lies in memory."""
    sections: Dict[str, Tuple[int, int]] = {s.name: (s.start, s.end) for s in module.sections}
    if ".dynsym" in sections and ".dynstr" in sections:
        table, strings = (
            target.read(start, end - start)
            for start, end in (sections[name] for name in (".dynsym", ".dynstr"))
        )
        yield from _functions(table, strings, bias)


def _tabled(file: ElfFile, bias: int) -> Iterator[Function]:
    """The functions of the full symbol table, where the file has one."""
    for table in file.headers:
        if table.kind == SHT_SYMTAB and table.link < len(file.headers):
            strings = file.content(file.headers[table.link])
            yield from _functions(file.content(table), strings, bias)


def _functions(table: bytes, strings: bytes, bias: int) -> Iterator[Function]:
    """The functions that a symbol table (Elf64_Sym, elf.h) defines."""
    whole = len(table) - len(table) % SYMBOL.size
    for name, info, _, section, value, size in SYMBOL.iter_unpack(table[:whole]):
        if section and value and info & 0xF == STT_FUNC:
            yield Function(text(strings, name), value + bias, size)
