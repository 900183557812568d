"""What drainsweep adds to a debugger that opens the same core, and the parts of it.

    python3 -m tests.bench.start [--keys N] [--gdb GDB] [--rounds N]

A Redis is filled with N keys of about 1 KB and half emptied; of its core are timed, in
turn, round by round:

    bare gdb     gdb opens the program and the core, and ends
    loaded       the same, and loads the commands
    drainsweep   the same, and sweeps
    drain-gdb    the shell form, with a gdb of its own
    directly     the shell form, with no debugger

Seconds are medians; "of bare" is the median of each round's own ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Sequence

from tabulate import tabulate

from examples.redis.server import half_emptied
from tests.support.inputs import GDB, debian_redis
from tests.support.processes import gcore
from tests.support.runs import GDBINIT, sweep_json

ROUNDS = 7


def commands(gdb: str, core: Path) -> Dict[str, List[str]]:
    """What is timed, by its name in the table."""
    bare = [gdb, "-batch", "-nx", "-q", str(debian_redis()), str(core)]
    loaded = [*bare, "-ex", f"source {GDBINIT}"]
    shell = [sys.executable, "-m", "drain_gdb", "sweep", str(core), "--debugger"]
    return {
        "bare gdb": bare,
        "loaded": loaded,
        "drainsweep": [*loaded, "-ex", "drainsweep"],
        "drain-gdb": [*shell, "gdb"],
        "directly": [*shell, "none"],
    }


def seconds(command: Sequence[str], gdb: str) -> float:
    """How long it takes; it must succeed."""
    start = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "DRAIN_GDB_GDB": gdb},
    )
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=625_000)
    parser.add_argument("--gdb", default=GDB)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with half_emptied(debian_redis(), folder, args.keys) as server:
            core = gcore(server.pid, folder / "core")
        report = sweep_json(core)
        assert report["verification"]["status"] == "exact"
        timed = commands(args.gdb, core)
        rounds = [
            {what: seconds(command, args.gdb) for what, command in timed.items()}
            for _ in range(args.rounds)
        ]
    print(f"{report['totals']['slabs']:,} slabs, {args.rounds} rounds")
    rows = [
        [
            what,
            f"{statistics.median(each[what] for each in rounds):.3f}",
            f"{statistics.median(each[what] / each['bare gdb'] for each in rounds):.2f} x",
        ]
        for what in timed
    ]
    align = ("left", "right", "right")
    print(tabulate(rows, ["", "seconds", "of bare"], colalign=align, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
