"""What a walk yields: columns and counts of one jemalloc.

A slab or extent is a row of parallel arrays, never an object: ten million of
them must fit in some hundred megabytes.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.layout.bins import BinInfo
from drain_gdb.layout.records import Layout

ACTIVE, DIRTY, MUZZY, RETAINED, PINNED = range(5)
"""extent_state_t (edata.h); higher values are transitions in flight, and so is PINNED
before the development branch of May 2026: see :meth:`Heap.has_pinned`."""
STATE_NAMES = ("active", "dirty", "muzzy", "retained", "pinned")
HPA_CACHED = 8
"""Not a state of jemalloc's: an active extent of no size class.  The huge page
allocator's small extent cache leaves freed extents so (sec.c, 5.3.0)."""


class SlabKind(NamedTuple):
    """What ``e_bits`` says of a slab."""

    arena: int
    szind: int
    shard: int
    nfree: int


class ExtentKind(NamedTuple):
    """What ``e_bits`` says of an extent that is no slab; ``state`` may be HPA_CACHED."""

    arena: int
    state: int
    szind: int


Census = Mapping[Tuple[SlabKind, int], int]
"""How many slabs there are of each kind with that many regions in thread caches."""


@dataclass
class Slabs:
    """Every active slab.

    Attributes:
        address: first byte of each slab.
        kind: index into ``kinds`` of each slab.
        cached: rows with regions in thread caches, to how many.
        kinds: the distinct kinds seen; of walks with a memo also earlier ones.
        counted: how many slabs are of each kind, where that was counted on the way.

    """

    address: array[int] = field(default_factory=lambda: array("Q"))
    kind: array[int] = field(default_factory=lambda: array("I"))
    cached: Dict[int, int] = field(default_factory=dict)
    kinds: List[SlabKind] = field(default_factory=list)
    counted: Optional[Counter[int]] = None

    def __len__(self) -> int:
        return len(self.address)

    @cached_property
    def census(self) -> Census:
        """All slabs, counted by kind and cached regions; taken once, when all are there."""
        held = Counter((self.kind[row], count) for row, count in self.cached.items())
        plain = Counter(self.kind if self.counted is None else self.counted)
        for (kind, _), number in held.items():
            plain[kind] -= number
        found = {(self.kinds[kind], 0): number for kind, number in plain.items() if number}
        found.update({(self.kinds[k], count): n for (k, count), n in held.items()})
        return found


@dataclass
class Extents:
    """Every extent that is no slab: large allocations and unused pages.

    Attributes:
        address, size: bytes; ``size`` includes the pad of large extents.
        kind: index into ``kinds``.
        huge_pages: whether the huge page allocator made any extent or slab.

    """

    address: array[int] = field(default_factory=lambda: array("Q"))
    size: array[int] = field(default_factory=lambda: array("Q"))
    kind: array[int] = field(default_factory=lambda: array("I"))
    kinds: List[ExtentKind] = field(default_factory=list)
    huge_pages: bool = False

    @cached_property
    def sums(self) -> Mapping[ExtentKind, Tuple[int, int]]:
        """``(count, bytes)`` of each kind; taken once, when all extents are there."""
        counts: Counter[int] = Counter()
        sizes: Counter[int] = Counter()
        for kind, size in zip(self.kind, self.size):
            counts[kind] += 1
            sizes[kind] += size
        return {self.kinds[kind]: (counts[kind], sizes[kind]) for kind in counts}


class BinCounters(NamedTuple):
    """A bin shard: where it stands, and its own statistics (bin_stats_t).

    ``nslabs`` are the slabs made for it so far, ``reslabs`` how often one with room became
    its current one again; None in recordings made before they were looked at.
    """

    arena: int
    szind: int
    shard: int
    address: int
    nmalloc: int
    ndalloc: int
    nrequests: int
    curregs: int
    curslabs: int
    nslabs: Optional[int] = None
    reslabs: Optional[int] = None
    held: bool = False
    """Whether somebody held its lock."""


class Decay(NamedTuple):
    """How unused pages of one state are to go from an arena.

    ``milliseconds`` are those that they take, -1 for never; ``stepped`` is when the decay
    took its last step, in nanoseconds of the machine's monotonic clock, None if not known.
    """

    milliseconds: int
    stepped: Optional[int]


@dataclass(frozen=True)
class Arena:
    """An arena's own figures.

    Attributes:
        nactive: pages in active extents; None where that is not known.
        cached_pages: pages by state name (dirty, muzzy, retained).
        base_allocated: bytes of metadata.
        large: szind to extant large allocations, zero ones left out; None where they
            are not known.
        held: locks that somebody held and operations under way, in words.
        blocks: ``(start, end)`` of each block of its metadata (base_block_t), as far as
            they can be read; none in recordings made before they were looked at.
        decays: by state name (dirty, muzzy); those that are not known are left out.
        threads: how many allocate from it; None where that is not known.

    """

    index: int
    address: int
    nactive: Optional[int]
    cached_pages: Mapping[str, int]
    base_allocated: int
    large: Optional[Mapping[int, int]]
    held: Tuple[str, ...] = ()
    blocks: Tuple[Tuple[int, int], ...] = ()
    decays: Mapping[str, Decay] = field(default_factory=dict)
    threads: Optional[int] = None


