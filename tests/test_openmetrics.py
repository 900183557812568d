"""Metrics, read back by those who read metrics."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as older_families

from tests.conftest import Core, RedisCore
from tests.support.inputs import ROOT
from tests.support.runs import shell, sweep_json

SIZES_MAX, PARTS_MAX = 64, 64


@pytest.fixture(scope="module")
def said(stripped_redis: RedisCore) -> str:
    ran = shell("sweep", stripped_redis.core, "--format", "openmetrics", "--debugger", "none")
    assert ran.status == 0, ran.err
    return ran.out


def _samples(text: str) -> Dict[str, List[Any]]:
    return {f.name: f.samples for f in text_string_to_metric_families(text)}


def test_it_says_what_the_report_says(stripped_redis: RedisCore, said: str) -> None:
    report = sweep_json(stripped_redis.core, "--debugger", "none")
    found = _samples(said)
    totals = report["totals"]
    for state in ("empty", "cache_held", "pinned"):
        rows = [s.value for s in found["drain_slabs"] if s.labels["state"] == state]
        assert sum(rows) == totals[state]
    assert sum(s.value for s in found["drain_waste_bytes"]) == totals["waste_bytes"]
    parts = [p["resident_bytes"] or 0 for p in report["account"]["parts"]]
    assert sum(s.value for s in found["drain_resident_bytes"]) == sum(parts)
    assert found["drain_allocs"][0].value == report["counters"]["requests"]["allocs"]
    status = {s.labels["status"]: s.value for s in found["drain_verification"]}
    assert status == {"exact": 1, "mismatch": 0, "unavailable": 0}


def test_collectors_of_files_take_it_too(said: str) -> None:
    assert {s.name for f in older_families(said) for s in f.samples} == {
        s.name for f in text_string_to_metric_families(said) for s in f.samples
    }


def test_labels_are_few(said: str) -> None:
    found = _samples(said)
    assert len({s.labels["size"] for s in found["drain_slabs"]}) < SIZES_MAX
    assert len(found["drain_resident_bytes"]) < PARTS_MAX


def test_several_allocators_are_told_apart(two_allocators: Core) -> None:
    ran = shell("sweep", two_allocators.core, "--format", "openmetrics", "--debugger", "none")
    assert ran.status == 0
    numbers = {s.labels["allocator"] for s in _samples(ran.out)["drain_slabs"]}
    assert numbers == {"0", "1"}


def test_the_dashboard_asks_for_metrics_that_there_are(said: str) -> None:
    dashboard = json.loads((ROOT / "examples/metrics/dashboard.json").read_text())
    asked = " ".join(t["expr"] for panel in dashboard["panels"] for t in panel["targets"])
    names = {word for word in asked.replace("(", " ").replace("{", " ").split() if "drain_" in word}
    assert names
    assert names <= {s.name for f in text_string_to_metric_families(said) for s in f.samples}
