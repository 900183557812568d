"""All resident memory of a process, in parts that add up to it.

What the walks found (slabs, extents, blocks of metadata) is laid over what is resident.
Each page is counted in one part, whatever the walks say: the rest of an area, after its
jemalloc parts, is what the area is.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import accumulate, compress, islice, repeat
from operator import gt, ne
from typing import DefaultDict, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.analysis.report import Account, Detail, Part
from drain_gdb.debuggee.residence import (
    ALLOCATOR,
    ANONYMOUS,
    BSS,
    FILE,
    FORKED,
    HEAP,
    OF_FILE,
    PAGEMAP,
    PRIVATE,
    SHARED,
    STACK,
    THREAD_STACK,
    Area,
    Residence,
)
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

SLABS = ("live", "cached", "drainable", "pinned_waste")
EXTENTS = ("large", "large_cached", "dirty", "muzzy", "retained", "metadata")
OF_AREA = {
    FILE: "file_backed",
    BSS: "file_copies",
    HEAP: "brk_heap",
    STACK: "stacks",
    THREAD_STACK: "thread_stacks",
    SHARED: "shared",
    ANONYMOUS: "other_anonymous",
    ALLOCATOR: "unknown_allocator",
}
PARTS = (*SLABS, *EXTENTS, *OF_AREA.values())
"""The names of parts, in the order they are reported in."""
SHOWN = 16
"""Details of one part that are named; the rest are joined."""
BETWEEN = "in mappings of jemalloc's"
CHUNK = 1 << 16
"""Claims that are counted at once."""
MIB = 1 << 20
ELSEWHERE_MIN, ELSEWHERE_SHARE = 16 * MIB, 10
"""Anonymous memory that is no jemalloc's is named from here on, and from a tenth on."""


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
class Tally:
    """Sums over memory of one kind, in bytes."""

    count: int = 0
    size: int = 0
    resident: int = 0
    shared: int = 0
    huge: int = 0

    def share(self, part: int, whole: int) -> Tally:
        """``part`` of ``whole`` of it, rounded down."""
        return Tally(
            self.count,
            part,
            self.resident * part // whole,
            self.shared * part // whole,
            self.huge * part // whole,
        )

    def add(self, other: Tally) -> None:
        """Add ``other``."""
        self.count += other.count
        self.size += other.size
        self.resident += other.resident
        self.shared += other.shared
        self.huge += other.huge

    def take(self, other: Tally) -> None:
        """Take ``other``, a part of it, away; how many it is of stays."""
        self.size -= other.size
        self.resident -= other.resident
        self.shared -= other.shared
        self.huge -= other.huge


@dataclass
class _Column:
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


def _columns(number: int, heap: Heap) -> Iterator[_Column]:
    """All memory of the jemalloc ``heap``, which has this number."""
    yield _slabs(number, heap)
    yield _extents(number, heap)
    blocks = sorted(block for arena in heap.arenas for block in arena.blocks)
    yield _Column(
        [start for start, _ in blocks],
        [end for _, end in blocks],
        [0] * len(blocks),
        [Claim(number, "metadata", what="blocks of metadata")],
    )


def _slabs(number: int, heap: Heap) -> _Column:
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
    return _Column(slabs.address, ends, kinds, claims)


UNUSED = {DIRTY: "dirty", MUZZY: "muzzy", RETAINED: "retained"}


def _extents(number: int, heap: Heap) -> _Column:
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
    ends = array("Q", map(sum, zip(extents.address, extents.size)))
    return _Column(extents.address, ends, rows, list(known))


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


def _apart(columns: Sequence[_Column]) -> List[_Column]:
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
        _Column([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], column.claims)
        for rows, column in zip(kept, columns)
    ]


