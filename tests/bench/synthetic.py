"""A jemalloc 5.3.0 heap of any size, as metadata alone, in a file made in seconds.

Every structure that a sweep reads is there, with figures that agree: the rtree and its
leaves, an ``edata_t`` for each slab, large and dirty extents, arenas with their bins,
thread caches with cached regions.  What differs from slab to slab repeats with a period,
so that whole groups come from multiplied bytes and strided slices; the truth is counted
on the way.
"""

from __future__ import annotations

import os
import random
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.errors import UnreadableMemory
from drain_gdb.layout import model
from drain_gdb.layout.build import Roots, build
from drain_gdb.layout.model import Model
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import Layout
from tests.support.fakeheap import ACTIVE, BSS, DIRTY, METADATA, VERSION, FakeHeap

WORD = 8
EDATA_SIZE = 128
HEAP, EXTENTS, LEAVES = 0x6000_0000_0000, 0x7100_0000_0000, 0x7200_0000_0000
GROUP = 1000
"""Slabs of one arena and size class, side by side."""
NEIGHBOURS = 20
"""Extents made one after the other; those of the next pages stand elsewhere."""
VARIANTS = 61
"""Extents after which occupancies repeat."""
CLASSES = (1, 2, 3, 4, 7, 8, 12, 14, 16, 20)
"""Size classes of the slabs, of 16 to 1024 bytes, in slabs of one, three or five pages."""
OTHERS = 20
"""Large allocations, and dirty extents, to a group."""
OTHER_PAGES = 5
CACHED = 12
"""Regions of each class that a thread cache holds, at most."""
ROOM = 16


class FileTarget(BytesTarget):
    """Files, each whole, at an address of its own."""

    def __init__(self, parts: Sequence[Tuple[int, Path]]) -> None:
        super().__init__({})
        opened = [(start, path.stat().st_size, os.open(path, os.O_RDONLY)) for start, path in parts]
        self._parts = sorted(opened)
        self._starts = [start for start, _, _ in self._parts]

    def read(self, address: int, size: int) -> bytes:
        row = bisect_right(self._starts, address) - 1
        if row >= 0:
            start, length, file = self._parts[row]
            if address + size <= start + length:
                return os.pread(file, size, address - start)
        raise UnreadableMemory(address, size, "nothing is there")


@dataclass
class Synthetic:
    """A heap that :func:`make` wrote, and what is true of it."""

    parts: List[Tuple[int, Path]]
    layout: Layout
    slabs: int
    regions: int
    allocated: int
    cached: int


