"""What it takes to say what one address is, in a process of ten million slabs.

    python3 -m tests.bench.find [--regions N]

A program with N regions that it never touched (tests/programs/huge.c) is opened with no
debugger; then what an address is found is timed: to look for jemalloc in the program's files,
to find its layout, and to look the address up; and beside that a whole walk.
"""

from __future__ import annotations

import argparse
import time

import drain_gdb
from tests.support.inputs import program
from tests.support.processes import Program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=28_000_000)
    args = parser.parse_args()
    child = Program([str(program("huge", "-ljemalloc")), str(args.regions)])
    try:
        address = None
        with drain_gdb.open(pid=child.pid) as snapshot:
            start = time.perf_counter()
            slabs = snapshot.heaps[0].slabs
            walked = time.perf_counter() - start
            address = slabs.address[len(slabs) // 2] + 24
            print(f"{len(slabs):,} slabs; the whole walk: {walked:.3f} s")
        with drain_gdb.open(pid=child.pid) as snapshot:
            start = time.perf_counter()
            found = snapshot.find(address)
            took = time.perf_counter() - start
            assert found.kind == "region", found
            start = time.perf_counter()
            snapshot.find(address + 4096)
            print(
                f"the first address: {took:.3f} s, another one: {time.perf_counter() - start:.6f} s"
            )
    finally:
        child.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