@dataclass
class Joined:
    """The heaps of a process laid over what is resident of it.

    Attributes:
        claims: what jemalloc's memory is, to its sums.
        rests: areas, each with the sums of what in it is no jemalloc's.

    """

    residence: Optional[Residence]
    claims: DefaultDict[Claim, Tally] = field(default_factory=lambda: defaultdict(Tally))
    rests: List[Tuple[Area, Tally]] = field(default_factory=list)

    def large_resident(self, allocator: int, szind: int) -> Optional[int]:
        """Resident bytes of the large allocations of a size class, cached ones included."""
        if self.residence is None:
            return None
        parts = ("large", "large_cached")
        return sum(self.claims[Claim(allocator, part, szind)].resident for part in parts)


class _Overlap(Exception):
    """More is claimed of an area than is resident in it."""


def join(heaps: Sequence[Heap], residence: Optional[Residence]) -> Joined:
    """Lay ``heaps``, all jemallocs of one process, over what is resident of it."""
    columns = [column for number, heap in enumerate(heaps) for column in _columns(number, heap)]
    try:
        return _join(columns, residence)
    except _Overlap:
        return _join(_apart(columns), residence)


def _join(columns: Sequence[_Column], residence: Optional[Residence]) -> Joined:
    joined = Joined(residence)
    for column in columns:
        sizes = [0] * len(column.claims)
        for start, end, kind in zip(column.starts, column.ends, column.kinds):
            sizes[kind] += end - start
        counts = Counter(column.kinds)
        for kind, claim in enumerate(column.claims):
            joined.claims[claim].add(Tally(counts[kind], sizes[kind]))
    for area in () if residence is None else residence.areas:
        rest = Tally(1, area.size, area.resident or 0, 0, area.huge or 0)
        assert residence is not None
        found = _claimed(columns, area, residence)
        if area.first is not None:
            pages = residence.count(area, area.start, area.end, FORKED)
            rest.shared = pages * residence.page
            _share_huge(area, found)
        elif area.resident:
            _share_out(area, found)
        for claim, tally in found.items():
            rest.take(tally)
            tally.size = tally.count = 0
            joined.claims[claim].add(tally)
        if min(rest.size, rest.resident) < 0:
            raise _Overlap
        joined.rests.append((area, rest))
    return joined


def _claimed(
    columns: Sequence[_Column], area: Area, residence: Residence
) -> DefaultDict[Claim, Tally]:
    """What of ``area`` is claimed, with how much of it is resident where its pages are known."""
    found: DefaultDict[Claim, Tally] = defaultdict(Tally)
    states = _states(area, residence)
    for column in columns:
        for starts, ends, kinds in column.cut(area.start, area.end):
            sizes = [0] * len(column.claims)
            resident = [0] * len(column.claims)
            shared = [0] * len(column.claims)
            for start, end, kind in zip(starts, ends, kinds):
                sizes[kind] += end - start
            for state in states:
                for kind, pages in zip(kinds, _count(residence, area, starts, ends, state)):
                    resident[kind] += pages
                    shared[kind] += pages if state == FORKED else 0
            for kind, size in enumerate(sizes):
                if size:
                    page = residence.page
                    tally = Tally(0, size, resident[kind] * page, shared[kind] * page)
                    found[column.claims[kind]].add(tally)
    return found


def _states(area: Area, residence: Residence) -> List[int]:
    """The states of ``area``'s pages that make up RSS, those that there are."""
    if area.first is None:
        return []
    first, last = area.first, area.first + area.size // residence.page
    return [s for s in (PRIVATE, OF_FILE, FORKED) if residence.pages.find(s, first, last) >= 0]


def _count(
    residence: Residence, area: Area, starts: List[int], ends: List[int], state: int
) -> Iterator[int]:
    """Pages in ``state`` of each stretch of ``area``."""
    shift = residence.page.bit_length() - 1
    assert area.first is not None
    ahead = (area.first << shift) - area.start
    return map(
        residence.pages.count,
        repeat(state),
        [start + ahead >> shift for start in starts],
        [end + ahead >> shift for end in ends],
    )


