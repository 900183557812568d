"""What became of the slabs of one moment by another.

No field tells a slab from its successor at the same address; the slabs that a bin has made
between two moments (nslabs) do, for all of the bin.  Where it made none, each slab that is
still there is the same one, and all is certain.  Else, with S0 slabs of a bin before, K of
these addresses still slabs of that bin after, N slabs at other addresses, and M made between:
the N were all made between, so of the K at most M - N are successors, and of the S0 slabs
at least S0 - K are released, at most S0 - K + min(K, M - N).
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.analysis.moment import BinMoment, HeapMoment, Moment
from drain_gdb.analysis.ranges import Range, Share, total

EMPTY = BinMoment()


class Fate(NamedTuple):
    """The slabs of a bin, or of several, at two moments.

    Values are what the addresses say: a slab at the address of an earlier one of the same
    bin counts as the same.

    Attributes:
        slabs: before, the cohort.
        after: slabs after.
        made: between; None where that is not known.
        released: of the cohort.
        drainable: addresses of the cohort where there is a slab without a live region.
        pinned: of the cohort, with a live region.
        gone: of the cohort, released or drainable.
        new: slabs after that are not of the cohort.

    What statistics do not tell is None.
    """

    slabs: int
    after: int
    made: Optional[int]
    released: Range
    drainable: Optional[int]
    pinned: Optional[Range]
    gone: Optional[Range]
    new: Range

    @property
    def dsr(self) -> Optional[Share]:
        """The cohort DSR: the share of the cohort that is released or drainable."""
        if self.gone is None or not self.slabs:
            return None
        return Share(*(each / self.slabs for each in self.gone))

    @property
    def certain(self) -> bool:
        """Whether it is known of every slab what became of it."""
        return self.gone is not None and self.gone.low == self.gone.high


def _bin_fate(
    before: BinMoment, after: BinMoment, made: Optional[int], unread: Tuple[bool, bool]
) -> Fate:
    """The fate of the slabs of one bin; ``unread``: whether uncounted ones may be there."""
    slabs, seen = len(before.address), len(after.address)
    if before.address == after.address:
        kept, drainable = slabs, len(after.drainable)
    else:
        cohort = before.members or frozenset(before.address)
        kept = len(cohort.intersection(after.address))
        drainable = len(cohort.intersection(after.drainable))
    pinned, other = kept - drainable, seen - kept
    # Slabs that a moment has and did not show may be any: of the cohort after, old before.
    hidden = slabs - kept if unread[1] else min(after.unseen, slabs - kept)
    old = other if unread[0] else min(before.unseen, other)
    successors = kept if made is None else min(kept, max(0, made - (other - old)) + after.surplus)
    refilled = min(successors, pinned)
    absent = slabs - kept
    return Fate(
        slabs=slabs,
        after=seen,
        made=made,
        released=Range(absent, absent - hidden, absent + successors),
        drainable=drainable,
        pinned=Range(pinned, pinned - refilled, pinned + hidden),
        gone=Range(absent + drainable, absent + drainable - hidden, absent + drainable + refilled),
        new=Range(other, other, other + successors),
    )


def _between(before: HeapMoment, first: BinMoment, last: BinMoment) -> Optional[int]:
    """The slabs made between; a bin that was not there before had made none."""
    made = 0 if first is EMPTY and before.counted else first.made
    if made is None or last.made is None or last.made < made:
        return None
    # An arena that was destroyed leaves its number to one that counts from zero.
    return last.made - made if first is EMPTY or first.place == last.place else None


def summed(fates: Sequence[Fate]) -> Fate:
    """Several bins together."""
    if len(fates) == 1:
        return fates[0]
    mades = [fate.made for fate in fates]
    drainables = [fate.drainable for fate in fates]
    return Fate(
        slabs=sum(fate.slabs for fate in fates),
        after=sum(fate.after for fate in fates),
        made=None if None in mades else sum(filter(None, mades)),
        released=total(fate.released for fate in fates),
        drainable=None if None in drainables else sum(filter(None, drainables)),
        pinned=_total(fate.pinned for fate in fates),
        gone=_total(fate.gone for fate in fates),
        new=total(fate.new for fate in fates),
    )


def _total(ranges: Iterable[Optional[Range]]) -> Optional[Range]:
    found = list(ranges)
    known = [each for each in found if each is not None]
    return total(known) if len(known) == len(found) else None


def fates(before: Moment, after: Moment) -> Mapping[int, Fate]:
    """By the size of regions, what became of the slabs of ``before``.

    A jemalloc is the same where the root of its tree lies at the same place, or, where none
    does, by its number.
    """
    if not before.heaps or not after.heaps:
        return _by_sums(before, after)
    return fates_of_heaps(before.heaps, after.heaps)


def fates_of_heaps(before: Sequence[HeapMoment], after: Sequence[HeapMoment]) -> Mapping[int, Fate]:
    """As :func:`fates`, of heaps whose slabs are known one by one."""
    found: Dict[int, List[Fate]] = {}
    for one, other in _pairs(before, after):
        for key in sorted(one.bins.keys() | other.bins.keys()):
            first, last = one.bins.get(key, EMPTY), other.bins.get(key, EMPTY)
            fate = _bin_fate(
                first,
                last,
                _between(one, first, last),
                (not one.whole and not one.counted, not other.whole and not other.counted),
            )
            classes = one.classes or other.classes
            found.setdefault(classes[key[1]].size, []).append(fate)
    return {size: summed(several) for size, several in sorted(found.items())}


def _pairs(
    before: Sequence[HeapMoment], after: Sequence[HeapMoment]
) -> Iterable[Tuple[HeapMoment, HeapMoment]]:
    """The jemallocs of two moments, one beside the other; an empty one for one not there."""
    roots = {heap.root for heap in before} & {heap.root for heap in after}
    if not roots:
        several = max(len(before), len(after))
        padded = [[*each, *[None] * (several - len(each))] for each in (before, after)]
        yield from (_filled(one, other) for one, other in zip(*padded))
        return
    firsts = {heap.root: heap for heap in before}
    lasts = {heap.root: heap for heap in after}
    for root in {**firsts, **lasts}:
        yield _filled(firsts.get(root), lasts.get(root))


def _filled(
    one: Optional[HeapMoment], other: Optional[HeapMoment]
) -> Tuple[HeapMoment, HeapMoment]:
    nothing = HeapMoment(0, (), {}, whole=True, counted=True)
    return one or nothing, other or nothing


def _by_sums(before: Moment, after: Moment) -> Mapping[int, Fate]:
    """What sums alone say.

    A cohort has lost at least what there is less, and at most all that was let go.
    """
    rows = before.rows(), after.rows()
    found = {}
    for size in sorted({*rows[0], *rows[1]}):
        slabs, then = (sum(row.state.slabs for row in each.get(size, ())) for each in rows)
        made = _made(before, after, size)
        least = max(0, slabs - then)
        most = slabs if made is None else max(least, min(slabs, slabs + made - then))
        found[size] = Fate(
            slabs=slabs,
            after=then,
            made=made,
            released=Range(least, least, most),
            drainable=None,
            pinned=None,
            gone=None,
            new=Range(then - slabs + least, then - slabs + least, then - slabs + most),
        )
    return found


def _made(before: Moment, after: Moment, size: int) -> Optional[int]:
    counts = [_made_so_far(moment, size) for moment in (before, after)]
    if counts[0] is None or counts[1] is None or counts[1] < counts[0]:
        return None
    return counts[1] - counts[0]


def _made_so_far(moment: Moment, size: int) -> Optional[int]:
    if not moment.heaps:
        return None if moment.made is None else moment.made.get(size, 0)
    counts = [
        place.made
        for heap in moment.heaps
        for (_, szind, _), place in heap.bins.items()
        if heap.classes[szind].size == size
    ]
    return None if None in counts else sum(filter(None, counts))
