"""Walkers over heaps written by hand: builds and states no real program here has."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Tuple

import pytest

from drain_gdb.analysis.report import Selection, Sweep
from drain_gdb.analysis.sweep import sweep
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.errors import LayoutError, NoJemalloc, UnreadableMemory
from drain_gdb.jemalloc.extents import Memo
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.identify import OLD_NAMES
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import StackedCaches
from drain_gdb.memory import Memory
from tests.support.fakeheap import (
    ACTIVE,
    BSS,
    DIRTY,
    HEAP,
    MESSAGES,
    METADATA,
    MUZZY,
    RETAINED,
    FakeHeap,
)

LARGE = 0
BUILDS = {
    "4k-pages": Parameters(12, 4, 48),
    "quantum-8": Parameters(12, 3, 48),
    "16k-pages": Parameters(14, 4, 48),
    "64k-pages": Parameters(16, 4, 48),
    "57-bit-addresses": Parameters(12, 4, 57),
    "57-bit-quantum-8": Parameters(12, 3, 57),
    "2048-regions": Parameters(12, 4, 48, lg_maxregs=11),
    "32768-regions-57-bit": Parameters(12, 3, 57, lg_maxregs=15),
}


def read(target: BytesTarget) -> Heap:
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return heap


def report_of(heap: Heap) -> Sweep:
    return sweep(heap, BytesTarget({}).process(), Selection())


@pytest.mark.parametrize("commit", ["0" * 40, "000000missing_version_try_git_fetch_tags"])
def test_a_build_that_knows_no_version_of_its_own_is_read(commit: str) -> None:
    """configure of 5.0 to 5.3 names 0.0.0 where the sources are no git checkout."""
    fake = FakeHeap(texts=(*MESSAGES, f"0.0.0-0-g{commit}".encode()))
    fake.slab(1, [0, 5])
    heap = read(fake.target())
    assert heap.layout.version is None
    assert heap.verification.status == "exact"


@pytest.mark.parametrize("parameters", BUILDS.values(), ids=BUILDS.keys())
def test_every_build_is_discovered_and_exact(parameters: Parameters) -> None:
    fake = FakeHeap(parameters, arenas=(0, 3), shards=2)
    expected = [
        fake.slab(1, [0, 5], shard=1),
        fake.slab(0, range(fake.bins[0][2])),
        fake.slab(3, [], arena=3),
        fake.slab(1, [7], arena=3, gap=3 << 40),
    ]
    fake.extent(5, ACTIVE, parameters.nbins)
    fake.extent(7, DIRTY)
    fake.extent(2, MUZZY, arena=3)
    fake.extent(9, RETAINED)
    heap = read(fake.target())
    assert heap.layout.parameters == parameters
    assert heap.layout.source == "discovered"
    assert heap.verification.status == "exact"
    assert sorted(heap.slabs.address) == sorted(expected)
    report = report_of(heap)
    page = parameters.page
    assert report.totals.slabs == 4
    assert report.totals.empty == 1
    assert report.totals.live == 3 + fake.bins[0][2]
    assert (report.extents.large_bytes, report.extents.large_count) == (5 * page, 1)
    assert report.extents.dirty_bytes == 7 * page
    assert report.extents.muzzy_bytes == 2 * page
    assert report.extents.retained_bytes == 9 * page
    assert report.coverage.anomalies == ()


def test_a_slab_may_have_more_regions_than_a_page_holds() -> None:
    """--with-lg-slab-maxregs: with slab_sizes, slabs have that many regions."""
    parameters = Parameters(12, 4, 48, lg_maxregs=12)
    fake = FakeHeap(parameters, shards=2, slab_pages={0: 8, 1: 8})
    fake.slab(0, [0, 4095], shard=1)
    fake.slab(1, range(1000))
    fake.slab(1, [2047], shard=1)
    heap = read(fake.target())
    assert heap.layout.parameters == parameters
    assert [info.nregs for info in heap.bins[:2]] == [4096, 2048]
    assert (heap.verification.status, heap.coverage.anomalies) == ("exact", [])
    assert report_of(heap).totals.live == 1003


def test_a_slab_across_two_leaves_counts_once() -> None:
    fake = FakeHeap()
    span = 1 << 30
    fake.slab(0, [1])
    crossing = fake.slab(3, [2], gap=span - 2 * 4096)
    assert crossing // span != (crossing + 2 * 4096) // span
    heap = read(fake.target())
    assert len(heap.slabs) == 2
    assert heap.verification.status == "exact"
    assert heap.coverage.anomalies == []


def test_an_impossible_slab_is_reported_in_each_walk() -> None:
    """Of a process that is walked again and again: where its bytes are as they were, too."""
    fake = FakeHeap()
    fake.slab(1, [0, 5])
    fake.slab(0, [7])
    written, impossible = (
        struct.pack("<Q", fake.e_bits(0, ACTIVE, 0, slab=True, nfree=nfree))
        for nfree in (fake.bins[0][2] - 1, fake.bins[0][2] + 1)
    )
    assert fake.metadata.data.count(written) == 1
    fake.metadata.data[:] = fake.metadata.data.replace(written, impossible)
    target = fake.target()
    heap, memo = read(target), Memo()
    assert [text for text in heap.coverage.anomalies if text.endswith("is no possible slab")]
    for _ in range(3):
        again = walk(Memory(target.read), heap.layout, memo)
        assert again.coverage.anomalies == heap.coverage.anomalies


def _cached() -> Tuple[FakeHeap, int]:
    fake = FakeHeap(arenas=(0, 2))
    return fake, fake.slab(1, [0, 1, 2, 9])


def test_cached_and_stashed_regions_are_not_live() -> None:
    fake, slab = _cached()
    held = fake.slab(1, [4], arena=2)
    fake.cache(0, {1: [slab + 16]}, {1: [slab + 32]}, requests=3)
    fake.cache(2, {1: [held + 64]})
    fake.cache(2, {})
    heap = read(fake.target())
    report = report_of(heap)
    assert heap.coverage.anomalies == []
    assert report.allocator.thread_caches == 3
    assert report.totals.cached == 3
    assert report.totals.live == 2
    assert report.totals.cache_held == 1
    assert report.totals.empty == 0
    assert report.totals.dsr == 0.5
    assert report.totals.dsr_bitmap == 0
    # Only small size classes count, though caches count requests of large ones too.
    assert report.requests.allocs == 3 * fake.parameters.nbins


def test_a_stack_may_wrap_in_its_low_bits() -> None:
    fake, slab = _cached()
    # So many pages that the stacks of one cache cross a multiple of 64 KiB.
    fake.cache(0, {34: [], 1: [slab]}, room=400)
    heap = read(fake.target())
    assert heap.coverage.anomalies == []
    assert sum(heap.slabs.cached.values()) == 1


def test_a_region_cached_twice_is_a_double_free() -> None:
    fake, slab = _cached()
    fake.cache(0, {1: [slab]})
    fake.cache(2, {1: [slab]})
    heap = read(fake.target())
    (mismatch,) = heap.verification.mismatches
    assert (mismatch.what, mismatch.walked, mismatch.recorded) == ("cached regions in place", 1, 2)
    assert sum(heap.slabs.cached.values()) == 1
    (finding,) = heap.coverage.anomalies
    assert "double free" in finding
    assert hex(slab) in finding


def test_a_cached_region_that_is_free_is_a_double_free() -> None:
    fake, slab = _cached()
    fake.cache(0, {1: [slab + 3 * 16]})
    heap = read(fake.target())
    (finding,) = heap.coverage.anomalies
    assert "double free" in finding
    assert hex(slab + 3 * 16) in finding
    assert report_of(heap).totals.live == 4
    (mismatch,) = heap.verification.mismatches
    assert (mismatch.what, mismatch.walked, mismatch.recorded) == ("cached regions in place", 0, 1)


@pytest.mark.parametrize(
    ("pointer", "szind", "why"),
    [
        (8, 1, "no region of slab"),
        (16, 2, "size class 1"),
        (1 << 30, 1, "no extent"),
    ],
    ids=["between-regions", "other-size", "outside"],
)
def test_a_cached_region_out_of_place_is_a_mismatch(pointer: int, szind: int, why: str) -> None:
    fake, slab = _cached()
    fake.cache(0, {szind: [slab + pointer]})
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    (mismatch,) = heap.verification.mismatches
    assert (mismatch.what, mismatch.walked, mismatch.recorded) == ("cached regions in place", 0, 1)
    assert why in heap.coverage.anomalies[0]


def test_a_bitmap_that_contradicts_nfree_is_a_mismatch() -> None:
    fake = FakeHeap()
    fake.slab(1, [0])
    slab = fake.slab(1, [3, 4])
    data = fake.metadata.data
    at = data.index(struct.pack("<Q", slab)) - 8 + 64
    data[at] ^= 0x80
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    (mismatch,) = heap.verification.mismatches
    assert (mismatch.walked, mismatch.recorded) == (1, 2)
    assert hex(slab) in heap.coverage.anomalies[0]


def test_words_past_the_bitmap_do_not_count() -> None:
    """One word is the bitmap's; what stands behind is the past of other slabs."""
    fake = FakeHeap(Parameters(12, 4, 48))
    szind = next(n for n, info in enumerate(fake.bins) if info[2] < 63)
    slab = fake.slab(szind, [0])
    at = fake.metadata.data.index(struct.pack("<Q", slab)) - 8 + 64
    fake.metadata.data[at + 8 : at + 64] = b"\xff" * 56
    heap = read(fake.target())
    assert heap.verification.status == "exact"
    assert heap.coverage.anomalies == []


