"""What a program asks of a core by the Python interface.

    python3 -m examples.redis.ask CORE

The class that wastes most, its emptiest slabs and what the first region of one of them is, who
would have to go, and what else would help.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import List

from tabulate import tabulate

import drain_gdb
from drain_gdb.render.style import size
from drain_gdb.snapshot import HeapView

FEW = 3


def emptiest(heap: HeapView) -> List[int]:
    """The rows of the slabs with the fewest live regions, of the class that wastes most."""
    slabs = heap.slabs
    waste: Counter[int] = Counter()
    for region, regions, live in zip(slabs.size, slabs.nregs, slabs.live):
        waste[region] += region * (regions - live)
    ((worst, wasted),) = waste.most_common(1)
    print(f"{size(wasted)} of its waste lies in slabs of the {worst}-byte class")
    rows = [row for row, region in enumerate(slabs.size) if region == worst and slabs.live[row]]
    return sorted(rows, key=lambda row: slabs.live[row])[:FEW]


def main() -> None:
    """Ask, and say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("core")
    with drain_gdb.open(parser.parse_args().core) as snapshot:
        (heap,) = snapshot.heaps
        report = snapshot.sweep()
        print(
            f"jemalloc {heap.version}, {'equal' if heap.verified else 'NOT EQUAL'} to its own"
            f" statistics: {size(report.totals.waste_bytes)} in slabs hold nothing that is live"
        )
        for row in emptiest(heap):
            drawn = snapshot.slab(heap.slabs.address[row])
            region = drawn.address + drawn.size * drawn.regions.index("L")
            found = snapshot.find(region, owners=True)
            held = " <- ".join([str(found.what), *map(str, found.owners or ())])
            print(f"  {drawn.address:#x}: {drawn.live} of {len(drawn.regions)} live: {held}")
        rows = [
            (row.what, f"{row.regions:,}", size(row.alone_bytes))
            for row in snapshot.pins().groups[:FEW]
        ]
        print(tabulate(rows, ("who pins", "regions", "alone gives back")))
        for remedy in snapshot.plan().best:
            print(f"{remedy.remedy}: {remedy.how}")


if __name__ == "__main__":
    main()
