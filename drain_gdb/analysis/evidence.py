"""What each struct was taken for, and what speaks for it."""

from __future__ import annotations

from typing import NamedTuple, Tuple

from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.verify import BITMAPS, CACHED, LISTED

OWN = "the debug information's own"


class Evidence(NamedTuple):
    """Attributes: the struct; the declarations that its form is of; what was seen, in words."""

    struct: str
    form: str
    seen: str


def evidence(heap: Heap) -> Tuple[Evidence, ...]:
    """What speaks for the form of each struct of ``heap``."""
    layout, found = heap.layout, heap.verification
    wrong = {what: 0 for what in (BITMAPS, CACHED, LISTED)}
    differing = 0
    for item in found.mismatches:
        if item.what in wrong:
            wrong[item.what] += abs((item.walked or 0) - (item.recorded or 0))
        else:
            differing += 1
    slabs, cached = found.slabs_walked, len(heap.tcaches.regions)
    parameters = layout.parameters
    counted = "have counted" if heap.statistics else "list, without statistics,"
    form = layout.forms.get
    return (
        Evidence(
            "size classes",
            form("size classes", OWN),
            f"{len(heap.bins)} in a row, of {parameters.page >> 10} KiB pages and quantum"
            f" {1 << parameters.lg_quantum}",
        ),
        Evidence(
            "extents",
            form("extents", OWN),
            f"{slabs - wrong[BITMAPS]:,} of {slabs:,} slabs have as many free regions as their"
            f" nfree says, {wrong[LISTED]:,} extents lie elsewhere than the tree has them",
        ),
        Evidence(
            "arenas",
            form("arenas", OWN),
            f"{differing:,} figures differ of what {len(heap.arenas):,} arenas and"
            f" {len(heap.counters):,} bins {counted} of them",
        ),
        Evidence(
            "thread caches",
            form("thread caches", OWN),
            f"{cached - wrong[CACHED]:,} of {cached:,} regions in {len(heap.tcaches.descriptors):,}"
            " caches are allocated, each once and of its class",
        ),
    )
