"""ELF files written by tests."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

HEADER_SIZE, PROGRAM_HEADER_SIZE, SECTION_HEADER_SIZE = 64, 56, 64
PN_XNUM = 0xFFFF
PT_LOAD, PF_W, PF_R = 1, 2, 4
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
        segments = bytearray(file.read(count * PROGRAM_HEADER_SIZE))
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


def without(core: Path, made: Path, flags: int, value: int) -> int:
    """A copy of ``core`` that leaves out the content of some segments; returns how many.

    Of those whose ``p_flags & flags`` are ``value``.
    """
    data = bytearray(core.read_bytes())
    (table,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    left_out = 0
    for at in range(table, table + count * PROGRAM_HEADER_SIZE, PROGRAM_HEADER_SIZE):
        kind, own = struct.unpack_from("<II", data, at)
        if kind == PT_LOAD and own & flags == value:
            struct.pack_into("<Q", data, at + 32, 0)
            left_out += 1
    made.write_bytes(data)
    return left_out


def without_rest(core: Path, made: Path, address: int) -> Path:
    """A copy of ``core`` without the rest of the mapping that holds ``address``, from there on."""
    shutil.copyfile(core, made)
    with made.open("r+b") as file:
        header = file.read(HEADER_SIZE)
        (table,) = struct.unpack_from("<Q", header, 32)
        (count,) = struct.unpack_from("<H", header, 56)
        for at in range(table, table + PROGRAM_HEADER_SIZE * count, PROGRAM_HEADER_SIZE):
            file.seek(at)
            kind, _, _, start, _, size = struct.unpack("<IIQQQQ", file.read(40))
            if kind == PT_LOAD and start <= address < start + size:
                file.seek(at + 32)
                file.write(struct.pack("<QQ", address - start, address - start))
                return made
    raise AssertionError(f"{address:#x} is not in {core}")


def without_section_headers(binary: Path, made: Path) -> Path:
    """A copy of ``binary`` that has no headers of sections, as sstrip and packers leave them."""
    shutil.copy(binary, made)
    with made.open("r+b") as file:
        header = bytearray(file.read(HEADER_SIZE))
        struct.pack_into("<Q", header, 40, 0)
        struct.pack_into("<HHH", header, 58, 0, 0, 0)
        file.seek(0)
        file.write(header)
    return made
