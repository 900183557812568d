"""ELF files written by tests."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

HEADER_SIZE, PROGRAM_HEADER_SIZE, SECTION_HEADER_SIZE = 64, 56, 64
PN_XNUM = 0xFFFF
PT_LOAD, PT_NOTE, PF_W, PF_R = 1, 4, 2, 4
NOBODYS_NOTE = 0x7FFFFFFF
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


def without_note(core: Path, made: Path, kind: int) -> None:
    """A copy of ``core`` whose notes of the type ``kind`` are of one that nobody knows."""
    data = bytearray(core.read_bytes())
    (table,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    found = 0
    for at in range(table, table + count * PROGRAM_HEADER_SIZE, PROGRAM_HEADER_SIZE):
        (segment,) = struct.unpack_from("<I", data, at)
        start, size = (struct.unpack_from("<Q", data, at + field)[0] for field in (8, 32))
        place = start
        while segment == PT_NOTE and place < start + size:
            name, length, own = struct.unpack_from("<III", data, place)
            if own == kind:
                struct.pack_into("<I", data, place + 8, NOBODYS_NOTE)
                found += 1
            place += 12 + (name + 3 & -4) + (length + 3 & -4)
    assert found, f"{core} has no note of type {kind:#x}"
    made.write_bytes(data)


def waiting_i386(made: Path) -> Path:
    """A program for 32-bit machines that prints "ready" and waits for its input to close."""
    base, headers = 0x8048000, 52 + 32
    text = b"ready\n"
    code = bytes.fromhex(
        "b804000000 bb01000000 b900000000 ba06000000 cd80"  # write(1, text, 6)
        "b803000000 bb00000000 b900000000 ba01000000 cd80"  # read(0, text, 1)
        "b801000000 31db cd80"  # exit(0)
    )
    address = struct.pack("<I", base + headers + len(code))
    code = code.replace(b"\xb9\0\0\0\0", b"\xb9" + address)
    size = headers + len(code) + len(text)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    segment = struct.pack("<8I", PT_LOAD, 0, base, base, size, size, 7, PAGE)
    made.write_bytes(header + segment + code + text)
    made.chmod(0o755)
    return made