def test_a_bit_past_the_last_region_is_a_mismatch() -> None:
    """bitmap_init() leaves none: where one is set, it is no bitmap."""
    fake = FakeHeap(Parameters(12, 4, 48))
    szind, (_, _, nregs) = next((n, info) for n, info in enumerate(fake.bins) if info[2] < 63)
    slab = fake.slab(szind, range(nregs))
    at = fake.metadata.data.index(struct.pack("<Q", slab)) - 8 + 64
    fake.metadata.put(METADATA + at, "<Q", 1 << nregs)
    (mismatch,) = read(fake.target()).verification.mismatches
    assert (mismatch.index, mismatch.walked, mismatch.recorded) == (szind, 0, 1)


def test_recorded_figures_that_differ_are_named() -> None:
    fake = FakeHeap(arenas=(0, 1))
    fake.slab(1, [0], arena=1)
    fake.metadata.put(fake.bin_field(1, 1, "stats.curregs"), "<Q", 7)
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    (mismatch,) = heap.verification.mismatches
    assert (mismatch.arena, mismatch.index, mismatch.what) == (1, 1, "regions")
    assert (mismatch.walked, mismatch.recorded) == (1, 7)


@pytest.mark.parametrize(
    ("leads_to", "why"), [("itself", "and denies it"), ("nothing", "does not close")]
)
def test_a_broken_ring_of_caches_is_partial_and_ends(leads_to: str, why: str) -> None:
    fake, slab = _cached()
    fake.cache(0, {1: [slab]})
    second = fake.cache(0, {})
    fake.metadata.put(second, "<Q", second if leads_to == "itself" else 0)
    heap = read(fake.target())
    report = report_of(heap)
    assert report.coverage.partial
    assert any(why in text for text in report.coverage.anomalies)
    assert report.totals.cached == 1
    assert heap.verification.status == "mismatch"


