"""What the account costs on a large process.

    python3 -m tests.bench.account [--gib N]

A process of N GiB is simulated in two halves.  A child maps a file of memory again and
again, until its page tables have as many pages: what the kernel says of them is read, and
turned into the states of pages.  A heap of as much memory, in slabs of four sizes, large
allocations and unused extents, is then laid over them.  Processor time, best of three.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import sys
import time
from typing import Callable, List, Tuple

from tabulate import tabulate

from drain_gdb.analysis.account import account, join
from drain_gdb.debuggee import smaps
from drain_gdb.debuggee.residence import ANONYMOUS, PRIVATE, Area, Residence, assembled
from drain_gdb.jemalloc.heap import ACTIVE, DIRTY, RETAINED, Heap
from drain_gdb.jemalloc.placed import columns_of, gaps
from tests.bench.timing import best
from tests.support.handmade import PAGE, HandmadeHeap

PIECE = 1 << 26
START = 0x7000_0000_0000
SIZES = (1024, 48, 160, 320)
SLABS = 40
"""Of one size, side by side."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=50)
    size = parser.parse_args().gib << 30
    kernel = processor(_Child(size).look)
    heap, residence = simulated(size)
    columns = columns_of([heap])
    rows = [
        ["what the kernel says", f"{kernel:.2f}"],
        ["where jemalloc's memory is", f"{processor(lambda: columns_of([heap])):.2f}"],
        ["who has what", f"{processor(lambda: list(gaps(columns, residence))):.2f}"],
        ["the account", f"{processor(lambda: account(join(columns, residence))):.2f}"],
    ]
    print(f"{size >> 30} GiB, {len(heap.slabs):,} slabs, {len(heap.extents.address):,} extents")
    print(tabulate(rows, ["", "seconds"], colalign=("left", "right"), disable_numparse=True))
    return 0


def processor(action: Callable[[], object]) -> float:
    """Seconds of processor time."""
    return best(action, time.process_time)


class _Child:
    """A process of ``size`` bytes, all of them the same few."""

    def __init__(self, size: int) -> None:
        ready, there = os.pipe()
        self._end, held = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            file = os.memfd_create("bench")
            os.ftruncate(file, PIECE)
            kept = [
                mmap.mmap(file, PIECE, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0x8000))
                for _ in range(size // PIECE)
            ]
            os.write(there, b"%d" % len(kept))
            os.close(held)
            os.read(self._end, 1)
            os._exit(0)
        os.close(there)
        os.read(ready, 16)

    def look(self) -> Residence:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            found = smaps.of_process(self.pid, lambda at, n: os.pread(memory.fileno(), n, at), ())
        assert found is not None
        return found


def simulated(size: int) -> Tuple[Heap, Residence]:
    """A heap of ``size`` bytes and what of it is resident."""
    chance = random.Random(1)
    made = HandmadeHeap()
    at, number = START, 0
    while at < START + size:
        szind = chance.choice(SIZES)
        for _ in range(SLABS):
            made.slab(at, szind, chance.choice((1, 2, 3)))
            at += slab_size(szind)
        for state in (ACTIVE, DIRTY, RETAINED):
            length = chance.choice((1, 4, 16)) * PAGE
            made.extent(at, length, state, 40 if state == ACTIVE else 232)
            at += length
        number += 1
    pages = bytearray([PRIVATE]) * ((at - START) // PAGE)
    for hole in range(0, len(pages), 97):
        pages[hole] = 0
    resident = pages.count(PRIVATE) * PAGE
    area = Area(START, at, ANONYMOUS, None, resident, resident, 0, 0)
    areas: List[Area] = [area]
    return made.heap(), assembled("pagemap", True, PAGE, areas, {0: bytes(pages)})


def slab_size(size: int) -> int:
    """Bytes of a slab of regions of ``size`` bytes."""
    pages = 1
    while pages * PAGE % size:
        pages += 1
    return pages * PAGE


if __name__ == "__main__":
    sys.exit(main())
