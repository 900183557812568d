"""A sweep of a process whose threads allocate and free without rest.

    python3 -m tests.bench.busy [--threads N] [--slots N] [--rounds N]

The program (tests/programs/churn.c) is swept by drain-gdb sweep --debugger none

    at rest     stopped by a signal beforehand
    in motion   never stopped
    --stop      stopped for the copy

the ways taking turns.  Printed are, of each, processor and wall time of the whole command,
how far jemalloc's own figures and the walk differ, and how long the process stood still: as
the command says, and as its own threads saw it, which note the longest time in which none of
them went on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Dict, List, NamedTuple, Optional, Sequence

from tabulate import tabulate

from tests.support.inputs import ROOT, program
from tests.support.processes import standing

WAYS: Dict[str, Sequence[str]] = {"at rest": (), "in motion": (), "--stop": ("--stop",)}
STOPPED = re.compile(r"stopped for (\d+\.\d+) s")


class Round(NamedTuple):
    """Seconds, but for the figures in the last line: slabs, and the share that is off."""

    processor: float
    wall: float
    stopped: Optional[float]
    gap: float
    slabs: int
    off: float


class Churn:
    """The program, once it is steady."""

    def __init__(self, threads: int, slots: int) -> None:
        command = [str(program("churn", "-ljemalloc")), str(threads), str(slots)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.slabs = int(self._line().split()[1])

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def gap(self) -> float:
        """The longest time in seconds without progress, since this was asked last."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line().split()[0]) / 1e6

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def measure(churn: Churn, options: Sequence[str]) -> Round:
    """One sweep."""
    command = [sys.executable, "-m", "drain_gdb", "sweep", "--pid", str(churn.pid)]
    command += ["--debugger", "none", "--format", "json", *options]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT) as child:
            _, status, used = os.wait4(child.pid, 0)
            wall = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said = err.read()
        assert child.returncode in (0, 3), said
        report = json.load(out)
    found = report["verification"]
    tolerance = found["tolerance"]
    off = 0.0
    if found["status"] != "exact":
        off = float("nan") if tolerance is None else tolerance["reached"]
    stopped = STOPPED.search(said)
    return Round(
        used.ru_utime + used.ru_stime,
        wall,
        None if stopped is None else float(stopped[1]),
        0.0,
        found["slabs_walked"],
        off,
    )


def round_of(churn: Churn, way: str) -> Round:
    """One sweep in one of the ways."""
    if way == "at rest":
        with standing(churn.pid):
            return measure(churn, WAYS[way])
    churn.gap()
    found = measure(churn, WAYS[way])
    return found._replace(gap=churn.gap())


def row_of(way: str, rounds: Sequence[Round]) -> List[str]:
    def spread(values: Sequence[float], unit: float, digits: int) -> str:
        middle, most = statistics.median(values) * unit, max(values) * unit
        return f"{middle:.{digits}f} ({most:.{digits}f})"

    stopped = [one.stopped for one in rounds if one.stopped is not None]
    exact = sum(one.off == 0 for one in rounds)
    return [
        way,
        f"{statistics.median(one.slabs for one in rounds):,.0f}",
        spread([one.processor for one in rounds], 1, 2),
        spread([one.wall for one in rounds], 1, 2),
        f"{exact} of {len(rounds)}",
        spread([one.off for one in rounds], 100, 2),
        spread(stopped, 1000, 0) if stopped else "-",
        "-" if way == "at rest" else spread([one.gap for one in rounds], 1000, 1),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--slots", type=int, default=100_000, help="of each thread")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    churn = Churn(args.threads, args.slots)
    found: Dict[str, List[Round]] = {way: [] for way in WAYS}
    try:
        for _ in range(args.rounds):
            for way, rounds in found.items():
                rounds.append(round_of(churn, way))
        churn.gap()
        time.sleep(1)
        alone = churn.gap()
    finally:
        churn.stop()
    print(f"{args.threads} threads on {os.cpu_count()} processors; median (worst) of each")
    heads = ["", "slabs", "processor s", "wall s", "exact", "off by %", "stopped ms", "seen ms"]
    rows = [row_of(way, rounds) for way, rounds in found.items()]
    print(tabulate(rows, heads, colalign=("left", *["right"] * 7), disable_numparse=True))
    print(f"without any sweep, in a second: {alone * 1000:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