@pytest.mark.parametrize("ring", ["cache_bin_array_descriptor_ql", "tcache_ql"])
def test_a_thread_cache_that_one_of_two_rings_lacks_is_read_and_told(ring: str) -> None:
    fake, slab = _cached()
    descriptor = fake.cache(0, {1: [slab]})
    fake.metadata.put(fake.arena_field(0, ring), "<Q", 0)
    heap = read(fake.target())
    assert sum(heap.slabs.cached.values()) == 1
    assert heap.verification.status == "mismatch"
    assert any(hex(descriptor) in text for text in heap.coverage.anomalies)


def test_a_thread_cache_that_a_ring_passes_over_is_told() -> None:
    """Both its links lead past it: only the other ring, or its neighbours, know of it."""
    fake, slab = _cached()
    first, second, third = (fake.cache(0, {1: [slab + 16 * n]}) for n in range(3))
    fake.metadata.put(first, "<Q", third)
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    assert sum(heap.slabs.cached.values()) == 3
    assert any("denies it" in text for text in heap.coverage.anomalies), second


def test_a_cache_whose_bins_are_anothers_is_not_believed() -> None:
    fake, slab = _cached()
    first, second = fake.cache(0, {1: [slab]}), fake.cache(0, {1: [slab + 16]})
    offset = read(fake.target()).layout.tcache.tcache
    fake.metadata.put(second + offset, "<Q", fake.metadata.get(first + offset, "<Q"))
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    assert sum(heap.slabs.cached.values()) == 1
    assert any("belong to another" in text for text in heap.coverage.anomalies)


