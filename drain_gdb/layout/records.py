"""Frozen records: where each field lies in one jemalloc of one process.

All offsets are in bytes, all addresses absolute.  The walkers take everything
they know of a build from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Mapping, Optional, Tuple, Union

from drain_gdb.layout.parameters import Parameters


@dataclass(frozen=True)
class Bits:
    """A bit field of a word: ``(word >> shift) & mask``."""

    shift: int
    width: int

    @property
    def mask(self) -> int:
        """The field's mask, already shifted down."""
        return (1 << self.width) - 1

    def of(self, word: int) -> int:
        """The field's value in ``word``."""
        return word >> self.shift & self.mask


@dataclass(frozen=True)
class RtreeLayout:
    """The radix tree from page to extent.

    Attributes:
        root: address of element 0 of the root array.
        bits: key bits of each level, root first.
        lg_page: key bits below the tree.
        compact: leaf elements are one tagged word, else a pointer and a metadata
            word.
        pointer_mask: the extent pointer's bits in a leaf element's first word.
        slab, szind: tags in a leaf element's last word, which free() goes by; they are
            right of slabs alone, see jemalloc/extents.py.  None in recordings made
            before they were looked at.

    """

    root: int
    bits: Tuple[int, ...]
    lg_page: int
    compact: bool
    pointer_mask: int
    slab: Optional[Bits] = None
    szind: Optional[Bits] = None

    @property
    def leaf_words(self) -> int:
        """8-byte words of one leaf element."""
        return 1 if self.compact else 2

    @property
    def leaf_span(self) -> int:
        """Bytes of address space that one leaf array covers."""
        return 1 << (self.bits[-1] + self.lg_page)


@dataclass(frozen=True)
class ExtentLayout:
    """``edata_t`` (``extent_t`` before 5.3): field offsets, the fields of ``e_bits``.

    ``heap_link`` is where it hangs in the pairing heap of its bin.

    A field that a version lacks has no width, and is 0.  ``pai`` is 1 of an extent that the
    huge page allocator made (from 5.3); None in recordings made before it was looked at.
    """

    size: int
    bits: int
    address: int
    size_and_esn: int
    bitmap: int
    heap_link: int
    arena: Bits
    slab: Bits
    state: Bits
    szind: Bits
    nfree: Bits
    shard: Bits
    pai: Optional[Bits] = None


@dataclass(frozen=True)
class BinInfoLayout:
    """``bin_info_t`` and the address of ``bin_infos``.

    ``n_shards`` is None before 5.2, which has one bin a size class.
    """

    address: int
    size: int
    reg_size: int
    slab_size: int
    nregs: int
    n_shards: Optional[int]


@dataclass(frozen=True)
class BinLayout:
    """``bin_t``: size and the offsets of its counters, by jemalloc's names.

    Recordings from before ``nslabs`` and ``reslabs`` were looked at lack these.

    ``lock`` is the offset of a word that is not zero while the bin's mutex is held,
    None where it is not known (recordings made before it was looked for).
    """

    size: int
    stats: Mapping[str, int]
    slabcur: int
    slabs_nonfull: int
    lock: Optional[int] = None


@dataclass(frozen=True)
class DecayLayout:
    """Where an arena keeps a ``decay_t``: offsets in the arena.

    Attributes:
        time_ms: pages of this state are to go within so many milliseconds; -1 is never.
        epoch: nanoseconds of the monotonic clock at the last step of the decay; None where
            it is not known.

    """

    time_ms: int
    epoch: Optional[int]


