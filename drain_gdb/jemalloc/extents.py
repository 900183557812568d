"""From the rtree to columns: every active slab, every other extent.

The leaf's tags choose nothing here.  An extent's own ``e_bits`` says what it is:
a leaf element may keep a stale slab bit at the last page of a large extent
(emap_remap() leaves the end boundary alone, emap.c 5.3.0) or on a dirty one.  But those
of a slab's first page must say that it is one.

Extents are read in runs of neighbouring ``edata_t`` and looked at through strided
slices and C-level maps over distinct values; there is no loop over fields.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from itertools import compress, count, repeat
from operator import itemgetter, rshift, sub
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)
from weakref import WeakMethod

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
from drain_gdb.jemalloc.leaves import RUN_MAX, Leaf
from drain_gdb.jemalloc.rtree import Rtree, Stretch
from drain_gdb.layout.bins import BinInfo
from drain_gdb.layout.records import Layout, RtreeLayout
from drain_gdb.memory import WORD, Block, Memory

LG_WORD = 3
NOT_A_SLAB = -1
REMEMBERED_RUN_MAX = 1 << 17
"""Bytes of extents looked at together where they are remembered: what has changed is less."""
STALE_MOST, STALE_LEAST = 4, 1000
"""Kinds of slabs that are remembered, of those that there are and beyond."""
Stretches = List[Tuple[int, bytes]]


def _popcount(value: int) -> int:
    return bin(value).count("1")


popcount = getattr(int, "bit_count", _popcount)
"""int.bit_count, which Python has from 3.10."""
from_bytes: Callable[[bytes, str], int] = int.from_bytes  # type: ignore[assignment]


Column = TypeVar("Column", List[int], "array[int]", bytes)


class ExtentWalk:
    """One pass over the rtree.

    Attributes (``bins`` is given, the others are filled by :meth:`run`):
        slabs, extents: the columns.
        large_cached: ``[count, bytes]`` of large allocations in thread caches.
        held, placed: cached regions by size class: all of them, each once, and
            those that were found in an extent of that class.
        miscounted: ``(arena, szind)`` to slabs whose bitmap contradicts nfree.
        displaced: extents that are not what the rtree lists, or not where it does.
        live: the bitmap of the live regions of each slab, where they are to be kept.
    """

    def __init__(
        self,
        memory: Memory,
        layout: Layout,
        bins: Sequence[BinInfo],
        coverage: Coverage,
        keep: bool = False,
        memo: Optional[Memo] = None,
    ) -> None:
        self._memory = memory
        self._layout = layout
        self.bins = bins
        self._coverage = coverage
        self._rtree = Rtree(memory, layout.rtree, coverage)
        self.slabs = Slabs()
        self.extents = Extents()
        self.large_cached = [0, 0]
        self.held: Counter[int] = Counter()
        self.placed: Counter[int] = Counter()
        self.miscounted: Counter[Tuple[int, int]] = Counter()
        self.displaced = 0
        self.live: Optional[List[int]] = [] if keep else None
        # e_bits word -> index into slabs.kinds or, from the other side, extents.kinds
        self._slab_kind = _Learned(self._learn)
        self._extent_kind: Dict[int, int] = {}
        # Words of e_bits that say a slab which cannot be one: reported once in each walk.
        self._impossible: Set[int] = set()
        self._known_slab: Dict[SlabKind, int] = {}
        self._known_extent: Dict[ExtentKind, int] = {}
        # Of each kind of slab: bytes of its bitmap if it is longer than a word, else 0.
        self._long_bitmap: List[int] = []
        self._nfree: List[int] = []
        self._every: List[int] = []
        self._tags: List[int] = []
        self._memo = memo
        if memo is not None:
            self._remember(memo)

    def run(self, held: Sequence[CachedRegion]) -> None:
        """Walk the whole tree; ``held`` are the regions that thread caches hold."""
        wanted = _Wanted(self._locate(held))
        memo = self._memo
        for base, stretches in self._rtree.leaves():
            leaf = (
                Leaf(base, stretches, self._layout.rtree)
                if memo is None
                else memo.leaf(base, stretches, self._layout.rtree)
            )
            for edata in leaf.impossible:
                self._displace(f"the rtree lists an extent at {edata:#x}, where none can stand")
            for run in leaf.runs(RUN_MAX if memo is None else REMEMBERED_RUN_MAX):
                self._take(leaf.extents[run], leaf.pages[run], leaf.tags[run], base, wanted)
        for entry in wanted.rest():
            self._misplaced(entry, "its page belongs to no walked extent")
        if memo is not None:
            memo.keep(self.slabs, self.extents, self._slab_kind, self._extent_kind)

    def _remember(self, memo: Memo) -> None:
        """Know the kinds of slabs and extents that were met before, under the same numbers."""
        memo.begin()
        self.slabs.counted = Counter()
        for kind in memo.slab_kinds:
            self._slab_index(kind)
        self._slab_kind.update(memo.slab_kind)
        self.extents.kinds.extend(memo.extent_kinds)
        self._known_extent = {kind: number for number, kind in enumerate(memo.extent_kinds)}
        self._extent_kind.update(memo.extent_kind)
        self.extents.huge_pages = memo.huge_pages

    def _displace(self, anomaly: str) -> None:
        """Report an extent that is not what, or not where, the rtree has it."""
        self.displaced += 1
        self._coverage.anomaly(anomaly)

    # -- regions in thread caches -------------------------------------------------

    def _locate(self, held: Sequence[CachedRegion]) -> Dict[int, List[CachedRegion]]:
        """Cached regions by the extent that the rtree says holds their page."""
        wanted: Dict[int, List[CachedRegion]] = defaultdict(list)
        page_mask = -self._layout.parameters.page
        # By address: neighbours share a piece of a leaf, and extents.
        regions = sorted(held, key=itemgetter(0))
        elements = self._rtree.elements(region.pointer & page_mask for region in regions)
        before: Optional[CachedRegion] = None
        for region, element in zip(regions, elements):
            self.held[region.szind] += 1
            edata = element & self._layout.rtree.pointer_mask
            if before is not None and before.pointer == region.pointer:
                self._coverage.anomaly(
                    f"double free: {region.pointer:#x} is cached twice"
                    f" (thread caches {before.tcache} and {region.tcache})"
                )
            elif edata:
                wanted[edata].append(region)
            else:
                self._misplaced(region, "no extent holds it")
            before = region
        return wanted

    def _misplaced(self, region: CachedRegion, why: str) -> None:
        self._coverage.anomaly(
            f"thread cache {region.tcache} holds {region.pointer:#x}"
            f" for size class {region.szind}: {why}"
        )

    # -- extents ------------------------------------------------------------------

    def _take(
        self, run: array[int], pages: array[int], tags: bytes, base: int, wanted: _Wanted
    ) -> None:
        """Read one run of ``edata_t`` and add its rows that begin in this leaf.

        ``pages`` and ``tags`` are what the leaf says of each.
        """
        layout = self._layout.extent
        block = self._memory.records(run, layout.size)
        if self._memo is not None and not block.holes:
            known = self._memo.run(run, pages, tags, block.data)
            if known is not None:
                self._take_known(known, base, wanted)
                return
        whole = not block.holes
        if block.holes:
            lost = [row for row, edata in enumerate(run) if not block.has(edata, layout.size)]
            self._coverage.slabs_unreadable += len(lost)
            run, pages, tags = _without(run, lost), _without(pages, lost), _without(tags, lost)
            if not run:
                return
        records = _Records(block, run, layout.size)
        bits = records.words(layout.bits)
        found = _Found(
            run,
            pages,
            tags,
            list(map(self._slab_kind.__getitem__, bits)),
            records.words(layout.address),
            records.words(layout.bitmap),
        )
        rows = list(_rows_of(NOT_A_SLAB, found.kinds))
        others: List[_Other] = []
        if rows:
            sizes = records.words(layout.size_and_esn)
            for row in rows:
                other = _Other(run[row], bits[row], found.addresses[row], sizes[row], pages[row])
                others.append(other)
                self._take_other(other, base, wanted)
                whole = whole and other.bits not in self._impossible
            found = found.without(rows)
        if found.addresses != found.pages:
            places = zip(found.extents, found.addresses, found.pages)
            strays = [
                row
                for row, (edata, address, page) in enumerate(places)
                if address != page and not self._displaced(edata, address, page, base)
            ]
            found = found.without(strays)
            whole = False
        if tags and found.tags != bytes(map(self._tags.__getitem__, found.kinds)):
            self._mistagged(found)
            whole = False
        bitmaps = self._take_slabs(block, found, wanted)
        if self._memo is not None and whole and bitmaps is not None:
            kinds = array("I", found.kinds)
            known = _Known(run, pages, tags, block.data, found.extents, found.addresses, kinds)
            counts = Counter(kinds)
            self._memo.put(known._replace(bitmaps=bitmaps, others=others, counts=counts))

    def _take_known(self, known: _Known, base: int, wanted: _Wanted) -> None:
        """Add what was found in the same bytes before."""
        for other in known.others:
            self._take_other(other, base, wanted)
        row = len(self.slabs)
        self.slabs.address.extend(known.addresses)
        self.slabs.kind.extend(known.kinds)
        if self.slabs.counted is not None:
            self.slabs.counted.update(known.counts)
        self._hold_all(row, known.extents, known.bitmaps, wanted)

    def _mistagged(self, found: _Found) -> None:
        """Report slabs that the rtree, by which free() goes, has for something else."""
        for edata, kind, tag in zip(found.extents, found.kinds, found.tags):
            if tag != self._tags[kind]:
                self._displace(
                    f"extent {edata:#x} says it is a slab of size class"
                    f" {self._tags[kind]}, but its rtree element does not"
                )

    def _take_slabs(self, block: Block, found: _Found, wanted: _Wanted) -> Optional[Sequence[int]]:
        """Add the slabs ``found`` with their columns; their bitmaps, if these are right."""
        row = len(self.slabs)
        kinds = found.kinds
        self.slabs.address.extend(found.addresses)
        self.slabs.kind.extend(kinds)
        if self.slabs.counted is not None:
            self.slabs.counted.update(kinds)
        bitmaps = self._bitmaps(block, found)
        right = list(map(popcount, bitmaps)) == list(map(self._nfree.__getitem__, kinds))
        if not right:
            self._miscounted(found.addresses, bitmaps, kinds)
        if self.live is not None:
            every = map(self._every.__getitem__, kinds)
            self.live += [all_ & ~bitmap for all_, bitmap in zip(every, bitmaps)]
        self._hold_all(row, found.extents, bitmaps, wanted)
        return bitmaps if right else None

    def _hold_all(
        self, row: int, extents: Sequence[int], bitmaps: Sequence[int], wanted: _Wanted
    ) -> None:
        """Count the cached regions of slabs from ``row`` on, which ``extents`` are."""
        for edata, entries in wanted.within(extents):
            index = bisect_left(extents, edata)
            self._hold(row + index, entries, bitmaps[index])

    def _bitmaps(self, block: Block, found: _Found) -> Sequence[int]:
        """The bitmap of each slab as one number; a set bit is a free region."""
        lengths = list(map(self._long_bitmap.__getitem__, found.kinds))
        if not any(lengths):
            return found.first_words
        bitmaps = found.first_words.tolist()
        data, offset = block.data, self._layout.extent.bitmap - block.address
        rows = compress(count(), lengths)
        for row, edata, length in zip(
            rows, compress(found.extents, lengths), filter(None, lengths)
        ):
            start = edata + offset
            bitmaps[row] = from_bytes(data[start : start + length], "little")
        return bitmaps

    def _displaced(self, edata: int, address: int, page: int, base: int) -> bool:
        """Whether a slab or extent counts that does not begin at the page it is listed for.

        One that reaches into this leaf from the leaf before was taken there.  Any other
        is a sign of corruption: it counts where it says it begins in this leaf.
        """
        offset = self._layout.extent.size_and_esn
        size = self._memory.u64(edata + offset) & -self._layout.parameters.page
        if address < base < address + size:
            return False
        self._displace(
            f"extent {edata:#x} says it begins at {address:#x}, but the rtree lists it"
            f" for {page:#x}"
        )
        return base <= address < base + self._layout.rtree.leaf_span

    def _learn(self, bits: int) -> int:
        """The index of the kind of slab that a word of ``e_bits`` not met before means."""
        layout = self._layout.extent
        arena, state, szind = (f.of(bits) for f in (layout.arena, layout.state, layout.szind))
        if layout.pai is not None and layout.pai.of(bits) and state == ACTIVE:
            self.extents.huge_pages = True
        if state == ACTIVE and szind >= self._layout.parameters.nsizes:
            state = HPA_CACHED
        if layout.slab.of(bits) and state == ACTIVE:
            if szind < len(self.bins) and layout.nfree.of(bits) <= self.bins[szind].nregs:
                kind = SlabKind(arena, szind, layout.shard.of(bits), layout.nfree.of(bits))
                return self._slab_index(kind)
            self._impossible.add(bits)
            self._coverage.anomaly(f"e_bits {bits:#x} is no possible slab")
        extent = ExtentKind(arena, state, szind)
        known = self._known_extent
        self._extent_kind[bits] = known.setdefault(extent, len(known))
        if len(known) > len(self.extents.kinds):
            self.extents.kinds.append(extent)
        return NOT_A_SLAB

    def _slab_index(self, kind: SlabKind) -> int:
        if kind not in self._known_slab:
            self._known_slab[kind] = len(self.slabs.kinds)
            self.slabs.kinds.append(kind)
            self._nfree.append(kind.nfree)
            self._tags.append(kind.szind)
            nregs = self.bins[kind.szind].nregs
            self._every.append((1 << nregs) - 1)
            self._long_bitmap.append(-(-nregs // 64) * WORD if nregs > 64 else 0)
        return self._known_slab[kind]

    def _take_other(self, other: _Other, base: int, wanted: _Wanted) -> None:
        """Add an extent that is no slab."""
        edata, bits, address, size, listed = other
        page_mask = -self._layout.parameters.page
        # Large extents begin at a random offset in their first page where
        # jemalloc is cache-oblivious (extent_addr_randomize()).
        page = address & page_mask
        if page == listed or self._displaced(edata, page, listed, base):
            kind = self._extent_kind[bits]
            self.extents.address.append(page)
            self.extents.size.append(size & page_mask)
            self.extents.kind.append(kind)
            entries = wanted.take(edata)
            if entries:
                self._hold_large(self.extents.kinds[kind], address, size & page_mask, entries)

    def _miscounted(
        self, addresses: Sequence[int], bitmaps: Sequence[int], kinds: Sequence[int]
    ) -> None:
        """Report the slabs whose nfree is not their bitmap's count of free regions.

        The bits behind those of the last region are never set (bitmap_init(), bitmap.c).
        """
        for address, bitmap, kind in zip(addresses, bitmaps, kinds):
            found = self.slabs.kinds[kind]
            free = popcount(bitmap)
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
        info = self.bins[szind]
        for region in entries:
            number, rest = divmod(region.pointer - address, info.reg_size)
            if region.szind != szind:
                self._misplaced(region, f"it lies in a slab of size class {szind}")
            elif rest or not 0 <= number < info.nregs:
                self._misplaced(region, f"no region of slab {address:#x} begins there")
            elif bitmap >> number & 1:
                self._coverage.anomaly(
                    f"double free, or a flush under way: thread cache {region.tcache} holds"
                    f" {region.pointer:#x}, which slab {address:#x} has free already"
                )
            else:
                self.placed[szind] += 1
                self.slabs.cached[row] = self.slabs.cached.get(row, 0) + 1
                if self.live is not None:
                    self.live[row] &= ~(1 << number)

    def _hold_large(
        self, kind: ExtentKind, address: int, size: int, entries: Sequence[CachedRegion]
    ) -> None:
        """Count the large allocations that thread caches hold; of one extent, at most one."""
        for region in entries:
            if kind.state != ACTIVE or region.szind != kind.szind:
                self._misplaced(region, f"the extent {address:#x} is no such one")
            elif region.pointer != address:
                self._misplaced(region, f"extent {address:#x} begins elsewhere")
            else:
                self.placed[kind.szind] += 1
                self.large_cached[0] += 1
                self.large_cached[1] += size


class _Found(NamedTuple):
    """Extents of one run, column by column: where they stand, and what is said of each.

    ``pages`` and ``tags`` are the leaf's (see :class:`Leaf`), the rest its own:
    ``kinds`` of slabs, ``addresses``, ``first_words`` of bitmaps.
    """

    extents: array[int]
    pages: array[int]
    tags: bytes
    kinds: List[int]
    addresses: array[int]
    first_words: array[int]

    def without(self, rows: Sequence[int]) -> _Found:
        """All but some rows, ascending."""
        return _Found(
            _without(self.extents, rows),
            _without(self.pages, rows),
            _without(self.tags, rows),
            _without(self.kinds, rows),
            _without(self.addresses, rows),
            _without(self.first_words, rows),
        )


class _Other(NamedTuple):
    """An extent that is no slab: where it stands, its words, and the page it is listed for."""

    edata: int
    bits: int
    address: int
    size: int
    listed: int


class _Known(NamedTuple):
    """A run in which all was as it should be: what the leaf says, its bytes, what it holds.

    ``kinds`` are numbers of the memo's, ``counts`` how many slabs are of each.
    """

    run: array[int]
    pages: array[int]
    tags: bytes
    data: bytes
    extents: array[int]
    addresses: array[int]
    kinds: array[int]
    bitmaps: Sequence[int] = ()
    others: Sequence[_Other] = ()
    counts: Mapping[int, int] = {}


class Memo:
    """What a walk leaves to the next one of the same heap: what the same bytes mean.

    Whatever has other bytes is looked at anew; what is not met again is forgotten.

    Attributes:
        slab_kinds, extent_kinds: the kinds that were met, in the order of their numbers.
        slab_kind, extent_kind: words of e_bits to these numbers.
        huge_pages: as in :class:`~drain_gdb.jemalloc.heap.Extents`.

    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.slab_kinds: List[SlabKind] = []
        self.extent_kinds: List[ExtentKind] = []
        self.slab_kind: Dict[int, int] = {}
        self.extent_kind: Dict[int, int] = {}
        self.huge_pages = False
        self._leaves: Dict[int, Tuple[Stretches, Leaf]] = {}
        self._runs: Dict[int, _Known] = {}
        self._before: Tuple[Dict[int, Tuple[Stretches, Leaf]], Dict[int, _Known]] = {}, {}

    def begin(self) -> None:
        """A walk begins."""
        self._before = self._leaves, self._runs
        self._leaves, self._runs = {}, {}

    def leaf(self, base: int, stretches: Sequence[Stretch], layout: RtreeLayout) -> Leaf:
        """The leaf for the addresses from ``base`` on."""
        words = [(start, part.tobytes()) for start, part in stretches]
        known = self._before[0].get(base)
        leaf = known[1] if known is not None and known[0] == words else None
        if leaf is None:
            leaf = Leaf(base, stretches, layout)
        self._leaves[base] = words, leaf
        return leaf

    def run(self, run: array[int], pages: array[int], tags: bytes, data: bytes) -> Optional[_Known]:
        """What was found in that run before; None where anything of it is another."""
        known = self._before[1].get(run[0])
        if known is None or known.data != data or known.tags != tags:
            return None
        if known.run != run or known.pages != pages:
            return None
        self._runs[run[0]] = known
        return known

    def put(self, known: _Known) -> None:
        """Keep what was found in a run."""
        self._runs[known.run[0]] = known

    def keep(
        self,
        slabs: Slabs,
        extents: Extents,
        slab_kind: Mapping[int, int],
        extent_kind: Mapping[int, int],
    ) -> None:
        """A walk ends that has met these kinds; most of them must still be there."""
        self._before = {}, {}
        if len(slabs.kinds) > STALE_MOST * len(slabs.counted or ()) + STALE_LEAST:
            self._forget()
            return
        self.slab_kinds, self.extent_kinds = list(slabs.kinds), list(extents.kinds)
        # A word that can be no slab's is reported whenever it is met.
        self.slab_kind = {bits: kind for bits, kind in slab_kind.items() if kind != NOT_A_SLAB}
        self.extent_kind = dict(extent_kind)
        self.huge_pages = extents.huge_pages


