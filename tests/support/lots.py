"""A heap whose slabs are filled by lot: the worst there is to pack."""

from __future__ import annotations

import random
from array import array
from itertools import accumulate
from typing import Any

from drain_gdb.analysis.columns import ExtentColumns, SlabColumns
from drain_gdb.snapshot import HeapView


def random_heap(slabs: int, extents: int) -> HeapView:
    """A heap of which nothing repeats: slabs of 16 classes and 8 arenas, filled by lot."""
    chance = random.Random(1)
    kinds = [(16 * (n + 1), 512 // (n + 1)) for n in range(16)]
    gaps = chance.choices((1, 1, 1, 1, 1, 1, 2, 300), k=slabs + extents)
    address = [0x7F00_0000_0000 + 4096 * pages for pages in accumulate(gaps)]
    chance.shuffle(address)
    chosen = chance.choices(kinds, k=slabs)
    allocated = [int(chance.random() * (nregs + 1)) for _, nregs in chosen]
    cached = [int(used * chance.random()) if chance.random() < 0.1 else 0 for used in allocated]

    def column(code: str, values: Any) -> array[int]:
        return array(code, values)

    arena = column("I", chance.choices(range(8), k=slabs))
    zeros = column("I", bytes(4 * slabs))
    view = HeapView(0, "libmade.so", None, True, None)  # type: ignore[arg-type]
    view.__dict__["slabs"] = SlabColumns(
        address=column("Q", address[:slabs]),
        slab_size=column("Q", [4096] * slabs),
        size=column("I", (size for size, _ in chosen)),
        nregs=column("I", (nregs for _, nregs in chosen)),
        index=zeros,
        arena=arena,
        shard=zeros,
        allocated=column("I", allocated),
        cached=column("I", cached),
        live=column("I", map(int.__sub__, allocated, cached)),
    )
    view.__dict__["extents"] = ExtentColumns(
        address=column("Q", address[slabs:]),
        size=column("Q", [4096] * extents),
        arena=column("I", bytes(4 * extents)),
        index=column("I", bytes(4 * extents)),
        state=column("B", chance.choices(range(4), k=extents)),
    )
    return view