@dataclass(frozen=True)
class ArenaLayout:
    """``arena_t``, ``base_t`` and the address of ``arenas``.

    Attributes:
        table: address of ``arenas[0]``; None where it was not found.
        table_size: elements of ``arenas``.
        index: offset of the arena's own index, in the arena, or in its base_t
            where ``index_in_base`` (before 5.3).
        bins: offset of the bins, or of a pointer to each where
            ``bins_by_pointer`` (5.2).
        descriptors: offset of the head of the ring of thread caches.
        nactive: offset of the number of pages in use; None where it is not known.
        cached_pages: state name (dirty, muzzy, retained) to the offsets of the
            page counters that add up to it.
        large: offset of ``stats.lstats``; ``large_size`` bytes each, with
            ``large_nmalloc`` and ``large_ndalloc`` inside; ``large_count`` of them,
            0 where they are not known.
        caches: offset of the head of a second ring, of the caches themselves
            (``tcache_ql``); None where there is but one.
        locks: a lock that is held, or an operation under way, in words, to the offset
            of a word that is not zero meanwhile.
        base_blocks: offset in ``base_t`` of its list of blocks; None in recordings made
            before they were looked at.
        decays: state name (dirty, muzzy) to where its decay is set; empty in recordings
            made before it was looked at.
        threads: offset of the number of threads that allocate from it, None where it is
            not known.

    """

    table: Optional[int]
    table_size: int
    index: int
    index_in_base: bool
    bins: int
    bins_by_pointer: bool
    base: int
    descriptors: int
    nactive: Optional[int]
    cached_pages: Mapping[str, Tuple[int, ...]]
    large: int
    large_size: int
    large_count: int
    large_nmalloc: int
    large_ndalloc: int
    base_allocated: int
    caches: Optional[int] = None
    locks: Mapping[str, int] = field(default_factory=dict)
    base_blocks: Optional[int] = None
    decays: Mapping[str, DecayLayout] = field(default_factory=dict)
    threads: Optional[int] = None


@dataclass(frozen=True)
class StackedCaches:
    """Thread caches from 5.3 on, as reached from an arena's ring of descriptors.

    Attributes:
        next: offset of the ring's next pointer in a descriptor.
        tcache: offset, from a descriptor, of the pointer to its ``tcache_t``.
        bins: offset of the cache bins in a ``tcache_t``.
        descriptor: offset of the descriptor in its ``tcache_slow_t``.
        stack: offset, from a descriptor, of the pointer to the memory that
            holds all its stacks (``dyn_alloc`` of the ``tcache_slow_t``).
        nbins_max: most cache bins a tcache may have.
        bin_size: bytes of a ``cache_bin_t``; the rest are offsets in it.
        leading: bytes before the first stack (the preceding junk word).
        nbins: offset, from a descriptor, of how many cache bins there are; None
            before 5.3.1.
        trailing: the word that follows the last stack.
        low_water: offset of ``low_bits_low_water``.  This and what follows is None in
            recordings made before it was looked at.
        previous: offset of the ring's previous pointer in a descriptor.
        back: offset, in a ``tcache_t``, of the pointer to its ``tcache_slow_t``.
        link: offset of the arena's second ring's next pointer in a ``tcache_slow_t``,
            None where there is none.

    """

    next: int
    tcache: int
    bins: int
    descriptor: int
    stack: int
    nbins_max: int
    bin_size: int
    head: int
    requests: int
    low_bits_full: int
    low_bits_empty: int
    leading: int
    nbins: Optional[int]
    trailing: int
    low_water: Optional[int] = None
    previous: Optional[int] = None
    back: Optional[int] = None
    link: Optional[int] = None


@dataclass(frozen=True)
class Positions:
    """Of a cache bin between 5.2.1 and 5.3, whose stack grows down from its end.

    What is cached stands from the top on.  Positions are the low bits of addresses.

    Attributes:
        size: bytes of a position.
        full: offset of the lowest one of the stack.
        empty: offset of that of its end; None where that is where the next stack begins
            (until 5.2.1-253).
    """

    size: int
    full: int
    empty: Optional[int]