def _share_huge(area: Area, found: Dict[Claim, Tally]) -> None:
    """Huge pages of an area are its parts', by what is resident of each."""
    for tally in found.values():
        tally.huge = (area.huge or 0) * tally.resident // area.resident if area.resident else 0


FULL, EMPTY = ("",), ("retained",)
"""Of areas of which only sums are known: claims that are resident throughout (slabs were,
by 99 to 100 %), and those that are so last of all."""


def _share_out(area: Area, found: Dict[Claim, Tally]) -> None:
    """Give the claims of an area of which only the sum is known their share of it."""
    left = area.resident or 0
    ranks: List[List[Tally]] = [[], [], []]
    for claim, tally in found.items():
        ranks[0 if claim.part in FULL else 2 if claim.part in EMPTY else 1].append(tally)
    for rank in ranks:
        size = sum(tally.size for tally in rank)
        given = min(left, size)
        for tally in rank:
            tally.resident = given * tally.size // size
            left -= tally.resident
    _share_huge(area, found)


def gaps(heaps: Sequence[Heap], residence: Residence) -> Iterator[Tuple[Area, int, int]]:
    """``(area, start, end)`` of anonymous memory that no jemalloc claims, ascending."""
    columns = [column for number, heap in enumerate(heaps) for column in _columns(number, heap)]
    for area in residence.areas:
        if area.kind != ANONYMOUS or not area.resident:
            continue
        parts = [part for column in columns for part in column.cut(area.start, area.end)]
        # Of stretches that lie apart, sorted ends and sorted starts belong together.
        starts = [*sorted(at for part in parts for at in part[0]), area.end]
        ends = [area.start, *sorted(at for part in parts for at in part[1])]
        for start, end in compress(zip(ends, starts), map(ne, ends, starts)):
            if start < end:
                yield area, start, end


# -- the account ------------------------------------------------------------------


def account(joined: Joined) -> Account:
    """The account of the process."""
    parts = _Parts()
    for claim, tally in joined.claims.items():
        if claim.part:
            parts.add(claim.part, claim.allocator, claim.what, tally)
        elif tally.size:
            _add_slabs(parts, claim, tally)
    residence = joined.residence
    if residence is None:
        return Account(None, None, tuple(parts.made(False, False)))
    for area, rest in joined.rests:
        _add_area(parts, area, rest)
    made = tuple(parts.made(True, residence.source == PAGEMAP))
    swapped = [area.swapped for area in residence.areas]
    huge = [area.huge for area in residence.areas]
    return Account(
        resident_bytes=sum(part.resident_bytes or 0 for part in made),
        source=residence.source,
        parts=made,
        exact=residence.exact,
        swapped_bytes=None if None in swapped else sum(filter(None, swapped)),
        huge_bytes=None if None in huge else sum(filter(None, huge)),
        shared_bytes=residence.pages.count(FORKED) * residence.page
        if residence.source == PAGEMAP
        else None,
    )


def _add_slabs(parts: _Parts, claim: Claim, tally: Tally) -> None:
    """Split slabs that are in one state by what their regions are."""
    waste = "pinned_waste" if claim.live else "drainable"
    whole, rest = tally.size, replace(tally)
    for part, regions in (("live", claim.live), ("cached", claim.cached)):
        share = tally.share(tally.count * regions * claim.region, whole)
        rest.take(share)
        parts.add(part, claim.allocator, None, share)
    parts.add(waste, claim.allocator, None, rest)


def _add_area(parts: _Parts, area: Area, rest: Tally) -> None:
    """Add what of ``area`` is no jemalloc's."""
    name = OF_AREA[area.kind]
    if area.kind == FILE and area.copied:
        copies = Tally(1, min(area.copied, rest.size), min(area.copied, rest.resident))
        copies.shared, copies.huge = rest.shared, rest.huge
        rest.take(copies)
        parts.add("file_copies", None, area.name, copies)
    if rest.size:
        what = area.name
        if area.kind == ANONYMOUS and what is None and rest.size < area.size:
            what = BETWEEN
        parts.add(name, None, what, rest, area.resident is not None)


