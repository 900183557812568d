"""Recordings of every jemalloc 5 layout, kept for good, with what is true of them.

Some of these versions no longer install anywhere; their recordings stay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict

import pytest

from drain_gdb.layout.model import known_releases
from tests.support.runs import sweep_json

HERE = Path(__file__).parent / "recordings"
CASES = sorted(path.stem for path in HERE.glob("*.drain"))
ALL_MAX = 5 << 20


def test_the_last_release_of_each_kind_has_a_case() -> None:
    last: Dict[str, str] = {}
    for release in known_releases():
        last.setdefault(release.rpartition(".")[0], release.partition("-")[0])
    assert {f"jemalloc-{release}" for release in last.values()} <= set(CASES)
    assert sum(path.stat().st_size for path in HERE.iterdir() if path.is_file()) < ALL_MAX


@pytest.mark.parametrize("name", CASES)
def test_is_read_as_it_was_and_as_the_program_knew(name: str) -> None:
    case = json.loads((HERE / f"{name}.json").read_text())
    truth, report = case["truth"], sweep_json(HERE / f"{name}.drain")
    assert report == case["report"]
    if report["allocator"]["statistics"]:
        assert report["verification"]["status"] == "exact"
        assert report["coverage"]["anomalies"] == []
        walked = {str(r["size"]): [r["slabs"], r["live"] + r["cached"]] for r in report["bins"]}
        assert walked == truth["bins"]
    else:
        assert name.endswith("-without-statistics")
        assert report["verification"]["status"] == "unavailable"
        (finding,) = report["coverage"]["anomalies"]
        assert "reached through the threads" in finding
    assert report["totals"]["cached"] == truth["cached"]
    # Before 5.3 jemalloc keeps small records of its own in slabs, tens of them at most.
    own = report["totals"]["live"] - truth["live"]
    assert own == 0 if report["allocator"]["version"] >= "5.3" else 0 <= own < 50
