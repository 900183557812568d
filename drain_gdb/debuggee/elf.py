"""ELF headers, segments, sections and notes, out of bytes that may be hostile.

Every count and offset is held against the size of the file before it is used.
Structures are those of the System V ABI for 64-bit little-endian files (elf.h).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import chain, islice
from typing import Callable, Iterator, List, Literal, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.errors import TargetError

ET_EXEC, ET_DYN, ET_CORE = 2, 3, 4
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR, PT_GNU_RELRO = 1, 2, 4, 6, 0x6474E552
PF_X, PF_W = 1, 2
SHT_PROGBITS, SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 1, 2, 8, 11
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS, SHF_COMPRESSED = 0x1, 0x2, 0x4, 0x400, 0x800
PN_XNUM = 0xFFFF
"""e_phnum of a file with more segments: their number is sh_info of section 0."""
SHN_LORESERVE, SHN_XINDEX = 0xFF00, 0xFFFF
NT_GNU_BUILD_ID = 3
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
NOTE_HEADER = struct.Struct("<III")
MACHINES = {
    3: "i386",
    21: "ppc64",
    20: "ppc",
    22: "s390x",
    40: "arm",
    62: "x86-64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
"""e_machine of the ELF specification, those that jemalloc runs on."""
MACHINE_AT = 18
"""Of e_machine, whatever the width."""
READ_ARE = "this program reads 64-bit little-endian processes"
SEGMENTS_MAX = 1 << 22
"""More mappings than vm.max_map_count can be set to in practice."""
NOTES_MAX = 1 << 20
NOTE_NAME_MAX = 32
BUILD_ID_MAX = 64

ReadAt = Callable[[int, int], bytes]
"""``(offset, size)`` to the file's bytes there; fewer at its end."""


class NotElf(TargetError):
    """The file does not begin as an ELF file does."""


class Unsupported(TargetError):
    """The file is of a machine of another width or byte order than are read."""


class Segment(NamedTuple):
    """A program header: p_type, p_flags, p_offset, p_vaddr, p_filesz, p_memsz."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class SectionHeader(NamedTuple):
    """A section header, its name looked up."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class Note(NamedTuple):
    """An entry of a note segment: its name, n_type, where its data lies."""

    name: bytes
    kind: int
    offset: int
    size: int