def test_a_stack_below_its_low_water_mark_is_not_believed() -> None:
    """The cache says that it never held fewer regions than it does not hold now."""
    fake, slab = _cached()
    descriptor = fake.cache(0, {1: [slab, slab + 16]})
    tcache = read(fake.target()).layout.tcache
    assert isinstance(tcache, StackedCaches)
    assert tcache.low_water is not None
    bins = fake.metadata.get(descriptor + tcache.tcache, "<Q") + tcache.bins
    at = bins + tcache.bin_size
    head = fake.metadata.get(at + tcache.head, "<Q")
    fake.metadata.put(at + tcache.low_water, "<H", head & 0xFFFF)
    assert read(fake.target()).verification.status == "exact"
    fake.metadata.put(at + tcache.head, "<Q", head + 8)
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    assert any("low water" in text for text in heap.coverage.anomalies)


def test_a_slab_that_says_it_lies_elsewhere_is_a_mismatch() -> None:
    """Nothing counts differently: only the rtree knows where it begins."""
    fake = FakeHeap()
    slab = [fake.slab(1, [0]) for _ in range(20)][-1]
    at = fake.metadata.data.index(struct.pack("<Q", slab))
    struct.pack_into("<Q", fake.metadata.data, at, slab + (8 << 20))
    heap = read(fake.target())
    (mismatch,) = heap.verification.mismatches
    assert (mismatch.what, mismatch.walked) == ("extents as the rtree has them", 19)
    assert hex(slab) in heap.coverage.anomalies[0]


def test_a_layout_that_knows_no_tags_of_leaf_elements_is_walked() -> None:
    """Recordings made before they were looked at hold such layouts."""
    fake = FakeHeap()
    fake.slab(1, [0, 5])
    fake.extent(5, DIRTY)
    layout = read(fake.target()).layout
    untagged = replace(layout, rtree=replace(layout.rtree, slab=None, szind=None))
    assert walk(Memory(fake.target().read), untagged).verification.status == "exact"


@pytest.mark.parametrize("tags", ["no slab", "of another size class"])
def test_a_slab_that_its_leaf_element_has_for_something_else_is_a_mismatch(tags: str) -> None:
    fake = FakeHeap()
    slab = fake.slab(1, [0, 5])
    edata = METADATA + fake.metadata.data.index(struct.pack("<Q", slab)) - 8
    fake.map_page(slab, edata, 1 if tags == "no slab" else 2, slab=tags != "no slab", state=ACTIVE)
    heap = read(fake.target())
    (mismatch,) = heap.verification.mismatches
    assert mismatch.what == "extents as the rtree has them"
    assert hex(edata) in heap.coverage.anomalies[0]


def test_extents_of_an_arena_that_is_gone_are_a_mismatch() -> None:
    """The arena's thread caches are gone with it, and what they hold counts as live."""
    fake, slab = _cached()
    fake.cache(2, {1: [slab]})
    fake.extent(5, DIRTY, arena=2)
    fake.bss.put(fake.arena_table + 8 * 2, "<Q", 0)
    heap = read(fake.target())
    assert heap.verification.status == "mismatch"
    assert "extents of arenas that are there" in [m.what for m in heap.verification.mismatches]


def test_a_cache_whose_stacks_do_not_fit_is_partial() -> None:
    fake, slab = _cached()
    descriptor = fake.cache(0, {1: [slab]})
    bins = fake.metadata.get(descriptor + 16, "<Q")
    fake.metadata.put(bins, "<Q", METADATA)
    report = report_of(read(fake.target()))
    assert report.coverage.partial
    assert hex(descriptor) in report.coverage.anomalies[0]
    assert report.requests.allocs is None


