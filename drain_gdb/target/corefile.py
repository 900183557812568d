"""What an ELF core's header says, before any debugger is started."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from drain_gdb.errors import TargetError

ET_CORE = 4
PN_XNUM = 0xFFFF
MACHINES = {
    3: "i386",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86-64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
"""e_machine of the ELF specification, those that jemalloc runs on."""


@dataclass(frozen=True)
class CoreFile:
    """A core file.

    Attributes:
        machine: its architecture by name.
        missing: bytes that its program headers promise beyond the file's end.

    """

    path: str
    machine: str
    missing: int


def examine(path: str) -> CoreFile:
    """Read the header of the core at ``path``; :class:`TargetError` if it is none."""
    try:
        with open(path, "rb") as file:
            ident = file.read(64)
            size = os.fstat(file.fileno()).st_size
            if ident[:4] != b"\x7fELF" or len(ident) < 64:
                raise TargetError(
                    f"{path} is not an ELF core file",
                    "and no recording either; unpack a compressed core first",
                )
            if ident[4:6] != b"\x02\x01":
                raise TargetError(f"{path} is not of a 64-bit little-endian process")
            kind, machine = struct.unpack_from("<HH", ident, 16)
            if kind != ET_CORE:
                raise TargetError(
                    f"{path} is an ELF file, but not a core",
                    "a program is given with --exe",
                )
            (offset,) = struct.unpack_from("<Q", ident, 32)
            entry_size, entries = struct.unpack_from("<HH", ident, 54)
            end = offset + entry_size * entries
            if entries != PN_XNUM and entry_size == 56:
                file.seek(offset)
                table = file.read(entry_size * entries)
                for at in range(0, len(table) - entry_size + 1, entry_size):
                    start, _, _, length = struct.unpack_from("<4Q", table, at + 8)
                    end = max(end, start + length)
    except OSError as error:
        raise TargetError(f"cannot open {path}: {error.strerror}") from None
    name = MACHINES.get(machine, f"number {machine}")
    return CoreFile(path, name, max(0, end - size))
