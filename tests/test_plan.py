"""What remedies are foretold to give, against what they gave when they were done."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import List

import pytest

import drain_gdb
from drain_gdb.analysis.packing import Bin, curve, merged, pack
from drain_gdb.analysis.scatter import scatter
from drain_gdb.analysis.splitting import best_split
from examples.redis.server import Redis
from tests.conftest import RedisCore
from tests.support import remedies
from tests.support.inputs import ROOT, debian_redis, falkordb_redis
from tests.support.remedies import plan_of, private, remedy
from tests.support.runs import shell
from tests.support.situations import running


def _bin(counts: Counter[int], nregs: int = 64, size: int = 64) -> Bin:
    live = sum(held * number for held, number in counts.items())
    slabs = sum(counts.values())
    return Bin(0, 4, size, nregs * size, nregs, slabs, live, 0, counts)


def test_packing_empties_the_sparsest_first() -> None:
    each = _bin(Counter({0: 3, 1: 10, 32: 10, 64: 10}))
    # 970 live regions need 16 slabs; 30 hold some.
    assert (each.ideal, each.excess, each.drainable) == (16, 14, 3)
    packed = pack([each])
    assert (packed.slabs, packed.regions_moved) == (14, 10 * 1 + 4 * 32)
    steps = curve([each])
    assert [step.slabs_freed for step in steps] == [2, 3, 5, 6, 7, 9, 10, 12, 13, 14]
    assert steps[-1].regions_moved == packed.regions_moved
    assert all(a.bytes_moved <= b.bytes_moved for a, b in zip(steps, steps[1:]))


def test_of_several_bins_the_cheapest_bytes_come_first() -> None:
    cheap, dear = _bin(Counter({2: 100})), _bin(Counter({30: 100}), size=128)
    first = curve([dear, cheap])[0]
    assert first.bytes_moved == first.slabs_freed * 2 * 64


def test_merged_arenas_round_up_once() -> None:
    one = [_bin(Counter({1: 1})) for _ in range(10)]
    assert sum(each.ideal for each in one) == 10
    (whole,) = merged(one)
    assert (whole.ideal, whole.slabs, whole.by_live) == (1, 10, Counter({1: 10}))


@pytest.mark.parametrize(
    "counts, word",
    [
        (Counter({32: 1000}), "evenly spread"),
        (Counter({0: 400, 64: 600}), "clustered"),
        (Counter({1: 10}), None),
        (Counter({64: 1000}), None),
    ],
)
def test_how_survivors_lie(counts: Counter[int], word: str) -> None:
    (found,) = scatter([_bin(counts)])
    assert found.word == word


def test_smaller_slabs_by_chance() -> None:
    each = Bin(0, 20, 640, 20480, 32, 10_000, 10_000, 0, Counter({1: 10_000}))
    split = best_split(each, 4096)
    assert split is not None
    # One region to a slab needs one page of the five, wherever it lies.
    assert split.pages == 1
    certain = 10_000 * (20480 - 4096)
    assert split.low < certain < split.high
    assert split.high - split.low == pytest.approx(0.04 * certain)
    assert abs(split.value - certain) < 0.1 * certain


def test_a_flush_is_foretold_exactly_and_a_purge_to_a_hundredth() -> None:
    with running("cached") as program:
        plan = plan_of("--pid", program.pid)
        flush, purge = remedy(plan, "flush_caches"), remedy(plan, "purge")
        before = private(program.pid)
        program.do("purge")
        came = before - private(program.pid)
        assert abs(purge["resident_freed"]["value"] - came) <= 0.01 * came
        slabs = _slabs(program.pid)
        program.do("flush")
        assert slabs - _slabs(program.pid) == flush["slabs_freed"]["value"]
        assert flush["resident_freed"]["value"] == 0
        before = private(program.pid)
        program.do("purge")
        came = before - private(program.pid)
        foretold = purge["on_top"]["resident_freed"]["value"] - purge["resident_freed"]["value"]
        assert abs(foretold - came) <= 0.01 * came


def _slabs(pid: int) -> int:
    with drain_gdb.open(pid=pid) as snapshot:
        return len(snapshot.heaps[0].slabs)


def test_huge_pages_off_to_a_twentieth() -> None:
    with running("huge", "thp:always,dirty_decay_ms:0") as program:
        foretold = remedy(plan_of("--pid", program.pid), "huge_pages_off")
        before = private(program.pid)
        if not foretold["applies"]:
            assert foretold["why_not"] is not None
            pytest.fail(f"this system gives no huge pages: {foretold['why_not']}")
    with running("huge", "thp:never,dirty_decay_ms:0") as program:
        came = before - private(program.pid)
    assert abs(foretold["resident_freed"]["value"] - came) <= 0.05 * came


def test_a_restart_is_foretold(tmp_path: Path) -> None:
    slabs, resident, left = remedies.restarted(debian_redis(), tmp_path, remedies.every_second)
    assert abs(slabs.foretold["value"] - slabs.came) <= max(20, 0.01 * left)
    assert abs(resident.off) <= 0.06, resident


@pytest.mark.long
def test_defragmentation_is_foretold(tmp_path: Path) -> None:
    came, left = remedies.defragmented(falkordb_redis(), tmp_path, remedies.every_second)
    assert abs(came.foretold["value"] - came.came) <= max(20, 0.02 * left), came


@pytest.mark.parametrize("arenas", [pytest.param(4, marks=pytest.mark.long), 16])
@pytest.mark.parametrize("pattern", ["random", "bursts", "sessions", "resized"])
def test_fewer_arenas_are_foretold_or_no_figure_is_given(pattern: str, arenas: int) -> None:
    """The same allocations are made in many arenas and in one."""
    foretold, slabs, left = remedies.fewer_arenas(pattern, arenas)
    assert foretold["applies"]
    for figure, before, after in zip(("slabs_freed", "bytes_freed"), slabs, left):
        if foretold[figure] is None:
            assert "no honest figure" in foretold["notes"][0]
        else:
            low, high = foretold[figure]["low"], foretold[figure]["high"]
            assert low <= before - after <= high
            assert high - low <= 0.4 * before
    assert (foretold["slabs_freed"] is None) == (pattern in ("random", "bursts"))


@pytest.mark.parametrize(
    "pattern", ["waves", "spread", pytest.param("bursts", marks=pytest.mark.long)]
)
def test_smaller_slabs_are_foretold(pattern: str) -> None:
    """The same allocations are made again, with the option that the plan names."""
    came, _ = remedies.smaller_slabs(pattern)
    assert came.foretold["low"] <= came.came <= came.foretold["high"]
    if pattern != "spread":
        assert abs(came.off) <= 0.02


LUA = {
    "every second": "for i=1,19999,2 do redis.call('del','key:'..i) end",
    "random": "math.randomseed(7) for i=0,19999 do if math.random()<0.5 then"
    " redis.call('del','key:'..i) end end",
    "in order": "for i=0,9999 do redis.call('del','key:'..i) end",
}


@pytest.mark.parametrize(
    "deleted, word, low, high",
    [
        ("every second", "evenly spread", 0, 0.1),
        ("random", "random", 0.9, 1.1),
        ("in order", "clustered", 5, 100),
    ],
)
def test_dispersion_tells_how_keys_were_deleted(
    tmp_path: Path, deleted: str, word: str, low: float, high: float
) -> None:
    server = Redis(debian_redis(), tmp_path)
    try:
        server.command("DEBUG", "POPULATE", "20000", "key", "120")
        server.command("EVAL", LUA[deleted], "0")
        plan = plan_of("--pid", server.pid)
    finally:
        server.stop()
    (found,) = (each for each in plan["scatter"] if each["size"] == 128)
    assert low <= found["dispersion"] <= high
    assert found["word"] == word


def test_what_does_not_apply_says_why(stripped_redis: RedisCore) -> None:
    plan = plan_of(stripped_redis.core)
    defragmentation = remedy(plan, "active_defrag")
    assert not defragmentation["applies"]
    assert "jemalloc of the system's" in defragmentation["why_not"]
    assert plan["remedies"][0]["remedy"] == "restart"
    for each in plan["remedies"]:
        assert each["applies"] == (each["why_not"] is None)
        assert each["applies"] == (each["on_top"] is not None)
    assert plan["scatter"][0]["dispersion"] < 0.1
    granules = plan["huge_pages"]
    assert 0 < granules["touched"] < 200
    ran = shell("plan", stripped_redis.core, "--verbose")
    assert ran.status == 0
    assert max(map(len, ran.out.splitlines())) <= 100
    assert "evenly spread" in ran.out


@pytest.mark.parametrize("version, known", [("5.1.0", False), ("5.2.1", True)])
def test_an_option_that_a_jemalloc_has_not_is_not_offered(version: str, known: bool) -> None:
    split = remedy(plan_of(ROOT / f"tests/recordings/jemalloc-{version}.drain"), "slab_sizes")
    assert known or not split["applies"]
    assert ("from 5.2.0 on" in split["how"]) is not known


def test_finer_classes_have_no_figure(stripped_redis: RedisCore) -> None:
    finer = remedy(plan_of(stripped_redis.core), "lg_quantum")
    assert finer["slabs_freed"] is finer["bytes_freed"] is finer["resident_freed"] is None
    assert "another build" in finer["why_not"]


def test_statistics_have_a_plan_too(stripped_redis: RedisCore, tmp_path: Path) -> None:
    said = tmp_path / "stats.txt"
    said.write_text(stripped_redis.printed[1])
    ran = shell("plan", said, "--format", "json")
    assert ran.status == 0, ran.err
    told, walked = json.loads(ran.out), plan_of(stripped_redis.core)
    slabs: List[int] = [remedy(each, "restart")["slabs_freed"]["value"] for each in (told, walked)]
    # Cached regions, some hundred, count as live.
    assert 0 <= slabs[1] - slabs[0] < 200
    assert told["defragmentation"] == [] and told["huge_pages"] is None
