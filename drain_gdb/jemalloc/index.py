"""From any address to its extent and region, by the rtree alone: no walk of the heap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.errors import LayoutError, UnreadableMemory
from drain_gdb.jemalloc.arenas import walk_arenas
from drain_gdb.jemalloc.classes import find_bins
from drain_gdb.jemalloc.extents import popcount
from drain_gdb.jemalloc.find import find_heap
from drain_gdb.jemalloc.heap import ACTIVE, HPA_CACHED, STATE_NAMES, Arena, Coverage, ThreadCaches
from drain_gdb.jemalloc.rtree import Rtree, require_root
from drain_gdb.jemalloc.tcaches import walk_tcaches
from drain_gdb.layout.bins import BinInfo, bin_shards
from drain_gdb.layout.locate import Allocator
from drain_gdb.layout.records import Layout
from drain_gdb.memory import WORD, MakeMemory, Memory

LIVE, CACHED, FREE = "live", "cached", "free"
BACKTRACE_MAX = 128
"""PROF_BT_MAX_LIMIT frames at most are kept of a sampled allocation (prof.h)."""
CONTEXT_WORDS = 64
"""Words of a prof_tctx_t or prof_gctx_t that are looked at; each has fewer (prof_structs.h)."""
PLACES = 256
"""Bins whose slab is looked at before a layout is believed without a walk."""


class Extent(NamedTuple):
    """An extent as it describes itself.

    Attributes:
        edata: the address of its description.
        address: what a large allocation's pointer is; of others its first page.
        start, end: its pages.
        state: one of ``STATE_NAMES``' indices, a transition, or HPA_CACHED.

    """

    edata: int
    address: int
    start: int
    end: int
    state: int
    slab: bool
    arena: int
    szind: int
    shard: int
    nfree: int

    @property
    def state_name(self) -> str:
        """Its state in words."""
        if self.state == HPA_CACHED:
            return "in a small extent cache of huge pages"
        known = 0 <= self.state < len(STATE_NAMES)
        return STATE_NAMES[self.state] if known else "on its way from one state to another"


class Cached(NamedTuple):
    """Which thread cache holds a region."""

    number: int
    descriptor: int


class Region(NamedTuple):
    """A region of a slab: its number, its bounds, its state (LIVE, CACHED or FREE)."""

    number: int
    address: int
    end: int
    state: str


@dataclass
class HeapIndex:
    """One jemalloc, asked for single addresses.

    Attributes:
        bins, arenas, tcaches: as the walk has them; the last two are read at once, extents
            when they are asked for.

    """

    memory: Memory
    layout: Layout
    bins: Sequence[BinInfo]
    arenas: Sequence[Arena]
    tcaches: ThreadCaches

    def __post_init__(self) -> None:
        self._rtree = Rtree(self.memory, self.layout.rtree, Coverage())
        self._extents: Dict[int, Optional[Extent]] = {}

    # -- extents ------------------------------------------------------------------

    def extent_at(self, address: int) -> Optional[Extent]:
        """The extent that holds ``address``; None where no arena has that memory."""
        element = self._rtree.last_before(address)
        found = self._extent(element & self.layout.rtree.pointer_mask)
        return found if found is not None and found.start <= address < found.end else None

    def _extent(self, edata: int) -> Optional[Extent]:
        """The extent described at ``edata``; None where that cannot be."""
        if edata not in self._extents:
            try:
                self._extents[edata] = self._read(edata) if edata else None
            except UnreadableMemory:
                self._extents[edata] = None
        return self._extents[edata]

    def _read(self, edata: int) -> Extent:
        layout, page = self.layout.extent, self.layout.parameters.page
        bits = self.memory.u64(edata + layout.bits)
        address = self.memory.u64(edata + layout.address)
        size = self.memory.u64(edata + layout.size_and_esn) & -page
        state, szind = layout.state.of(bits), layout.szind.of(bits)
        if state == ACTIVE and szind >= self.layout.parameters.nsizes:
            state = HPA_CACHED
        slab = bool(layout.slab.of(bits)) and state == ACTIVE and szind < len(self.bins)
        return Extent(
            edata,
            address,
            address & -page,
            (address & -page) + size,
            state,
            slab,
            layout.arena.of(bits),
            szind,
            layout.shard.of(bits),
            layout.nfree.of(bits) if slab else 0,
        )

    def is_internal(self, extent: Extent) -> bool:
        """Whether it holds the structures of a thread cache, as some large ones do."""
        return any(extent.start <= stack < extent.end for stack in self.tcaches.stacks)

    # -- regions ------------------------------------------------------------------

    def free_regions(self, slab: Extent) -> int:
        """A bit for each region of a slab that its bitmap says is free."""
        nregs = self.bins[slab.szind].nregs
        size = -(-nregs // 64) * WORD
        data = self.memory.read(slab.edata + self.layout.extent.bitmap, size)
        return int.from_bytes(data, "little") & (1 << nregs) - 1

    def regions(self, slab: Extent) -> List[Region]:
        """All regions of a slab."""
        free, info = self.free_regions(slab), self.bins[slab.szind]
        return [self._region(slab, number, free) for number in range(info.nregs)]

    def counts(self, slab: Extent) -> Tuple[int, int, int]:
        """How many regions of a slab are live, cached and free."""
        free = popcount(self.free_regions(slab))
        first, last = (bisect_left(self._held, at) for at in (slab.start, slab.end))
        held = last - first
        return self.bins[slab.szind].nregs - free - held, held, free

    @cached_property
    def _held(self) -> List[int]:
        return sorted(self.cached)

    def region(self, slab: Extent, address: int) -> Optional[Region]:
        """The region of a slab that holds ``address``; None for the rest behind the last one."""
        info = self.bins[slab.szind]
        number = (address - slab.start) // info.reg_size
        return self._region(slab, number, self.free_regions(slab)) if number < info.nregs else None

    def _region(self, slab: Extent, number: int, free: int) -> Region:
        size = self.bins[slab.szind].reg_size
        at = slab.start + number * size
        state = FREE if free >> number & 1 else CACHED if at in self.cached else LIVE
        return Region(number, at, at + size, state)

    @cached_property
    def cached(self) -> Dict[int, Cached]:
        """Every region that a thread cache holds, and which one."""
        descriptors = list(self.tcaches.descriptors)
        return {
            region.pointer: Cached(region.tcache, descriptors[region.tcache])
            for region in self.tcaches.regions
        }

    def usable(self, extent: Extent) -> int:
        """Bytes of a large allocation that are the program's."""
        sizes = self.layout.parameters.sizes
        whole = extent.end - extent.address
        return min(sizes[extent.szind], whole) if extent.szind < len(sizes) else whole

    def live_at(self, address: int) -> Optional[Tuple[int, int]]:
        """Start and bytes of the live region or large allocation that holds ``address``."""
        extent = self.extent_at(address)
        if extent is None or extent.state != ACTIVE or self.is_internal(extent):
            return None
        if extent.slab:
            region = self.region(extent, address)
            if region is None or region.state != LIVE:
                return None
            return region.address, region.end - region.address
        if extent.address in self.cached or address < extent.address:
            return None
        return extent.address, self.usable(extent)

    # -- metadata -----------------------------------------------------------------

    @cached_property
    def _blocks(self) -> List[Tuple[int, int, int]]:
        return sorted((s, e, arena.index) for arena in self.arenas for s, e in arena.blocks)

    def metadata_of(self, address: int) -> Optional[int]:
        """The arena in whose metadata ``address`` lies; None where it lies in none's."""
        row = bisect_right(self._blocks, (address, 1 << 64, 0)) - 1
        if row >= 0 and address < self._blocks[row][1]:
            return self._blocks[row][2]
        return None

    # -- the heap profiler --------------------------------------------------------

    def backtrace(self, extent: Extent) -> List[int]:
        """Where a sampled allocation was made: return addresses, the innermost first.

        Its extent points to the context (prof_tctx_t), that to what all threads have of it
        (prof_gctx_t), in which a vector begins that is pointed to by the words before it:
        prof_bt_t and vec (prof_structs.h, 5.0 to 5.3).  Empty where it was not sampled.
        """
        for context in self._pointers(extent.edata, self.layout.extent.size // WORD):
            for shared in self._pointers(context, CONTEXT_WORDS):
                words = self._words(shared, CONTEXT_WORDS)
                for row, (vector, length) in enumerate(zip(words, words[1:])):
                    begins = shared + (row + 2) * WORD
                    if vector == begins and 0 < length <= BACKTRACE_MAX:
                        return self._words(begins, length)
        return []

    def _pointers(self, address: int, count: int) -> List[int]:
        """The words there that may point to contexts."""
        return [word for word in self._words(address, count) if self._may_be_context(word)]

    def _may_be_context(self, address: int) -> bool:
        """Whether it is in a slab; other extents, which all point to, are in blocks of metadata."""
        if address < self.layout.parameters.page or address % WORD:
            return False
        if self.metadata_of(address) is not None:
            return False
        extent = self.extent_at(address)
        return extent is not None and extent.slab

    def _words(self, address: int, count: int) -> List[int]:
        try:
            return list(self.memory.words(address, count))
        except UnreadableMemory:
            return []


def find_index(allocator: Allocator, make_memory: MakeMemory) -> HeapIndex:
    """The index of a jemalloc, by the first layout that what bins allocate from agrees with.

    Where none does, the heap is walked, as for a sweep.
    """
    for candidate in allocator.candidates:
        memory = make_memory()
        try:
            coverage = Coverage()
            found = _index(memory, candidate.locate(), coverage)
            whole = not (coverage.missing or coverage.bins_wrong or coverage.arenas_unreadable)
            if whole and (found.layout.source == "dwarf" or _agrees(found)):
                return found
        except (LayoutError, UnreadableMemory):
            continue
    heap = find_heap(allocator, make_memory)
    return HeapIndex(make_memory(), heap.layout, heap.bins, heap.arenas, heap.tcaches)


def index_of(memory: Memory, layout: Layout) -> HeapIndex:
    """The index of the jemalloc at ``layout``; what of it is missing is not known to it."""
    return _index(memory, layout, Coverage())


def _index(memory: Memory, layout: Layout, coverage: Coverage) -> HeapIndex:
    require_root(memory, layout.rtree)
    bins = find_bins(memory, layout, coverage)
    arenas, _ = walk_arenas(memory, layout, bins, coverage)
    statistics = any(arena.base_allocated for arena in arenas)
    tcaches = walk_tcaches(memory, layout, arenas, statistics, coverage)
    return HeapIndex(memory, layout, bins, arenas, tcaches)


def _agrees(index: HeapIndex) -> bool:
    """Whether the slabs that bins allocate from, and what caches hold, are what they must be.

    Each such slab must be of the bin's arena, class and shard, be where the tree has it, and
    have as many free regions by its bitmap as by its count.
    """
    agreed = 0
    for edata, place in _current_slabs(index):
        slab = index._extent(edata)
        if slab is None or not slab.slab or (slab.arena, slab.szind, slab.shard) != place:
            return False
        listed = index.extent_at(slab.start)
        if listed is None or listed.edata != edata:
            return False
        if popcount(index.free_regions(slab)) != slab.nfree:
            return False
        agreed += 1
    return agreed > 1 and not index.tcaches.unreadable and _caches_agree(index)


def _current_slabs(index: HeapIndex) -> Iterator[Tuple[int, Tuple[int, int, int]]]:
    """The extents that bins allocate from, with the arena, class and shard of the bin."""
    layout, left = index.layout, PLACES
    for arena in index.arenas:
        shards = bin_shards(index.memory, layout.arena, layout.bin, arena.address, index.bins)
        for szind, shard, at in shards:
            slab = index.memory.u64(at + layout.bin.slabcur)
            if slab:
                left -= 1
                yield slab, (arena.index, szind, shard)
            if not left:
                return


def _caches_agree(index: HeapIndex) -> bool:
    for region in index.tcaches.regions[:PLACES]:
        extent = index.extent_at(region.pointer)
        if extent is None or extent.state != ACTIVE or extent.szind != region.szind:
            return False
    return True
