"""The examples do what the README promises of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.inputs import ROOT


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
