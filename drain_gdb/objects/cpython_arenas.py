"""Small objects of CPython that lie in no jemalloc: in the pools of its own allocator.

With the usual PYTHONMALLOC what is no larger than 512 bytes lies in arenas that CPython maps
itself, and only what is larger comes from malloc(): tables of dicts, arrays of lists.  Their
owners are in the arenas.  A pool is known by its header, whose counts must agree with the chain
of its free blocks (Objects/obmalloc.c of 3.9, Include/internal/pycore_obmalloc.h since 3.12).
"""

from __future__ import annotations

from struct import Struct
from typing import Dict, FrozenSet, NamedTuple, Optional

from drain_gdb.debuggee.foreign import CPYTHON
from drain_gdb.memory import WORD
from drain_gdb.objects.cpython_links import CPythonLinks
from drain_gdb.objects.cpython_types import PythonTypes
from drain_gdb.objects.recogniser import Contents

POOLS = 1 << 14, 1 << 12
"""Bytes of a pool since 3.10, and before."""
HEADER = Struct("<I4xQ16x4xIII")
"""ref.count, freeblock, szidx, nextoffset, maxnextoffset of a pool_header."""
OVERHEAD, STEP, CLASSES = 48, 16, 32
POOLS_KEPT = 1 << 12
TYPE_AT = 1, 3, 5
"""Words of a block at which the type may stand."""


class _Pool(NamedTuple):
    """Blocks of one size, from ``OVERHEAD`` bytes behind ``start`` to ``end``."""

    start: int
    end: int
    size: int
    data: bytes
    free: FrozenSet[int]


class CPythonArenas:
    """Says which object in an arena a pointer is of."""

    memory = CPYTHON

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._types = PythonTypes(contents)
        self._links = CPythonLinks(contents)
        self._pools: Dict[int, Optional[_Pool]] = {}

    def applies(self) -> bool:
        """Whether it is a CPython."""
        return self._types.root is not None

    def holder(self, address: int) -> Optional[str]:
        """What the pointer at ``address`` is in; None where that is no block in use.

        Nor where the pointer keeps nothing alive, as the collector's do not.
        """
        pool = next(filter(None, (self._pool(address, size) for size in POOLS)), None)
        if pool is None or address < pool.start + OVERHEAD:
            return None
        begin = address - (address - pool.start - OVERHEAD) % pool.size
        if begin in pool.free or begin + pool.size > pool.end:
            return None
        for index in TYPE_AT:
            at = begin - pool.start + index * WORD
            word = int.from_bytes(pool.data[at : at + WORD], "little")
            kind = self._types.at(word) if (index + 1) * WORD <= pool.size else None
            if kind is not None and kind.before == index - 1:
                sideways = (address - begin) // WORD in self._links.words(index, word)
                return None if sideways else f"{kind.name} in an arena of CPython"
        return "table in an arena of CPython"

    def _pool(self, address: int, length: int) -> Optional[_Pool]:
        start = address & -length
        key = start | length.bit_length()
        if key not in self._pools:
            if len(self._pools) >= POOLS_KEPT:
                self._pools.clear()
            self._pools[key] = self._read(start, length)
        return self._pools[key]

    def _read(self, start: int, length: int) -> Optional[_Pool]:
        data = self._contents.read(start, length)
        if data is None:
            return None
        used, block, index, end, last = HEADER.unpack_from(data)
        size = (index + 1) * STEP
        number, odd = divmod(end - OVERHEAD, size)
        if index >= CLASSES or last != length - size or odd or not number > 0 or end > length:
            return None
        free = set()
        while block:
            at = block - start - OVERHEAD
            if not 0 <= at < end - OVERHEAD or at % size or block in free:
                return None
            free.add(block)
            block = int.from_bytes(data[block - start : block - start + WORD], "little")
        if used + len(free) != number:
            return None
        return _Pool(start, start + end, size, data, frozenset(free))
