"""Where the memory of walked heaps lies: slabs, extents and blocks of metadata, by address."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, compress, islice
from operator import add, gt, itemgetter, ne, sub
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.debuggee.foreign import Gap, named
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.residence import ANONYMOUS, Residence
from drain_gdb.errors import TargetError
from drain_gdb.jemalloc.heap import (
    ACTIVE,
    DIRTY,
    HPA_CACHED,
    MUZZY,
    PINNED,
    RETAINED,
    ExtentKind,
    Heap,
)

CHUNK = 1 << 12
"""Rows that are looked at at once."""
ADDRESS_END = 1 << 64
HUGE_PAGE = 1 << 21
"""HUGEPAGE (pages.h), where pages have 4 KiB."""
HPA_EXTENT_MAX = 1 << 16
"""The largest extent of the huge page allocator (slab_max_alloc, hpa_opts.h)."""
END_MAX = 1 << 63
"""Extents of damaged heaps may say that they reach anywhere."""


class Claim(NamedTuple):
    """What some memory of a jemalloc is.

    Attributes:
        part: its part of the account; empty for slabs, which are of several.
        szind: of slabs and large extents, else None.
        region: bytes of each region of a slab.
        live, cached: regions of each slab.
        what: what it is more closely.

    """

    allocator: int
    part: str
    szind: Optional[int] = None
    region: int = 0
    live: int = 0
    cached: int = 0
    what: Optional[str] = None


@dataclass
class Column:
    """Memory of jemalloc, ascending and apart: start, end, and which of ``claims`` it is.

    ``sizes`` are the bytes that each row of a claim has, where all of them have as many.
    """

    starts: Sequence[int]
    ends: Sequence[int]
    kinds: Sequence[int]
    claims: Sequence[Claim]
    sizes: Optional[Sequence[int]] = None

    def __post_init__(self) -> None:
        if any(map(gt, self.starts, islice(self.starts, 1, None))):
            starts = list(self.starts)
            ordered = itemgetter(*sorted(range(len(starts)), key=starts.__getitem__))
            starts.sort()
            self.starts = array("Q", starts)
            self.ends = array("Q", ordered(self.ends))
            self.kinds = array("I", ordered(self.kinds))

    @cached_property
    def counts(self) -> Mapping[int, int]:
        """How many rows each of the claims has."""
        return Counter(self.kinds)

    def sums(self, first: int, last: int) -> List[int]:
        """All bytes of each of the claims, in some rows."""
        whole = last - first == len(self.kinds)
        if self.sizes is not None:
            counts = self.counts if whole else Counter(self.kinds[first:last])
            return [counts.get(kind, 0) * size for kind, size in enumerate(self.sizes)]
        sums = [0] * len(self.claims)
        sizes = map(sub, self.ends[first:last], self.starts[first:last])
        for kind, size in zip(self.kinds[first:last], sizes):
            sums[kind] += size
        return sums

    def within(self, start: int, end: int) -> Tuple[int, int]:
        """The rows that reach into ``start .. end``."""
        first, last = bisect_left(self.starts, start), bisect_left(self.starts, end)
        return first - (first > 0 and self.ends[first - 1] > start), last

    def cut(self, start: int, end: int) -> Iterator[Tuple[List[int], List[int], Sequence[int]]]:
        """Starts, ends and kinds of what lies in ``start .. end``, some rows at a time."""
        first, last = self.within(start, end)
        for row in range(first, last, CHUNK):
            stop = min(row + CHUNK, last)
            starts, ends = list(self.starts[row:stop]), list(self.ends[row:stop])
            starts[0] = max(starts[0], start)
            ends[-1] = min(ends[-1], end)
            yield starts, ends, self.kinds[row:stop]

    def bounds(self) -> Tuple[List[int], List[int]]:
        """Where rows that lie side by side begin, and where they end."""
        broken = [True, *map(ne, self.ends, islice(self.starts, 1, None)), True]
        begun = compress(self.starts, broken)
        return list(begun), list(compress(self.ends, islice(broken, 1, None)))


def _columns(number: int, heap: Heap) -> Iterator[Column]:
    """All memory of the jemalloc ``heap``, which has this number."""
    blocks = sorted(block for arena in heap.arenas for block in arena.blocks)
    known = [
        _slabs(number, heap),
        _extents(number, heap),
        _of_one_kind(blocks, Claim(number, "metadata", what="blocks of metadata")),
    ]
    yield from known
    if heap.extents.huge_pages:
        claim = Claim(number, "dirty", what="free pages of huge pages")
        yield _of_one_kind(_free_of_huge_pages(known), claim)


def _of_one_kind(stretches: Sequence[Tuple[int, int]], claim: Claim) -> Column:
    starts, ends = [start for start, _ in stretches], [end for _, end in stretches]
    return Column(starts, ends, [0] * len(starts), [claim])


def _free_of_huge_pages(columns: Sequence[Column]) -> List[Tuple[int, int]]:
    """What lies beside small extents in the same huge page: it is the page's that they are of.

    The huge page allocator keeps no extents of it (hpdata.h).
    """
    pages = {
        start & -HUGE_PAGE
        for column in columns[:2]
        for start, end in zip(column.starts, column.ends)
        if end - start <= HPA_EXTENT_MAX
    }
    free = Free(columns)
    return [part for page in sorted(pages) for part in free.within(page, page + HUGE_PAGE)]


class Free:
    """The address space that no column claims."""

    def __init__(self, columns: Sequence[Column]) -> None:
        bounds = [column.bounds() for column in columns]
        # Of stretches that lie apart, sorted ends and sorted starts belong together.
        self._starts = [0, *sorted(end for _, ends in bounds for end in ends)]
        self._ends = [*sorted(start for starts, _ in bounds for start in starts), ADDRESS_END]

    def within(self, start: int, end: int) -> Iterator[Tuple[int, int]]:
        """The parts of ``start .. end`` that are free, ascending."""
        for row in range(bisect_right(self._ends, start), len(self._ends)):
            if self._starts[row] >= end:
                break
            part = max(self._starts[row], start), min(self._ends[row], end)
            if part[0] < part[1]:
                yield part


def _slabs(number: int, heap: Heap) -> Column:
    slabs = heap.slabs
    sizes = [heap.bins[kind.szind].slab_size for kind in slabs.kinds]

    def claim(kind: int, cached: int) -> Claim:
        _, szind, _, nfree = slabs.kinds[kind]
        info = heap.bins[szind]
        return Claim(number, "", szind, info.reg_size, info.nregs - nfree - cached, cached)

    claims = [claim(kind, 0) for kind in range(len(slabs.kinds))]
    kinds = array("I", slabs.kind)
    known: Dict[Tuple[int, int], int] = {}
    for row, cached in slabs.cached.items():
        key = slabs.kind[row], cached
        if key not in known:
            known[key] = len(claims)
            claims.append(claim(*key))
        kinds[row] = known[key]
    ends = array("Q", map(add, slabs.address, map(sizes.__getitem__, slabs.kind)))
    each = [*sizes, *(sizes[kind] for kind, _ in known)]
    return Column(slabs.address, ends, kinds, claims, each)


UNUSED = {DIRTY: "dirty", MUZZY: "muzzy", RETAINED: "retained"}


def _extents(number: int, heap: Heap) -> Column:
    extents = heap.extents
    known: Dict[Claim, int] = {}

    def index(claim: Claim) -> int:
        return known.setdefault(claim, len(known))

    kinds = array("I", (index(_unused(number, kind, heap)) for kind in extents.kinds))
    rows = array("I", map(kinds.__getitem__, extents.kind))
    held = {
        (region.pointer & -heap.layout.parameters.page, region.szind)
        for region in heap.tcaches.regions
        if region.szind >= len(heap.bins)
    }
    stacks = sorted(heap.tcaches.stacks)
    if held or stacks:
        for row, (at, size, kind) in enumerate(zip(extents.address, extents.size, extents.kind)):
            if extents.kinds[kind].state != ACTIVE:
                continue
            szind = extents.kinds[kind].szind
            if (at, szind) in held:
                rows[row] = index(Claim(number, "large_cached", szind))
            elif bisect_left(stacks, at) < bisect_left(stacks, at + size):
                rows[row] = index(Claim(number, "metadata", what="thread caches"))
    ends = array("Q", (min(at + size, END_MAX) for at, size in zip(extents.address, extents.size)))
    return Column(extents.address, ends, rows, list(known))


def _unused(number: int, kind: ExtentKind, heap: Heap) -> Claim:
    """What an extent of ``kind`` is, if it is no slab and no thread cache has to do with it."""
    if kind.state == ACTIVE:
        return Claim(number, "large", kind.szind)
    if kind.state in UNUSED:
        return Claim(number, UNUSED[kind.state])
    if kind.state == HPA_CACHED:
        return Claim(number, "dirty", what="small extent caches of huge pages")
    if kind.state == PINNED and heap.has_pinned:
        return Claim(number, "dirty", what="not let go by the program's extent hooks")
    return Claim(number, "dirty", what="on its way from one state to another")


def apart(columns: Sequence[Column]) -> List[Column]:
    """The same columns, what two of them claim left to the one that begins first."""
    claims = sorted(
        (start, end, number, kind)
        for number, column in enumerate(columns)
        for start, end, kind in zip(column.starts, column.ends, column.kinds)
    )
    ends = accumulate((end for _, end, _, _ in claims), max, initial=0)
    kept: List[List[Tuple[int, int, int]]] = [[] for _ in columns]
    for (start, end, number, kind), at in zip(claims, ends):
        if max(start, at) < end:
            kept[number].append((max(start, at), end, kind))
    return [
        Column([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], column.claims)
        for rows, column in zip(kept, columns)
    ]


def columns_of(heaps: Sequence[Heap]) -> List[Column]:
    """All memory of ``heaps``, which are numbered in this order."""
    return [column for number, heap in enumerate(heaps) for column in _columns(number, heap)]


def gaps(columns: Sequence[Column], residence: Residence) -> Iterator[Gap]:
    """Anonymous memory whose pages are known and that no jemalloc claims, ascending."""
    free = Free(columns)
    for area in residence.areas:
        if area.kind == ANONYMOUS and area.resident and area.first is not None:
            for start, end in free.within(area.start, area.end):
                yield Gap(area, start, end)


def residence_of(target: Target, columns: Sequence[Column]) -> Optional[Residence]:
    """What of the process is resident, memory that none of its heaps claims named.

    None where it is not known, or the process has ended meanwhile.
    """
    try:
        found = target.residence()
        if found is None:
            return None
        paths = [mapping.path for mapping in target.mappings()]
        return found.split(named(target.read, found, gaps(columns, found), paths))
    except TargetError:
        return None
