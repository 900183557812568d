"""A program's or library's file: its sections, its variables, its structs."""

from __future__ import annotations

import re
import struct
from functools import cached_property
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.elf import (
    ET_DYN,
    ET_EXEC,
    PF_W,
    PT_LOAD,
    SHF_ALLOC,
    SHN_LORESERVE,
    SHT_DYNSYM,
    SHT_SYMTAB,
    Elf,
    SectionHeader,
    Segment,
    parse,
)
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Section
from drain_gdb.errors import TargetError

SYMBOL = struct.Struct("<IBBHQQ")
VARIABLES = (0, 1)
"""STT_NOTYPE and STT_OBJECT (elf.h)."""
NAME_MAX = 4096
OF_LINKER = re.compile(r"\.lto_priv\.\d+$")
"""What GCC's link-time optimisation appends to a static variable's name."""
PAGE_MAX = 1 << 16
"""The largest page that Linux has on a 64-bit machine."""


class ElfFile:
    """An ELF file that is open.

    Attributes:
        debug: the file that holds its symbols and debug information: itself, or
            the separate one of the same build-id.

    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.elf: Elf = parse(file.path, file.size, file.read)
        if self.elf.kind not in (ET_EXEC, ET_DYN):
            raise TargetError(f"{file.path} is an ELF file, but no program or library")
        self.build_id = self.elf.build_id()
        self.debug: ElfFile = self

    @cached_property
    def headers(self) -> List[SectionHeader]:
        """Its section headers."""
        return self.elf.sections()

    @cached_property
    def loaded(self) -> List[Segment]:
        """Its PT_LOAD segments."""
        return [segment for segment in self.elf.segments if segment.kind == PT_LOAD]

    def sections(self, bias: int) -> Tuple[Section, ...]:
        """The sections that are mapped, at their addresses in a process."""
        return tuple(
            Section(header.name, header.address + bias, header.address + header.size + bias)
            for header in self.headers
            if header.flags & SHF_ALLOC
        )

    def section(self, name: str) -> Optional[SectionHeader]:
        """The first section of that name."""
        return next((header for header in self.headers if header.name == name), None)

    def content(self, header: SectionHeader) -> bytes:
        """A section's bytes as they stand in the file."""
        return self.file.read(header.offset, header.size)

    def variables(self, endings: Sequence[str]) -> Dict[str, int]:
        """Link-time address of each variable whose name ends with one of ``endings``."""
        found: Dict[str, int] = {}
        for table in self.debug.headers:
            if table.kind in (SHT_SYMTAB, SHT_DYNSYM) and table.link < len(self.debug.headers):
                strings = self.debug.content(self.debug.headers[table.link])
                wanted = dict(_named(strings, endings))
                if not wanted:
                    continue
                rows = self.debug.content(table)
                for name, info, _, section, address, _ in SYMBOL.iter_unpack(
                    rows[: len(rows) // SYMBOL.size * SYMBOL.size]
                ):
                    if name in wanted and info & 0xF in VARIABLES and 0 < section < SHN_LORESERVE:
                        found.setdefault(wanted[name], address)
        return found

    def bias_of(self, start: int, offset: int) -> Optional[int]:
        """How far above its link-time addresses it lies, where ``offset`` is mapped at ``start``.

        None where no segment begins there, on the same page.
        """
        for segment in self.loaded:
            if segment.offset - PAGE_MAX < offset < segment.offset + segment.file_size:
                return start - offset - segment.address + segment.offset
        return None

    def constant(self, offset: int, size: int) -> bytes:
        """The bytes at ``offset`` of the file; none of a segment that a process changes.

        Relocations are written into some that are mapped read-only later (RELRO).
        """
        for segment in self.loaded:
            if segment.flags & PF_W:
                if segment.offset <= offset < segment.offset + segment.file_size:
                    return b""
                if offset < segment.offset:
                    size = min(size, segment.offset - offset)
        return self.file.read(offset, size)

    def read(self, address: int, size: int) -> bytes:
        """Of the bytes at a link-time address those that a segment has, at most ``size``."""
        for segment in self.loaded:
            at = address - segment.address
            if not segment.flags & PF_W and 0 <= at < segment.file_size:
                return self.file.read(segment.offset + at, min(size, segment.file_size - at))
        return b""


def _named(strings: bytes, endings: Sequence[str]) -> Iterator[Tuple[int, str]]:
    """``(offset, name)`` of each string, or end of one, that ends with one of ``endings``.

    Linkers let a name begin within a longer one that ends alike.
    """
    for ending in endings:
        for suffix in (ending, *_suffixed(strings, ending)):
            tail = suffix.encode() + b"\0"
            at = strings.find(tail)
            while at >= 0:
                start = max(strings.rfind(b"\0", 0, at) + 1, at - NAME_MAX)
                for offset in range(start, at + 1):
                    name = strings[offset : at + len(suffix)].decode("utf-8", "replace")
                    yield offset, OF_LINKER.sub("", name)
                at = strings.find(tail, at + 1)


def _suffixed(strings: bytes, ending: str) -> List[str]:
    """``ending`` with what the linker appended to it, each form once."""
    found = re.findall(re.escape(ending.encode()) + rb"\.lto_priv\.\d+(?=\0)", strings)
    return sorted({each.decode() for each in found})


def open_elf(path: str) -> Optional[ElfFile]:
    """The program or library at ``path``; None where there is none that can be read."""
    try:
        file = File(path)
    except TargetError:
        return None
    try:
        return ElfFile(file)
    except TargetError:
        file.close()
        return None