class _Maker:
    """Extents and leaf elements, group by group."""

    def __init__(self, path: Path, fake: FakeHeap) -> None:
        self._fake = fake
        self._page = fake.parameters.page
        self._extents = (path / "extents").open("wb")
        self._leaves = (path / "leaves").open("wb")
        self._edata = EXTENTS
        self.address = HEAP
        blocks = list(range(GROUP // NEIGHBOURS))
        random.Random(1).shuffle(blocks)
        # The slab of each extent of a group, and the extent of each slab.
        self._slab_of = [b * NEIGHBOURS + n for b in blocks for n in range(NEIGHBOURS)]
        self._extent_of = sorted(range(GROUP), key=self._slab_of.__getitem__)
        self._templates: Dict[Tuple[int, int], bytes] = {}
        self.allocated = self.regions = 0
        self.stretches: Dict[int, List[int]] = {szind: [] for szind in CLASSES}

    def slabs(self, szind: int, arena: int) -> None:
        """A group of slabs, all with at least one region allocated, the first one."""
        fake, start = self._fake, self.address
        _, size, nregs = fake.bins[szind]
        pages = size // self._page
        extents = array("Q", self._template(szind, arena))
        extents[1 :: EDATA_SIZE // WORD] = array("Q", [start + n * size for n in self._slab_of])
        extents.tofile(self._extents)
        tags = 1 | 1 << 1 | szind << 48
        first = array("Q", [self._edata + n * EDATA_SIZE | tags for n in self._extent_of])
        elements = array("Q", bytes(WORD * pages * GROUP))
        for page in range(pages):
            elements[page::pages] = first
        elements.tofile(self._leaves)
        allocated = sum(self._used(szind, extent) for extent in range(GROUP))
        fake.count(fake.bin_field(arena, szind, "stats.curslabs"), GROUP)
        fake.count(fake.bin_field(arena, szind, "stats.curregs"), allocated)
        fake.count(fake.bin_field(arena, szind, "stats.nmalloc"), allocated)
        fake.count(fake.arena_field(arena, "pa_shard.nactive"), GROUP * pages)
        self.allocated += allocated
        self.regions += GROUP * nregs
        self.stretches[szind].append(start)
        self._edata += GROUP * EDATA_SIZE
        self.address += GROUP * size

    def _used(self, szind: int, extent: int) -> int:
        """Allocated regions of the slab of an extent of a group."""
        return 1 + extent % VARIANTS * (self._fake.bins[szind][2] - 1) // (VARIANTS - 1)

    def _template(self, szind: int, arena: int) -> bytes:
        """The extents of a group, without their addresses."""
        if (szind, arena) not in self._templates:
            _, size, nregs = self._fake.bins[szind]
            made = []
            for extent in range(GROUP):
                used = self._used(szind, extent)
                bits = self._fake.e_bits(arena, ACTIVE, szind, slab=True, nfree=nregs - used)
                head = array("Q", [bits, 0, size | 7]).tobytes()
                bitmap = (1 << nregs) - (1 << used)
                made.append(head.ljust(64, b"\0") + bitmap.to_bytes(64, "little"))
            self._templates[szind, arena] = b"".join(made)
        return self._templates[szind, arena]

    def others(self, arena: int) -> None:
        """Large allocations and dirty extents in turns, mapped at their first and last page."""
        fake, size = self._fake, OTHER_PAGES * self._page
        for number in range(2 * OTHERS):
            state, szind = ACTIVE, fake.parameters.nbins
            if number % 2:
                state, szind = DIRTY, fake.parameters.nsizes
            head = array("Q", [fake.e_bits(arena, state, szind), self.address, size | 7])
            self._extents.write(head.tobytes().ljust(EDATA_SIZE, b"\0"))
            element = self._edata | 1 << 1 | state << 2 | szind << 48
            array("Q", [element, *[0] * (OTHER_PAGES - 2), element]).tofile(self._leaves)
            self._edata += EDATA_SIZE
            self.address += size
        pages = OTHERS * OTHER_PAGES
        fake.count(fake.arena_field(arena, "pa_shard.nactive"), pages)
        fake.count(fake.arena_field(arena, "pa_shard.pac.ecache_dirty.eset.npages"), pages)
        fake.count(fake.large_count(arena, fake.parameters.nbins), OTHERS)

    def finish(self) -> None:
        """Fill up the last leaf and hang the leaves into the root."""
        levels, lg_page = self._fake.parameters.rtree_bits, self._fake.parameters.lg_page
        leaf, span = WORD << levels[-1], 1 << levels[-1] + lg_page
        self._leaves.truncate(-(-self._leaves.tell() // leaf) * leaf)
        for number, start in enumerate(range(HEAP, self.address, span)):
            slot = self._fake.root + WORD * (start // span)
            self._fake.bss.put(slot, "<Q", LEAVES + number * leaf)
        self._extents.close()
        self._leaves.close()


def make(folder: Path, slabs: int, arenas: int, caches: int) -> Synthetic:
    """Write a heap of ``slabs`` slabs, a multiple of ``GROUP``, to ``folder``."""
    fake = FakeHeap(Parameters(12, 4, 48), arenas=range(arenas))
    maker = _Maker(folder, fake)
    for group in range(slabs // GROUP):
        arena = group // len(CLASSES) % arenas
        maker.slabs(CLASSES[group % len(CLASSES)], arena)
        maker.others(arena)
    maker.finish()
    cached = _fill_caches(fake, maker.stretches, arenas, caches)
    parts = [(EXTENTS, folder / "extents"), (LEAVES, folder / "leaves")]
    for address, name, data in (
        (BSS, "variables", fake.bss.data),
        (METADATA, "arenas", fake.metadata.data),
    ):
        (folder / name).write_bytes(data)
        parts.append((address, folder / name))
    layout = _layout(fake)
    return Synthetic(parts, layout, slabs, maker.regions, maker.allocated, cached)


def _fill_caches(
    fake: FakeHeap, stretches: Mapping[int, Sequence[int]], arenas: int, caches: int
) -> int:
    """Thread caches, each with the first region of some slabs; how many that are in all."""
    cached = 0
    for number in range(caches):
        held = {}
        for szind, starts in stretches.items():
            each = min(CACHED, len(starts) * GROUP // caches)
            size = fake.bins[szind][1]
            slabs = range(number * each, (number + 1) * each)
            held[szind] = [starts[n // GROUP] + n % GROUP * size for n in slabs]
            cached += each
        fake.cache(number % arenas, held, room=ROOM, requests=100)
    return cached


def _layout(fake: FakeHeap) -> Layout:
    declarations = model.at("5.3.0")
    return build(
        Model(declarations, fake.parameters),
        Roots(fake.root, fake.arena_table, fake.bin_infos),
        fake.parameters,
        found_by="symbols",
        module="libfake.so",
        version=VERSION,
        prefix="je_",
    )
