"""What an ELF core's header says, before it is read."""

from __future__ import annotations

from dataclasses import dataclass

from drain_gdb.errors import TargetError
from drain_gdb.target.elf import ET_CORE, NotElf, parse
from drain_gdb.target.files import File


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
    with File(path) as file:
        try:
            elf = parse(path, file.size, file.read)
        except NotElf:
            raise TargetError(
                f"{path} is not an ELF core file",
                "and no recording either, nor one that zstd, lz4, gzip or xz has compressed",
            ) from None
    if elf.kind != ET_CORE:
        raise TargetError(
            f"{path} is an ELF file, but not a core",
            "a program is given with --exe",
        )
    return CoreFile(path, elf.machine, max(0, elf.end - elf.size))
