"""draincount in lldb: the same counts, by other breakpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Sequence

import pytest

from tests.support.inputs import program
from tests.support.runs import Ran, lldb
from tests.test_counting import PATIENT, SHARED, STATIC, known

BEFORE = ["breakpoint set -n window_opens", "breakpoint set -n window_closes"]


def counted(
    *commands: str,
    options: Sequence[str] = SHARED,
    truth: object = "/dev/null",
    argument: str = "",
) -> Ran:
    """lldb at the opening of the program's window, then ``commands``."""
    before = [*BEFORE, f"run {truth} {argument}"]
    patient = f"script {PATIENT}"
    return lldb(patient, *commands, before=before, arguments=[program("counted", *options)])


def own_breakpoints(ran: Ran) -> int:
    """The breakpoints listed beyond the two of the test."""
    return len(re.findall(r"^\d+: ", ran.out, re.M)) - len(BEFORE)


def test_entries_walk_and_requests_equal_what_the_program_did(tmp_path: Path) -> None:
    report, truth = tmp_path / "count.json", tmp_path / "truth"
    ran = counted(
        "draincount start --layer entry",
        "continue",
        f"draincount stop --format json --output {report}",
        "breakpoint list",
        "continue",
        truth=truth,
    )
    assert own_breakpoints(ran) == 0
    assert "exited with status = 0" in ran.out
    found = json.loads(report.read_text())
    did = known(truth)
    assert {
        row["size"]: (row["allocs"], row["frees"], row["resized"])
        for row in found["classes"]
        if row["allocs"] or row["frees"] or row["resized"]
    } == {size: counts for size, counts in did.classes.items() if any(counts)}
    assert [check["status"] for check in found["checks"]] == ["exact", "exact"]
    calls = found["hooks"]["calls"]
    assert {name: calls[name] for name in did.calls} == did.calls
    assert (found["hooks"]["moved"], found["hooks"]["kept"]) == (did.moved, did.kept)


def test_refills_and_flushes_equal_the_bins_own_counters(tmp_path: Path) -> None:
    report = tmp_path / "count.json"
    counted(
        "draincount start --layer arena",
        "continue",
        f"draincount stop --format json --output {report}",
        options=STATIC,
    )
    checks = json.loads(report.read_text())["checks"]
    assert [check["status"] for check in checks] == ["exact"] * 3
    assert all(check["counted"] for check in checks)


def test_limits(tmp_path: Path) -> None:
    """Of hits, of hits while the user continues, of time with and without hooks."""
    ran = counted(
        "draincount start --layer entry --hits 300",
        "breakpoint list",
        "script from drain_gdb.hooks import session; session.HITS_DEFAULT = 200",
        "draincount start --layer entry",
        "continue",
        "draincount show",
        "draincount start --layer entry --for 0.3",
        "draincount start --for 0.3",
        argument="spin",
    )
    out = " ".join(ran.out.split())
    assert own_breakpoints(ran) == 0
    assert "the limit of 200 hits is reached, the hooks are removed" in ran.err
    assert "a hit takes" in ran.err
    for limit in ("300 hits", "200 hits", "0.3 s"):
        assert f"the limit of {limit} is reached" in out
    assert out.count("symmetric: both sides") == 4


@pytest.mark.parametrize(
    ("argument", "commands", "reason"),
    [
        ("exit", ["continue"], "the process exited with 3"),
        pytest.param(
            *("exec", ["continue"], "the process runs another program"), marks=pytest.mark.long
        ),
        pytest.param("", ["process kill"], "the process exited with 9", marks=pytest.mark.long),
    ],
    ids=["exit", "exec", "kill"],
)
def test_the_end_of_the_process_ends_the_count(
    argument: str, commands: Sequence[str], reason: str
) -> None:
    ran = counted(
        "draincount start --layer arena",
        *commands,
        "draincount show",
        "breakpoint list",
        options=STATIC,
        argument=argument,
    )
    assert reason in ran.err
    assert "no walk at the end" in ran.out
    assert own_breakpoints(ran) == 0
