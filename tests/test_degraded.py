"""Damage costs what it hit: the rest is swept, is true, and is called partial or contradictory."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Sequence, Tuple

import pytest

from drain_gdb.analysis.report import Selection, Sweep
from drain_gdb.analysis.sweep import sweep
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.records import Layout
from drain_gdb.layout.serialize import from_value, to_value
from drain_gdb.memory import Memory
from drain_gdb.render import machine, remarks, text
from drain_gdb.render.style import Style
from tests.faults.mutate import Damage, DamagedTarget
from tests.faults.suite import RECORDINGS
from tests.faults.twins import Spot, Twin, made, of_recording, rows_of
from tests.support.fakeheap import FakeHeap

PAGE = 4096
STEP = 7
"""Of so many fields one is damaged: each kind of field of some size class."""
OVERWRITTEN = (0, 0x4141_4141_4141_4141, 24, (1 << 64) - 1)


OLDEST = pytest.param("5.0.1", marks=pytest.mark.long)


@pytest.fixture(scope="module", params=["usual", "57-bit addresses", "16k pages", "5.2.1", OLDEST])
def twin(request: pytest.FixtureRequest) -> Twin:
    name = str(request.param)
    if name[0] == "5" and name[1] == ".":
        return of_recording(RECORDINGS / f"jemalloc-{name}.drain", filled=True)
    return made(name)


@pytest.fixture(scope="module")
def usual() -> Twin:
    return made("usual")


def damaged(twin: Twin, damage: Damage) -> Target:
    return DamagedTarget(twin.target, damage)  # type: ignore[return-value]


def walked(twin: Twin, damage: Damage, **changes: object) -> Heap:
    """By the layout that is known."""
    layout: Layout = replace(twin.layout, **changes)  # type: ignore[arg-type]
    return walk(Memory(damaged(twin, damage).read), layout)


def found(twin: Twin, damage: Damage) -> Heap:
    """By whatever still leads to it."""
    target = damaged(twin, damage)
    (heap,), refused = find_heaps(target, lambda: Memory(target.read))
    assert not refused
    return heap


def report_of(heap: Heap, twin: Twin) -> Sweep:
    return sweep(heap, twin.target.process(), Selection())


def word_at(spot: Spot, word: int) -> Damage:
    return Damage(
        "a word", {spot.address: (word % (1 << 8 * spot.size)).to_bytes(spot.size, "little")}
    )


def uncached(rows: Sequence[Tuple[int, ...]]) -> List[Tuple[int, ...]]:
    return [row[:5] for row in rows]


# -- size classes ------------------------------------------------------------------------


def test_any_word_of_bin_infos_is_missed_and_replaced(twin: Twin) -> None:
    for number, spot in enumerate(twin.spots["bin infos"][::STEP]):
        damage = word_at(spot, OVERWRITTEN[number % len(OVERWRITTEN)])
        if twin.target.read(spot.address, spot.size) == damage.patches[spot.address]:
            continue
        heap = walked(twin, damage)
        assert rows_of(heap) == twin.rows, spot
        assert list(heap.bins) == list(twin.bins), spot
        report = report_of(heap, twin)
        assert report.verification.status == "mismatch"
        assert not report.sound
        assert any("bin_infos[" in line for line in report.coverage.anomalies)
        assert heap.believed


def test_a_bin_that_says_it_has_other_shards(usual: Twin) -> None:
    """A possible number, which moves all bins behind it."""
    spots = [spot for spot in usual.spots["bin infos"] if usual.target.read(*spot) == b"\2\0\0\0"]
    # Behind the eighth bin no slab tells where the bins are.
    for spot in spots[1:7:2]:
        for number in (1, 3, 64):
            heap = walked(usual, word_at(spot, number))
            assert rows_of(heap) == usual.rows
            assert list(heap.bins) == list(usual.bins)
            assert heap.verification.status == "mismatch"


def test_without_bin_infos(twin: Twin) -> None:
    info = twin.layout.bin_info
    assert info is not None
    gone = Damage("pages", holes=[(info.address, info.address + info.size * len(twin.bins))])
    for heap in (walked(twin, gone), walked(twin, Damage("none"), bin_info=None)):
        assert rows_of(heap) == twin.rows
        assert list(heap.bins) == list(twin.bins)
        report = report_of(heap, twin)
        assert report.coverage.partial
        assert "bin_infos" in report.coverage.missing[0]
        assert not report.sound


def test_slabs_of_another_size_than_the_formula_has() -> None:
    """The option ``slab_sizes``: what the extents say goes."""
    fake = FakeHeap(slab_pages={3: 6, 9: 2})
    for _ in range(40):
        fake.slab(3, range(0, 500, 3))
        fake.slab(9, [0])
    whole = find_heaps(fake.target(), lambda: Memory(fake.target().read))[0][0]
    assert whole.verification.status == "exact"
    assert [whole.bins[szind].slab_size for szind in (3, 9)] == [6 * PAGE, 2 * PAGE]
    heap = walk(Memory(fake.target().read), replace(whole.layout, bin_info=None))
    assert [heap.bins[szind] for szind in (3, 9)] == [whole.bins[szind] for szind in (3, 9)]
    assert rows_of(heap) == rows_of(whole)


@pytest.mark.parametrize("index", [0, 1, 2, 9, 40])
def test_bin_infos_are_found_with_a_word_overwritten(index: int) -> None:
    """Those of large pages, less one, are not taken for all of those of small pages."""
    large = made("16k pages")
    for spot in large.spots["bin infos"][4 * index : 4 * index + 4]:
        heap = found(large, word_at(spot, OVERWRITTEN[1]))
        assert rows_of(heap) == large.rows
        assert heap.verification.status == "mismatch"
        assert heap.coverage.bins_wrong == 1


def test_jemalloc_is_found_without_bin_infos(usual: Twin) -> None:
    info = usual.layout.bin_info
    assert info is not None
    size = info.size * len(usual.bins)
    heap = found(usual, Damage("all of it", {info.address: b"A" * size}))
    assert heap.layout.bin_info is None
    assert uncached(rows_of(heap)) == uncached(usual.rows)
    assert not report_of(heap, usual).sound


# -- arenas ------------------------------------------------------------------------------


def test_without_the_table_of_arenas(twin: Twin) -> None:
    """Slabs and occupancy are there; what the arenas lead to is missing, and said to be."""
    without = replace(twin.layout.arena, table=None)
    heap = walked(twin, Damage("none"), arena=without, threads=None)
    assert uncached(rows_of(heap)) == uncached(twin.rows)
    assert heap.statistics is None
    report = report_of(heap, twin)
    assert report.verification.status == "unavailable"
    assert report.coverage.partial
    assert not report.sound
    assert len(report.coverage.missing) == 2
    assert report.extents.metadata_bytes is None
    assert report.requests.allocs is None
    assert report.arena_counters.allocs is None
    shown = " ".join(text.render(report, Style()).split())
    assert "PARTIAL: missing: the arenas" in shown
    assert "arenas not found" in shown
    assert "keeps no statistics" not in shown
    assert machine.as_dict(report)["allocator"]["statistics"] is None


@pytest.mark.parametrize("word", OVERWRITTEN)
def test_an_arena_that_is_lost_costs_its_own_figures(word: int, usual: Twin) -> None:
    for spot in usual.spots["arenas: table"]:
        for heap in (walked(usual, word_at(spot, word)), found(usual, word_at(spot, word))):
            assert uncached(rows_of(heap)) == uncached(usual.rows)
            assert heap.verification.status == "mismatch"
            assert heap.believed
            report = report_of(heap, usual)
            assert report.requests.allocs is report.requests.deallocs is None
            assert report.arena_counters.allocs is report.arena_counters.deallocs is None
            (other,) = heap.arenas
            # Of the arena that is there every figure agrees.
            compared = {
                m.arena for m in heap.verification.mismatches if m.what in ("slabs", "regions")
            }
            assert other.index not in compared


def test_the_table_is_found_where_an_arena_denies_its_place(usual: Twin) -> None:
    for spot in usual.spots["arenas: index"]:
        heap = found(usual, word_at(spot, 77))
        assert heap.layout.arena.table == usual.layout.arena.table
        assert uncached(rows_of(heap)) == uncached(usual.rows)
        assert heap.verification.status == "mismatch"


def test_no_arena_at_all(usual: Twin) -> None:
    zeros = {spot.address: bytes(8) for spot in usual.spots["arenas: table"]}
    for heap in (walked(usual, Damage("zeros", zeros)), found(usual, Damage("zeros", zeros))):
        assert uncached(rows_of(heap)) == uncached(usual.rows)
        assert not report_of(heap, usual).sound


# -- the tree ----------------------------------------------------------------------------


def test_a_broken_leaf_costs_that_leaf(usual: Twin) -> None:
    """There are two: the heap made by hand has a gap of two gigabytes."""
    layout = usual.layout.rtree
    memory = Memory(usual.target.read)
    for spot in usual.spots["rtree: root and nodes"]:
        node = memory.u64(spot.address)
        base = (spot.address - layout.root) // 8 * layout.leaf_span
        rest = [row for row in usual.rows if not base <= row[0] < base + layout.leaf_span]
        assert len(rest) < len(usual.rows)
        size = layout.leaf_words * 8 << layout.bits[-1]
        gone = Damage("a leaf", holes=[(node, node + size)])
        wrong = word_at(spot, OVERWRITTEN[1])
        for damage in (gone, wrong):
            for heap in (walked(usual, damage), found(usual, damage)):
                assert uncached(rows_of(heap)) == uncached(rest)
                assert heap.verification.status == "mismatch"
                assert report_of(heap, usual).coverage.partial


def test_no_slab_can_be_believed_without_the_root(usual: Twin) -> None:
    root = usual.layout.rtree.root
    gone = Damage("the root", holes=[(root, root + (8 << usual.layout.rtree.bits[0]))])
    with pytest.raises(UnreadableMemory, match="the rtree's root"):
        walked(usual, gone)


# -- figures that mean nothing -------------------------------------------------------------


def test_where_no_layout_fits_no_rate_is_given(usual: Twin) -> None:
    """Extents read by the fields of another build: bitmaps and places contradict each other."""
    extent = replace(usual.layout.extent, bitmap=usual.layout.extent.bitmap + 8)
    heap = walked(usual, Damage("none"), extent=extent)
    assert len(heap.slabs) > 100
    assert not heap.believed
    report = report_of(heap, usual)
    assert not report.sound
    content = machine.as_dict(report)
    assert content["verification"]["believed"] is False
    for state in (content["totals"], *content["bins"]):
        names = ("dsr", "dsr_bitmap", "occupancy", "retention_ratio")
        assert [state[name] for name in names] == [None] * 4
    shown = text.render(report, Style())
    assert "NO LAYOUT FITS" in shown
    for words in ("DSR", "occupancy", "drainable", "verdict", "retained"):
        assert words not in shown
    values = dict(line.split(":") for line in machine.as_info(report).splitlines())
    assert values.pop("mem_drainprof_partial") == "1"
    assert set(values.values()) == {""}


def test_a_few_contradictions_are_no_other_layout(usual: Twin) -> None:
    """Half of the extents' bitmaps and counters may be damaged, the rates stay."""
    spots = usual.spots["bins: own counts"]
    patches: Dict[int, bytes] = {spot.address: b"\xff" * 8 for spot in spots[::9]}
    heap = walked(usual, Damage("counters", patches))
    assert heap.verification.status == "mismatch"
    assert heap.believed


def test_what_is_missing_is_part_of_a_recording(usual: Twin) -> None:
    arena = replace(usual.layout.arena, table=None)
    layout = replace(usual.layout, arena=arena, bin_info=None)
    assert from_value(to_value(layout)) == layout


@pytest.mark.parametrize(("off", "said"), [(1.0, "100 %"), (12.3, "1,230 %"), (0.0123, "1.2 %")])
def test_how_far_off_is_said_in_plain_figures(off: float, said: str) -> None:
    assert remarks.off(off) == said
