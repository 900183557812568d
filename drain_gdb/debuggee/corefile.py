"""What an ELF core's header says, before it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from drain_gdb.debuggee.corenotes import notes_of
from drain_gdb.debuggee.elf import ET_CORE, NotElf, parse
from drain_gdb.debuggee.files import File
from drain_gdb.errors import TargetError

COMPRESSIONS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
}
"""By the first bytes of a file (RFC 8878, the LZ4 frame format, RFC 1952, the .xz format)."""


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


def examine(file: File) -> CoreFile:
    """Read the header of a core.

    :class:`TargetError` if it is none, or if it was cut off before its notes, which gcore
    writes last: without them no reader knows what was mapped where.
    """
    try:
        elf = parse(file.path, file.size, file.read)
    except NotElf:
        raise TargetError(
            f"{file.path} is not an ELF core file",
            f"and no recording either, nor one compressed by {', '.join(COMPRESSIONS.values())}",
        ) from None
    if elf.kind != ET_CORE:
        raise TargetError(
            f"{file.path} is an ELF file, but not a core",
            "a program is given with --exe",
        )
    missing = max(0, elf.end - elf.size)
    if elf.notes_missing and not notes_of(elf, file).mappings:
        raise TargetError(
            f"{file.path} is truncated: {missing} bytes are missing at its end, and its notes,"
            " which say what was mapped where, are among them",
            "take the core again, where there is room for all of it",
        )
    return CoreFile(file.path, elf.machine, missing)


def machine_of(path: str) -> str:
    """The architecture of the core at ``path``, by name."""
    with File(path) as file:
        return examine(file).machine


def compression(file: File) -> Optional[str]:
    """How a file is compressed, by its first bytes: a value of ``COMPRESSIONS`` or None."""
    start = file.read(0, max(map(len, COMPRESSIONS)))
    return next((kind for magic, kind in COMPRESSIONS.items() if start.startswith(magic)), None)
