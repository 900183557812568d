"""What the notes of an ELF core say of the process: its files, its name, its program.

For a debugger that does not hand them on.  Note types and structures are those of
Linux: ``include/uapi/linux/elf.h``, ``include/linux/elfcore.h``, ``fs/binfmt_elf.c``.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Dict, Iterator, Optional, Tuple

from drain_gdb.target.protocol import Mapping

PT_NOTE = 4
PN_XNUM = 0xFFFF
NT_PRPSINFO = 3
NT_AUXV = 6
NT_FILE = 0x46494C45
AT_PHDR = 3
PSARGS_AT = 56
"""Offset of pr_psargs in the elf_prpsinfo of a 64-bit process."""
PSARGS_SIZE = 80
"""ELF_PRARGSZ."""
NOTE_MAX = 1 << 24
"""Bytes of one note that are read; the kernel writes an NT_FILE of 4 MiB at most."""
WANTED = (NT_PRPSINFO, NT_AUXV, NT_FILE)


@dataclass(frozen=True)
class Notes:
    """What the notes say; what they do not is empty or None.

    Attributes:
        mappings: the mapped files (NT_FILE).
        command: the first 79 characters of the command line (NT_PRPSINFO).
        headers: where the kernel put the program's headers (AT_PHDR of NT_AUXV).

    """

    mappings: Tuple[Mapping, ...] = ()
    command: Optional[str] = None
    headers: Optional[int] = None

    @property
    def program(self) -> Optional[str]:
        """The file that holds the program's headers."""
        if self.headers is None:
            return None
        return next((m.path for m in self.mappings if m.start <= self.headers < m.end), None)


def read_notes(path: str) -> Notes:
    """The notes of the 64-bit little-endian core at ``path``, as far as they can be read."""
    found: Dict[int, bytes] = {}
    with suppress(OSError, struct.error), open(path, "rb") as file:
        for kind, content in _notes(file):
            found[kind] = content
    command = found.get(NT_PRPSINFO, b"")[PSARGS_AT : PSARGS_AT + PSARGS_SIZE]
    return Notes(
        tuple(_mappings(found.get(NT_FILE, b""))),
        os.fsdecode(command.partition(b"\0")[0]) or None,
        _auxiliary(found.get(NT_AUXV, b""), AT_PHDR),
    )


def _notes(file: BinaryIO) -> Iterator[Tuple[int, bytes]]:
    """``(type, content)`` of each note that is ``WANTED``."""
    header = file.read(64)
    (table,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    if count == PN_XNUM:
        count = _extended_count(file, header)
    for index in range(count):
        file.seek(table + index * size)
        kind, _, at, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
        if kind == PT_NOTE:
            yield from _segment(file, at, at + length)


def _extended_count(file: BinaryIO, header: bytes) -> int:
    """``sh_info`` of the first section: how many segments there are beyond 65,534."""
    (sections,) = struct.unpack_from("<Q", header, 40)
    file.seek(sections + 44)
    (count,) = struct.unpack("<I", file.read(4))
    return int(count)


def _segment(file: BinaryIO, at: int, end: int) -> Iterator[Tuple[int, bytes]]:
    while at + 12 <= end:
        file.seek(at)
        name_size, size, kind = struct.unpack("<III", file.read(12))
        content = at + 12 + (name_size + 3 & -4)
        if kind in WANTED and file.read(name_size) == b"CORE\0":
            file.seek(content)
            yield kind, file.read(min(size, NOTE_MAX))
        at = content + (size + 3 & -4)


def _mappings(note: bytes) -> Iterator[Mapping]:
    """``count, page size, (start, end, offset in pages) x count, names``, each ended by 0."""
    if len(note) < 16:
        return
    count, page = struct.unpack_from("<QQ", note)
    names_at = 16 + 24 * count
    names = note[names_at:].split(b"\0")
    if names_at > len(note) or len(names) < count:
        return
    for (start, end, offset), name in zip(struct.iter_unpack("<QQQ", note[16:names_at]), names):
        yield Mapping(os.fsdecode(name), start, end, offset * page)


def _auxiliary(note: bytes, wanted: int) -> Optional[int]:
    """The value of the entry ``wanted`` of the auxiliary vector."""
    pairs = struct.iter_unpack("<QQ", note[: len(note) & -16])
    return next((value for kind, value in pairs if kind == wanted), None)
