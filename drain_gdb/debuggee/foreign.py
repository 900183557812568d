"""Whose anonymous memory is that no jemalloc claims, by a few words of it.

Nothing is kept of what is read: glibc's heaps and CPython's arenas are known by the
headers that their allocators put into them.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from drain_gdb.debuggee.residence import ALLOCATOR, FORKED, PRIVATE, Area, Named, Residence
from drain_gdb.errors import UnreadableMemory

Read = Callable[[int, int], bytes]

CPYTHON, GLIBC = "CPython's arenas", "glibc's heaps"
SMALL = 1 << 16
"""Bytes; smaller gaps are not looked at."""
GLIBC_HEAP = 1 << 26
"""What glibc's heaps are aligned to (HEAP_MAX_SIZE, arena.c)."""
GLIBC_HEADER = struct.Struct("<QQQQ")
"""heap_info (arena.c): ar_ptr, prev, size, mprotect_size."""
GLIBC_CHUNK = struct.Struct("<QQ")
"""malloc_chunk (malloc.c): mchunk_prev_size, mchunk_size."""
IS_MMAPPED, FLAGS = 2, 7
CPYTHON_ARENA = 1 << 18
"""The smallest (Objects/obmalloc.c; from 3.10 on a megabyte)."""
CPYTHON_POOLS = (1 << 14, 1 << 12)
CPYTHON_HEADER = struct.Struct("<QQQQIIII")
"""struct pool_header: ref, freeblock, nextpool, prevpool, arenaindex, szidx, nextoffset,
maxnextoffset."""
CPYTHON_CLASSES, CPYTHON_ALIGNMENT = 64, 16
SAMPLES = 16
"""Places of a gap that are looked at before it is taken for none of CPython's."""
TRIES = 2
"""Pools of one arena that are looked at."""
GO_HEAP = range(0xC000000000, 0xC100000000)
"""Where Go's heap begins on 64-bit systems (runtime/malloc.go)."""
LIBRARIES = re.compile(
    r"lib(tcmalloc|mimalloc|snmalloc|hoard|tbbmalloc|rpmalloc|scudo|ltalloc|nedmalloc)[^/]*$"
)
"""Allocators that are loaded as libraries."""
RUNTIMES = (
    (re.compile(r"libjvm\.so"), "the Java virtual machine"),
    (re.compile(r"node|libnode\.so.*|libv8.*\.so.*"), "V8"),
    (re.compile(r"ruby[0-9.]*|libruby[^/]*\.so.*"), "Ruby"),
    (re.compile(r"libcoreclr\.so"), ".NET"),
    (re.compile(r"beam\.smp"), "Erlang"),
    (re.compile(r"mariadbd|mysqld"), "InnoDB"),
    (re.compile(r"php[0-9.]*|php-(fpm|cgi)[0-9.]*|libphp[0-9.]*\.so"), "PHP"),
    (re.compile(r"luajit[^/]*|libluajit[^/]*\.so.*"), "LuaJIT"),
)
"""Programs and libraries that map memory for themselves beside malloc()."""


class Gap(NamedTuple):
    """Memory ``start .. end`` of ``area`` that nobody claims."""

    area: Area
    start: int
    end: int


def named(
    read: Read, residence: Residence, gaps: Iterable[Gap], paths: Sequence[str]
) -> Iterator[Named]:
    """Whose the ``gaps``, ascending, are, as far as that shows.

    ``paths`` are of the files that are mapped.
    """
    other = _allocator(paths)
    look = _Look(read, residence)
    for gap in gaps:
        if gap.end - gap.start < SMALL:
            continue
        found = list(look.at(gap))
        yield from found
        if not found and other is not None:
            yield Named(gap.start, gap.end, ALLOCATOR, other)


def _allocator(paths: Sequence[str]) -> Optional[str]:
    """What else allocates in a process that has mapped ``paths``; None where none shows."""
    names = list(map(os.path.basename, paths))
    for name in names:
        if LIBRARIES.match(name):
            return name
    return next((who for form, who in RUNTIMES if any(map(form.fullmatch, names))), None)