@dataclass(frozen=True)
class CountedCaches:
    """Thread caches of 5.0 to 5.2, and until their two arrays became one (5.2.1-365).

    As they are reached from an arena's ring.

    Attributes:
        next: offset of the ring's next pointer in its elements, which are
            descriptors (5.1 on) or the caches themselves (5.0).
        small, large: offset of the cache bins of small and large classes in an
            element, or of a pointer to them where ``by_pointer``.
        own_small, own_large: offset of the cache bins themselves in a ``tcache_t``.
        nsmall, nlarge: how many there are.
        bin_size: bytes of a cache bin; the rest are offsets in it.
        avail: the pointer that the cached ones stand below, or, with ``positions``, from
            which on they stand.
        low_water: the fewest regions since the last collection, or -1; with ``positions``
            the highest position.  This and what follows is None in recordings made
            before it was looked at.
        previous: offset of the ring's previous pointer in its elements.
        descriptor: offset of the descriptor in its ``tcache_t``.
        link: offset of the arena's second ring's next pointer in a ``tcache_t``,
            None where there is none.
        positions: where a stack is known by its positions, and ``ncached`` is no field.
    """

    next: int
    small: int
    large: int
    by_pointer: bool
    own_small: int
    own_large: int
    nsmall: int
    nlarge: int
    bin_size: int
    ncached: int
    requests: int
    avail: int
    low_water: Optional[int] = None
    previous: Optional[int] = None
    descriptor: int = 0
    link: Optional[int] = None
    positions: Optional[Positions] = None

    @property
    def own(self) -> CountedCaches:
        """The same caches as reached by the address of their ``tcache_t``."""
        return replace(self, small=self.own_small, large=self.own_large, by_pointer=False)


CacheLayout = Union[StackedCaches, CountedCaches]


@dataclass(frozen=True)
class Place:
    """A number of ``size`` bytes in a struct."""

    offset: int
    size: int


@dataclass(frozen=True)
class Rows:
    """Two numbers a row, ``stride`` bytes apart: how many extents, and their bytes."""

    extents: int
    bytes: int
    stride: int
    count: int


@dataclass(frozen=True)
class CountersLayout:
    """Counters that only malloc_stats_print() is for, as far as the structs name them.

    Attributes:
        arena, base, bin: in an arena_t, a base_t, a bin_t, by jemalloc's names.
        large: in a row of ``stats.lstats``.
        extents: state name to the counts of unused extents, by size; several add up.
        profile: in a mutex_prof_data_t, with which every mutex begins.
        mutexes: an arena's, offsets by the names that the statistics have for them.
        base_mutex, bin_mutex: offsets in a base_t and a bin_t.

    """

    arena: Mapping[str, Place]
    base: Mapping[str, Place]
    large: Mapping[str, Place]
    bin: Mapping[str, Place]
    extents: Mapping[str, Tuple[Rows, ...]]
    profile: Mapping[str, Place]
    mutexes: Mapping[str, int]
    base_mutex: int
    bin_mutex: Optional[int]


@dataclass(frozen=True)
class Layout:
    """One jemalloc, located and understood.

    Attributes:
        source: ``dwarf``, ``symbols`` or ``discovered``.
        module: path of the program or library that holds it.
        version: as the library says it, None where it does not.
        prefix: what stands before jemalloc's private symbols, None if unknown.
        bin_info: None where it was not found.
        threads: the cache of each thread where arenas do not list them, as statistics
            are off: its descriptor, or its ``tcache_t`` before 5.3.  None where they
            were not looked for or not found.
        forms: what a struct was taken for: the declarations that its form is of.
        notes: what was tried and rejected on the way, one line each.
        evidence: by what the module was recognised, in words.
        counters: None in recordings made before they were looked for.

    """

    source: str
    module: str
    version: Optional[str]
    prefix: Optional[str]
    parameters: Parameters
    rtree: RtreeLayout
    extent: ExtentLayout
    bin_info: Optional[BinInfoLayout]
    bin: BinLayout
    arena: ArenaLayout
    tcache: CacheLayout
    threads: Optional[Tuple[int, ...]] = None
    forms: Mapping[str, str] = field(default_factory=dict)
    notes: Tuple[str, ...] = ()
    evidence: str = ""
    counters: Optional[CountersLayout] = None