@dataclass(frozen=True)
class Elf:
    """The tables of an ELF file of ``size`` bytes.

    Attributes:
        machine: its architecture by name.
        program_headers: offset of their table.

    """

    path: str
    kind: int
    machine: str
    size: int
    segments: Tuple[Segment, ...]
    program_headers: int
    _read: ReadAt
    _sections: Tuple[int, int, int]

    @property
    def end(self) -> int:
        """Where the file ends by its program headers and what they describe."""
        table = self.program_headers + len(self.segments) * PROGRAM_HEADER.size
        return max([table, *(s.offset + s.file_size for s in self.segments)])

    @property
    def notes_missing(self) -> bool:
        """Whether a segment of notes does not lie wholly in the file."""
        ends = (s.offset + s.file_size for s in self.segments if s.kind == PT_NOTE)
        return any(end > self.size for end in ends)

    def notes(self) -> Iterator[Note]:
        """The entries of all note segments, those cut off left out; ``NOTES_MAX`` at most."""
        places = ((s.offset, s.offset + s.file_size) for s in self.segments if s.kind == PT_NOTE)
        each = (notes(self._read, start, min(end, self.size)) for start, end in places)
        return islice(chain.from_iterable(each), NOTES_MAX)

    def sections(self) -> List[SectionHeader]:
        """The section headers; none where their table is not in the file."""
        offset, count, names = self._sections
        table = self._read(offset, count * SECTION_HEADER.size)
        rows = list(SECTION_HEADER.iter_unpack(table[: len(table) // 64 * 64]))
        if not names < len(rows):
            return []
        start, length = rows[names][4], rows[names][5]
        strings = self._read(start, length) if start + length <= self.size else b""
        return [
            SectionHeader(text(strings, row[0]), row[1], row[2], row[3], row[4], row[5], row[6])
            for row in rows
        ]

    def build_id(self) -> Optional[str]:
        """The GNU build-id in hexadecimal, None where there is none."""
        return build_id(self.notes(), self._read)


def parse(path: str, size: int, read: ReadAt) -> Elf:
    """The tables of the file at ``path``.

    Raises :class:`Unsupported` where it is not of a 64-bit little-endian machine,
    :class:`TargetError` where its tables lie outside it.
    """
    start = read(0, HEADER.size)
    if start[:4] != b"\x7fELF" or len(start) < HEADER.size:
        raise NotElf(f"{path} is not an ELF file")
    if start[4:6] != b"\x02\x01":
        raise Unsupported(f"{path} is of a {_described(start)}", READ_ARE)
    fields = HEADER.unpack(start)
    kind, machine, table, sections = fields[1], fields[2], fields[5], fields[6]
    entry, count, section_entry, section_count, names = fields[9:14]
    first = _first_section(read, sections) if section_entry == SECTION_HEADER.size else None
    if count == PN_XNUM:
        count = 0 if first is None else first[7]
    if first is not None:
        section_count = section_count or first[5]
        names = first[6] if names == SHN_XINDEX else names
    if first is None or sections + section_count * SECTION_HEADER.size > size:
        section_count = 0
    if count and entry != PROGRAM_HEADER.size:
        raise TargetError(f"{path} is damaged: its program headers have {entry} bytes")
    if count > SEGMENTS_MAX:
        raise TargetError(f"{path} is damaged: it says it has {count} segments")
    data = read(table, count * PROGRAM_HEADER.size)
    rows = PROGRAM_HEADER.iter_unpack(data[: len(data) // 56 * 56])
    return Elf(
        path=path,
        kind=kind,
        machine=MACHINES.get(machine, f"number {machine}"),
        size=size,
        segments=tuple(Segment(*row[:4], *row[5:7]) for row in rows),
        program_headers=table,
        _read=read,
        _sections=(sections, section_count, names),
    )


def _described(start: bytes) -> str:
    """Width, byte order and architecture of a file that begins with ``start``."""
    width = {1: "32-bit", 2: "64-bit"}.get(start[4], "unknown")
    order: Literal["little", "big"] = "big" if start[5] == 2 else "little"
    number = int.from_bytes(start[MACHINE_AT : MACHINE_AT + 2], order)
    machine = MACHINES.get(number, f"number {number}")
    return f"{width} {order}-endian machine ({machine}), which is not supported"


def _first_section(read: ReadAt, offset: int) -> Optional[Sequence[int]]:
    data = read(offset, SECTION_HEADER.size) if offset else b""
    return SECTION_HEADER.unpack(data) if len(data) == SECTION_HEADER.size else None


def text(strings: bytes, at: int) -> str:
    """The string at offset ``at`` of a string table."""
    end = strings.find(b"\0", at)
    return strings[at : end if end >= 0 else at].decode("utf-8", "replace")


def notes(read: ReadAt, start: int, end: int) -> Iterator[Note]:
    """The entries between two offsets, those cut off left out; each aligned to 4 bytes."""
    at = start
    for _ in range(NOTES_MAX):
        header = read(at, NOTE_HEADER.size) if at + NOTE_HEADER.size <= end else b""
        if len(header) < NOTE_HEADER.size:
            return
        name_size, size, kind = NOTE_HEADER.unpack(header)
        at += NOTE_HEADER.size
        data = at + (name_size + 3 & -4)
        if data + size > end:
            return
        yield Note(read(at, min(name_size, NOTE_NAME_MAX)), kind, data, size)
        at = data + (size + 3 & -4)


def build_id(entries: Iterator[Note], read: ReadAt) -> Optional[str]:
    """The GNU build-id among ``entries``, in hexadecimal."""
    for note in entries:
        if note.kind == NT_GNU_BUILD_ID and note.name == b"GNU\0":
            return read(note.offset, min(note.size, BUILD_ID_MAX)).hex()
    return None
