"""A process swept again and again: a row a sweep, against the first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import List, Optional, Sequence, Tuple

from drain_gdb.analysis.cohort import Fate, fates_of_heaps, summed
from drain_gdb.analysis.moment import HeapMoment, heap_moment, same_counts, same_slabs
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.verify import TOLERANCE, difference

WITHIN = "within"
"""The status of a walk that is off by no more than is accepted of a process in motion."""


@dataclass(frozen=True)
class Row:
    """A sweep; what is not known is None.

    Attributes:
        time: RFC 3339.
        seconds: since the first sweep.
        resident_bytes: RSS of the process.
        live_bytes, waste_bytes: of slabs, with and without a live region.
        cohort_dsr, cohort_dsr_low, cohort_dsr_high: of the slabs of the first sweep.
        released, released_high, drainable, pinned: of these slabs; of the released the
            fewest and the most.
        new, made: slabs since the first sweep: those at other addresses, and all that were
            made, those that are gone again included.
        status: ``exact``, ``within`` (the tolerance), ``mismatch`` or ``unavailable``.

    """

    time: str
    seconds: float
    resident_bytes: int
    live_bytes: int
    waste_bytes: int
    slabs: int
    cohort_dsr: Optional[float]
    cohort_dsr_low: Optional[float]
    cohort_dsr_high: Optional[float]
    released: int
    released_high: int
    drainable: int
    pinned: int
    new: int
    made: Optional[int]
    status: str

    @property
    def sound(self) -> bool:
        """Whether the accounting holds, if there is one."""
        return self.status != "mismatch"


class Trend:
    """Rows, each against the first sweep, which alone is remembered."""

    def __init__(self) -> None:
        self._first: Tuple[HeapMoment, ...] = ()
        self._began: Optional[datetime] = None
        self._last: Tuple[Sequence[Heap], Tuple[HeapMoment, ...]] = (), ()
        self._fate: Optional[Fate] = None

    def row(self, heaps: Sequence[Heap], resident: int, time: str) -> Row:
        """The row of a sweep at ``time``, with the process's RSS."""
        moments = self._moments(heaps)
        at = datetime.fromisoformat(time)
        if self._began is None:
            self._first, self._began = tuple(map(_remembered, moments)), at
        fate = self._fate
        if fate is None:
            fate = self._fate = summed(list(fates_of_heaps(self._first, moments).values()))
        slab_bytes, live_bytes = _bytes(heaps)
        dsr = fate.dsr
        return Row(
            time=time,
            seconds=round((at - self._began).total_seconds(), 3),
            resident_bytes=resident,
            live_bytes=live_bytes,
            waste_bytes=slab_bytes - live_bytes,
            slabs=fate.after,
            cohort_dsr=None if dsr is None else dsr.value,
            cohort_dsr_low=None if dsr is None else dsr.low,
            cohort_dsr_high=None if dsr is None else dsr.high,
            released=fate.released.low,
            released_high=fate.released.high,
            drainable=fate.drainable or 0,
            pinned=_pinned(fate),
            new=fate.new.value,
            made=fate.made,
            status=_status(heaps),
        )

    def _moments(self, heaps: Sequence[Heap]) -> Tuple[HeapMoment, ...]:
        """The slabs of each heap, as they were found last where they are the same.

        Where nothing of them has changed their fate has not, either.
        """
        heaps_before, known = self._last
        before: List[Optional[HeapMoment]] = [None] * len(heaps)
        for number, (heap, last, moment) in enumerate(zip(heaps, heaps_before, known)):
            before[number] = moment if same_slabs(last, heap) else None
        same = len(heaps) == len(known) and None not in before
        if same and all(map(same_counts, heaps_before, heaps)):
            self._last = heaps, known
            return known
        self._fate = None
        moments = tuple(heap_moment(heap, known) for heap, known in zip(heaps, before))
        self._last = heaps, moments
        return moments


def _pinned(fate: Fate) -> int:
    return 0 if fate.pinned is None else fate.pinned.value


def _remembered(moment: HeapMoment) -> HeapMoment:
    """A moment that many others are compared with."""
    bins = {
        key: replace(place, members=frozenset(place.address)) for key, place in moment.bins.items()
    }
    return replace(moment, bins=bins)


def _bytes(heaps: Sequence[Heap]) -> Tuple[int, int]:
    """Bytes of all slabs, and of their live regions."""
    slabs = live = 0
    for heap in heaps:
        for (kind, cached), number in heap.slabs.census.items():
            info = heap.bins[kind.szind]
            slabs += number * info.slab_size
            live += number * (info.nregs - kind.nfree - cached) * info.reg_size
    return slabs, live


def _status(heaps: Sequence[Heap]) -> str:
    """The worst of them."""
    found: List[str] = []
    for heap in heaps:
        status = heap.verification.status
        near = status == "mismatch" and difference(heap) <= TOLERANCE
        found.append(WITHIN if near else status)
    order = ("exact", "unavailable", WITHIN, "mismatch")
    return max(found, key=order.index)
