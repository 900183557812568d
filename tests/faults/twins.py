"""Whole heaps whose truth is known, and where each of their structures lies."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from drain_gdb.debuggee import recording
from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.recording import Recording, RecordingTarget
from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout.bins import BinInfo, bin_shards
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import CountedCaches, Layout, Positions, StackedCaches
from drain_gdb.memory import Memory
from tests.support.fakeheap import ACTIVE, DIRTY, MUZZY, RETAINED, FakeHeap

WORD, INT, SHORT = 8, 4, 2
PAGE = 4096
NEAR = 1 << 16
"""Gaps of a recording up to here are bytes of the same mapping."""


class Spot(NamedTuple):
    """A field of one of jemalloc's structures."""

    address: int
    size: int


Row = Tuple[int, int, int, int, int, int]
"""Address, arena, size class, shard, free and cached regions of a slab."""


def rows_of(heap: Heap) -> List[Row]:
    """The slabs of a heap with all that counts, by address."""
    slabs = heap.slabs
    kinds = map(slabs.kinds.__getitem__, slabs.kind)
    found = [
        (address, *kind, slabs.cached.get(row, 0))
        for row, (address, kind) in enumerate(zip(slabs.address, kinds))
    ]
    return sorted(found)


@dataclass
class Twin:
    """A heap without damage.

    Attributes:
        target: its memory and all that is said of it.
        layout, bins: of its one jemalloc.
        caches: its thread caches' descriptors.
        status: what the self-check says of it: exact, or unavailable.
        rows: its slabs.
        reads, size: what a sweep of it costs: reads of the target and their bytes.
        spots: kind of structure to its fields.

    """

    target: Target
    layout: Layout = field(init=False)
    bins: Sequence[BinInfo] = field(init=False)
    caches: List[int] = field(init=False)
    status: str = field(init=False)
    rows: List[Row] = field(init=False)
    reads: int = 0
    size: int = 0
    spots: Dict[str, List[Spot]] = field(init=False)

    def __post_init__(self) -> None:
        def read(address: int, size: int) -> bytes:
            self.reads += 1
            self.size += size
            return self.target.read(address, size)

        (heap,), refused = find_heaps(self.target, lambda: Memory(read))
        assert not refused
        assert heap.verification.status in ("exact", "unavailable")
        self.layout, self.bins = heap.layout, heap.bins
        self.caches = list(heap.tcaches.descriptors)
        self.status = heap.verification.status
        self.rows = rows_of(heap)
        self.spots = {}
        for kind, spots in _spots(self.target, heap):
            # A recording lacks what a sweep does not read.
            self.spots[kind] = [spot for spot in spots if self._has(spot)]

    def _has(self, spot: Spot) -> bool:
        try:
            self.target.read(spot.address, spot.size)
        except UnreadableMemory:
            return False
        return True


# -- where they come from --------------------------------------------------------------


class FilledTarget(RecordingTarget):
    """A recording as memory: what lies between its ranges is there too.

    Whole pages are zero, as fresh ones are; the rest of a structure is anything.
    """

    def __init__(self, found: Recording) -> None:
        super().__init__(found)
        self._chance = random.Random(1)
        self._blocks: List[bytearray] = []
        self._begin: List[int] = []
        end = 0
        for start, size, at in zip(found.starts, found.sizes, found.offsets):
            if not self._blocks or start - end > NEAR:
                self._begin.append(start & -PAGE)
                self._blocks.append(bytearray(self._filler(start % PAGE)))
            block = self._blocks[-1]
            block += self._filler(start - self._begin[-1] - len(block))
            block += found.data[at : at + size]
            end = start + size
        for each in self._blocks:
            each.extend(self._filler(-len(each) % PAGE))

    def _filler(self, size: int) -> bytes:
        return bytes(size) if size >= PAGE else self._chance.randbytes(size)

    def read(self, address: int, size: int) -> bytes:
        row = bisect_right(self._begin, address) - 1
        if row >= 0:
            at = address - self._begin[row]
            if at + size <= len(self._blocks[row]):
                return bytes(self._blocks[row][at : at + size])
        raise UnreadableMemory(address, size, "it was not recorded")


def of_recording(path: Path, filled: bool) -> Twin:
    """The heap of a recording, as it is replayed or as memory that is all there."""
    found = recording.read(str(path))
    return Twin(FilledTarget(found) if filled else RecordingTarget(found))


