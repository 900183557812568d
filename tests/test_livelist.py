"""The walk against a program that knows every region it and libc hold."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Dict, List, Tuple

import pytest

from tests.conftest import Livelist
from tests.support.runs import sweep_json

SMALL_MAX = 14336


@pytest.fixture(scope="module")
def report(each_livelist: Livelist) -> Dict[str, Any]:
    return sweep_json(each_livelist.core, "--by", "slab")


class Slabs:
    """The slabs of a report, by address."""

    def __init__(self, report: Dict[str, Any]) -> None:
        self._slabs = report["slabs"]
        self._starts = [int(slab["address"], 16) for slab in self._slabs]

    def of(self, address: int) -> Dict[str, Any]:
        found: Dict[str, Any] = self._slabs[bisect_right(self._starts, address) - 1]
        return found


def _small(regions: List[Tuple[int, int]]) -> List[Tuple[int, int]]:
    return [(address, size) for address, size in regions if size <= SMALL_MAX]


def test_is_exact(report: Dict[str, Any]) -> None:
    assert report["verification"]["status"] == "exact"
    assert report["coverage"]["anomalies"] == []


def test_bins_equal_the_programs_own_statistics(
    each_livelist: Livelist, report: Dict[str, Any]
) -> None:
    walked = {row["size"]: (row["slabs"], row["live"] + row["cached"]) for row in report["bins"]}
    said = {size: tuple(stats) for size, stats in each_livelist.lists.bins.items() if stats.slabs}
    assert walked == said


def test_live_is_the_list_and_what_libc_holds(
    each_livelist: Livelist, report: Dict[str, Any]
) -> None:
    lists = each_livelist.lists
    assert report["totals"]["live"] == len(_small(lists.live)) + len(_small(lists.libc))


def test_every_live_pointer_lies_in_a_pinned_slab(
    each_livelist: Livelist, report: Dict[str, Any]
) -> None:
    slabs = Slabs(report)
    expected: Dict[str, int] = {}
    for address, size in _small(each_livelist.lists.live + each_livelist.lists.libc):
        slab = slabs.of(address)
        start = int(slab["address"], 16)
        assert start <= address < start + slab["size"] * slab["nregs"], hex(address)
        assert (address - start) % slab["size"] == 0
        assert size <= slab["size"]
        expected[slab["address"]] = expected.get(slab["address"], 0) + 1
    # Slab by slab, not only in sum.
    assert {s["address"]: s["live"] for s in report["slabs"] if s["live"]} == expected


def test_cached_regions_are_those_freed_and_unflushed(
    each_livelist: Livelist, report: Dict[str, Any]
) -> None:
    slabs = Slabs(report)
    expected: Dict[str, int] = {}
    for address, _ in _small(each_livelist.lists.cached):
        slab = slabs.of(address)
        expected[slab["address"]] = expected.get(slab["address"], 0) + 1
    assert {s["address"]: s["cached"] for s in report["slabs"] if s["cached"]} == expected
    large = len(each_livelist.lists.cached) - len(_small(each_livelist.lists.cached))
    assert report["extents"]["large_cached_count"] == large


def test_drainable_slabs_are_those_without_a_live_pointer(
    each_livelist: Livelist, report: Dict[str, Any]
) -> None:
    held = [a for a, _ in _small(each_livelist.lists.live + each_livelist.lists.libc)]
    slabs = Slabs(report)
    pinned = {slabs.of(address)["address"] for address in held}
    totals = report["totals"]
    assert totals["pinned"] == len(pinned)
    assert totals["drainable"] == totals["slabs"] - len(pinned)
    if each_livelist.lists.cached:
        assert totals["cache_held"] > 0, "the program makes slabs that only caches hold"


def test_large_allocations_are_all_accounted_for(
    each_livelist: Livelist, report: Dict[str, Any]
) -> None:
    """The program's, libc's, cached ones, and a stack of pointers for each thread cache."""
    lists = each_livelist.lists
    known = [r for r in lists.live + lists.libc + lists.cached if r[1] > SMALL_MAX]
    caches = report["allocator"]["thread_caches"]
    assert (caches > 0) == bool(lists.cached)
    assert report["extents"]["large_count"] == len(known) + caches
    assert (lists.internal > 0) == (caches > 0)


def test_arenas_are_sparse(each_livelist: Livelist, report: Dict[str, Any]) -> None:
    """The program made an arena, two more later, and destroyed the first."""
    by_arena = sweep_json(each_livelist.core, "--by", "arena", "--debugger", "none")
    arenas = sorted({row["arena"] for row in by_arena["bins"]})
    assert len(arenas) == report["allocator"]["arenas"] == 4
    assert arenas != list(range(4)), "a destroyed arena leaves a gap"
    assert by_arena["totals"] == report["totals"]
    for arena in arenas:
        only = sweep_json(each_livelist.core, "--arena", arena, "--debugger", "none")
        rows = [row for row in by_arena["bins"] if row["arena"] == arena]
        assert only["totals"]["live"] == sum(row["live"] for row in rows)
        assert only["totals"]["ideal_slabs"] == sum(row["ideal_slabs"] for row in rows)
