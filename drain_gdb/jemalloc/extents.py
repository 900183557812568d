"""From the rtree to columns: every active slab, every other extent.

The leaf's tags choose nothing here.  An extent's own ``e_bits`` says what it is:
a leaf element may keep a stale slab bit at the last page of a large extent
(emap_remap() leaves the end boundary alone, emap.c 5.3.0) or on a dirty one.

Extents are read in runs of neighbouring ``edata_t`` and looked at through C-level
maps over distinct values; there is no loop over fields.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import compress, count, islice, repeat
from operator import add, and_, gt, itemgetter, ne, rshift, sub
from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import (
    ACTIVE,
    HPA_CACHED,
    CachedRegion,
    Coverage,
    ExtentKind,
    Extents,
    SlabKind,
    Slabs,
)
from drain_gdb.jemalloc.rtree import Rtree
from drain_gdb.layout.bins import BinInfo
from drain_gdb.layout.records import Layout
from drain_gdb.memory import WORD, Memory, words_of

GAP = 1 << 16
"""Extents further apart than this are read separately."""
RUN_MAX = 1 << 20
"""Bytes of extents looked at together; what is kept of them meanwhile is small."""
LG_WORD = 3
NOT_A_SLAB = -1


def _popcount(value: int) -> int:
    return bin(value).count("1")


popcount = getattr(int, "bit_count", _popcount)
"""int.bit_count, which Python has from 3.10."""
from_bytes: Callable[[bytes, str], int] = int.from_bytes  # type: ignore[assignment]


class ExtentWalk:
    """One pass over the rtree.

    Attributes (filled by :meth:`run`):
        slabs, extents: the columns.
        large_cached: ``[count, bytes]`` of large allocations in thread caches.
        held, placed: cached regions by size class: all of them, each once, and
            those that were found in an extent of that class.
        miscounted: ``(arena, szind)`` to slabs whose bitmap contradicts nfree.
    """

    def __init__(
        self,
        memory: Memory,
        layout: Layout,
        bins: Sequence[BinInfo],
        coverage: Coverage,
    ) -> None:
        self._memory = memory
        self._layout = layout
        self._bins = bins
        self._coverage = coverage
        self._rtree = Rtree(memory, layout.rtree, coverage)
        self.slabs = Slabs()
        self.extents = Extents()
        self.large_cached = [0, 0]
        self.held: Counter[int] = Counter()
        self.placed: Counter[int] = Counter()
        self.miscounted: Counter[Tuple[int, int]] = Counter()
        # e_bits word -> index into slabs.kinds or, from the other side, extents.kinds
        self._slab_kind: Dict[int, int] = {}
        self._extent_kind: Dict[int, int] = {}
        self._known_slab: Dict[SlabKind, int] = {}
        self._known_extent: Dict[ExtentKind, int] = {}
        self._bitmap_bytes: List[int] = []
        self._nfree: List[int] = []

    def run(self, held: Sequence[CachedRegion]) -> None:
        """Walk the whole tree; ``held`` are the regions that thread caches hold."""
        wanted = self._locate(held)
        done: Set[int] = set()
        for base, elements in self._rtree.leaves():
            # In page order most extents stand in the order they were made, and sort fast.
            mask = self._layout.rtree.pointer_mask
            pointers = dict.fromkeys(map(and_, elements, repeat(mask)))
            pointers.pop(0, None)
            for run in _runs(sorted(pointers)):
                self._take(run, base, wanted, done)
        for edata, entries in wanted.items():
            if edata not in done:
                for entry in entries:
                    self._misplaced(entry, "its page belongs to no walked extent")

    # -- regions in thread caches -------------------------------------------------

    def _locate(self, held: Sequence[CachedRegion]) -> Dict[int, List[CachedRegion]]:
        """Cached regions by the extent that the rtree says holds their page."""
        wanted: Dict[int, List[CachedRegion]] = defaultdict(list)
        seen: Dict[int, CachedRegion] = {}
        extents: Dict[int, int] = {}
        page = self._layout.parameters.page
        for region in held:
            before = seen.setdefault(region.pointer, region)
            if before is not region:
                self._coverage.anomaly(
                    f"double free: {region.pointer:#x} is cached twice"
                    f" (thread caches {before.tcache} and {region.tcache})"
                )
                continue
            self.held[region.szind] += 1
            edata = self._extent_of(region.pointer // page, extents)
            if not edata:
                self._misplaced(region, "no extent holds it")
            else:
                wanted[edata].append(region)
        return wanted

    def _extent_of(self, page: int, known: Dict[int, int]) -> int:
        """The extent that the rtree says holds page number ``page``; 0 if none."""
        if page not in known:
            try:
                element = self._rtree.element(page * self._layout.parameters.page)
            except UnreadableMemory:
                element = 0
            known[page] = element & self._layout.rtree.pointer_mask
        return known[page]

    def _misplaced(self, region: CachedRegion, why: str) -> None:
        self._coverage.anomaly(
            f"thread cache {region.tcache} holds {region.pointer:#x}"
            f" for size class {region.szind}: {why}"
        )

    # -- extents ------------------------------------------------------------------

    def _take(
        self,
        run: List[int],
        base: int,
        wanted: Mapping[int, Sequence[CachedRegion]],
        done: Set[int],
    ) -> None:
        """Read one run of ``edata_t`` and add its rows that begin in this leaf."""
        layout = self._layout.extent
        block = self._memory.records(run, layout.size)
        if block.holes:
            readable = [edata for edata in run if block.has(edata, layout.size)]
            self._coverage.slabs_unreadable += len(run) - len(readable)
            run = readable
            if not run:
                return
        words = words_of(block.data)
        first = block.address
        at = list(map(rshift, map(sub, run, repeat(first)), repeat(LG_WORD)))
        addresses = _pick(words, at, layout.address)
        span = self._layout.rtree.leaf_span
        if min(addresses) < base or max(addresses) >= base + span:
            keep = [base <= address < base + span for address in addresses]
            self._strays(list(compress(zip(run, addresses), (not k for k in keep))), base)
            run, at = list(compress(run, keep)), list(compress(at, keep))
            addresses = list(compress(addresses, keep))
            if not run:
                return
        bits = _pick(words, at, layout.bits)
        self._learn(set(bits))
        kinds = list(map(self._slab_kind.__getitem__, bits))
        if NOT_A_SLAB in kinds:
            self._take_others(words, at, addresses, bits, kinds)
            is_slab = list(map(ne, kinds, repeat(NOT_A_SLAB)))
            self._hold_large(run, is_slab, at, addresses, words, wanted, done)
            run, at = list(compress(run, is_slab)), list(compress(at, is_slab))
            addresses = list(compress(addresses, is_slab))
            kinds = list(compress(kinds, is_slab))
        row = len(self.slabs)
        self.slabs.address.extend(addresses)
        self.slabs.kind.extend(kinds)
        bitmaps = self._bitmaps(block.data, words, at, kinds)
        counts = map(popcount, bitmaps)
        if any(map(ne, counts, map(self._nfree.__getitem__, kinds))):
            self._miscounted(addresses, bitmaps, kinds)
        for edata in _within(wanted, run):
            index = bisect_left(run, edata)
            done.add(edata)
            self._hold(row + index, wanted[edata], bitmaps[index])

    def _bitmaps(
        self, data: bytes, words: Sequence[int], at: List[int], kinds: List[int]
    ) -> List[int]:
        """The bitmap of each slab as one number; a set bit is a free region."""
        offset = self._layout.extent.bitmap
        bitmaps = _pick(words, at, offset)
        if all(self._bitmap_bytes[kind] == WORD for kind in set(kinds)):
            return bitmaps
        lengths = list(map(self._bitmap_bytes.__getitem__, kinds))
        for row in compress(count(), map(gt, lengths, repeat(WORD))):
            start = at[row] * WORD + offset
            bitmaps[row] = from_bytes(data[start : start + lengths[row]], "little")
        return bitmaps

    def _strays(self, strays: Sequence[Tuple[int, int]], base: int) -> None:
        """Extents seen in a leaf that does not cover their first page.

        Those that reach into it from the leaf before are taken there; any other
        is a sign of corruption.
        """
        layout = self._layout.extent
        page_mask = -self._layout.parameters.page
        for edata, address in strays:
            size = self._memory.u64(edata + layout.size_and_esn) & page_mask
            if not address < base < address + size:
                self._coverage.anomaly(
                    f"extent {edata:#x} says it begins at {address:#x}, but the rtree"
                    f" lists it under {base:#x}"
                )

    def _learn(self, seen: Set[int]) -> None:
        """Decode the ``e_bits`` words not met before."""
        layout = self._layout.extent
        for bits in seen - self._slab_kind.keys():
            arena, state, szind = (f.of(bits) for f in (layout.arena, layout.state, layout.szind))
            self._slab_kind[bits] = NOT_A_SLAB
            if state == ACTIVE and szind >= self._layout.parameters.nsizes:
                state = HPA_CACHED
            if layout.slab.of(bits) and state == ACTIVE:
                if szind < len(self._bins) and layout.nfree.of(bits) <= self._bins[szind].nregs:
                    kind = SlabKind(arena, szind, layout.shard.of(bits), layout.nfree.of(bits))
                    self._slab_kind[bits] = self._slab_index(kind)
                    continue
                self._coverage.anomaly(f"e_bits {bits:#x} is no possible slab")
            extent = ExtentKind(arena, state, szind)
            known = self._known_extent
            self._extent_kind[bits] = known.setdefault(extent, len(known))
            self.extents.kinds = list(known)

    def _slab_index(self, kind: SlabKind) -> int:
        if kind not in self._known_slab:
            self._known_slab[kind] = len(self.slabs.kinds)
            self.slabs.kinds.append(kind)
            self._nfree.append(kind.nfree)
            nregs = self._bins[kind.szind].nregs
            self._bitmap_bytes.append(-(-nregs // 64) * WORD)
        return self._known_slab[kind]

    def _take_others(
        self,
        words: Sequence[int],
        at: Sequence[int],
        addresses: Sequence[int],
        bits: Sequence[int],
        kinds: Sequence[int],
    ) -> None:
        page_mask = -self._layout.parameters.page
        offset = self._layout.extent.size_and_esn // WORD
        for index, address, e_bits, kind in zip(at, addresses, bits, kinds):
            if kind == NOT_A_SLAB:
                # Large extents begin at a random offset in their first page
                # where jemalloc is cache-oblivious (extent_addr_randomize()).
                self.extents.address.append(address & page_mask)
                self.extents.size.append(words[index + offset] & page_mask)
                self.extents.kind.append(self._extent_kind[e_bits])

    def _miscounted(
        self, addresses: Sequence[int], bitmaps: Sequence[int], kinds: Sequence[int]
    ) -> None:
        """Report the slabs whose nfree is not their bitmap's count of free regions."""
        for address, bitmap, kind in zip(addresses, bitmaps, kinds):
            found = self.slabs.kinds[kind]
            free = popcount(bitmap & (1 << self._bins[found.szind].nregs) - 1)
            if free != found.nfree:
                self.miscounted[found.arena, found.szind] += 1
                self._coverage.anomaly(
                    f"slab {address:#x} says {found.nfree} regions are free, its bitmap says {free}"
                )

    # -- cached regions meet their extents ------------------------------------------

    def _hold(self, row: int, entries: Sequence[CachedRegion], bitmap: int) -> None:
        """Count the regions of one slab that thread caches hold."""
        address = self.slabs.address[row]
        szind = self.slabs.kinds[self.slabs.kind[row]].szind
        info = self._bins[szind]
        for region in entries:
            number, rest = divmod(region.pointer - address, info.reg_size)
            if region.szind != szind:
                self._misplaced(region, f"it lies in a slab of size class {szind}")
            elif rest or not 0 <= number < info.nregs:
                self._misplaced(region, f"no region of slab {address:#x} begins there")
            elif bitmap >> number & 1:
                self.held[szind] -= 1
                self._coverage.anomaly(
                    f"double free: thread cache {region.tcache} holds {region.pointer:#x},"
                    f" which slab {address:#x} has free already"
                )
            else:
                self.placed[szind] += 1
                self.slabs.cached[row] = self.slabs.cached.get(row, 0) + 1

    def _hold_large(
        self,
        run: Sequence[int],
        is_slab: Sequence[bool],
        at: Sequence[int],
        addresses: Sequence[int],
        words: Sequence[int],
        wanted: Mapping[int, Sequence[CachedRegion]],
        done: Set[int],
    ) -> None:
        page_mask = -self._layout.parameters.page
        offset = self._layout.extent.size_and_esn // WORD
        for edata in _within(wanted, run):
            index = bisect_left(run, edata)
            if is_slab[index]:
                continue
            done.add(edata)
            size = words[at[index] + offset] & page_mask
            bits = words[at[index] + self._layout.extent.bits // WORD]
            kind = self.extents.kinds[self._extent_kind[bits]]
            for region in wanted[edata]:
                if kind.state != ACTIVE or region.szind != kind.szind:
                    self._misplaced(region, f"the extent {addresses[index]:#x} is no such one")
                elif region.pointer != addresses[index]:
                    self._misplaced(region, f"extent {addresses[index]:#x} begins elsewhere")
                else:
                    self.placed[kind.szind] += 1
                    self.large_cached[0] += 1
                    self.large_cached[1] += size


def _runs(pointers: List[int]) -> Iterator[List[int]]:
    """Split sorted addresses where the gap or the run grows too large."""
    gaps = map(sub, islice(pointers, 1, None), pointers)
    ends = compress(count(1), map(gt, gaps, repeat(GAP)))
    start = 0
    for end in [*ends, len(pointers)]:
        while start < end:
            stop = bisect_left(pointers, pointers[start] + RUN_MAX, start, end)
            yield pointers[start:stop]
            start = stop


def _pick(words: Sequence[int], at: List[int], offset: int) -> List[int]:
    """``words`` at each index of ``at``, ``offset`` bytes on."""
    step = offset // WORD
    indices = list(map(add, at, repeat(step))) if step else at
    if len(indices) < 2:  # itemgetter() takes at least one, and gives a tuple from two
        return [words[index] for index in indices]
    return list(itemgetter(*indices)(words))


def _within(wanted: Mapping[int, object], run: Sequence[int]) -> List[int]:
    """The keys of ``wanted`` that ``run``, sorted, contains."""
    if not run or not wanted:
        return []
    if len(wanted) < len(run):
        keys = (k for k in wanted if run[0] <= k <= run[-1])
        return [k for k in keys if run[min(bisect_left(run, k), len(run) - 1)] == k]
    return [edata for edata in run if edata in wanted]
