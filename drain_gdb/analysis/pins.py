"""Who pins the slabs: groups of live regions, and what would come back if one of them went."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import accumulate, combinations
from random import Random
from typing import AbstractSet, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from drain_gdb.analysis.heap_profile import StackRow
from drain_gdb.analysis.report import Cause
from drain_gdb.debuggee.protocol import Process
from drain_gdb.jemalloc.extents import popcount
from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.objects.fast import numpy
from drain_gdb.words import listed
from drain_gdb.words import size as size_in_words

SPARSE, ALL = "sparse", "all"
WHAT, OWNER, SIZE = "what", "owner", "size"
THRESHOLDS = (0.5, 0.6, 0.75, 0.9, 1.0)
TELLING = 0.5
"""Slabs count as sparse up to the first of these occupancies under which so much of the waste
lies; under 1 are all that have any room."""
"""A slab is sparse that is less occupied."""
FEW = 2
"""Groups of so many regions are folded into one line."""
TOGETHER = (2, 3, 5)
"""How many groups are looked at together."""
ADDS = 1.05
"""So many times as much a set of groups frees as one of fewer, to be worth a line."""
BEAM = 16
"""Sets of groups that are tried to be made larger."""
SAMPLE = 100
"""Regions of a group that are looked at to say what it consists of."""
SIGNATURES = 1 << 12
"""Kinds of slabs that are weighed, those of most bytes."""
CANDIDATES = 60
"""Groups of which sets are made."""


@dataclass(frozen=True)
class Group:
    """What is known of a group but for its figures.

    Attributes:
        what: in words; never contents, but patterns of them.
        recogniser: the name of what says so.
        evidence: how sure that is.
        known: whether it is a group at all, and not what belongs to none.

    """

    what: str
    recogniser: str
    evidence: str
    known: bool = True


@dataclass(frozen=True)
class Chain:
    """What refers to some regions, what to that, and so on up to a root."""

    chain: Tuple[str, ...]
    regions: int


@dataclass(frozen=True)
class Piece:
    """An example of a group, to be looked at: its address, size and first bytes."""

    address: int
    size: int
    data: bytes


@dataclass(frozen=True)
class GroupRow:
    """A group of live regions.

    Attributes:
        size: the size class that most of its bytes are of.
        sizes: how many size classes it has regions of.
        regions, live_bytes: in the scope.
        large_bytes: of these, in large allocations.
        share: of the scope's waste its part, by its live regions in each slab; of all live
            bytes where that is the scope.
        alone_slabs, alone_bytes: slabs whose live regions are all of this group: they come
            back if only it goes.
        alone_cached_slabs: of these, those that a thread cache holds until it is flushed.
        shared_bytes: its part of the waste of slabs that it shares with others; that does
            not come back by itself.
        owners: some of its chains.
        kinds: what some of its regions are, the most frequent first, with how many of a
            hundred.
        examples: where contents were asked for.

    """

    size: int
    what: str
    recogniser: str
    evidence: str
    regions: int
    live_bytes: int
    large_bytes: int
    share: float
    alone_slabs: int
    alone_cached_slabs: int
    alone_bytes: int
    shared_bytes: int
    sizes: int
    known: bool
    owners: Tuple[Chain, ...] = ()
    kinds: Tuple[Tuple[str, int], ...] = ()
    examples: Tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Folded:
    """Groups of one or two regions, together."""

    groups: int
    regions: int
    live_bytes: int


@dataclass(frozen=True)
class TogetherRow:
    """What some groups free together."""

    groups: Tuple[str, ...]
    slabs: int
    cached_slabs: int
    bytes: int


@dataclass(frozen=True)
class Pins:
    """The report.

    Attributes:
        scope: SPARSE (survivors: live regions in sparse slabs) or ALL live regions.
        by: WHAT, OWNER or SIZE.
        threshold: occupancy below which a slab is sparse.
        slabs, pinned_slabs: all, and those that hold a live region.
        sparse_slabs: of these, the sparse ones.
        survivors: live regions in the scope, ``survivor_bytes`` in all.
        recognised: of them those of a group, not those that belong to none.
        waste_bytes: of the slabs of the scope, ``waste_elsewhere_bytes`` of other pinned ones.
        groups: the most that comes back alone first.
        together: what the best few groups free together.
        why_not_more: why it is not known what regions are, None where it is.
        stacks: of a heap profile, None where there is none.
        verification: the walk against the allocator's own statistics: exact, mismatch or
            unavailable.
        partial: whether part of the metadata could not be read.

    """

    process: Process
    scope: str
    by: str
    threshold: float
    slabs: int
    pinned_slabs: int
    sparse_slabs: int
    survivors: int
    survivor_bytes: int
    recognised: int
    recognised_bytes: int
    waste_bytes: int
    waste_elsewhere_bytes: int
    groups: Tuple[GroupRow, ...]
    folded: Optional[Folded]
    together: Tuple[TogetherRow, ...]
    verification: str
    partial: bool
    why_not_more: Optional[str] = None
    stacks: Optional[Tuple[StackRow, ...]] = None

    @property
    def sound(self) -> bool:
        """Whether nothing speaks against the walk that it is made of."""
        return self.verification != "mismatch" and not self.partial


def best_sets(found: Pins) -> Tuple[TogetherRow, ...]:
    """What the group that frees most frees alone, then what two and more do; () for nothing.

    Sets that add next to nothing to the one before are left out.
    """
    best = max((row for row in found.groups if row.known), key=_by_alone, default=None)
    sets: List[TogetherRow] = []
    if best is not None and best.alone_bytes:
        alone = best.alone_slabs, best.alone_cached_slabs, best.alone_bytes
        sets.append(TogetherRow((best.what,), *alone))
    for row in found.together:
        if not sets or row.bytes >= ADDS * sets[-1].bytes:
            sets.append(row)
    return tuple(sets)


def with_who(causes: Sequence[Cause], found: Pins) -> Tuple[Cause, ...]:
    """The causes of a sweep, that of pinned slabs with the group that would free the most."""
    sets = best_sets(found)
    if not sets or len(sets[0].groups) > 1:
        return tuple(causes)
    best, *more = sets
    said = f"{size_in_words(best.bytes)} come back if {best.groups[0]} went"
    if more and more[0].bytes > 2 * best.bytes:
        said += f", {size_in_words(more[0].bytes)} if {listed(more[0].groups)} did"
    return tuple(
        replace(cause, evidence=f"{cause.evidence}; {said} (drainpins)")
        if cause.cause == "pinned_slabs"
        else cause
        for cause in causes
    )


@dataclass
class Tally:
    """Sums of a group, and rows of blocks with regions of it, one for so many of these."""

    regions: int = 0
    large_bytes: int = 0
    part: float = 0.0
    shared: float = 0.0
    alone_slabs: int = 0
    alone_cached: int = 0
    alone_bytes: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    rows: List[int] = field(default_factory=list)
    step: int = 1
    due: int = 0
    chance: Random = field(default_factory=lambda: Random(1))

    def look_at(self, row: int, count: int) -> None:
        """Remember a block of the scope, as often as befits how many of it there are.

        By lot, the same at each run: heaps have rhythms of their own.
        """
        self.due -= count
        while self.due < 0:
            self.due += self.take(row)

    def take(self, row: int) -> int:
        """Remember this block; how many regions on the next is due."""
        self.rows.append(row)
        due = self.chance.randint(1, 2 * self.step - 1)
        if len(self.rows) > 2 * SAMPLE:
            self.rows = sorted(self.chance.sample(self.rows, SAMPLE))
            self.step *= 2
        return due

    @property
    def live_bytes(self) -> int:
        """Bytes of its regions in the scope."""
        return sum(size * number for size, number in self.sizes.items())


@dataclass
class Signature:
    """Slabs whose live regions are of the same groups."""

    slabs: int = 0
    cached: int = 0
    bytes: int = 0


@dataclass
class Measured:
    """Sums over all blocks.

    Attributes:
        tallies: by group.
        signatures: by the groups that a slab's live regions are of, where they are few.

    """

    tallies: Dict[int, Tally]
    signatures: Dict[FrozenSet[int], Signature]
    slabs: int = 0
    pinned: int = 0
    sparse: int = 0
    waste: int = 0
    waste_elsewhere: int = 0
    waste_by_size: Counter[int] = field(default_factory=Counter)


def usual_threshold(live: LiveRegions) -> float:
    """The occupancy under which slabs are sparse where nobody says otherwise."""
    waste = [0] * (len(THRESHOLDS) + 1)
    rows = zip(live.start, live.end, live.size, live.nregs, live.slab, live.live)
    for start, end, size, nregs, slab, bits in rows:
        if slab and bits:
            number = popcount(bits)
            waste[bisect_right(THRESHOLDS, number / nregs)] += end - start - number * size
    below = list(accumulate(waste[:-1]))
    return next(t for t, under in zip(THRESHOLDS, below) if under >= TELLING * below[-1])


def measure(
    live: LiveRegions,
    groups: Sequence[int],
    cached: AbstractSet[int],
    whole: bool,
    threshold: float,
) -> Measured:
    """Count, block by block.

    ``groups`` has the group of each region, 0 where it is not live; ``cached`` are the
    addresses of slabs in which thread caches hold regions.
    """
    # It needs NumPy.
    if numpy() is not None:
        from drain_gdb.analysis.pins_numpy import measure_at_once  # noqa: PLC0415

        return measure_at_once(live, groups, cached, whole, threshold)
    tallies: Dict[int, Tally] = {}
    found = Measured(tallies, {})
    rows = zip(live.start, live.end, live.size, live.nregs, live.first, live.slab, live.live)
    for row, (start, end, size, nregs, first, slab, bits) in enumerate(rows):
        found.slabs += slab
        if not bits:
            continue
        number = popcount(bits)
        counts = counts_of(groups[first : first + nregs], number)
        waste = end - start - number * size if slab else 0
        sparse = bool(slab) and number < threshold * nregs
        scoped = whole or sparse
        if slab:
            found.pinned += 1
            found.sparse += sparse
            if len(counts) <= max(TOGETHER):
                signature = found.signatures.setdefault(frozenset(counts), Signature())
                signature.slabs += 1
                signature.cached += start in cached
                signature.bytes += end - start
        if slab:
            found.waste_by_size[size] += waste
        if scoped:
            found.waste += waste
        else:
            found.waste_elsewhere += waste
        for group, count in counts.items():
            tally = tallies.get(group)
            if tally is None:
                tally = tallies[group] = Tally()
            part = waste * count / number
            if len(counts) > 1:
                tally.shared += part
            elif slab:
                tally.alone_slabs += 1
                tally.alone_cached += start in cached
                tally.alone_bytes += end - start
            if scoped:
                tally.look_at(row, count)
                tally.regions += count
                tally.sizes[size] += count
                tally.part += part
                if not slab:
                    tally.large_bytes += count * size
    return found


def counts_of(groups: Sequence[int], number: int) -> Mapping[int, int]:
    """How many of the ``number`` live regions of a block each group has."""
    distinct = set(groups)
    distinct.discard(0)
    if len(distinct) == 1:
        return {distinct.pop(): number}
    counts = Counter(groups)
    counts.pop(0, None)
    return counts


def rows_of(
    found: Measured, groups: Sequence[Group], whole: bool
) -> Tuple[List[Tuple[int, GroupRow]], Optional[Folded]]:
    """The groups that have a region in the scope, with their numbers, and the folded ones.

    The most that comes back alone comes first; of all live regions the most bytes do.
    """
    total = sum(tally.live_bytes for tally in found.tallies.values())
    weight = total if whole else found.waste
    rows: List[Tuple[int, GroupRow]] = []
    small: List[Tuple[int, GroupRow]] = []
    for number, tally in found.tallies.items():
        if tally.regions:
            group = groups[number]
            part = tally.live_bytes if whole else tally.part
            row = GroupRow(
                size=max(tally.sizes, key=lambda size: (size * tally.sizes[size], size)),
                what=group.what,
                recogniser=group.recogniser,
                evidence=group.evidence,
                regions=tally.regions,
                live_bytes=tally.live_bytes,
                large_bytes=tally.large_bytes,
                share=part / weight if weight else 0.0,
                alone_slabs=tally.alone_slabs,
                alone_cached_slabs=tally.alone_cached,
                alone_bytes=tally.alone_bytes,
                shared_bytes=round(tally.shared),
                sizes=len(tally.sizes),
                known=group.known,
            )
            folds = tally.regions <= FEW and not (whole and tally.large_bytes)
            (small if folds else rows).append((number, row))
    if len(small) == 1:
        rows, small = rows + small, []
    key = _by_bytes if whole else _by_alone
    rows.sort(key=lambda each: key(each[1]), reverse=True)
    return rows, _folded([row for _, row in small])


def _by_alone(row: GroupRow) -> Tuple[int, float, int]:
    return row.alone_bytes, row.share, row.live_bytes


def _by_bytes(row: GroupRow) -> Tuple[int, int]:
    return row.live_bytes, row.regions


def _folded(rows: Sequence[GroupRow]) -> Optional[Folded]:
    if not rows:
        return None
    return Folded(len(rows), sum(row.regions for row in rows), sum(row.live_bytes for row in rows))


def together(
    found: Measured, groups: Sequence[Group], known: Callable[[int], bool]
) -> Tuple[TogetherRow, ...]:
    """What the best sets of two, three and five groups free, of those that are ``known``.

    Sets are made larger one by one from the best pairs, several of them at a time: groups
    that free nothing alone may free much together.
    """
    usable = {s: v for s, v in found.signatures.items() if all(map(known, s))}
    occurs: Counter[int] = Counter()
    for signature, value in usable.items():
        for group in signature:
            occurs[group] += value.bytes
    names = sorted(group for group, _ in occurs.most_common(CANDIDATES))
    masks = {group: 1 << number for number, group in enumerate(names)}
    weights: Dict[int, Signature] = {}
    for signature, value in usable.items():
        if signature <= masks.keys():
            weights[sum(masks[group] for group in signature)] = value
    kept = sorted(weights.items(), key=lambda each: -each[1].bytes)[:SIGNATURES]
    weights = dict(kept)
    rows: List[TogetherRow] = []
    for number in TOGETHER:
        if number <= len(names):
            best = _best(weights, len(names), number)
            members = sorted(
                (group for group in names if masks[group] & best),
                key=lambda group: -weights.get(masks[group], Signature()).bytes,
            )
            parts = [v for mask, v in weights.items() if not mask & ~best]
            row = TogetherRow(
                tuple(groups[group].what for group in members),
                sum(part.slabs for part in parts),
                sum(part.cached for part in parts),
                sum(part.bytes for part in parts),
            )
            if rows and row.bytes <= rows[-1].bytes:
                break
            rows.append(row)
    return tuple(rows) if rows and rows[0].bytes else ()


def _best(weights: Dict[int, Signature], number: int, wanted: int) -> int:
    """The set of ``wanted`` of ``number`` groups that frees the most bytes, as a mask."""

    def freed(chosen: int) -> int:
        return sum(value.bytes for mask, value in weights.items() if not mask & ~chosen)

    alone = Counter({mask: value.bytes for mask, value in weights.items()})
    pairs = Counter(
        {
            (1 << a) | (1 << b): alone[1 << a] + alone[1 << b] + alone[(1 << a) | (1 << b)]
            for a, b in combinations(range(number), 2)
        }
    )
    beam = [mask for mask, _ in pairs.most_common(BEAM)]
    for _ in range(wanted - 2):
        larger = {mask | 1 << bit for mask in beam for bit in range(number) if not mask >> bit & 1}
        scored = Counter({mask: freed(mask) for mask in larger})
        beam = [mask for mask, _ in scored.most_common(BEAM)]
    return beam[0]


def by_size(live: LiveRegions) -> Tuple[array[int], List[Group]]:
    """The group of each region, all of one size being one, and the groups; the first is none."""
    numbers: Dict[Tuple[int, int], int] = {}
    groups = [Group("", "", "", False)]
    found = array("I")
    for row, key in enumerate(zip(live.size, live.slab)):
        if key not in numbers:
            numbers[key] = len(groups)
            size, slab = key
            words = f"{size} bytes" if slab else f"large allocations of {size} bytes"
            groups.append(Group(words, SIZE, "exact"))
        found.extend(map(numbers[key].__mul__, live.flags(row)))
    return found, groups
