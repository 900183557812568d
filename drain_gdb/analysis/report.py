"""The reports: frozen, made of numbers, the same for every way of showing them.

Counts and bytes are integers, rates are fractions 0..1, unknown is None.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple

from drain_gdb.debuggee.protocol import Process
from drain_gdb.jemalloc.heap import Verification
from drain_gdb.jemalloc.settings import Settings

BUCKETS = 10


def less(whole: int, part: Optional[int]) -> Optional[int]:
    """``whole - part``; None where the part is not known."""
    return None if part is None else whole - part


def share(part: Optional[int], whole: Optional[int]) -> Optional[float]:
    """``part / whole``; None where either is not known, or there is nothing."""
    return part / whole if part is not None and whole else None


@dataclass(frozen=True)
class Occupancy:
    """The state of a set of slabs.

    What thread caches hold, and each slab by itself, is known of walked slabs alone: of
    statistics ``empty``, ``cache_held``, ``cached``, ``ideal_slabs``, ``histogram`` and
    what follows from them are None.

    Attributes:
        slabs: all of them; ``drainable + pinned``.
        drainable: no live region; ``empty + cache_held``.
        empty: no allocated region.
        cache_held: allocated regions, all of them in thread caches.
        pinned: at least one live region.
        regions: ``allocated + free``.
        allocated: ``live + cached``.
        waste_bytes: bytes of the slabs that hold no live region.
        ideal_slabs: the fewest slabs that would hold the live regions, counted
            per arena and bin.
        histogram: slabs by occupancy, in tenths; 1 falls in the last.
        cached_bytes: bytes of the cached regions.
        drainable_bytes: bytes of the drainable slabs.
        believed: False where no layout fits the heap; then no rate means anything.

    """

    slabs: int
    empty: Optional[int]
    cache_held: Optional[int]
    regions: int
    allocated: int
    cached: Optional[int]
    slab_bytes: int
    allocated_bytes: int
    cached_bytes: Optional[int]
    drainable_bytes: Optional[int]
    ideal_slabs: Optional[int]
    histogram: Optional[Tuple[int, ...]]
    believed: bool = True

    @property
    def drainable(self) -> Optional[int]:
        """Slabs without a live region."""
        if self.empty is None or self.cache_held is None:
            return None
        return self.empty + self.cache_held

    @property
    def pinned(self) -> Optional[int]:
        """Slabs with a live region."""
        return less(self.slabs, self.drainable)

    @property
    def live(self) -> Optional[int]:
        """Regions that the application holds."""
        return less(self.allocated, self.cached)

    @property
    def live_bytes(self) -> Optional[int]:
        """Bytes of the live regions."""
        return less(self.allocated_bytes, self.cached_bytes)

    @property
    def free(self) -> int:
        """Regions that are not allocated."""
        return self.regions - self.allocated

    @property
    def waste_bytes(self) -> Optional[int]:
        """Bytes that hold no live region."""
        return less(self.slab_bytes, self.live_bytes)

    @property
    def free_bytes(self) -> int:
        """Bytes of the slabs that hold no allocated region."""
        return self.slab_bytes - self.allocated_bytes

    @property
    def dsr(self) -> Optional[float]:
        """Drainable slabs of all slabs (the live view)."""
        return self._rate(self.drainable, self.slabs)

    @property
    def dsr_bitmap(self) -> Optional[float]:
        """Empty slabs of all slabs (the bitmap view)."""
        return self._rate(self.empty, self.slabs)

    @property
    def occupancy(self) -> Optional[float]:
        """Live regions of all regions."""
        return self._rate(self.live, self.regions)

    @property
    def utilization(self) -> Optional[float]:
        """Allocated regions of all regions: ``util`` of malloc_stats_print()."""
        return self._rate(self.allocated, self.regions)

    @property
    def retention_ratio(self) -> Optional[float]:
        """Slabs for each slab that would be needed."""
        return self._rate(self.slabs, self.ideal_slabs)

    def _rate(self, part: Optional[int], whole: Optional[int]) -> Optional[float]:
        return share(part, whole) if self.believed else None


@dataclass(frozen=True)
class BinRow:
    """One size class, of one arena or shard or of all (then None)."""

    arena: Optional[int]
    shard: Optional[int]
    index: int
    size: int
    slab_size: int
    nregs: int
    state: Occupancy


@dataclass(frozen=True)
class SlabRow:
    """One slab."""

    address: int
    arena: int
    shard: int
    index: int
    size: int
    nregs: int
    allocated: int
    cached: int

    @property
    def live(self) -> int:
        """Regions that the application holds."""
        return self.allocated - self.cached


@dataclass(frozen=True)
class ExtentRow:
    """One extent that is no slab.

    Attributes:
        state: ``active`` is a large allocation, the others are unused pages or on their way.
        size: of a large allocation that of its size class, else None.
        bytes: of the extent, padding included.

    """

    address: int
    arena: int
    state: str
    size: Optional[int]
    bytes: int


@dataclass(frozen=True)
class Allocator:
    """The jemalloc that was swept, and how it was found.

    What statistics alone do not say is None.

    Attributes:
        statistics: whether it keeps its own; None where no arena could be read.
        thread_cache_bytes: of the small and large regions that thread caches hold.
        module: path of the program or library that holds it.
        others: modules of further jemallocs of the process, not swept.

    """

    name: str
    version: Optional[str]
    symbol_prefix: Optional[str]
    layout_source: Optional[str]
    page_size: int
    statistics: Optional[bool]
    arenas: int
    thread_caches: Optional[int]
    module: Optional[str]
    others: Tuple[str, ...]
    thread_cache_bytes: Optional[int] = None

    @property
    def library(self) -> str:
        """The name of the file of its module; empty where statistics alone are known."""
        return os.path.basename(self.module or "")


@dataclass(frozen=True)
class ExtentTotals:
    """Memory outside slabs, in bytes; None where it is not known.

    Attributes:
        large_bytes: large allocations, their padding included.
        large_cached_bytes: of these, freed ones that thread caches hold.
        dirty_bytes, muzzy_bytes: unused pages on their way back to the system.
        pinned_bytes: unused pages that the program's extent hooks do not let go.
        hpa_cached_bytes: freed extents in the small extent caches of huge pages.
        retained_bytes: address space kept without memory behind it.
        metadata_bytes: jemalloc's own, outside its arenas' extents.
        transition_bytes: extents caught between two states.
        sampled_bytes, sampled_count: of the large ones, allocations of small sizes that the
            heap profiler has put on extents of their own.
        unused: state name (dirty, muzzy, retained) to how many extents of it there are and
            the bytes of the largest.

    """

    large_bytes: Optional[int]
    large_count: Optional[int]
    large_cached_bytes: Optional[int]
    large_cached_count: Optional[int]
    dirty_bytes: Optional[int]
    muzzy_bytes: Optional[int]
    retained_bytes: Optional[int]
    pinned_bytes: Optional[int]
    hpa_cached_bytes: Optional[int]
    transition_bytes: Optional[int]
    metadata_bytes: Optional[int]
    sampled_bytes: int = 0
    sampled_count: int = 0
    unused: Mapping[str, UnusedExtents] = field(default_factory=dict)


@dataclass(frozen=True)
class UnusedExtents:
    """How the unused extents of one state lie: how many, and bytes of the largest."""

    count: int
    largest_bytes: int


@dataclass(frozen=True)
class ArenaRow:
    """What an arena holds unused, and whether that goes.

    Attributes:
        threads: how many allocate from it.
        slab_bytes: of its slabs.
        dirty_decay_ms, muzzy_decay_ms: pages go within so many milliseconds, -1 is never.
        idle_seconds: since its dirty pages' decay took the last step.

    What is not known is None.
    """

    index: int
    threads: Optional[int]
    slab_bytes: int
    dirty_bytes: int
    muzzy_bytes: int
    dirty_decay_ms: Optional[int]
    muzzy_decay_ms: Optional[int]
    idle_seconds: Optional[float] = None


@dataclass(frozen=True)
class CounterPair:
    """Allocations and deallocations of small regions since the start, at one layer."""

    allocs: Optional[int]
    deallocs: Optional[int]


@dataclass(frozen=True)
class CoverageTotals:
    """How much was read and what was found wrong.

    Attributes:
        missing: parts of jemalloc that were not there at all, in words.

    """

    bytes_read: int
    bytes_unreadable: int
    slabs_unreadable: int
    caches_unreadable: int
    arenas_unreadable: int
    anomalies: Tuple[str, ...]
    missing: Tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether part of the metadata is missing, and every total with it."""
        return self.unread or bool(self.missing)

    @property
    def unread(self) -> bool:
        """Whether something was come to that could not be read."""
        return bool(
            self.bytes_unreadable
            or self.slabs_unreadable
            or self.caches_unreadable
            or self.arenas_unreadable
        )

    @property
    def readable(self) -> Optional[float]:
        """The share that could be read of the metadata that the walk came to.

        What lies behind an unreadable pointer is in neither number.
        """
        known = self.bytes_read + self.bytes_unreadable
        return self.bytes_read / known if known else None


