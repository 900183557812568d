"""The constants of a module, in large pieces.

They come from the module's file, where that is the one that was opened: debuggers take far
longer to hand on half a gigabyte.  Else they come from the process.
"""

from __future__ import annotations

from contextlib import closing
from typing import Callable, Iterator, Optional, Tuple

from drain_gdb.debuggee.elffile import ElfFile, open_elf
from drain_gdb.debuggee.protocol import Module
from drain_gdb.errors import UnreadableMemory
from drain_gdb.memory import BULK_CHUNK, Memory


def constant_pieces(memory: Memory, module: Module, overlap: int) -> Iterator[Tuple[int, bytes]]:
    """``(address, bytes)`` of all constants of ``module``, each piece once.

    Each ends with ``overlap`` bytes of what follows it; what cannot be read is left out.
    """
    file = _own_file(module)
    if file is None:
        yield from _pieces(memory.read, module, overlap)
        return
    with closing(file.file):
        bias = module.sections[0].start - file.sections(0)[0].start
        own = file
        yield from _pieces(lambda address, size: own.read(address - bias, size), module, overlap)


def _own_file(module: Module) -> Optional[ElfFile]:
    """The file of ``module``; None where it cannot be read, or is another one."""
    file = open_elf(module.here)
    if file is None:
        return None
    own = [(section.name, section.end - section.start) for section in file.sections(0)]
    loaded = [(section.name, section.end - section.start) for section in module.sections]
    if own and own == loaded and file.build_id == module.build_id:
        return file
    file.file.close()
    return None


def _pieces(
    read: Callable[[int, int], bytes], module: Module, overlap: int
) -> Iterator[Tuple[int, bytes]]:
    for section in module.sections:
        if section.constant:
            for start in range(section.start, section.end, BULK_CHUNK):
                size = min(BULK_CHUNK + overlap, section.end - start)
                try:
                    yield start, read(start, size)
                except UnreadableMemory:
                    continue
