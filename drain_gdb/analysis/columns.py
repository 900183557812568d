"""The slabs and extents of a heap as columns, for programs that take arrays."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from drain_gdb.jemalloc.heap import ACTIVE, HPA_CACHED, STATE_NAMES, Heap


@dataclass(frozen=True)
class SlabColumns:
    """Every slab of a heap, a row each, ascending within a leaf of the tree.

    Each column is an ``array``: NumPy, pandas and Arrow take its buffer as it is.

    Attributes:
        address, slab_size: bytes, array('Q').
        size, nregs: bytes of each region, and how many there are, array('I').
        index, arena, shard: szind, and what it is of, array('I').
        allocated, cached, live: regions, array('I'); live is allocated less cached.

    """

    address: array[int]
    slab_size: array[int]
    size: array[int]
    nregs: array[int]
    index: array[int]
    arena: array[int]
    shard: array[int]
    allocated: array[int]
    cached: array[int]
    live: array[int]

    def __len__(self) -> int:
        return len(self.address)


@dataclass(frozen=True)
class ExtentColumns:
    """Every extent that is no slab.

    Attributes:
        address, size: bytes, array('Q').
        arena, index: what it is of, array('I'); the index says something of active ones alone.
        state: numbers of ``states``, array('B').

    """

    address: array[int]
    size: array[int]
    arena: array[int]
    index: array[int]
    state: array[int]

    states = (*STATE_NAMES, "in transition", "in a small extent cache of huge pages")

    def __len__(self) -> int:
        return len(self.address)


def slab_columns(heap: Heap) -> SlabColumns:
    """The slabs of ``heap``."""
    slabs = heap.slabs
    infos = [heap.bins[kind.szind] for kind in slabs.kinds]

    def spread(code: str, values: list[int]) -> array[int]:
        return array(code, map(values.__getitem__, slabs.kind))

    used = [info.nregs - kind.nfree for info, kind in zip(infos, slabs.kinds)]
    allocated, cached = spread("I", used), array("I", bytes(4 * len(slabs)))
    live = array("I", allocated)
    for row, count in slabs.cached.items():
        cached[row] = count
        live[row] -= count
    return SlabColumns(
        address=array("Q", slabs.address),
        slab_size=spread("Q", [info.slab_size for info in infos]),
        size=spread("I", [info.reg_size for info in infos]),
        nregs=spread("I", [info.nregs for info in infos]),
        index=spread("I", [kind.szind for kind in slabs.kinds]),
        arena=spread("I", [kind.arena for kind in slabs.kinds]),
        shard=spread("I", [kind.shard for kind in slabs.kinds]),
        allocated=allocated,
        cached=cached,
        live=live,
    )


def extent_columns(heap: Heap) -> ExtentColumns:
    """The extents of ``heap`` that are no slabs."""
    extents = heap.extents
    on_its_way = ExtentColumns.states.index("in transition")
    states = [
        len(ExtentColumns.states) - 1
        if kind.state == HPA_CACHED
        else kind.state
        if ACTIVE <= kind.state < len(STATE_NAMES)
        else on_its_way
        for kind in extents.kinds
    ]
    return ExtentColumns(
        address=array("Q", extents.address),
        size=array("Q", extents.size),
        arena=array("I", (extents.kinds[kind].arena for kind in extents.kind)),
        index=array("I", (extents.kinds[kind].szind for kind in extents.kind)),
        state=array("B", map(states.__getitem__, extents.kind)),
    )