def of_core(path: Path) -> Twin:
    """The heap of a core, read directly."""
    return Twin(CoreTarget(File(str(path))))


BUILDS = {
    "usual": Parameters(12, 4, 48),
    "57-bit addresses": Parameters(12, 3, 57),
    "16k pages": Parameters(14, 4, 48),
}


def made(name: str) -> Twin:
    """A heap written by hand, for one of ``BUILDS``, with all there is."""
    parameters = BUILDS[name]
    fake = FakeHeap(parameters, arenas=(0, 3), shards=2)
    slabs: Dict[int, List[int]] = defaultdict(list)
    for number in range(240):
        szind = (0, 1, 3, 7)[number % 4]
        nregs = fake.bins[szind][2]
        used = range(0, nregs, 1 + number % 5)
        arena, shard = 3 * (number % 3 == 0), number % 2
        slabs[szind].append(fake.slab(szind, used, arena, shard, gap=(number == 100) << 31))
    for number, state in enumerate((ACTIVE, DIRTY, MUZZY, RETAINED) * 6):
        szind = parameters.nbins if state == ACTIVE else None
        fake.extent(5 + number, state, szind, arena=3 * (number % 2))
    for number in range(6):
        held = {szind: found[number * 4 : number * 4 + 3] for szind, found in slabs.items()}
        stashed = {1: [slabs[1][40 + number]]}
        fake.cache(3 * (number % 2), held, stashed, requests=7)
    return Twin(fake.target())


# -- where its structures lie ----------------------------------------------------------


def _spots(target: Target, heap: Heap) -> Iterator[Tuple[str, List[Spot]]]:
    memory = Memory(target.read)
    layout = heap.layout
    leaves = list(_leaves(memory, layout))
    yield "rtree: root and nodes", list(_nodes(memory, layout))
    elements = [spot for leaf in leaves for spot in leaf]
    yield "rtree: leaf elements", elements
    mask = layout.rtree.pointer_mask
    extents = dict.fromkeys(memory.u64(spot.address) & mask for spot in elements)
    extents.pop(0, None)
    at = layout.extent
    for name, offset, size in (
        ("e_bits", at.bits, WORD),
        ("address", at.address, WORD),
        ("size", at.size_and_esn, WORD),
        ("bitmap", at.bitmap, 8 * WORD),
    ):
        yield f"extents: {name}", [Spot(edata + offset, size) for edata in extents]
    yield from _arenas(memory, heap)
    yield from _caches(memory, heap)


def _nodes(memory: Memory, layout: Layout, level: int = 0, node: int = 0) -> Iterator[Spot]:
    """The present children of the root and of the nodes between it and the leaves."""
    start = node or layout.rtree.root
    for index, child in enumerate(memory.words(start, 1 << layout.rtree.bits[level])):
        if child:
            yield Spot(start + index * WORD, WORD)
            if level < len(layout.rtree.bits) - 2:
                yield from _nodes(memory, layout, level + 1, child)


def _leaves(memory: Memory, layout: Layout) -> Iterator[List[Spot]]:
    """The present elements of each leaf."""
    level = len(layout.rtree.bits) - 2
    above = [layout.rtree.root]
    for depth in range(level):
        above = [c for n in above for c in memory.words(n, 1 << layout.rtree.bits[depth]) if c]
    step = layout.rtree.leaf_words * WORD
    for node in above:
        for leaf in memory.words(node, 1 << layout.rtree.bits[level]):
            if leaf:
                block = memory.block(leaf, step << layout.rtree.bits[-1])
                yield [
                    Spot(address, WORD)
                    for address, word in block.nonzero_words()
                    if (address - leaf) % step == 0 and word & layout.rtree.pointer_mask
                ]