BY_ARENAS, BY_THREADS = "arenas", "threads"


class CachedRegion(NamedTuple):
    """A freed region that a thread cache holds."""

    pointer: int
    szind: int
    tcache: int


@dataclass
class ThreadCaches:
    """Every thread cache reached, and all it holds.

    Attributes:
        descriptors: address of each cache's descriptor, to its number.
        reached_by: BY_ARENAS (all of them), BY_THREADS (automatic ones) or None.
        regions: the cached and stashed regions of small and large classes.
        held, stashed: ``(arena, szind)`` to how many regions are held, and how many of
            these are stashed: freed, but kept from reuse for a while.
        requests: ``(arena, szind)`` to allocation requests not yet merged into the
            bins of that arena, None where it is not known (reached BY_THREADS).
        whole: caches that could be read and do not contradict themselves.
        unreadable: all others, and lists of caches that are broken.
        stacks: an address within the memory that the stacks of each cache take.

    """

    descriptors: Dict[int, int] = field(default_factory=dict)
    reached_by: Optional[str] = None
    regions: List[CachedRegion] = field(default_factory=list)
    requests: Counter[Tuple[Optional[int], int]] = field(default_factory=Counter)
    held: Counter[Tuple[Optional[int], int]] = field(default_factory=Counter)
    stashed: Counter[Tuple[Optional[int], int]] = field(default_factory=Counter)
    whole: int = 0
    unreadable: int = 0
    stacks: List[int] = field(default_factory=list)


@dataclass(frozen=True)
class Mismatch:
    """Two figures that ought to be equal: ours and the allocator's own."""

    arena: Optional[int]
    index: Optional[int]
    what: str
    walked: Optional[int]
    recorded: Optional[int]


@dataclass
class Coverage:
    """How much was read, what could not be, and what looked wrong.

    Attributes:
        missing: what of jemalloc was not there at all, and what is unknown for it, in words.
        bins_wrong: size classes of which bin_infos says what cannot be.

    """

    bytes_read: int = 0
    bytes_unreadable: int = 0
    slabs_unreadable: int = 0
    arenas_unreadable: int = 0
    bins_wrong: int = 0
    missing: List[str] = field(default_factory=list)
    anomalies: List[str] = field(default_factory=list)
    dropped: int = 0

    ANOMALIES_MAX = 100

    def anomaly(self, text: str) -> None:
        """Note a finding; beyond ``ANOMALIES_MAX`` they are only counted."""
        if len(self.anomalies) < self.ANOMALIES_MAX:
            self.anomalies.append(text)
        else:
            self.dropped += 1


@dataclass(frozen=True)
class InFlight:
    """Something that was going on inside jemalloc when the process was stopped.

    Attributes:
        index, shard: of the bin it went on in; None for another part of the arena.
        what: a lock that was held or an operation, in words.
    """

    arena: int
    index: Optional[int]
    shard: Optional[int]
    what: str


@dataclass(frozen=True)
class Verification:
    """The walk against the allocator's own statistics.

    Attributes:
        status: ``exact``, ``mismatch`` or ``unavailable`` (statistics are off, or no arena
            that keeps them could be read).
        in_flight: what was going on meanwhile: figures of the parts it went on in may be
            off by what was being moved.

    """

    status: str
    slabs_walked: int
    slabs_recorded: Optional[int]
    regions_walked: int
    regions_recorded: Optional[int]
    mismatches: Tuple[Mismatch, ...]
    in_flight: Tuple[InFlight, ...] = ()


@dataclass(frozen=True)
class Heap:
    """One jemalloc, walked.

    Attributes:
        statistics: whether the allocator keeps its own (config_stats); None where no arena
            could be read.
        large_cached: ``(count, bytes)`` of large allocations in thread caches.
        believed: whether this is a heap of jemalloc's at all: what was walked has enough in
            common with the allocator's own figures, or the structures with each other.

    """

    layout: Layout
    bins: Sequence[BinInfo]
    slabs: Slabs
    extents: Extents
    arenas: Sequence[Arena]
    counters: Sequence[BinCounters]
    tcaches: ThreadCaches
    large_cached: Tuple[int, int]
    statistics: Optional[bool]
    verification: Verification
    coverage: Coverage
    believed: bool = True

    @property
    def has_all_arenas(self) -> bool:
        """Whether every arena was read that an extent says it is of."""
        known = {arena.index for arena in self.arenas}
        used = {kind.arena for kind, _ in self.slabs.census} | {k.arena for k in self.extents.sums}
        return not self.coverage.arenas_unreadable and used <= known

    @property
    def has_pinned(self) -> bool:
        """Whether this version has a state for unused pages that cannot be purged."""
        return STATE_NAMES[PINNED] in self.layout.arena.cached_pages
