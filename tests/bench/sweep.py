"""How fast a sweep is, beside the least it could cost and the usual way to do it.

    python3 -m tests.bench.sweep [--keys N] [--gdb GDB]

A Redis with debug information is filled with N keys of about 1 KB and half
emptied; of its core, in one gdb, are measured:

    bare read    reading the same bytes of metadata again, through the same adapter
    walk         the walk with its self-check, as drainsweep does it
    with report  the same, and the text report made from it
    drainsweep   the same again, and first finding jemalloc in the process
    field walk   e_bits, e_addr and the bitmap of each slab as gdb.Value, a field a time

Each is the best of three runs but the field walk, which runs once.  Memory is the
peak of what Python holds during one walk, the result included (tracemalloc).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from examples.redis.server import half_emptied
from tests.support.inputs import GDB, falkordb_redis
from tests.support.processes import gcore

INSIDE = Path(__file__).with_name("inside.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=450_000)
    parser.add_argument("--gdb", default=GDB)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with half_emptied(falkordb_redis(), folder, args.keys) as server:
            core = gcore(server.pid, folder / "core")
        result = folder / "result.json"
        subprocess.run(
            [args.gdb, "-batch", "-nx", str(falkordb_redis()), str(core), "-x", str(INSIDE)],
            env={**os.environ, "BENCH_RESULT": str(result)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        show(json.loads(result.read_text()))
    return 0


def show(result: dict[str, float]) -> None:
    slabs, bare = result["slabs"], result["bare read"]
    print(
        f"{slabs:,} slabs, {result['extents']:,} other extents, {result['bytes']:,} bytes of"
        f" metadata; Python {result['python']}"
    )
    rows = [
        [
            name,
            f"{result[name]:.3f}",
            f"{result[name] / slabs * 1e6:.2f}",
            f"{slabs / result[name]:,.0f}",
            f"{result[name] / bare:.1f} x",
        ]
        for name in ("bare read", "walk", "with report", "drainsweep", "field walk")
    ]
    heads = ["", "seconds", "us a slab", "slabs a second", "of the bare read"]
    print(tabulate(rows, heads, colalign=("left", *["right"] * 4), disable_numparse=True))
    times = result["field walk"] / result["with report"]
    print(f"the field walk takes {times:.0f} times the walk with report")
    print(f"memory: {result['memory'] / slabs:.0f} bytes a slab")


if __name__ == "__main__":
    sys.exit(main())
