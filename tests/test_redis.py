"""The main job on real Redis cores, against what Redis' own allocator printed."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from tests.conftest import KEYS, RedisCore
from tests.support.runs import shell, sweep_json


@pytest.fixture(scope="module", params=["stripped", "dwarf"])
def swept(request: pytest.FixtureRequest) -> tuple[str, RedisCore, Dict[str, Any]]:
    redis: RedisCore = request.getfixturevalue(f"{request.param}_redis")
    return request.param, redis, sweep_json(redis.core, "--debugger", "gdb")


def test_is_exact_and_says_how_it_was_found(swept: Any) -> None:
    kind, _, report = swept
    found = report["allocator"]
    assert found["layout_source"] == {"stripped": "discovered", "dwarf": "dwarf"}[kind]
    assert found["symbol_prefix"] == {"stripped": None, "dwarf": "je_"}[kind]
    assert found["version"].startswith("5.3.0")
    verification = report["verification"]
    assert verification["status"] == "exact"
    assert verification["mismatches"] == []
    assert verification["slabs_walked"] == verification["slabs_recorded"]
    assert verification["regions_walked"] == verification["regions_recorded"]
    assert report["coverage"]["bytes_unreadable"] == 0
    assert report["coverage"]["anomalies"] == []


def test_every_bin_equals_malloc_stats(swept: Any) -> None:
    _, redis, report = swept
    walked = {row["size"]: row for row in report["bins"]}
    assert set(redis.before) <= set(walked) | set(redis.after)
    for size, row in walked.items():
        said = [stats[size] for stats in (redis.before, redis.after) if size in stats]
        regions = row["live"] + row["cached"]
        assert row["slabs"] in range(min(s.slabs for s in said), max(s.slabs for s in said) + 1), (
            size
        )
        assert regions in range(min(s.regions for s in said), max(s.regions for s in said) + 1), (
            size
        )
    unmoved = [s for s in walked if redis.before.get(s) == redis.after.get(s)]
    assert len(unmoved) >= 0.8 * len(walked), "the server moved too much to prove anything"


def test_is_the_known_case(swept: Any) -> None:
    """Keys of about 1 KB, every second one deleted: nothing drains."""
    kind, _, report = swept
    totals = report["totals"]
    if kind == "stripped":
        assert totals["slabs"] == pytest.approx(152 + 0.2656 * KEYS, abs=60)
    assert totals["pinned"] >= 0.99 * totals["slabs"]
    assert totals["dsr"] < 0.01
    assert 1.9 < totals["retention_ratio"] < 2.1
    kilobyte = next(row for row in report["bins"] if row["size"] == 1024)
    assert kilobyte["slabs"] == pytest.approx(KEYS / 4, abs=20)
    assert kilobyte["live"] == pytest.approx(KEYS / 2, abs=20)


def test_counts_and_bytes_add_up(swept: Any) -> None:
    _, _, report = swept
    for row in [report["totals"], *report["bins"]]:
        assert row["slabs"] == row["drainable"] + row["pinned"]
        assert row["drainable"] == row["empty"] + row["cache_held"]
        assert row["regions"] == row["live"] + row["cached"] + row["free"]
        assert row["waste_bytes"] == row["slab_bytes"] - row["live_bytes"]
        assert row["dsr"] == row["drainable"] / row["slabs"]
        assert row["occupancy"] == row["live"] / row["regions"]
    for row in report["bins"]:
        assert row["regions"] == row["slabs"] * row["nregs"]
        assert sum(row["occupancy_histogram"]) == row["slabs"]
    for key in ("slabs", "live", "cached", "free", "empty", "cache_held", "ideal_slabs"):
        assert report["totals"][key] == sum(row[key] for row in report["bins"])


def test_counters_balance(swept: Any) -> None:
    """Each layer's allocations less its deallocations are what that layer has out."""
    _, _, report = swept
    totals, counters = report["totals"], report["counters"]
    requests, arena = counters["requests"], counters["arena"]
    assert requests["allocs"] - requests["deallocs"] == totals["live"]
    assert arena["allocs"] - arena["deallocs"] == totals["live"] + totals["cached"]
    # Half of the values were freed again.
    assert requests["deallocs"] > KEYS / 2


def test_text_tells_a_tired_reader(stripped_redis: RedisCore) -> None:
    ran = shell("sweep", stripped_redis.core)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("core of redis-server (pid ")
    assert "without symbols in libjemalloc.so.2" in " ".join(lines[:2])
    assert any(line.startswith("verified: ") for line in lines[:4])
    verdict = ran.out[ran.out.index("verdict: ") :]
    assert verdict.startswith("verdict: structural: ")
    assert "1024-byte class" in verdict
