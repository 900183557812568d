"""The examples do what the README promises of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from drain_gdb.render.style import size
from examples.redis.server import Redis
from tests.conftest import RedisCore
from tests.readme import README, Commands, blocks, kept, likeness
from tests.support.inputs import ROOT, debian_redis
from tests.support.runs import sweep_json


def test_redis_demo_explains_a_redis_that_was_half_emptied() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.redis.demo"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert any(line.startswith("verdict: structural: ") for line in lines)
    rates = next(line.split()[2:] for line in reversed(lines) if line.startswith("DSR, live"))
    assert len([word for word in rates if word != "%"]) == 3
    (verification,) = (line for line in lines if line.startswith("verification"))
    assert verification.split()[1:] == ["exact"] * 3
    for key in ("used_memory", "used_memory_rss", "mem_fragmentation_ratio"):
        assert any(line.startswith(f"Redis: {key} ") for line in lines)
    assert "All keys gone:" in done.stdout


def test_the_readme_shows_what_is_printed_today(tmp_path: Path) -> None:
    redis = Redis(debian_redis(), tmp_path)
    try:
        shown = list(blocks(README.read_text(encoding="utf-8"), Commands(tmp_path, redis)))
    finally:
        redis.stop()
    alike = {command: likeness(block, now) for command, block, now in shown}
    assert len(alike) >= 4
    assert min(alike.values()) > 0.9, alike


def test_a_program_asks_a_core(stripped_redis: RedisCore) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "examples.redis.ask", str(stripped_redis.core)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    totals = sweep_json(stripped_redis.core, "--debugger", "none")["totals"]
    first, second, *_ = said.splitlines()
    assert f"equal to its own statistics: {size(totals['waste_bytes'])} in slabs" in first
    assert "of the 1024-byte class" in second
    assert len(re.findall(r"^  0x\w+: \d of 4 live: .*key:#$", said, re.M)) == 3
    assert re.search(r"^key:# ", said, re.M)


def test_texts_are_alike_whatever_their_figures() -> None:
    printed = "1. live: 53.5 MiB (47 %)\n  large   12 KiB ███\n"
    assert likeness("1. live: 7.5 GiB (9 %)\n  large\n   1 B █\n", printed) == 1
    assert likeness("1. dead: 53.5 MiB (47 %)\n  large   12 KiB ███\n", printed) < 0.9
    assert kept("a 1\nb 2\n[...]\nd 9\n[...]\n", "a 3\nb 4\nc 5\nd 6\ne 7\n") == (
        "a 3\nb 4\n[...]\nd 6\n[...]\n"
    )


@pytest.mark.long
def test_redis_counting_balances_and_the_asymmetric_pair_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.redis.counting"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stderr == ""
    assert done.stdout.count("a hit takes ") == 1
    rows = [line for line in done.stdout.splitlines() if " %  " in line]
    variances = [float(line.split(" %  ")[0].split()[-1]) for line in rows]
    assert len(variances) == 5
    assert max(variances) < 0.01
    assert all(line.endswith(("equal", "within what was in flight")) for line in rows)
    pairs = {
        line.split("  ")[0]: line.split() for line in done.stdout.splitlines() if " / " in line
    }
    truth = int(pairs["entry / entry"][-1].replace(",", ""))
    claimed = int(pairs["arena / entry: ASYMMETRIC"][-1].replace(",", ""))
    assert truth > 0 > claimed
    assert "both counts balance" in done.stdout
