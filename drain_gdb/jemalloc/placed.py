"""Where the memory of walked heaps lies: slabs, extents and blocks of metadata, by address."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, compress, islice
from operator import gt, ne, sub
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.debuggee.foreign import Gap, named
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.residence import ANONYMOUS, Residence
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
    """Memory of jemalloc, ascending and apart: start, end, and which of ``claims`` it is."""

    starts: Sequence[int]
    ends: Sequence[int]
    kinds: Sequence[int]
    claims: Sequence[Claim]

    def __post_init__(self) -> None:
        if any(map(gt, self.starts, islice(self.starts, 1, None))):
            order = sorted(range(len(self.starts)), key=self.starts.__getitem__)
            self.starts = array("Q", map(self.starts.__getitem__, order))
            self.ends = array("Q", map(self.ends.__getitem__, order))
            self.kinds = array("I", map(self.kinds.__getitem__, order))

    def sums(self) -> List[int]:
        """All bytes of each of the claims."""
        sizes = [0] * len(self.claims)
        for kind, size in zip(self.kinds, map(sub, self.ends, self.starts)):
            sizes[kind] += size
        return sizes

    def size_within(self, start: int, end: int) -> int:
        """All bytes in ``start .. end``."""
        return sum(sum(part[1]) - sum(part[0]) for part in self.cut(start, end))

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


def _columns(number: int, heap: Heap) -> Iterator[Column]:
    """All memory of the jemalloc ``heap``, which has this number."""
    yield _slabs(number, heap)
    yield _extents(number, heap)
    blocks = sorted(block for arena in heap.arenas for block in arena.blocks)
    yield Column(
        [start for start, _ in blocks],
        [end for _, end in blocks],
        [0] * len(blocks),
        [Claim(number, "metadata", what="blocks of metadata")],
    )


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
    ends = array("Q", (at + sizes[kind] for at, kind in zip(slabs.address, slabs.kind)))
    return Column(slabs.address, ends, kinds, claims)


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


def gaps(heaps: Sequence[Heap], residence: Residence) -> Iterator[Gap]:
    """Anonymous memory whose pages are known and that no jemalloc claims, ascending."""
    columns = columns_of(heaps)
    for area in residence.areas:
        if area.kind != ANONYMOUS or not area.resident or area.first is None:
            continue
        if sum(column.size_within(area.start, area.end) for column in columns) == area.size:
            continue
        parts = [part for column in columns for part in column.cut(area.start, area.end)]
        # Of stretches that lie apart, sorted ends and sorted starts belong together.
        starts = [*sorted(at for part in parts for at in part[0]), area.end]
        ends = [area.start, *sorted(at for part in parts for at in part[1])]
        for start, end in compress(zip(ends, starts), map(ne, ends, starts)):
            if start < end:
                yield Gap(area, start, end)


def residence_of(target: Target, heaps: Sequence[Heap]) -> Optional[Residence]:
    """What of the process is resident, memory that is none of its ``heaps``' named.

    None where it is not known.
    """
    found = target.residence()
    if found is None:
        return None
    paths = [mapping.path for mapping in target.mappings()]
    return found.split(named(target.read, found, gaps(heaps, found), paths))
