"""The slabs and extents of a heap, packed for a page that draws each as a cell."""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from dataclasses import dataclass
from itertools import chain
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from drain_gdb.render.style import printable
from drain_gdb.snapshot import HeapView

LEVEL = 6
SLAB = "slab"
NAMED = 3
"""Groups of a slab that are named."""


@dataclass(frozen=True)
class Cells:
    """Every slab and extent of a heap, ascending by address.

    Attributes:
        count, slabs: how many there are, and how many of them are slabs.
        extents: how many there are of each state that are no slabs.
        page: bytes of a page, the unit of addresses and sizes.
        kinds: what a cell may be; each slab's has ``state`` "slab" and its class.
        groups: who pins slabs, in words; the first is nobody, or not known.
        packed: base64 of the zlib stream of little-endian columns, one after the other: pages
            from the end of the cell before (float64), pages (float64), number of its kind
            (uint32), allocated and cached regions, number of its groups (uint32 each).

    """

    count: int
    slabs: int
    extents: Dict[str, int]
    page: int
    kinds: List[Dict[str, Any]]
    groups: List[str]
    packed: str

    @property
    def sizes(self) -> List[int]:
        """The size classes of slabs, ascending."""
        return sorted({kind["size"] for kind in self.kinds if kind["state"] == SLAB})


def cells_of(heap: HeapView, page: int, pinners: Mapping[int, Tuple[str, ...]]) -> Cells:
    """The cells of ``heap``; ``pinners`` has who pins a slab, by its address."""
    slabs, extents = heap.slabs, heap.extents
    number = len(slabs)
    kinds: Dict[Tuple[Any, ...], int] = {}

    def numbered(rows: Iterable[Tuple[Any, ...]]) -> List[int]:
        return [kinds.setdefault(row, len(kinds)) for row in rows]

    kind = numbered(zip(slabs.arena, slabs.shard, slabs.size, slabs.nregs))
    slab_kinds = len(kinds)
    kind += numbered(zip(extents.arena, map(extents.states.__getitem__, extents.state)))
    address = slabs.address + extents.address
    length = slabs.slab_size + extents.size
    order = sorted(range(len(address)), key=address.__getitem__)
    start = [address[row] // page for row in order]
    pages = [length[row] // page for row in order]
    ends = chain((0,), map(int.__add__, start, pages))
    none = array("I", bytes(4 * len(extents)))
    allocated, cached = slabs.allocated + none, slabs.cached + none
    groups: Dict[Tuple[str, ...], int] = {(): 0}
    pinned = array("I", bytes(4 * len(address)))
    for row, start_of in enumerate(slabs.address) if pinners else ():
        pinned[row] = groups.setdefault(pinners.get(start_of, ()), len(groups))
    columns = (
        array("d", map(int.__sub__, start, ends)),
        array("d", pages),
        array("I", map(kind.__getitem__, order)),
        array("I", map(allocated.__getitem__, order)),
        array("I", map(cached.__getitem__, order)),
        array("I", map(pinned.__getitem__, order)),
    )
    return Cells(
        count=len(order),
        slabs=number,
        extents={
            name: extents.state.count(state)
            for state, name in enumerate(extents.states)
            if state in extents.state
        },
        page=page,
        kinds=[
            _slab(row) if place < slab_kinds else {"state": row[1], "arena": row[0]}
            for row, place in kinds.items()
        ],
        groups=[_named(names) for names in groups],
        packed=_packed(columns),
    )


def _named(names: Sequence[str]) -> str:
    """Groups in words: the first few, and how many more."""
    shown = ", ".join(map(printable, names[:NAMED]))
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _slab(row: Tuple[Any, ...]) -> Dict[str, Any]:
    arena, shard, size, nregs = row
    return {"state": SLAB, "arena": arena, "shard": shard, "size": size, "nregs": nregs}


def _packed(columns: Sequence[array[Any]]) -> str:
    if sys.byteorder == "big":
        for column in columns:
            column.byteswap()
    packer = zlib.compressobj(LEVEL)
    parts = [packer.compress(column) for column in columns]
    return base64.b64encode(b"".join([*parts, packer.flush()])).decode("ascii")