def test_unreadable_extents_are_counted_not_guessed() -> None:
    fake = FakeHeap()
    for _ in range(200):
        fake.slab(0, [0])
    target = fake.target()
    data = target.ranges[METADATA]
    lost = len(data) - 100 * 128 & -4096
    target.ranges[METADATA] = data[:lost]
    report = report_of(read(target))
    assert report.coverage.partial
    assert 0 < report.coverage.slabs_unreadable < 200
    assert report.totals.slabs == 200 - report.coverage.slabs_unreadable
    assert report.verification.status == "mismatch"


def test_an_rtree_without_a_root_is_an_error() -> None:
    fake = FakeHeap()
    fake.slab(0, [0])
    target = fake.target()
    layout = read(target).layout
    target.ranges[BSS] = target.ranges[BSS][:0x1000]
    with pytest.raises(UnreadableMemory) as caught:
        walk(Memory(target.read), layout)
    assert caught.value.address == layout.rtree.root


def test_a_tree_whose_nodes_overlap_is_read_once() -> None:
    """Each word of the root leads into the same memory: each leaf of its own would be 2 MiB."""
    fake = FakeHeap()
    fake.slab(1, [0, 1])
    whole = read(fake.target())
    leaf = fake.bss.get(fake.root + 8 * (HEAP >> 30), "<Q")
    for slot in range(1 << 10):
        if slot != HEAP >> 30:
            fake.bss.put(fake.root + 8 * slot, "<Q", leaf + 64 * slot)
    target = fake.target()
    memory = Memory(target.read)
    heap = walk(memory, whole.layout)
    assert memory.bytes_read < 2 * whole.coverage.bytes_read + (1 << 20)
    assert any("lies in another" in text for text in heap.coverage.anomalies)


def test_a_decoy_that_every_element_agrees_with_is_no_rtree() -> None:
    """Something that looks like an extent of absurd size would cover any page."""
    fake = FakeHeap()
    extent = fake._reserve(fake.metadata, 128, 128)
    fake.metadata.put(extent, "<QQQ", 0, 1 << 20, 1 << 63)
    leaf = fake._reserve(fake.metadata, 8 << 18)
    for key in range(0, 1 << 18, 64):
        fake.metadata.put(leaf + 8 * key, "<Q", extent)
    fake.bss.put(BSS + 64, "<Q", leaf)
    fake.slab(0, [0])
    heap = read(fake.target())
    assert heap.layout.rtree.root == fake.root
    assert heap.verification.status == "exact"


def test_a_process_without_jemalloc_is_refused() -> None:
    with pytest.raises(NoJemalloc):
        read(BytesTarget({}))


def test_an_unused_jemalloc_is_refused_by_name() -> None:
    with pytest.raises(LayoutError, match="may not have been used"):
        read(FakeHeap().target())


def test_another_version_without_symbols_is_refused_by_name() -> None:
    texts = (*MESSAGES, b"4.0.3-0-ge9192eacf8935e29fc62fddc2701f7942b1cc02c", *OLD_NAMES)
    fake = FakeHeap(texts=texts)
    fake.slab(0, [0])
    with pytest.raises(LayoutError, match=r"jemalloc 4\.0\.3 in .* is not supported"):
        read(fake.target())


def test_an_unknown_version_is_read_by_the_nearest_that_verifies() -> None:
    fake = FakeHeap()
    fake.slab(0, [0])
    target = fake.target()
    for start, data in target.ranges.items():
        target.ranges[start] = data.replace(b"5.3.0-0-g54", b"5.9.7-3-ge9")
    heap = read(target)
    assert heap.verification.status == "exact"
    assert heap.layout.version is not None
    assert heap.layout.version.startswith("5.9.7-3-g")
    assert all(note.startswith("no symbols, structs of 5.3.1") for note in heap.layout.notes)
    assert heap.layout.notes


def test_a_root_that_leads_into_itself_has_no_leaf_there() -> None:
    fake = FakeHeap()
    slab = fake.slab(1, [0, 5])
    layout = read(fake.target()).layout
    levels, page = layout.rtree.bits, layout.parameters.page
    slot = fake.root + 8 * (slab // (page << levels[-1]))
    fake.bss.put(slot, "<Q", fake.root)
    heap = walk(Memory(fake.target().read), layout)
    assert heap.verification.status == "mismatch"
    assert len(heap.slabs) == len(heap.extents.address) == 0
    assert f"rtree node {fake.root:#x}" in heap.coverage.anomalies[0]
