"""ELF files written by tests."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

HEADER_SIZE, PROGRAM_HEADER_SIZE, SECTION_HEADER_SIZE = 64, 56, 64
PN_XNUM = 0xFFFF
PT_LOAD, PF_R = 1, 4
EMPTY = 0x100000000000
PAGE = 4096


def many_segments(core: Path, made: Path, more: int) -> None:
    """A copy of ``core`` with ``more`` unreadable segments of a page each.

    Its program headers stand at the end, and are counted by its first section.
    """
    shutil.copyfile(core, made)
    with made.open("r+b") as file:
        header = bytearray(file.read(HEADER_SIZE))
        (table,) = struct.unpack_from("<Q", header, 32)
        (count,) = struct.unpack_from("<H", header, 56)
        file.seek(table)
        segments = file.read(count * PROGRAM_HEADER_SIZE)
        for number in range(more):
            at = EMPTY + 2 * number * PAGE
            segments += struct.pack("<IIQQQQQQ", PT_LOAD, PF_R, 0, at, 0, 0, PAGE, PAGE)
        file.seek(0, 2)
        end = file.tell()
        file.write(segments)
        file.write(struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 1, 0, count + more, 0, 0))
        struct.pack_into("<Q", header, 32, end)
        struct.pack_into("<Q", header, 40, end + len(segments))
        struct.pack_into("<HHHH", header, 56, PN_XNUM, SECTION_HEADER_SIZE, 1, 0)
        file.seek(0)
        file.write(header)