def _arenas(memory: Memory, heap: Heap) -> Iterator[Tuple[str, List[Spot]]]:
    layout = heap.layout
    at = layout.arena
    yield (
        "arenas: table",
        [Spot(at.table + WORD * arena.index, WORD) for arena in heap.arenas],
    )
    where: Dict[str, List[Spot]] = defaultdict(list)
    for arena in heap.arenas:
        base = memory.u64(arena.address + at.base)
        own = base if at.index_in_base else arena.address
        where["arenas: index"].append(Spot(own + at.index, INT))
        where["arenas: base"].append(Spot(arena.address + at.base, WORD))
        if heap.statistics:
            where["arenas: base"].append(Spot(base + at.base_allocated, WORD))
            where["rings: heads"].append(Spot(arena.address + at.descriptors, WORD))
            if at.caches is not None:
                where["rings: heads"].append(Spot(arena.address + at.caches, WORD))
        pages = [offset for offsets in at.cached_pages.values() for offset in offsets]
        for offset in (at.nactive, *pages):
            where["arenas: page counters"].append(Spot(arena.address + offset, WORD))
        for row in range(0, at.large_count, 7):
            start = arena.address + at.large + row * at.large_size
            where["arenas: large counters"].append(Spot(start + at.large_nmalloc, WORD))
        for _, _, address in bin_shards(memory, at, layout.bin, arena.address, heap.bins):
            for name, offset in layout.bin.stats.items():
                kind = "own counts" if name in ("curslabs", "curregs") else "event counters"
                where[f"bins: {kind}"].append(Spot(address + offset, WORD))
            where["bins: slabs with room"].append(Spot(address + layout.bin.slabcur, WORD))
            where["bins: slabs with room"].append(Spot(address + layout.bin.slabs_nonfull, WORD))
        if at.bins_by_pointer:
            rows = range(len(heap.bins))
            where["arenas: bins"] += [Spot(arena.address + at.bins + WORD * r, WORD) for r in rows]
    info = layout.bin_info
    for index in range(len(heap.bins)):
        start = info.address + index * info.size
        for offset, size in ((info.reg_size, WORD), (info.slab_size, WORD), (info.nregs, INT)):
            where["bin infos"].append(Spot(start + offset, size))
        if info.n_shards is not None:
            where["bin infos"].append(Spot(start + info.n_shards, INT))
    yield from where.items()


def _caches(memory: Memory, heap: Heap) -> Iterator[Tuple[str, List[Spot]]]:
    layout = heap.layout.tcache
    if isinstance(layout, CountedCaches) and not heap.statistics:
        layout = layout.own
    where: Dict[str, List[Spot]] = defaultdict(list)
    for descriptor in heap.tcaches.descriptors:
        if heap.statistics:
            where["rings: links"].append(Spot(descriptor + layout.next, WORD))
            if layout.previous is not None:
                where["rings: links"].append(Spot(descriptor + layout.previous, WORD))
            if layout.link is not None:
                start = descriptor - layout.descriptor + layout.link
                where["rings: links"] += [Spot(start, WORD), Spot(start + WORD, WORD)]
        for kind, spot in _cache(memory, layout, descriptor):
            where[f"caches: {kind}"].append(spot)
    yield from where.items()


def _cache(
    memory: Memory, layout: StackedCaches | CountedCaches, descriptor: int
) -> Iterator[Tuple[str, Spot]]:
    """The fields of one thread cache: pointers, stacks' bounds and tops, slots in use or not."""
    for stack in stacks(memory.u64, memory.u16, memory.u32, layout, descriptor):
        yield "tops of stacks", stack.top
        for spot in stack.bounds:
            yield "bounds of stacks", spot
        for address in range(stack.start, stack.end, WORD):
            used = stack.held_from <= address or address < stack.stashed_to
            kind = "cached regions" if used else "slots past the top"
            if used or address >= stack.held_from - 4 * WORD:
                yield kind, Spot(address, WORD)
    if isinstance(layout, StackedCaches):
        yield "pointers", Spot(descriptor + layout.tcache, WORD)
        yield "pointers", Spot(descriptor + layout.stack, WORD)
        if layout.nbins is not None:
            yield "pointers", Spot(descriptor + layout.nbins, INT)
        if layout.back is not None:
            yield "pointers", Spot(memory.u64(descriptor + layout.tcache) + layout.back, WORD)
    elif layout.by_pointer:
        yield "pointers", Spot(descriptor + layout.small, WORD)
        yield "pointers", Spot(descriptor + layout.large, WORD)


class Stack(NamedTuple):
    """The stack of one cache bin.

    Attributes:
        szind: size class.
        start, end: of its slots.
        stashed_to, held_from: slots before the one and from the other on are in use.
        low_water: the slot that its low water mark points at.
        top, bounds: the fields that say so.
    """

    szind: int
    start: int
    end: int
    stashed_to: int
    held_from: int
    low_water: int
    top: Spot
    bounds: Tuple[Spot, ...]


Read = Callable[[int], int]


