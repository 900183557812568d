"""How a sweep grows: from ten thousand slabs to ten million, time and memory.

    python3 -m tests.bench.size [--slabs N ...] [--regions N] [--gdb GDB]

A synthetic heap (tests/bench/synthetic.py) of 16 arenas, and a thread cache to ten
thousand slabs, so a thousand at ten million, is written to a file and swept in the Python
of GDB, in a process of its own:

    bare read    the same reads once more, with nothing done with the bytes
    sweep        the walk with its self-check, and the text report

Memory is the largest resident size of that whole process (getrusage), gdb included; the
file is read by pread(2), so none of it counts.  The slope is that of the line through
the logarithms of slabs and of seconds or bytes: 1 is linear.  Ten million slabs need
1.6 GB in TMPDIR.

Last comes a real process, live, with N regions that it never touched (tests/programs/huge.c),
read through gdb.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from tabulate import tabulate

from drain_gdb.layout.serialize import to_value
from tests.bench.synthetic import Synthetic, make
from tests.support.inputs import GDB, program
from tests.support.processes import Program

INSIDE = Path(__file__).with_name("inside_size.py")
OTHERS = 1000
"""Regions that libc and jemalloc itself may hold in a real process, at most."""
ARENAS, SLABS_TO_A_CACHE = 16, 10_000
SLABS = (10_000, 100_000, 1_000_000, 10_000_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slabs", type=int, nargs="+", default=SLABS)
    parser.add_argument("--regions", type=int, default=28_000_000)
    parser.add_argument("--gdb", default=GDB)
    args = parser.parse_args()
    results = [measure(slabs, args.gdb) for slabs in args.slabs]
    show(results)
    print(f"\nA real process of {args.regions:,} regions:")
    show([measure_real(args.regions, args.gdb)])
    return 0


def measure(slabs: int, gdb: str) -> Dict[str, Any]:
    """Make the heap, sweep it, hold the result against the truth."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make(folder, slabs, ARENAS, slabs // SLABS_TO_A_CACHE)
        request = {
            "parts": [(address, str(path)) for address, path in truth.parts],
            "layout": to_value(truth.layout),
            "result": str(folder / "result.json"),
        }
        result = inside(folder, request, gdb)
        require(result, truth)
        return result


def measure_real(regions: int, gdb: str) -> Dict[str, Any]:
    """Sweep a process of that many regions, which is its own truth."""
    child = Program([str(program("huge", "-ljemalloc")), str(regions)])
    try:
        with tempfile.TemporaryDirectory() as name:
            request = {"result": str(Path(name) / "result.json")}
            result = inside(Path(name), request, gdb, "-p", str(child.pid))
    finally:
        child.stop()
    freed = regions // 4 - 4
    assert 0 <= result["live"] - (regions - freed) < OTHERS, result
    assert result["status"] == "exact"
    return result


def inside(folder: Path, request: Dict[str, Any], gdb: str, *options: str) -> Dict[str, Any]:
    """What the part that runs in gdb finds."""
    (folder / "request.json").write_text(json.dumps(request))
    done = subprocess.run(
        [gdb, "-batch", "-nx", *options, "-x", str(INSIDE)],
        env={**os.environ, "BENCH_REQUEST": str(folder / "request.json")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (folder / "result.json").exists(), done.stderr
    result: Dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def require(result: Dict[str, Any], truth: Synthetic) -> None:
    found = (result["slabs"], result["regions"], result["live"], result["cached"])
    live = truth.allocated - truth.cached
    assert found == (truth.slabs, truth.regions, live, truth.cached), found
    assert result["status"] == "exact"


def slope(points: Sequence[Tuple[float, float]]) -> float:
    """Of the line through the logarithms of ``points``, by least squares."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    x0, y0 = (sum(axis) / len(logs) for axis in zip(*logs))
    return sum((x - x0) * (y - y0) for x, y in logs) / sum((x - x0) ** 2 for x, _ in logs)


def show(results: Sequence[Dict[str, Any]]) -> None:
    rows: List[List[str]] = [
        [
            f"{each['slabs']:,}",
            f"{each['bytes'] / 1e6:,.1f}",
            f"{each['bare read']:.3f}",
            f"{each['sweep']:.3f}",
            f"{each['sweep'] / each['slabs'] * 1e6:.2f}",
            f"{each['slabs'] / each['sweep']:,.0f}",
            f"{each['memory'] / 1e6:,.0f}",
            f"{(each['memory'] - each['before']) / each['slabs']:,.0f}",
        ]
        for each in results
    ]
    heads = ["slabs", "MB read", "bare read, s", "sweep, s", "us a slab", "slabs a second"]
    heads += ["memory, MB", "bytes a slab"]
    print(tabulate(rows, heads, colalign=["right"] * len(heads), disable_numparse=True))
    print(f"Python {results[0]['python']} in gdb, best of three; memory of gdb itself:", end="")
    print(f" {results[0]['before'] / 1e6:,.0f} MB")
    if len(results) > 1:
        for what in ("sweep", "memory"):
            found = slope([(each["slabs"], each[what]) for each in results])
            print(f"slope of {what}: {found:.2f}")
        first, last = results[-2:]
        for what in ("sweep", "memory"):
            grown = last[what] / first[what] / (last["slabs"] / first["slabs"])
            print(f"{what}, last step: {grown:.2f} x what is linear")


if __name__ == "__main__":
    sys.exit(main())
