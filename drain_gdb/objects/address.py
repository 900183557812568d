"""What an address is: of jemalloc's, of a stack, of a program's variables or files, of nobody."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import List, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Module, Section, Target
from drain_gdb.debuggee.symbols import Symbols
from drain_gdb.debuggee.threads import stacks
from drain_gdb.errors import TargetError, UnreadableMemory
from drain_gdb.jemalloc.heap import ACTIVE, DIRTY, HPA_CACHED, MUZZY, RETAINED
from drain_gdb.jemalloc.index import CACHED, FREE, LIVE, Extent, HeapIndex

REGION, LARGE, METADATA, STACK, GLOBAL, FILE = (
    *("region", "large", "metadata", "stack", "global", "file"),
)
ANONYMOUS, UNMAPPED = "anonymous", "unmapped"
UNUSED = {DIRTY: "dirty", MUZZY: "muzzy", RETAINED: "retained"}
STACK_MAX = 1 << 26
"""Bytes of the main thread's stack that are looked at; 8 MiB is the usual limit."""
DEAD_MAX = 1 << 20
"""Bytes below a stack pointer that still count as of that stack."""


@dataclass(frozen=True)
class SlabPlace:
    """A slab: where it begins, and its regions by their states."""

    address: int
    nregs: int
    live: int
    cached: int
    free: int


@dataclass(frozen=True)
class RegionPlace:
    """A region, or a large allocation: ``index`` in its slab, ``offset`` of the address in it."""

    index: int
    address: int
    end: int
    offset: int


@dataclass(frozen=True)
class Address:
    """What an address is.

    Attributes:
        kind: one of the constants above.
        state: of a region or large allocation ``live``, ``cached`` or ``free``.
        allocator: the number of the jemalloc it is of.
        index, size: the size class.
        held_by_cache: the number of the thread cache that holds it.
        thread: whose stack it lies on, by the system's number.
        symbol: the variable or function that holds it, with an offset.
        module: the file it is mapped from.
        detail: what else is known, in words.
        what: what it holds, by the recognisers.
        owners: who holds it, from the nearest one to the root, where that was looked for.
        backtrace: where it was allocated, if the heap profiler sampled it.

    """

    address: int
    kind: str
    state: Optional[str] = None
    allocator: Optional[int] = None
    arena: Optional[int] = None
    shard: Optional[int] = None
    index: Optional[int] = None
    size: Optional[int] = None
    slab: Optional[SlabPlace] = None
    region: Optional[RegionPlace] = None
    held_by_cache: Optional[int] = None
    thread: Optional[int] = None
    symbol: Optional[str] = None
    module: Optional[str] = None
    detail: Optional[str] = None
    what: Optional[str] = None
    owners: Optional[Tuple[str, ...]] = None
    backtrace: Tuple[str, ...] = ()


@dataclass(frozen=True)
class SlabMap:
    """A slab, region by region.

    Attributes:
        regions: a letter each: L for live, C for cached, F for free.
        holding: of the cached ones, in order, the number of the thread cache.
        page: bytes of a page.
        neighbours: what lies right before it and right behind it; of slabs, with their
            regions counted.
        at: the number of the region that was asked for, None for none.

    """

    address: int
    end: int
    allocator: int
    arena: int
    shard: int
    index: int
    size: int
    regions: str
    holding: Tuple[int, ...]
    page: int
    neighbours: Tuple[Address, ...]
    at: Optional[int]

    @property
    def live(self) -> int:
        """How many regions are live."""
        return self.regions.count("L")

    @property
    def cached(self) -> int:
        """How many are in thread caches."""
        return self.regions.count("C")


LETTERS = {LIVE: "L", CACHED: "C", FREE: "F"}


@dataclass(frozen=True)
class _Stack:
    start: int
    end: int
    thread: Optional[int]
    pointer: int


