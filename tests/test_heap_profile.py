"""Heap profiles: their form, and the waste that stacks are given."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Dict

import pytest

from drain_gdb.analysis.heap_profile import parse_profile, read_profile, weigh
from drain_gdb.errors import TargetError
from tests.support.inputs import program
from tests.support.processes import Program
from tests.support.runs import shell

TEXT = """heap_v2/524288
  t*: 30: 3000 [0: 0]
  t0: 30: 3000 [0: 0]
@ 0x1001 0x2001
  t*: 10: 1000 [7: 70]
  t0: 10: 1000 [7: 70]
@ 0x1002 0x2001
  t*: 30: 3000 [0: 0]
  t0: 30: 3000 [0: 0]
@ 0x1003
  t*: 0: 0 [3: 900]
  t0: 0: 0 [3: 900]
@ 0x1004
  t*: 2: 4000000 [0: 0]
  t1: 2: 4000000 [0: 0]

MAPPED_LIBRARIES:
55d0-55d1 r-xp @ 0x99
"""
NAMES: Dict[int, str] = {0x1000: "parse", 0x2000: "main"}


def test_the_waste_goes_to_those_who_hold_objects_of_the_class() -> None:
    profile = parse_profile(TEXT, "x.heap")
    assert profile.rate == 524288
    assert [stack.objects for stack in profile.stacks] == [10, 30, 2]
    rows = weigh(profile, {96: 50, 112: 4000, 2048: 7}, NAMES.get)
    assert [row.frames for row in rows] == [("0x1002", "main"), ("parse", "main")]
    assert [row.size for row in rows] == [112, 112]
    assert [row.waste_bytes for row in rows] == [3000, 1000]
    assert rows[1].objects == round(10 / (1 - math.exp(-100 / 524288)))


@pytest.mark.parametrize("text", ["", "heap profile: 1: 2 [3: 4] @ heapprofile\n", "heap_v2/0\n"])
def test_what_is_no_profile(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.heap"
    path.write_text(text)
    with pytest.raises(TargetError, match="no heap profile"):
        read_profile(str(path))


def test_by_the_command(tmp_path: Path) -> None:
    """Of a real process, by its own dump: what it kept was made by a burst of sessions."""
    path = tmp_path / "own.heap"
    child = Program(
        [str(program("pinning", "-ljemalloc")), str(path)],
        {"MALLOC_CONF": "prof:true,prof_active:true,lg_prof_sample:14"},
    )
    options = ("--debugger", "none", "--by", "size")
    try:
        ran = shell("pins", "--pid", child.pid, "--heap-profile", path, *options)
        report = shell(
            "pins", "--pid", child.pid, "--heap-profile", path, *options, "--format", "json"
        )
        none = shell("pins", "--pid", child.pid, "--heap-profile", tmp_path / "none", *options)
    finally:
        child.stop()
    assert ran.status == 0, ran
    assert "by the heap profile, estimated" in ran.out
    stacks = json.loads(report.out)["stacks"]
    assert all(stack["estimated"] for stack in stacks)
    first = stacks[0]
    assert "main" in first["frames"], "the bursts are part of it"
    assert 10_000 < first["objects"] < 22_000
    assert none.status == 1
    assert "no such file" in none.err