@dataclass(frozen=True)
class Tolerance:
    """How far the accounting of a process that was read in motion is off.

    Attributes:
        stated: the largest share that is accepted.
        reached: the share by which slabs, regions, pages, large extents or cached
            regions differ from jemalloc's own figures, whichever is largest; None
            where there are no figures to compare with.

    """

    stated: float
    reached: Optional[float]

    @property
    def within(self) -> bool:
        """Whether the accounting holds as far as is accepted."""
        return self.reached is not None and self.reached <= self.stated


@dataclass(frozen=True)
class Selection:
    """What of the heap the rows and totals speak of; None is all of it."""

    by: str = "bin"
    arena: Optional[int] = None
    size: Optional[int] = None

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.arena is None and self.size is None


@dataclass(frozen=True)
class Detail:
    """What a part of the account is made of: so many of one kind.

    Attributes:
        what: a file, an allocator, or what the memory is otherwise, in words; None for
            mappings that nothing is known of.
        count: how many mappings (extents, stacks) there are.
        bytes, resident_bytes: of all of them.

    """

    what: Optional[str]
    count: int
    bytes: int
    resident_bytes: Optional[int]


@dataclass(frozen=True)
class Part:
    """A part of the account (INTERFACE: ``account.parts``); one of its name and allocator.

    Attributes:
        part: its name, one of ``drain_gdb.analysis.account.PARTS``.
        allocator: number of the jemalloc it is of, in the order of the reports; None
            where it is no jemalloc's.
        bytes: its size in the address space.
        resident_bytes: how much of it is resident; None where that is not known.
        shared_bytes: of these, shared with a fork.
        huge_bytes: of these, on transparent huge pages; of a mapping of several parts each
            is given its share.
        details: what it is made of, largest first; empty where there is no more to say.

    """

    part: str
    allocator: Optional[int]
    bytes: int
    resident_bytes: Optional[int]
    shared_bytes: Optional[int] = None
    huge_bytes: Optional[int] = None
    details: Tuple[Detail, ...] = ()


