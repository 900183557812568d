"""Occupancy, DSR and verdict of heaps whose figures are plain to see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drain_gdb.analysis.report import ExtentTotals, Selection
from drain_gdb.analysis.sweep import sweep
from drain_gdb.analysis.verdict import judge
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.errors import UsageError
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.memory import Memory
from tests.support.fakeheap import FakeHeap
from tests.support.reports import MIB, row, state, sweep_of

PROCESS = BytesTarget({}).process()
EXTENTS = ExtentTotals(MIB, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2 * MIB)


@pytest.fixture(scope="module")
def heap() -> Heap:
    """Size 1024 (4 regions a slab) in two arenas and two shards, one slab of 16."""
    fake = FakeHeap(arenas=(0, 1), shards=2)
    kilobyte = next(i for i, (size, _, _) in enumerate(fake.bins) if size == 1024)
    fake.slab(kilobyte, [0])
    fake.slab(kilobyte, [0, 1], shard=1)
    held = fake.slab(kilobyte, [3])
    fake.slab(kilobyte, [], arena=1)
    fake.slab(kilobyte, [0, 1, 2, 3], arena=1)
    fake.slab(1, [5, 6, 7])
    fake.cache(0, {kilobyte: [held + 3 * 1024]})
    target = fake.target()
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return heap


def test_every_slab_is_of_one_kind(heap: Heap) -> None:
    totals = sweep(heap, PROCESS, Selection(size=1024)).totals
    assert (totals.slabs, totals.empty, totals.cache_held, totals.pinned) == (5, 1, 1, 3)
    assert totals.dsr == 2 / 5
    assert totals.dsr_bitmap == 1 / 5
    assert (totals.regions, totals.live, totals.cached, totals.free) == (20, 7, 1, 12)
    assert totals.occupancy == 7 / 20
    assert (totals.slab_bytes, totals.live_bytes, totals.waste_bytes) == (20480, 7168, 13312)
    # By tenths: 0 twice, a quarter, a half, full.
    assert totals.histogram == (2, 0, 1, 0, 0, 1, 0, 0, 0, 1)


def test_ideal_slabs_are_counted_per_arena_and_bin(heap: Heap) -> None:
    report = sweep(heap, PROCESS, Selection(size=1024))
    # Arena 0 holds 3 live regions in both shards together, arena 1 holds 4.
    assert report.totals.ideal_slabs == 2
    assert report.totals.retention_ratio == 5 / 2
    shards = sweep(heap, PROCESS, Selection("shard", size=1024))
    assert [(r.arena, r.shard, r.state.slabs, r.state.ideal_slabs) for r in shards.bins] == [
        (0, 0, 2, 1),
        (0, 1, 1, 1),
        (1, 0, 2, 1),
    ]
    assert shards.totals == report.totals


def test_rows_are_summed_as_asked(heap: Heap) -> None:
    bins = sweep(heap, PROCESS, Selection()).bins
    assert [(r.arena, r.shard, r.size, r.state.slabs) for r in bins] == [
        (None, None, 16, 1),
        (None, None, 1024, 5),
    ]
    arenas = sweep(heap, PROCESS, Selection("arena")).bins
    assert [(r.arena, r.size, r.state.slabs) for r in arenas] == [
        (0, 16, 1),
        (0, 1024, 3),
        (1, 1024, 2),
    ]
    only = sweep(heap, PROCESS, Selection("bin", arena=1))
    assert [(r.size, r.state.slabs) for r in only.bins] == [(1024, 2)]


def test_slabs_come_by_address(heap: Heap) -> None:
    report = sweep(heap, PROCESS, Selection("slab", size=1000))
    assert report.slabs is not None
    addresses = [slab.address for slab in report.slabs]
    assert addresses == sorted(addresses)
    assert [(s.allocated, s.cached, s.live) for s in report.slabs] == [
        (1, 0, 1),
        (2, 0, 2),
        (1, 1, 0),
        (0, 0, 0),
        (4, 0, 4),
    ]


def test_a_selection_of_nothing_is_refused(heap: Heap) -> None:
    with pytest.raises(UsageError, match="no arena 7; the arenas are: 0, 1"):
        sweep(heap, PROCESS, Selection(arena=7))
    for size in (0, 14337):
        with pytest.raises(UsageError, match="no small size"):
            sweep(heap, PROCESS, Selection(size=size))


def test_no_slabs_give_no_rate() -> None:
    report = sweep_of()
    totals = report.totals
    assert (totals.dsr, totals.dsr_bitmap, totals.occupancy) == (None, None, None)
    assert totals.retention_ratio is None
    assert judge(report).kind == "none"


def test_slabs_without_a_live_region_have_no_ideal() -> None:
    totals = state(3, 4, 1024, live=0, empty=3)
    assert totals.dsr == 1
    assert totals.occupancy == 0
    assert totals.retention_ratio is None


BIG = 20_000
SLAB = 4096


@pytest.mark.parametrize(
    ("kind", "drainable", "slabs", "live"),
    [
        ("structural", 0, BIG, BIG * 2),
        ("structural", BIG // 10, BIG, BIG),
        ("mixed", BIG // 3, BIG, BIG),
        ("temporary", BIG * 2 // 3, BIG, BIG // 3),
        ("nothing", 0, 3, 3),
        ("nothing", 3, 3, 0),
        ("nothing", 0, BIG, BIG * 4),
    ],
)
def test_the_verdict_weighs_rate_with_bytes(
    kind: str, drainable: int, slabs: int, live: int
) -> None:
    occupancy = state(slabs, 4, 1024, live, empty=drainable, drainable_bytes=drainable * SLAB)
    verdict = judge(sweep_of(row(1024, occupancy)))
    assert verdict.kind == kind
    assert verdict.pinned_waste == occupancy.waste_bytes - drainable * SLAB


def test_unused_pages_are_a_verdict_of_their_own() -> None:
    full = row(1024, state(BIG, 4, 1024, BIG * 4))
    extents = replace(EXTENTS, dirty_bytes=40 * MIB, muzzy_bytes=10 * MIB)
    verdict = judge(sweep_of(full, extents=extents))
    assert verdict.kind == "unused"
    assert verdict.unused == 50 * MIB


def test_the_worst_class_has_the_most_pinned_waste() -> None:
    pinned = row(64, state(BIG, 64, 64, BIG * 32))
    drained = row(1024, state(BIG, 4, 1024, 0, empty=BIG, drainable_bytes=BIG * SLAB))
    worst = judge(sweep_of(pinned, drained)).worst
    assert worst is not None
    assert worst.size == 64