class _Learned(Dict[int, int]):
    """A map that asks for what it does not know.

    It keeps nobody alive: in a ring with its walk, it would hold all that was read until
    Python looks for rings.
    """

    def __init__(self, learn: Callable[[int], int]) -> None:
        super().__init__()
        self._learn = WeakMethod(learn)

    def __missing__(self, key: int) -> int:
        learn = self._learn()
        assert learn is not None
        self[key] = value = learn(key)
        return value


class _Records:
    """Records at the addresses ``run``, ascending, in one block, column by column."""

    def __init__(self, block: Block, run: Sequence[int], size: int) -> None:
        self._words = array("Q", block.data)
        self._step = size // WORD if len(run) * size == len(block.data) else 0
        self._at: List[int] = []
        if not self._step:
            offsets = map(sub, run, repeat(block.address))
            self._at = list(map(rshift, offsets, repeat(LG_WORD)))

    def words(self, offset: int) -> array[int]:
        """The word at ``offset`` of each record."""
        if self._step:
            return self._words[offset // WORD :: self._step]
        words = memoryview(self._words)[offset // WORD :]
        if len(self._at) == 1:  # itemgetter() gives a tuple from two on
            return array("Q", words[self._at[0] : self._at[0] + 1])
        return array("Q", itemgetter(*self._at)(words))


def _rows_of(value: int, column: List[int]) -> Iterator[int]:
    """The rows, ascending, where ``column`` has a value that is rare in it."""
    row = -1
    try:
        while True:
            row = column.index(value, row + 1)
            yield row
    except ValueError:
        return


def _without(column: Column, rows: Sequence[int]) -> Column:
    """``column`` without those of its ``rows``, ascending."""
    kept = column[:0]
    start = 0
    for row in rows:
        kept += column[start:row]
        start = row + 1
    kept += column[start:]
    return kept


class _Wanted:
    """Extents of cached regions, handed out as the walk comes to them."""

    def __init__(self, regions: Mapping[int, List[CachedRegion]]) -> None:
        self._regions = dict(regions)
        self._extents = sorted(regions)

    def within(self, run: Sequence[int]) -> Iterator[Tuple[int, List[CachedRegion]]]:
        """Those of the extents ``run``, sorted, with their regions."""
        if not run:
            return
        first, last = bisect_left(self._extents, run[0]), bisect_right(self._extents, run[-1])
        for edata in self._extents[first:last]:
            if run[bisect_left(run, edata)] == edata:
                entries = self.take(edata)
                if entries:
                    yield edata, entries

    def take(self, edata: int) -> Optional[List[CachedRegion]]:
        """The regions of an extent, once."""
        return self._regions.pop(edata, None)

    def rest(self) -> Iterator[CachedRegion]:
        """The regions of all extents the walk did not come to."""
        for entries in self._regions.values():
            yield from entries