@dataclass(frozen=True)
class Account:
    """All resident memory of the process, in parts that add up to it.

    Attributes:
        resident_bytes: RSS; None where it is not known.  In a core files are not held:
            it is of the rest.
        source: ``pagemap``, ``smaps`` or ``core``; ``statistics`` where it is jemalloc's own
            estimate, of its own memory alone; None where residence is not known.
        exact: every page was looked at.  Else parts of one mapping have been given their
            share of it (``smaps``), or pages were judged by what they hold (``core``).
        swapped_bytes, huge_bytes: swapped out, and on transparent huge pages; None
            where not known.
        shared_bytes: resident and shared with a fork: freeing it returns nothing to the
            machine.

    """

    resident_bytes: Optional[int]
    source: Optional[str]
    parts: Tuple[Part, ...]
    exact: bool = False
    swapped_bytes: Optional[int] = None
    huge_bytes: Optional[int] = None
    shared_bytes: Optional[int] = None

    def sum_of(self, *names: str) -> int:
        """Resident bytes of the parts ``names``, of all allocators, as far as they are known."""
        return sum(part.resident_bytes or 0 for part in self.parts if part.part in names)


@dataclass(frozen=True)
class Remedy:
    """What would make a cause go: by which command or setting of this very process."""

    remedy: str
    bytes: Optional[int]
    how: str


@dataclass(frozen=True)
class Cause:
    """A part of the account that need not be there.

    Attributes:
        goes_by_itself: ``yes``, ``in_time``, ``no`` or ``unknown``.
        evidence: what was seen that says so, in words.

    """

    cause: str
    bytes: int
    goes_by_itself: str
    remedies: Tuple[Remedy, ...]
    evidence: str


@dataclass(frozen=True)
class LargeRow:
    """One size class of large allocations.

    Attributes:
        bytes: of the extents, their padding included.
        cached, cached_bytes: of these, freed ones that thread caches hold; None where
            statistics alone tell of it.
        resident_bytes: None where residence is not known.

    """

    index: int
    size: int
    count: int
    bytes: int
    cached: Optional[int]
    cached_bytes: Optional[int]
    resident_bytes: Optional[int]


@dataclass(frozen=True)
class Sweep:
    """The report of a sweep.

    Attributes:
        totals, bins, slabs: of what ``selection`` names; ``slabs`` only by slab.
        extent_rows: of its arena, only by extent, else None.
        extents, counters, verification, coverage: of the whole process.
        tolerance: of a process that was read in motion, else None.
        account: of the whole process, all its allocators together.
        believed: False where no layout fits the heap: then there are no rates.
        large, arenas: of the whole process.
        merged_bytes: of the fewest slabs that would hold what is live if all arenas were one;
            of the whole process.
        settings: what is known of them, None where nobody looked.
        causes: of the whole process, all its allocators together, largest first.

    """

    process: Process
    allocator: Allocator
    selection: Selection
    totals: Occupancy
    bins: Tuple[BinRow, ...]
    slabs: Optional[Tuple[SlabRow, ...]]
    extents: ExtentTotals
    requests: CounterPair
    arena_counters: CounterPair
    verification: Verification
    coverage: CoverageTotals
    tolerance: Optional[Tolerance] = None
    account: Optional[Account] = None
    believed: bool = True
    large: Tuple[LargeRow, ...] = ()
    arenas: Tuple[ArenaRow, ...] = ()
    merged_bytes: Optional[int] = None
    settings: Optional[Settings] = None
    causes: Tuple[Cause, ...] = ()
    extent_rows: Optional[Tuple[ExtentRow, ...]] = None

    @property
    def sound(self) -> bool:
        """Whether nothing is missing and the accounting, if there is one, holds as it should.

        Exactly, that is; of a process read in motion within the tolerance.
        """
        within = self.tolerance is not None and self.tolerance.within
        holds = self.verification.status != "mismatch" or within
        return holds and not self.coverage.partial
