"""Walked heaps and what is resident of a process, written down by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Dict, Optional, Tuple

from drain_gdb.debuggee.residence import (
    ANONYMOUS,
    FORKED,
    OF_FILE,
    PAGEMAP,
    PRIVATE,
    RESIDENT,
    SWAPPED,
    Area,
    Residence,
    assembled,
)
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import (
    ExtentKind,
    Extents,
    Heap,
    SlabKind,
    Slabs,
    ThreadCaches,
)
from drain_gdb.memory import Memory
from tests.support.fakeheap import FakeHeap

PAGE = 4096
KILOBYTE = 1024
"""Regions of this size class stand four to a slab of one page (:class:`FakeHeap`)."""


@cache
def _fake() -> Heap:
    fake = FakeHeap()
    fake.slab(0, [0])
    target = fake.target()
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return heap


@cache
def szind_of(size: int) -> int:
    """The size class of regions of exactly ``size`` bytes."""
    return next(i for i, info in enumerate(_fake().bins) if info.reg_size == size)


@dataclass
class HandmadeHeap:
    """A heap of jemalloc 5.3.0 to which slabs and extents are added by address."""

    slabs: Slabs = field(default_factory=Slabs)
    extents: Extents = field(default_factory=Extents)
    tcaches: ThreadCaches = field(default_factory=ThreadCaches)
    blocks: Tuple[Tuple[int, int], ...] = ()

    def slab(self, address: int, size: int, live: int, cached: int = 0) -> None:
        """A slab of regions of ``size`` bytes."""
        szind = szind_of(size)
        kind = SlabKind(0, szind, 0, _fake().bins[szind].nregs - live - cached)
        if kind not in self.slabs.kinds:
            self.slabs.kinds.append(kind)
        if cached:
            self.slabs.cached[len(self.slabs)] = cached
        self.slabs.address.append(address)
        self.slabs.kind.append(self.slabs.kinds.index(kind))

    def extent(self, address: int, size: int, state: int, szind: int) -> None:
        """An extent that is no slab."""
        kind = ExtentKind(0, state, szind)
        if kind not in self.extents.kinds:
            self.extents.kinds.append(kind)
        self.extents.address.append(address)
        self.extents.size.append(size)
        self.extents.kind.append(self.extents.kinds.index(kind))

    def heap(self) -> Heap:
        """The heap."""
        fake = _fake()
        return replace(
            fake,
            slabs=self.slabs,
            extents=self.extents,
            tcaches=self.tcaches,
            arenas=[replace(fake.arenas[0], blocks=self.blocks)],
        )


_STATES = {".": 0, "p": PRIVATE, "f": OF_FILE, "s": FORKED, "w": SWAPPED}


def area(
    start: int, pages: str, kind: str = ANONYMOUS, name: Optional[str] = None, huge: int = 0
) -> Tuple[Area, bytes]:
    """An area and its pages.

    They are absent ``.``, private ``p``, of a file ``f``, shared ``s`` or swapped ``w``.
    """
    states = bytes(_STATES[page] for page in pages)
    count = {state: states.count(state) * PAGE for state in range(5)}
    made = Area(
        start,
        start + len(pages) * PAGE,
        kind,
        name,
        resident=sum(count[state] for state in RESIDENT),
        copied=count[PRIVATE] + count[FORKED],
        swapped=count[SWAPPED],
        huge=huge,
    )
    return made, states


def residence(*areas: Tuple[Area, bytes], source: str = PAGEMAP) -> Residence:
    """A residence of ``areas``; without pages where the source is another."""
    states: Dict[int, bytes] = {}
    if source == PAGEMAP:
        states = {row: pages for row, (_, pages) in enumerate(areas)}
    return assembled(source, source == PAGEMAP, PAGE, [made for made, _ in areas], states)
