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
    PT_GNU_RELRO,
    PT_LOAD,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_TLS,
    SHF_WRITE,
    SHN_LORESERVE,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_PROGBITS,
    SHT_SYMTAB,
    Elf,
    ReadAt,
    SectionHeader,
    Segment,
    parse,
)
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Section
from drain_gdb.errors import TargetError, UnreadableMemory

SYMBOL = struct.Struct("<IBBHQQ")
VARIABLES = (0, 1)
"""STT_NOTYPE and STT_OBJECT (elf.h)."""
NAMED = (*VARIABLES, 2, 10)
"""And STT_FUNC and STT_GNU_IFUNC."""
NAME_MAX = 4096
ADDRESS_END = 1 << 64
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
        self._variables: Dict[Tuple[str, ...], Dict[str, int]] = {}

    @cached_property
    def headers(self) -> List[SectionHeader]:
        """Its section headers."""
        return self.elf.sections()

    @cached_property
    def loaded(self) -> List[Segment]:
        """Its PT_LOAD segments."""
        return [segment for segment in self.elf.segments if segment.kind == PT_LOAD]

    def sections(self, bias: int) -> Tuple[Section, ...]:
        """The sections that are mapped, at their addresses in a process.

        Its segments, where it has no headers of sections.
        """
        mapped = [header for header in self.headers if header.flags & SHF_ALLOC]
        if not mapped:
            return segment_sections(self.elf.segments, bias)
        relocated = _relocated(self.elf.segments)
        return tuple(_section(header, bias, relocated) for header in mapped)

    def section(self, name: str) -> Optional[SectionHeader]:
        """The first section of that name."""
        return next((header for header in self.headers if header.name == name), None)

    def content(self, header: SectionHeader) -> bytes:
        """A section's bytes as they stand in the file."""
        return self.file.read(header.offset, header.size)

    def variables(self, endings: Sequence[str]) -> Dict[str, int]:
        """Link-time address of each variable whose name ends with one of ``endings``."""
        asked = tuple(endings)
        if asked not in self._variables:
            self._variables[asked] = self.debug.find_variables(endings)
        return self._variables[asked]

    def find_variables(self, endings: Sequence[str]) -> Dict[str, int]:
        """As :meth:`variables`, by its own symbol tables, which are read anew.

        A table may have millions of rows: only those of the names wanted are looked at.
        """
        found: Dict[str, int] = {}
        for table in self.headers:
            if table.kind in (SHT_SYMTAB, SHT_DYNSYM) and table.link < len(self.headers):
                wanted = dict(_named(self.content(self.headers[table.link]), endings))
                if not wanted:
                    continue
                rows = self.content(table)
                names = memoryview(rows[: len(rows) // SYMBOL.size * SYMBOL.size]).cast("I")
                step = SYMBOL.size // names.itemsize
                for row in [n for n, name in enumerate(names[::step]) if name in wanted]:
                    name, info, _, section, address, _ = SYMBOL.unpack_from(rows, row * SYMBOL.size)
                    if info & 0xF in VARIABLES and 0 < section < SHN_LORESERVE:
                        found.setdefault(wanted[name], address)
        return found

    def named(self) -> Iterator[Tuple[int, int, str]]:
        """Link-time address, size and name of each function and variable of its tables."""
        for table in self.headers:
            if table.kind not in (SHT_SYMTAB, SHT_DYNSYM) or table.link >= len(self.headers):
                continue
            strings = self.content(self.headers[table.link])
            rows = self.content(table)
            for name, info, _, section, address, size in SYMBOL.iter_unpack(
                rows[: len(rows) // SYMBOL.size * SYMBOL.size]
            ):
                if info & 0xF in NAMED and 0 < section < SHN_LORESERVE:
                    text = strings[name : strings.find(b"\0", name)].decode("utf-8", "replace")
                    yield address, size, OF_LINKER.sub("", text)

    def bias_of(self, start: int, offset: int) -> Optional[int]:
        """How far above its link-time addresses it lies, where ``offset`` is mapped at ``start``.

        None where no segment begins there, on the same page.
        """
        return bias_of(self.elf.segments, start, offset)

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

    @property
    def constants(self) -> List[Tuple[int, int]]:
        """Link-time ``(start, end)`` of what :meth:`read` has."""
        return [
            (each.address, each.address + each.file_size)
            for each in self.loaded
            if not each.flags & PF_W
        ]

    def read(self, address: int, size: int) -> bytes:
        """Of the bytes at a link-time address those that a segment has, at most ``size``."""
        for segment in self.loaded:
            at = address - segment.address
            if not segment.flags & PF_W and 0 <= at < segment.file_size:
                return self.file.read(segment.offset + at, min(size, segment.file_size - at))
        return b""


def segment_sections(segments: Sequence[Segment], bias: int) -> Tuple[Section, ...]:
    """What segments hold, where no headers of sections tell more.

    The program's instructions may lie among its constants.
    """
    relocated = _relocated(segments)
    found = []
    for number, segment in enumerate(s for s in segments if s.kind == PT_LOAD):
        start, zeros = segment.address, segment.address + segment.file_size
        end, name = segment.address + segment.memory_size, f"LOAD{number}"
        if not segment.flags & PF_W:
            found.append(Section(name, start + bias, end + bias, constant=True))
            continue
        variables = max([start, *(e for s, e in relocated if start <= s and e <= end)])
        if start < variables:
            found.append(Section(f"{name}.relro", start + bias, variables + bias))
        if variables < zeros:
            found.append(Section(f"{name}.data", variables + bias, zeros + bias, writable=True))
        if max(variables, zeros) < end:
            first = max(variables, zeros) + bias
            found.append(
                Section(f"{name}.bss", first, end + bias, writable=True, zero_initialized=True)
            )
    return tuple(found)


def _relocated(segments: Sequence[Segment]) -> List[Tuple[int, int]]:
    """``(start, end)`` of what the dynamic linker writes to, and nobody after it."""
    return [(s.address, s.address + s.memory_size) for s in segments if s.kind == PT_GNU_RELRO]


def _section(header: SectionHeader, bias: int, relocated: Sequence[Tuple[int, int]]) -> Section:
    start, end, flags = header.address, header.address + header.size, header.flags
    writable = bool(flags & SHF_WRITE) and not any(s <= start and end <= e for s, e in relocated)
    # Of thread-local storage only the first image lies here, and not even all of that.
    mine = not flags & SHF_TLS
    return Section(
        header.name,
        start + bias,
        end + bias,
        writable=mine and writable,
        zero_initialized=mine and writable and header.kind == SHT_NOBITS,
        constant=mine and header.kind == SHT_PROGBITS and not flags & (SHF_WRITE | SHF_EXECINSTR),
    )


def _named(strings: bytes, endings: Sequence[str]) -> Iterator[Tuple[int, str]]:
    """``(offset, name)`` of each string, or end of one, that ends with one of ``endings``.

    Linkers let a name begin within a longer one that ends alike.
    """
    for ending in endings:
        # Most names are in few files.
        there = ending.encode() in strings
        for suffix in (ending, *_suffixed(strings, ending)) if there else ():
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


def mapped_segments(read: ReadAt, base: int) -> Tuple[Segment, ...]:
    """The segments of the file whose first byte a process has at ``base``.

    None where it has no file there, or not the headers.
    """

    def read_at(offset: int, size: int) -> bytes:
        try:
            return read(base + offset, size)
        except UnreadableMemory:
            return b""

    try:
        return parse(f"the file at {base:#x}", ADDRESS_END - base, read_at).segments
    except TargetError:
        return ()


def bias_of(segments: Sequence[Segment], start: int, offset: int) -> Optional[int]:
    """How far above its link-time addresses a file lies, whose ``offset`` is mapped at ``start``.

    None where no segment begins there, on the same page.
    """
    for segment in segments:
        begins = segment.kind == PT_LOAD and segment.offset - PAGE_MAX < offset
        if begins and offset < segment.offset + segment.file_size:
            return start - offset - segment.address + segment.offset
    return None
