"""What it costs to watch a process: a sweep a second of 100,000 slabs.

    python3 -m tests.bench.watch [--slabs N] [--sweeps N] [--every SECONDS]

Two programs are watched as drain-gdb watch does it: one whose slabs stand still but for the
regions that come and go in one of them (tests/programs/renew.c), and one whose threads
allocate and free without rest (tests/programs/churn.c).  Printed are the processor time of a
sweep: within the reads (what the kernel is asked for), and beyond them, also as a share of one
core at one sweep a second; and what the watcher has in memory, after a tenth of the sweeps
and at the end.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Callable, List, NamedTuple

from tabulate import tabulate

from drain_gdb.analysis.watch import Trend
from drain_gdb.debuggee.motion import MovingTarget, QuickCopy
from drain_gdb.debuggee.procfs import ProcessTarget
from drain_gdb.jemalloc.again import Repeated
from tests.support.inputs import program
from tests.support.processes import Program

KINDS = 3
"""Size classes of renew.c."""
READS = ("read", "touched", "_bytes", "resident_bytes")


class Sweep(NamedTuple):
    """Seconds of processor time."""

    reads: float
    beyond: float


class Reads:
    """The processor time that goes by while the kernel is asked."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inside = False
        for name in READS:
            self._wrap(ProcessTarget, name)
        self._wrap(QuickCopy, "take")
        self._wrap(MovingTarget, "_everything")

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            if self._inside:
                return original(*arguments)
            self._inside = True
            start = time.process_time()
            try:
                return original(*arguments)
            finally:
                self._inside = False
                self.spent[name] += time.process_time() - start

        setattr(owner, name, timed)

    def take(self) -> float:
        """Seconds since this was asked last."""
        found = sum(self.spent.values())
        self.spent.clear()
        return found


def resident() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) << 12


def watched(
    pid: int, reads: Reads, sweeps: int, every: float, step: Callable[[], Any]
) -> List[Any]:
    live = ProcessTarget(pid)
    repeated, trend = Repeated(live), Trend()
    found: List[Sweep] = []
    early = slabs = 0
    for number in range(sweeps):
        step()
        reads.take()
        start = time.process_time()
        target, heaps = repeated.walk()
        row = trend.row(heaps, live.resident_bytes(), target.process().taken_at or "")
        spent = time.process_time() - start
        inside = reads.take()
        found.append(Sweep(inside, spent - inside))
        slabs = row.slabs
        if number == sweeps // 10:
            early = resident()
        time.sleep(max(0.0, every - spent))
    settled = found[2:]
    within, beyond = (statistics.median(each[i] for each in settled) for i in range(2))
    return [
        f"{slabs:,}",
        f"{within * 1e3:.1f}",
        f"{beyond * 1e3:.1f}",
        f"{100 * beyond:.1f} %",
        f"{early / 2**20:.0f}",
        f"{resident() / 2**20:.0f}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slabs", type=int, default=100_000)
    parser.add_argument("--sweeps", type=int, default=30)
    parser.add_argument("--every", type=float, default=1.0)
    args = parser.parse_args()
    reads = Reads()
    rows = []
    still = Program([str(program("renew", "-ljemalloc")), str(args.slabs // KINDS)])
    try:
        step = partial(still.ask, "look")
        rows.append(["still", *watched(still.pid, reads, args.sweeps, args.every, step)])
    finally:
        still.stop()
    busy = Program([str(program("churn", "-ljemalloc")), "2", "400000"])
    try:
        rows.append(["busy", *watched(busy.pid, reads, args.sweeps, args.every, lambda: None)])
    finally:
        busy.stop()
    heads = ["process", "slabs", "reads, ms", "beyond, ms", "of a core", "MB early", "MB late"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