class _Look:
    """A look at gaps of one process."""

    def __init__(self, read: Read, residence: Residence) -> None:
        self._read = read
        self._residence = residence

    def at(self, gap: Gap) -> Iterator[Named]:
        """What of ``gap`` is recognised, ascending and apart."""
        if gap.start in GO_HEAP:
            yield Named(gap.start, gap.end, ALLOCATOR, "Go's heap")
            return
        at = gap.start
        for start, end in self._glibc_heaps(gap):
            yield Named(start, end, ALLOCATOR, GLIBC)
            at = end
        end = self._glibc_chunks(at, gap.end)
        if end > at:
            yield Named(at, end, ALLOCATOR, "glibc's large chunks")
        yield from self._cpython(gap._replace(start=end))

    def _words(self, address: int, form: struct.Struct) -> Optional[Sequence[int]]:
        """The record at ``address``; None where it cannot be read, or is nothing but zeros."""
        try:
            words = form.unpack(self._read(address, form.size))
        except UnreadableMemory:
            return None
        return words if any(words) else None

    def _there(self, gap: Gap, address: int) -> bool:
        """Whether the page at ``address`` of ``gap`` is resident."""
        page = self._residence.page
        at = (address - gap.area.start) // page
        assert gap.area.first is not None
        return self._residence.pages[gap.area.first + at] in (PRIVATE, FORKED)

    def _glibc_heaps(self, gap: Gap) -> Iterator[Sequence[int]]:
        first = -(-gap.start // GLIBC_HEAP) * GLIBC_HEAP
        page = self._residence.page
        for heap in range(first, gap.end, GLIBC_HEAP):
            words = self._words(heap, GLIBC_HEADER) if self._there(gap, heap) else None
            if words is None:
                continue
            arena, _, size, opened = words
            if arena and not (size | opened) % page and 0 < size <= opened <= GLIBC_HEAP:
                yield heap, min(heap + opened, gap.end)

    def _glibc_chunks(self, start: int, end: int) -> int:
        """Where the chunks end that begin at ``start``, each a mapping of its own once."""
        while start < end:
            words = self._words(start, GLIBC_CHUNK)
            if words is None:
                break
            before, size = words
            length = size & ~FLAGS
            if before or size & FLAGS != IS_MMAPPED or not self._is_length(length, end - start):
                break
            start += length
        return start

    def _is_length(self, length: int, room: int) -> bool:
        return 0 < length <= room and length % self._residence.page == 0

    def _cpython(self, gap: Gap) -> Iterator[Named]:
        """Arenas of CPython's, those that lie side by side together."""
        pieces = range(gap.start & -CPYTHON_ARENA, gap.end, CPYTHON_ARENA)
        step = max(1, len(pieces) // SAMPLES)
        if not any(self._is_arena(gap, piece) for piece in pieces[::step]):
            return
        begun: Optional[int] = None
        for piece in pieces:
            if self._is_arena(gap, piece):
                begun = max(piece, gap.start) if begun is None else begun
            elif begun is not None:
                yield Named(begun, piece, ALLOCATOR, CPYTHON)
                begun = None
        if begun is not None:
            yield Named(begun, gap.end, ALLOCATOR, CPYTHON)

    def _is_arena(self, gap: Gap, piece: int) -> bool:
        """Whether ``piece`` of ``gap`` holds pools of CPython's."""
        pools = range(max(piece, gap.start), min(piece + CPYTHON_ARENA, gap.end), CPYTHON_POOLS[0])
        aligned = (-(-pool // CPYTHON_POOLS[0]) * CPYTHON_POOLS[0] for pool in pools)
        there: List[int] = [pool for pool in aligned if pool < gap.end and self._there(gap, pool)]
        return any(self._is_pool(pool) for pool in there[:TRIES])

    def _is_pool(self, address: int) -> bool:
        words = self._words(address, CPYTHON_HEADER)
        if words is None:
            return False
        used, _, _, _, _, szind, offset, offset_max = words
        size = (szind + 1) * CPYTHON_ALIGNMENT
        return (
            szind < CPYTHON_CLASSES
            and used <= CPYTHON_POOLS[0] // CPYTHON_ALIGNMENT
            and offset_max + size in CPYTHON_POOLS
            and CPYTHON_HEADER.size <= offset <= offset_max + size
        )
