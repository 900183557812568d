"""A jemalloc 5.3.0 heap written by hand into plain bytes, for any build parameters.

It follows the layout model but shares no code with the walkers, so that what a
walker reads was put there by other hands.  Structures start as zeros; only the
fields that matter are set.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.protocol import Module, Section
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout import model
from drain_gdb.layout.model import Declarations, Model
from drain_gdb.layout.parameters import Parameters
from drain_gdb.memory import Memory

VERSION = "5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c"
ACTIVE, DIRTY, MUZZY, RETAINED = range(4)
BSS = 0x5555_0000_0000
RODATA = 0x5554_0000_0000
METADATA = 0x7000_0000_0000
HEAP = 0x7F00_0000_0000
MESSAGES = tuple(b"<jemalloc>: message %d\n" % number for number in range(40))
TSD_HEAD, TSD_LINK = 64, 24
"""Bytes of a tsd_t before its cache, and where among them the link of the ring is."""
PAGES_OF_SLAB = {8: 1, 16: 1, 48: 3, 1024: 1}


@dataclass
class Region:
    """Bytes at an address."""

    start: int
    data: bytearray

    def put(self, address: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.data, address - self.start, *values)

    def get(self, address: int, form: str) -> int:
        (value,) = struct.unpack_from(form, self.data, address - self.start)
        return int(value)


@dataclass
class FakeHeap:
    """Build with :meth:`slab`, :meth:`extent` and :meth:`cache`, then :meth:`target`."""

    parameters: Parameters = field(default_factory=lambda: Parameters(12, 4, 48))
    arenas: Sequence[int] = (0,)
    shards: int = 1
    statistics: bool = True
    texts: Sequence[bytes] = (*MESSAGES, VERSION.encode())
    threads: List[int] = field(default_factory=list)
    declarations: Optional[Declarations] = None
    slab_pages: Dict[int, int] = field(default_factory=dict)
    bss: Region = field(init=False)
    metadata: Region = field(init=False)

    def __post_init__(self) -> None:
        declarations = self.declarations or model.at("5.3.0")
        self._struct = Model(declarations, self.parameters)
        self.bss = Region(BSS, bytearray(0x1000))
        self.metadata = Region(METADATA, bytearray())
        self._page = self.parameters.page
        self._next_heap = HEAP
        self.bins = self._bins()
        info = self._struct("bin_info_s")
        self.bin_infos = self._reserve(self.bss, info.size * len(self.bins))
        for index, (size, slab_size, nregs) in enumerate(self.bins):
            at = self.bin_infos + index * info.size
            self.bss.put(at + info.offset("reg_size"), "<Q", size)
            self.bss.put(at + info.offset("slab_size"), "<Q", slab_size)
            self.bss.put(at + info.offset("nregs"), "<I", nregs)
            self.bss.put(at + info.offset("n_shards"), "<I", self.shards)
        self.root = self._reserve(self.bss, 8 << self.parameters.rtree_bits[0])
        self.arena_table = self._reserve(self.bss, 8 * 4095)
        self._arena_at: Dict[int, int] = {}
        for index in self.arenas:
            self._arena(index)

    def _bins(self) -> List[Tuple[int, int, int]]:
        """``(size, slab bytes, regions)``: the fewest pages that regions fill exactly.

        Those of ``slab_pages`` have so many instead.
        """
        found = []
        for szind, size in enumerate(self.parameters.sizes[: self.parameters.nbins]):
            pages = 1
            while pages * self._page % size:
                pages += 1
            pages = self.slab_pages.get(szind, pages)
            found.append((size, pages * self._page, pages * self._page // size))
        return found

    def _reserve(self, region: Region, size: int, align: int = 64) -> int:
        region.data += bytes(-len(region.data) % align)
        address = region.start + len(region.data)
        region.data += bytes(size)
        return address

    def _arena(self, index: int) -> None:
        arena, base = self._struct("arena_s"), self._struct("base_s")
        bins = self._struct("bin_s").size * len(self.bins) * self.shards
        at = self._reserve(self.metadata, arena.size + bins)
        base_at = self._reserve(self.metadata, base.size)
        self.metadata.put(at + arena.offset("ind"), "<I", index)
        self.metadata.put(at + arena.offset("base"), "<Q", base_at)
        for figure in ("allocated", "resident", "mapped"):
            self.metadata.put(base_at + base.offset(figure), "<Q", 4096 * self.statistics)
        self.bss.put(self.arena_table + 8 * index, "<Q", at)
        self._arena_at[index] = at

    def bin_field(self, arena: int, szind: int, name: str, shard: int = 0) -> int:
        """The address of member ``name`` of a bin."""
        bin_s = self._struct("bin_s")
        at = self._arena_at[arena] + self._struct("arena_s").offset("bins")
        return at + bin_s.size * (szind * self.shards + shard) + bin_s.offset(name)

    def count(self, address: int, by: int) -> None:
        """Add to a counter."""
        self.metadata.put(address, "<Q", self.metadata.get(address, "<Q") + by)

    def slab(
        self,
        szind: int,
        used: Sequence[int],
        arena: int = 0,
        shard: int = 0,
        gap: int = 0,
    ) -> int:
        """A slab whose regions ``used`` are allocated; its address, after ``gap`` bytes."""
        _, slab_size, nregs = self.bins[szind]
        bitmap = (1 << nregs) - 1
        for region in used:
            bitmap &= ~(1 << region)
        edata, address = self._edata(
            slab_size,
            arena,
            ACTIVE,
            szind,
            slab=True,
            nfree=nregs - len(used),
            shard=shard,
            gap=gap,
        )
        at = edata + self._struct("edata_s").offset("e_slab_data.bitmap")
        groups = -(-nregs // 64)
        self.metadata.data[at - METADATA : at - METADATA + 8 * groups] = bitmap.to_bytes(
            8 * groups, "little"
        )
        for page in range(slab_size // self._page):
            self.map_page(address + page * self._page, edata, szind, slab=True, state=ACTIVE)
        self.count(self.bin_field(arena, szind, "stats.curslabs", shard), 1)
        self.count(self.bin_field(arena, szind, "stats.curregs", shard), len(used))
        self.count(self.bin_field(arena, szind, "stats.nmalloc", shard), len(used))
        self.count(self.arena_field(arena, "pa_shard.nactive"), slab_size // self._page)
        slabcur = self.bin_field(arena, szind, "slabcur", shard)
        if not self.metadata.get(slabcur, "<Q"):
            self.metadata.put(slabcur, "<Q", edata)
        elif len(used) < nregs:
            self.list(self.bin_field(arena, szind, "slabs_nonfull", shard), edata)
        return address

    def list(self, root: int, edata: int) -> None:
        """Put an extent into the pairing heap at ``root``: the first, or next after it."""
        first = self.metadata.get(root, "<Q")
        if not first:
            self.metadata.put(root, "<Q", edata)
            return
        link = self._struct("edata_s").offset("heap_link") + 8
        self.metadata.put(edata + link, "<Q", self.metadata.get(first + link, "<Q"))
        self.metadata.put(first + link, "<Q", edata)

    def arena_field(self, arena: int, name: str) -> int:
        """The address of member ``name`` of an arena."""
        return self._arena_at[arena] + self._struct("arena_s").offset(name)

    def large_count(self, arena: int, szind: int) -> int:
        """The address of the counter of large allocations of a size class."""
        large = self._struct("arena_stats_large_s")
        row = self.arena_field(arena, "stats.lstats")
        row += large.size * (szind - self.parameters.nbins)
        return row + large.offset("nmalloc")

    def extent(self, pages: int, state: int, szind: Optional[int] = None, arena: int = 0) -> int:
        """An extent that is no slab, mapped at its first and last page; its address."""
        szind = self.parameters.nsizes if szind is None else szind
        edata, address = self._edata(pages * self._page, arena, state, szind)
        # The end keeps the bits of a slab that was here before, as jemalloc leaves them.
        self.map_page(address + (pages - 1) * self._page, edata, 1, slab=True, state=state)
        self.map_page(address, edata, szind, slab=False, state=state)
        if state == ACTIVE:
            self.count(self.arena_field(arena, "pa_shard.nactive"), pages)
            self.count(self.large_count(arena, szind), 1)
        else:
            name = ("", "dirty", "muzzy", "retained")[state]
            self.count(self.arena_field(arena, f"pa_shard.pac.ecache_{name}.eset.npages"), pages)
        return address

    def _edata(
        self,
        size: int,
        arena: int,
        state: int,
        szind: int,
        *,
        slab: bool = False,
        nfree: int = 0,
        shard: int = 0,
        gap: int = 0,
    ) -> Tuple[int, int]:
        edata = self._struct("edata_s")
        at = self._reserve(self.metadata, edata.size, 128)
        address = self._next_heap + gap
        self._next_heap = address + size
        bits = self.e_bits(arena, state, szind, slab=slab, nfree=nfree, shard=shard)
        self.metadata.put(at + edata.offset("e_bits"), "<Q", bits)
        self.metadata.put(at + edata.offset("e_addr"), "<Q", address)
        self.metadata.put(at + edata.offset("e_size_esn"), "<Q", size | 5)
        return at, address

    def e_bits(
        self,
        arena: int,
        state: int,
        szind: int,
        *,
        slab: bool = False,
        nfree: int = 0,
        shard: int = 0,
    ) -> int:
        """The packed word of an extent (EDATA_BITS_*, edata.h 5.3.0)."""
        szind_bits = (self.parameters.nsizes - 1).bit_length()
        nfree_bits = self.parameters.lg_slab_maxregs + 1
        bits = arena | slab << 12 | 1 << 13 | state << 17 | szind << 20
        return bits | nfree << 20 + szind_bits | shard << 20 + szind_bits + nfree_bits

    def map_page(self, address: int, edata: int, szind: int, *, slab: bool, state: int) -> None:
        levels = self.parameters.rtree_bits
        shift = self.parameters.lg_page + sum(levels)
        region, node = self.bss, self.root
        for level, bits in enumerate(levels[:-1]):
            shift -= bits
            slot = node + 8 * (address >> shift & (1 << bits) - 1)
            node = region.get(slot, "<Q")
            if not node:
                last = level == len(levels) - 2
                width = 2 if last and self.parameters.lg_vaddr > 56 else 1
                node = self._reserve(self.metadata, width * 8 << levels[level + 1])
                region.put(slot, "<Q", node)
            region = self.metadata
        key = address >> self.parameters.lg_page & (1 << levels[-1]) - 1
        tags = int(slab) | state << 2
        if self.parameters.lg_vaddr > 56:
            self.metadata.put(node + 16 * key, "<QII", edata, tags | szind << 5, 0xDEAD)
        else:
            self.metadata.put(node + 8 * key, "<Q", edata | tags | szind << 48)

    def cache(
        self,
        arena: int,
        cached: Dict[int, Sequence[int]],
        stashed: Optional[Dict[int, Sequence[int]]] = None,
        room: int = 8,
        requests: int = 0,
    ) -> int:
        """A thread cache holding pointers by size class; its descriptor.

        It is on ``arena``'s ring where there are statistics, else in a tsd_t alone, whose
        link leads to the next one made and from the last to the first.
        """
        stashed = stashed or {}
        slow, cache_bin = self._struct("tcache_slow_s"), self._struct("cache_bin_s")
        nbins = self.parameters.nbins + 2
        tcache = self._struct("tcache_s")
        tsd = self._reserve(self.metadata, TSD_HEAD, self._page)
        tcache_at = self._reserve(self.metadata, tcache.size)
        bins = tcache_at + tcache.offset("bins")
        stack = self._reserve(self.metadata, 8 * (nbins * room + 2), self._page)
        at = self._reserve(self.metadata, slow.size)
        descriptor = at + slow.offset("cache_bin_array_descriptor")
        self.metadata.put(at + slow.offset("dyn_alloc"), "<Q", stack)
        self.metadata.put(at + slow.offset("tcache"), "<Q", tcache_at)
        self.metadata.put(tcache_at, "<Q", at)
        self.metadata.put(at + slow.offset("cache_bin_array_descriptor.bins"), "<Q", bins)
        self.metadata.put(stack, "<Q", 0x7A7A7A7A7A7A7A7A)
        position = stack + 8
        for szind in range(nbins):
            held, kept = cached.get(szind, ()), stashed.get(szind, ())
            end = position + 8 * room
            for index, pointer in enumerate(kept):
                self.metadata.put(position + 8 * index, "<Q", pointer)
            for index, pointer in enumerate(held):
                self.metadata.put(end - 8 * (index + 1), "<Q", pointer)
            entry = bins + szind * cache_bin.size
            self.metadata.put(entry + cache_bin.offset("stack_head"), "<Q", end - 8 * len(held))
            full = position + 8 * len(kept)
            self.metadata.put(entry + cache_bin.offset("low_bits_full"), "<H", full & 0xFFFF)
            for name in ("low_bits_empty", "low_bits_low_water"):
                self.metadata.put(entry + cache_bin.offset(name), "<H", end & 0xFFFF)
            self.metadata.put(entry + cache_bin.offset("tstats.nrequests"), "<Q", requests)
            position = end
        self.metadata.put(position, "<Q", 0xA7A7A7A7A7A7A7A7)
        if self.statistics:
            self._enqueue(self.arena_field(arena, "cache_bin_array_descriptor_ql"), descriptor)
            self._enqueue(self.arena_field(arena, "tcache_ql"), at)
        else:
            self.threads.append(tsd)
            for here, ahead in zip(self.threads, [*self.threads[1:], self.threads[0]]):
                self.metadata.put(here + TSD_LINK, "<Q", ahead)
        return descriptor

    def _enqueue(self, head: int, element: int) -> None:
        """Put an element last into the ring at ``head``; it begins with its links, next first."""
        first = self.metadata.get(head, "<Q") or element
        last = self.metadata.get(first + 8, "<Q") if first != element else element
        self.metadata.put(head, "<Q", first)
        for before, after in ((last, element), (element, first)):
            self.metadata.put(before, "<Q", after)
            self.metadata.put(after + 8, "<Q", before)

    def target(self) -> BytesTarget:
        """The heap as a target with one module, without symbols."""
        # Mappings are whole pages.
        self._reserve(self.metadata, 0, self._page)
        rodata = b"\0".join([b"", *self.texts, b""])
        module = Module(
            "/usr/lib/libfake.so",
            (
                Section(".rodata", RODATA, RODATA + len(rodata), constant=True),
                Section(
                    ".bss",
                    BSS,
                    BSS + len(self.bss.data),
                    writable=True,
                    zero_initialized=True,
                ),
            ),
        )
        return BytesTarget(
            {
                RODATA: rodata,
                BSS: bytes(self.bss.data),
                METADATA: bytes(self.metadata.data),
            },
            [module],
        )

    def read(self) -> Heap:
        """The heap, as it is found and walked."""
        target = self.target()
        (heap,), _ = find_heaps(target, lambda: Memory(target.read))
        return heap