class _Parts:
    """The parts of an account while they are summed up."""

    def __init__(self) -> None:
        self._sums: Dict[Tuple[str, Optional[int]], _Sum] = defaultdict(_Sum)

    def add(
        self,
        part: str,
        allocator: Optional[int],
        what: Optional[str],
        tally: Tally,
        known: bool = True,
    ) -> None:
        """Add memory to a part; ``known`` is whether it is known what of it is resident."""
        found = self._sums[part, allocator]
        found.total.add(tally)
        found.known |= known
        if part not in SLABS and (what is not None or allocator is None):
            # Mappings that nothing is known of are told apart by their size.
            found.details[what, 0 if what else tally.size].add(tally)
            found.unknown[what] |= not known

    def made(self, known: bool, paged: bool) -> Iterator[Part]:
        """The parts in order; without residence (not ``known``) by their size alone."""
        keys = sorted(
            self._sums, key=lambda key: (key[1] is None, key[1] or 0, PARTS.index(key[0]))
        )
        for part, allocator in keys:
            found = self._sums[part, allocator]
            seen = known and found.known
            yield Part(
                part,
                allocator,
                found.total.size,
                found.total.resident if seen else None,
                found.total.shared if paged else None,
                found.total.huge if seen else None,
                tuple(found.made(known)),
            )


@dataclass
class _Sum:
    """A part while it is summed up; details by what they are, and by size."""

    total: Tally = field(default_factory=Tally)
    details: DefaultDict[Tuple[Optional[str], int], Tally] = field(
        default_factory=lambda: defaultdict(Tally)
    )
    unknown: DefaultDict[Optional[str], bool] = field(default_factory=lambda: defaultdict(bool))
    known: bool = False

    def made(self, known: bool) -> Iterator[Detail]:
        """The details, largest first, small ones joined."""
        found = [
            Detail(what, t.count, t.size, t.resident if known and not self.unknown[what] else None)
            for (what, _), t in self.details.items()
        ]
        found.sort(key=lambda each: (each.resident_bytes or 0, each.bytes), reverse=True)
        yield from found[:SHOWN]
        if found[SHOWN:]:
            rest = found[SHOWN:]
            resident = [each.resident_bytes for each in rest]
            yield Detail(
                f"{len(rest)} more",
                sum(each.count for each in rest),
                sum(each.bytes for each in rest),
                None if None in resident else sum(filter(None, resident)),
            )


# -- what no allocator explains -----------------------------------------------------

OURS = (*SLABS, *EXTENTS)
ELSEWHERE = ("brk_heap", "stacks", "thread_stacks", "other_anonymous", "unknown_allocator")


@dataclass(frozen=True)
class Elsewhere:
    """Anonymous resident memory that is no jemalloc's.

    Attributes:
        bytes: how much of it there is.
        anonymous_bytes: all anonymous memory, jemalloc's included.
        parts: what it is, largest first: ``(part, what, resident bytes)``.

    """

    bytes: int
    anonymous_bytes: int
    parts: Tuple[Tuple[str, Optional[str], int], ...]


def elsewhere(found: Account) -> Optional[Elsewhere]:
    """What is anonymous and no jemalloc's; None where it is little, or not known."""
    if found.resident_bytes is None:
        return None
    size = found.sum_of(*ELSEWHERE)
    whole = size + found.sum_of(*OURS)
    if size < ELSEWHERE_MIN or size * ELSEWHERE_SHARE <= whole:
        return None
    parts = [
        (part.part, detail.what, detail.resident_bytes or 0)
        for part in found.parts
        if part.part in ELSEWHERE
        for detail in part.details
        if detail.resident_bytes
    ]
    parts.sort(key=lambda each: each[2], reverse=True)
    return Elsewhere(size, whole, tuple(parts))
