"""The constants of a module, in large pieces.

They come from the module's file, where that is the one that was opened: debuggers take far
longer to hand on half a gigabyte.  Else they come from the process.
"""

from __future__ import annotations

from contextlib import closing
from typing import Callable, Iterator, List, Tuple

from drain_gdb.debuggee.loaded import open_module
from drain_gdb.debuggee.protocol import Module
from drain_gdb.errors import UnreadableMemory
from drain_gdb.memory import BULK_CHUNK, Memory


def constant_pieces(memory: Memory, module: Module, overlap: int) -> Iterator[Tuple[int, bytes]]:
    """``(address, bytes)`` of all constants of ``module``, each piece once.

    Each ends with ``overlap`` bytes of what follows it; what cannot be read is left out.
    """
    own = open_module(module)
    if own is None:
        yield from _pieces(memory.read, module, overlap)
        return
    file, bias = own.file, own.bias
    with closing(file.file):
        if _sizes(own.module) == _sizes(module):
            yield from _pieces(
                lambda address, size: file.read(address - bias, size), module, overlap
            )
        else:
            yield from _pieces(memory.read, module, overlap)


def _sizes(module: Module) -> List[Tuple[str, int]]:
    return [(section.name, section.end - section.start) for section in module.sections]


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