def stacks(
    u64: Read, u16: Read, u32: Read, layout: StackedCaches | CountedCaches, descriptor: int
) -> Iterator[Stack]:
    """The stacks of the cache at ``descriptor``, which is not damaged."""
    if isinstance(layout, CountedCaches):
        places = _places(u64, layout, descriptor)
        if layout.positions is not None:
            number = u16 if layout.positions.size == SHORT else u32
            yield from _positioned(u64, number, layout, layout.positions, places)
        else:
            yield from _counted(u64, u32, layout, places)
        return
    bins = u64(descriptor + layout.tcache) + layout.bins
    start = u64(descriptor + layout.stack) + layout.leading
    count = layout.nbins_max if layout.nbins is None else u32(descriptor + layout.nbins)
    for szind in range(count):
        at = bins + szind * layout.bin_size
        head = u64(at + layout.head)
        low_empty, low_full = u16(at + layout.low_bits_empty), u16(at + layout.low_bits_full)
        if low_empty == low_full == head & 0xFFFF and not start <= head <= start + 0xFFFF:
            continue
        end = start + (low_empty - start & 0xFFFF)
        water = end
        bounds = [Spot(at + layout.low_bits_full, SHORT), Spot(at + layout.low_bits_empty, SHORT)]
        if layout.low_water is not None:
            water = start + (u16(at + layout.low_water) - start & 0xFFFF)
            bounds.append(Spot(at + layout.low_water, SHORT))
        yield Stack(
            szind=szind,
            start=start,
            end=end,
            stashed_to=start + (low_full - start & 0xFFFF),
            held_from=head,
            low_water=water,
            top=Spot(at + layout.head, WORD),
            bounds=tuple(bounds),
        )
        start = end
        if layout.nbins is None and u64(start) == layout.trailing:
            return


def _places(u64: Read, layout: CountedCaches, element: int) -> List[int]:
    """The addresses of the bins of a cache, those of small classes first."""
    small, large = element + layout.small, element + layout.large
    if layout.by_pointer:
        small, large = u64(small), u64(large)
    places = [small + index * layout.bin_size for index in range(layout.nsmall)]
    return places + [large + index * layout.bin_size for index in range(layout.nlarge)]


def _counted(u64: Read, u32: Read, layout: CountedCaches, places: Sequence[int]) -> Iterator[Stack]:
    for szind, at in enumerate(places):
        avail, ncached = u64(at + layout.avail), u32(at + layout.ncached)
        if not avail:
            continue
        water, bounds = avail, [Spot(at + layout.avail, WORD)]
        if layout.low_water is not None:
            mark = u32(at + layout.low_water)
            water = avail - WORD * (0 if mark == 0xFFFF_FFFF else mark)
            bounds.append(Spot(at + layout.low_water, INT))
        held = avail - ncached * WORD
        top = Spot(at + layout.ncached, INT)
        yield Stack(szind, held, avail, held, held, water, top, tuple(bounds))


def _positioned(
    u64: Read, number: Read, layout: CountedCaches, positions: Positions, places: Sequence[int]
) -> Iterator[Stack]:
    """Stacks that are known by the low bits of their ends, each behind the one before."""
    mask, room = (1 << 8 * positions.size) - 1, 0
    used = [(szind, at, u64(at + layout.avail)) for szind, at in enumerate(places)]
    used = [(szind, at, top) for szind, at, top in used if top]
    starts = [top - (top - number(at + positions.full) & mask) for _, at, top in used]
    for row, ((szind, at, top), start) in enumerate(zip(used, starts)):
        bounds = [Spot(at + positions.full, positions.size)]
        if positions.empty is not None:
            end = top + (number(at + positions.empty) - top & mask)
            bounds.append(Spot(at + positions.empty, positions.size))
        else:
            # The last one has as much room as the one before.
            end = starts[row + 1] if row + 1 < len(starts) else start + room
        water = end
        if layout.low_water is not None:
            water = top + (number(at + layout.low_water) - top & mask)
            bounds.append(Spot(at + layout.low_water, positions.size))
        room = end - start
        yield Stack(
            szind, start, end, start, top, water, Spot(at + layout.avail, WORD), tuple(bounds)
        )


def pages_of(spots: Sequence[Spot]) -> List[int]:
    """The pages that the fields lie in."""
    return sorted({spot.address & -PAGE for spot in spots})