class Places:
    """Says what addresses of a process are, which stands still meanwhile."""

    def __init__(self, target: Target, indices: Sequence[HeapIndex]) -> None:
        self._target = target
        self._indices = indices
        self._symbols = Symbols(target)

    def find(self, address: int) -> Address:
        """What ``address`` is."""
        for number, index in enumerate(self._indices):
            extent = index.extent_at(address)
            if extent is not None:
                return replace(self._in_extent(index, extent, address), allocator=number)
            arena = index.metadata_of(address)
            if arena is not None:
                return Address(
                    address, METADATA, allocator=number, arena=arena, detail="a base block"
                )
        return self._elsewhere(address)

    def slab(self, address: int) -> SlabMap:
        """The slab that holds ``address``; :class:`TargetError` where none does."""
        for number, index in enumerate(self._indices):
            extent = index.extent_at(address)
            if extent is not None and extent.slab:
                return self._map(number, index, extent, address)
        raise TargetError(
            f"{address:#x} lies in no slab",
            "drainfind says what it is; slabs: drainsweep --by slab",
        )

    def _map(self, number: int, index: HeapIndex, slab: Extent, address: int) -> SlabMap:
        regions, asked = index.regions(slab), index.region(slab, address)
        held = [index.cached[region.address] for region in regions if region.state == CACHED]
        return SlabMap(
            address=slab.start,
            end=slab.end,
            allocator=number,
            arena=slab.arena,
            shard=slab.shard,
            index=slab.szind,
            size=index.bins[slab.szind].reg_size,
            regions="".join(LETTERS[region.state] for region in regions),
            holding=tuple(cache.number for cache in held),
            page=index.layout.parameters.page,
            neighbours=(self.find(slab.start - 1), self.find(slab.end)),
            at=None if asked is None else asked.number,
        )

    # -- jemalloc's ---------------------------------------------------------------

    def _in_extent(self, index: HeapIndex, extent: Extent, address: int) -> Address:
        found = Address(address, LARGE, arena=extent.arena)
        if extent.slab:
            return self._in_slab(index, extent, found)
        if extent.state in UNUSED:
            return replace(found, kind=UNUSED[extent.state])
        if extent.state != ACTIVE:
            kind = "dirty" if extent.state == HPA_CACHED else ANONYMOUS
            return replace(found, kind=kind, detail=extent.state_name)
        if index.is_internal(extent):
            return replace(found, kind=METADATA, detail="thread caches")
        end = extent.address + index.usable(extent)
        cache = index.cached.get(extent.address)
        return replace(
            found,
            state=LIVE if cache is None else CACHED,
            index=extent.szind,
            size=index.usable(extent),
            region=RegionPlace(0, extent.address, end, address - extent.address),
            held_by_cache=None if cache is None else cache.number,
            detail=None if extent.address <= address < end else "the pad of a large allocation",
            backtrace=tuple(self._named(index.backtrace(extent))),
        )

    def _in_slab(self, index: HeapIndex, extent: Extent, found: Address) -> Address:
        info = index.bins[extent.szind]
        slab = SlabPlace(extent.start, info.nregs, *index.counts(extent))
        found = replace(
            found,
            kind=REGION,
            shard=extent.shard,
            index=extent.szind,
            size=info.reg_size,
            slab=slab,
        )
        region = index.region(extent, found.address)
        if region is None:
            return replace(found, detail="the rest of a slab, behind its last region")
        place = RegionPlace(
            region.number, region.address, region.end, found.address - region.address
        )
        cache = index.cached.get(region.address) if region.state == CACHED else None
        held = None if cache is None else cache.number
        return replace(found, state=region.state, region=place, held_by_cache=held)

    def _named(self, addresses: Sequence[int]) -> List[str]:
        """Return addresses as functions; each call ends right before the one it returns to."""
        return [self._symbol(address - 1) or self._in_file(address) for address in addresses]

    def _in_file(self, address: int) -> str:
        module = self._symbols.module_at(address)
        where = "" if module is None else f" in {os.path.basename(module.path)}"
        return f"{address:#x}{where}"

    # -- everybody else's ---------------------------------------------------------

    def _elsewhere(self, address: int) -> Address:
        module = self._symbols.module_at(address)
        if module is not None:
            return self._in_module(address, module)
        for mapping in self._target.mappings():
            if mapping.start <= address < mapping.end:
                return Address(address, FILE, module=mapping.path)
        stack = next((s for s in self._stacks if s.start <= address < s.end), None)
        if stack is not None:
            dead = address < stack.pointer
            detail = "below its stack pointer: dead" if dead else None
            return Address(address, STACK, thread=stack.thread, detail=detail)
        return self._nobodys(address)

    def _nobodys(self, address: int) -> Address:
        try:
            self._target.read(address, 1)
        except UnreadableMemory as error:
            mapped = self._target.mapped() or ()
            there = any(start <= address < end for start, end in mapped)
            return Address(address, ANONYMOUS if there else UNMAPPED, detail=error.why or None)
        return Address(address, ANONYMOUS)

    def _in_module(self, address: int, module: Module) -> Address:
        section = _section(module, address)
        writable = section is not None and section.writable
        symbol = self._symbol(address)
        return Address(
            address,
            GLOBAL if writable or self._is_variable(section) else FILE,
            symbol=symbol,
            module=module.path,
            detail=None if section is None else section.name,
        )

    def _is_variable(self, section: Optional[Section]) -> bool:
        """Whether it holds constants of the program's: they are variables too."""
        return section is not None and section.constant

    def _symbol(self, address: int) -> Optional[str]:
        """The symbol that holds ``address``, with the offset in it."""
        found = self._symbols.with_offset(address)
        if found is None:
            return None
        name, offset = found
        return f"{name}+{offset:#x}" if offset else name

    @cached_property
    def _stacks(self) -> List[_Stack]:
        """The stack of each thread whose registers are known."""
        known = list(stacks(self._target.read, self._target.thread_pointers()))
        found = []
        for thread in self._target.threads():
            pointer = thread.stack_pointer
            own = next((s for s in known if s.start <= pointer < s.end), None)
            if own is not None:
                found.append(_Stack(own.start, own.end, thread.id, pointer))
            else:
                found.append(_Stack(self._down(pointer), self._up(pointer), thread.id, pointer))
        return found

    def _up(self, pointer: int) -> int:
        """Where the readable memory ends that a stack pointer lies in."""
        return self._edge(pointer, STACK_MAX, 1)

    def _down(self, pointer: int) -> int:
        """Where the readable memory begins, not far below a stack pointer."""
        return self._edge(pointer, DEAD_MAX, -1)

    def _edge(self, pointer: int, most: int, way: int) -> int:
        """The edge of readable memory above or below, at most so far away; by halving."""
        page = 1 << 12
        base, near, far = pointer & -page, 0, most // page
        while near < far:
            middle = (near + far + 1) // 2
            start = base if way > 0 else base - middle * page
            if self._is_there(start, middle * page):
                near = middle
            else:
                far = middle - 1
        return base + near * page if way > 0 else base - near * page

    def _is_there(self, address: int, size: int = 1) -> bool:
        try:
            self._target.read(address, size)
        except UnreadableMemory:
            return False
        return True


def _section(module: Module, address: int) -> Optional[Section]:
    return next((s for s in module.sections if s.start <= address < s.end), None)
