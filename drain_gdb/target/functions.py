"""The functions of a loaded module: names and addresses, out of its symbol tables.

The table that the dynamic loader uses is part of every image in memory, so the
functions a library exports are found without its file, in a container or behind
gdbserver too.  The full table is in the file alone; the file is believed only
where its first page is the one in memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.target.identity import overlaps
from drain_gdb.target.protocol import Mapping, Module, Target

SHT_SYMTAB = 2
PT_LOAD = 1
STT_FUNC, STT_GNU_IFUNC = 2, 10
HEADER_SIZE = 64
PHDR = struct.Struct("<IIQQQQQQ")
SHDR = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
SAME = 4096
"""Bytes at the start of an image that tell whether a file is the one in memory."""
PHDRS_MAX = 1 << 10
SECTIONS_MAX = 1 << 16

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Function:
    """A function of a module: ``address`` of its first byte, ``size`` in bytes.

    ``indirect`` is one whose address is that of a resolver (STT_GNU_IFUNC).
    """

    name: str
    address: int
    size: int
    indirect: bool = False

    @property
    def end(self) -> int:
        """The address after its last byte; it has at least one."""
        return self.address + max(self.size, 1)


def functions(target: Target, module: Module, files: Sequence[str]) -> List[Function]:
    """Every function of ``module`` that the process or one of ``files`` names.

    Of ``files`` the first is the module's own; the others are such as the debugger
    has matched to it.  What cannot be read is left out.
    """
    base = _base(module, target.mappings())
    if base is None:
        return []
    try:
        header = target.read(base, HEADER_SIZE)
        bias = base - _first_load(lambda at, size: target.read(base + at, size), header)
    except (UnreadableMemory, ValueError):
        return []
    found = dict.fromkeys(_exported(target, module, bias))
    for number, path in enumerate(files):
        try:
            with open(path, "rb") as file:

                def read(at: int, size: int) -> bytes:
                    file.seek(at)
                    return file.read(size)

                if number or _same(read, target, base):
                    found.update(dict.fromkeys(_tabled(read, bias)))
        except (OSError, ValueError, struct.error, UnreadableMemory):
            continue
    return list(found)


def _base(module: Module, mappings: Sequence[Mapping]) -> Optional[int]:
    """Where the module's file begins in memory."""
    path = next((m.path for m in mappings if overlaps(m, module)), None)
    return next((m.start for m in mappings if m.path == path and m.offset == 0), None)


def _first_load(read: Read, header: bytes) -> int:
    """The address that the image with this ``header`` was linked to begin at."""
    if header[:4] != b"\x7fELF":
        raise ValueError("no ELF header")
    (offset,) = struct.unpack_from("<Q", header, 32)
    (count,) = struct.unpack_from("<H", header, 56)
    if count > PHDRS_MAX:
        raise ValueError("too many program headers")
    for row in PHDR.iter_unpack(read(offset, count * PHDR.size)):
        if row[0] == PT_LOAD:
            return int(row[3] - row[2])
    raise ValueError("no segment is loaded")


def _same(read: Read, target: Target, base: int) -> bool:
    start = read(0, SAME)
    return len(start) == SAME and start == target.read(base, SAME)


def _exported(target: Target, module: Module, bias: int) -> Iterator[Function]:
    """The functions of the dynamic symbol table, which lies in memory."""
    sections: Dict[str, Tuple[int, int]] = {s.name: (s.start, s.end) for s in module.sections}
    table, strings = sections.get(".dynsym"), sections.get(".dynstr")
    if table is None or strings is None:
        return
    try:
        data = [target.read(start, end - start) for start, end in (table, strings)]
    except UnreadableMemory:
        return
    yield from _functions(data[0], data[1], bias)


def _tabled(read: Read, bias: int) -> Iterator[Function]:
    """The functions of the full symbol table, where the file has one."""
    header = read(0, HEADER_SIZE)
    (offset,) = struct.unpack_from("<Q", header, 40)
    (count,) = struct.unpack_from("<H", header, 60)
    rows = list(SHDR.iter_unpack(read(offset, min(count, SECTIONS_MAX) * SHDR.size)))
    for row in rows:
        if row[1] == SHT_SYMTAB and row[6] < len(rows):
            strings = rows[row[6]]
            yield from _functions(read(row[4], row[5]), read(strings[4], strings[5]), bias)


def _functions(table: bytes, strings: bytes, bias: int) -> Iterator[Function]:
    """The functions that a symbol table (Elf64_Sym, elf.h) defines."""
    whole = len(table) - len(table) % SYMBOL.size
    for name, info, _, section, value, size in SYMBOL.iter_unpack(table[:whole]):
        kind = info & 0xF
        if section and value and kind in (STT_FUNC, STT_GNU_IFUNC):
            end = strings.find(b"\0", name)
            text = strings[name:end].decode("utf-8", "replace")
            yield Function(text, value + bias, size, kind == STT_GNU_IFUNC)
