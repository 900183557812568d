"""The counter: from hits to allocations and frees by size class and thread.

A call counts where it is made, by its arguments; only where they do not tell is the
return waited for.  What one function of the allocator does through another is
counted once, for the outer one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tallies
from dataclasses import dataclass, field
from typing import Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.hooks import points
from drain_gdb.hooks.points import HookPoint
from drain_gdb.hooks.stops import Stopped
from drain_gdb.jemalloc.regions import Region
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import CacheLayout, StackedCaches
from drain_gdb.memory import WORD

INT_MASK = (1 << 32) - 1
"""Of an argument of type int or unsigned: the rest of the register may be anything."""
MALLOCX_LG_ALIGN_MASK = 0x3F
"""jemalloc_internal_types.h."""
POINTER_ALIGN = 8
"""posix_memalign() asks for multiples of sizeof(void *)."""
UNKNOWN = -1
"""Size class of a call whose arguments could not be read."""
LOW = 0xFFFF

ThreadAndClass = Tuple[int, int]
Find = Callable[[int], Optional[Region]]
Read = Callable[[int, int], bytes]


@dataclass
class Tally:
    """What has been counted so far.

    Attributes:
        allocs, frees: ``(thread, szind)`` to calls, or to regions at the arena layer.
        resized: ``(szind before, after)`` to large allocations resized in place.
        slabs: address of a slab to the frees that fell in it.
        calls: name of a function to its calls, those from outside alone.
        fast: ``calls`` of functions that begin with the fast path, by side.
        nested: calls of one function by another, not counted again.
        moved, kept: reallocations that moved, and those that stayed as they were.
        null: frees of no pointer.  failed: requests for more than can be.
        strangers: frees of what jemalloc does not know.
        unread: calls of compilers' clones, whose arguments could not be read.

    """

    allocs: Tallies[ThreadAndClass] = field(default_factory=Tallies)
    frees: Tallies[ThreadAndClass] = field(default_factory=Tallies)
    resized: Tallies[Tuple[int, int]] = field(default_factory=Tallies)
    slabs: Tallies[int] = field(default_factory=Tallies)
    calls: Tallies[str] = field(default_factory=Tallies)
    fast: Tallies[str] = field(default_factory=Tallies)
    nested: int = 0
    moved: int = 0
    kept: int = 0
    null: int = 0
    failed: int = 0
    strangers: int = 0
    unread: int = 0


class SizeClasses:
    """Requests to size classes (sz.h)."""

    def __init__(self, parameters: Parameters) -> None:
        self._sizes = parameters.sizes
        self._page = parameters.page
        self.nbins = parameters.nbins

    def of(self, size: int) -> Optional[int]:
        """The class of a request for ``size`` bytes; None where there is none so large.

        A request for 0 bytes is served as one for 1 (sz_size2index(), malloc(3)).
        """
        szind = bisect_left(self._sizes, size)
        return szind if szind < len(self._sizes) else None

    def aligned(self, size: int, alignment: int) -> Optional[int]:
        """The class of an aligned request, by sz_sa2u(); None where there is none so large."""
        small = self.of(size + alignment - 1 & -alignment)
        if small is not None and small < self.nbins:
            return small
        szind = self.of(size)
        return None if szind is None else max(szind, self.nbins)

    def certain(self, size: int, alignment: int) -> bool:
        """Whether :meth:`aligned` holds in every version.

        Up to 5.2 an alignment of a page or more makes an allocation large, and what
        becomes of 0 bytes differs too.
        """
        return size > 0 and alignment < self._page


class _Outer(NamedTuple):
    """A function that may have called another: where it stood when it was hit."""

    point: HookPoint
    stack_pointer: int
    return_address: int

    def reaches(self, point: HookPoint, stopped: Stopped) -> bool:
        """Whether the call at ``point`` was made, or jumped to, by this function.

        A jump leaves the stack as the outer call had it.
        """
        back = stopped.return_address()
        if self.point.address <= back < self.point.end:
            return True
        if point.address == self.point.address or point.signature.side != self.point.signature.side:
            return False
        return (stopped.stack_pointer(), back) == (self.stack_pointer, self.return_address)


class Counter:
    """Counts hits; ``only`` is the one size class to count, None for all.

    ``find`` says what region a pointer is now, ``read`` reads the process's memory.
    """

    def __init__(
        self,
        parameters: Parameters,
        caches: CacheLayout,
        find: Find,
        read: Read,
        only: Optional[int] = None,
    ) -> None:
        self.tally = Tally()
        self._classes = SizeClasses(parameters)
        self._nbins = parameters.nbins
        self._caches = caches
        self._find = find
        self._read = read
        self._only = only
        self._outer: Dict[int, _Outer] = {}
        self._actions = {
            points.ALLOCATE: self._allocate,
            points.ALLOCATE_ARRAY: self._allocate_array,
            points.ALLOCATE_ALIGNED: self._allocate_aligned,
            points.ALLOCATE_PAGES: self._allocate_pages,
            points.ALLOCATE_INTO: self._allocate_into,
            points.ALLOCATE_FLAGGED: self._allocate_flagged,
            points.REALLOCATE: self._reallocate,
            points.RESIZE: self._resize,
            points.FREE: self._free,
            points.FILL_ASKED: self._fill_asked,
            points.FILL_READ: self._fill_read,
            points.FILL_RETURNED: self._fill_returned,
            points.FLUSH: self._flush,
            points.BIN_ALLOCATE: self._bin_allocate,
        }

    def hit(self, point: HookPoint, stopped: Stopped) -> None:
        """Count the call that stands at ``point``."""
        thread, signature = stopped.thread, point.signature
        outer = self._outer.pop(thread, None) if self._outer else None
        nested = outer is not None and outer.reaches(point, stopped)
        if signature.wraps:
            at = stopped.stack_pointer(), stopped.return_address()
            self._outer[thread] = _Outer(point, *at)
        if nested:
            self.tally.nested += 1
            return
        self.tally.calls[point.name] += 1
        if signature.fast and signature.side is not None:
            self.tally.fast[signature.side] += 1
        times = -1 if point.slow else 1
        if not point.readable:
            self.tally.unread += 1
            if signature.action in (points.ALLOCATE, points.FREE) and signature.side is not None:
                self._book(signature.side, thread, UNKNOWN, times)
            return
        self._actions[signature.action](stopped, signature.arguments, times)

    # -- what is counted -----------------------------------------------------------

    def _book(self, side: str, thread: int, szind: int, times: int) -> None:
        if self._only in (None, szind):
            tallies = self.tally.allocs if side == points.ALLOCATIONS else self.tally.frees
            tallies[thread, szind] += times

    def _allocated(self, thread: int, szind: Optional[int], times: int) -> None:
        if szind is None:
            self.tally.failed += 1
        else:
            self._book(points.ALLOCATIONS, thread, szind, times)

    def _freed(self, thread: int, region: Region, times: int) -> None:
        self._book(points.FREES, thread, region.szind, times)
        if region.slab is not None and self._only in (None, region.szind):
            self.tally.slabs[region.slab] += times

    def _resized(self, before: int, after: int) -> None:
        if before == after:
            self.tally.kept += 1
        elif self._only in (None, before, after):
            self.tally.resized[before, after] += 1

    # -- actions -------------------------------------------------------------------

    def _allocate(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        szind = self._classes.of(stopped.argument(at[0]))
        self._allocated(stopped.thread, szind, times)

    def _allocate_array(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        size = stopped.argument(at[0]) * stopped.argument(at[1])
        self._allocated(stopped.thread, self._classes.of(size), times)

    def _allocate_aligned(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        self._align(stopped, stopped.argument(at[0]), stopped.argument(at[1]))

    def _allocate_into(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        where, alignment, size = map(stopped.argument, at)
        if alignment < POINTER_ALIGN:
            self.tally.failed += 1
        else:
            self._align(stopped, alignment, size, where)

    def _allocate_flagged(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        lg_align = stopped.argument(at[1]) & MALLOCX_LG_ALIGN_MASK
        self._align(stopped, 1 << lg_align, stopped.argument(at[0]))

    def _allocate_pages(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        self._when_known(stopped, None)

    def _align(
        self, stopped: Stopped, alignment: int, size: int, into: Optional[int] = None
    ) -> None:
        """An allocation with an alignment, its pointer returned or put ``into`` a place."""
        if alignment == 1:
            self._allocated(stopped.thread, self._classes.of(size), 1)
        elif not alignment or alignment & alignment - 1:
            self.tally.failed += 1
        elif self._classes.certain(size, alignment):
            self._allocated(stopped.thread, self._classes.aligned(size, alignment), 1)
        else:
            self._when_known(stopped, into)

    def _when_known(self, stopped: Stopped, into: Optional[int]) -> None:
        """Count the allocation by where it is, once it has been made."""

        def done(back: Stopped) -> None:
            result = back.result()
            if into is not None:
                result = 0 if result & INT_MASK else self._word(into)
            region = self._find(result) if result else None
            self._allocated(back.thread, None if region is None else region.szind, 1)

        stopped.on_return(done)

    def _free(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        pointer = stopped.argument(at[0])
        region = self._find(pointer) if pointer else None
        if region is not None:
            self._freed(stopped.thread, region, times)
        elif pointer:
            self.tally.strangers += 1
        else:
            self.tally.null += 1

    def _reallocate(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        """A move is one free and one allocation; large ones may be resized in place.

        A small region stays where its class stays, and moves where it changes
        (arena_ralloc(), arena.c); what becomes of size 0, and of a large allocation
        that changes its class, is seen at the return.
        """
        pointer, size = stopped.argument(at[0]), stopped.argument(at[1])
        flags = stopped.argument(at[2]) if len(at) > 2 else 0
        alignment = 1 << (flags & MALLOCX_LG_ALIGN_MASK)
        if not pointer:
            self._align(stopped, alignment, size)
            return
        region = self._find(pointer)
        if region is None:
            self.tally.strangers += 1
            return
        szind = self._classes.aligned(size, alignment)
        in_slab, large = region.slab is not None, region.szind >= self._nbins
        if szind is None:
            self.tally.failed += 1
        elif in_slab and szind == region.szind and not pointer & alignment - 1:
            self.tally.kept += 1
        elif self._classes.certain(size, alignment) and (
            in_slab or (large and szind < self._nbins)
        ):
            self._move(stopped.thread, region, szind)
        else:
            self._when_moved(stopped, pointer, region, size)

    def _move(self, thread: int, region: Region, szind: int) -> None:
        self.tally.moved += 1
        self._freed(thread, region, 1)
        self._allocated(thread, szind, 1)

    def _when_moved(self, stopped: Stopped, pointer: int, region: Region, size: int) -> None:
        """Count a reallocation by what it returns."""

        def done(back: Stopped) -> None:
            result = back.result()
            if not result and size:
                self.tally.failed += 1
            elif not result:
                self._freed(back.thread, region, 1)
            else:
                now = self._find(result)
                szind = region.szind if now is None else now.szind
                if result == pointer:
                    self._resized(region.szind, szind)
                else:
                    self._move(back.thread, region, szind)

        stopped.on_return(done)

    def _resize(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        """xallocx(): only a large allocation can change its class (arena_ralloc_no_move())."""
        pointer = stopped.argument(at[0])
        region = self._find(pointer)
        if region is None:
            self.tally.strangers += 1
            return
        before = region.szind

        def done(_: Stopped) -> None:
            now = self._find(pointer)
            self._resized(before, before if now is None else now.szind)

        if region.slab is not None:
            self.tally.kept += 1
        else:
            stopped.on_return(done)

    # -- between caches and bins -----------------------------------------------------

    def _fill_asked(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        szind, number = (stopped.argument(position) & INT_MASK for position in at)
        self._book(points.ALLOCATIONS, stopped.thread, szind, number)

    def _fill_read(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        """The cache bin was empty before (arena_tcache_fill_small() asserts it)."""
        cache_bin, szind = stopped.argument(at[0]), stopped.argument(at[1]) & INT_MASK
        stopped.on_return(
            lambda back: self._book(points.ALLOCATIONS, back.thread, szind, self._cached(cache_bin))
        )

    def _fill_returned(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        """It returns a cache_bin_sz_t, of 16 bits."""
        szind = stopped.argument(at[0]) & INT_MASK
        stopped.on_return(
            lambda back: self._book(points.ALLOCATIONS, back.thread, szind, back.result() & LOW)
        )

    def _flush(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        cache_bin = stopped.argument(at[0])
        szind, stay = (stopped.argument(position) & INT_MASK for position in at[1:])
        number = max(0, self._cached(cache_bin) - stay)
        self._book(points.FREES, stopped.thread, szind, number)

    def _bin_allocate(self, stopped: Stopped, at: Sequence[int], times: int) -> None:
        szind = self._classes.of(stopped.argument(at[0]))
        if szind is not None and szind < self._nbins:
            self._book(points.ALLOCATIONS, stopped.thread, szind, 1)

    def _cached(self, cache_bin: int) -> int:
        """The regions that the cache bin at an address holds now."""
        layout = self._caches
        if isinstance(layout, StackedCaches):
            head = self._word(cache_bin + layout.head)
            empty = int.from_bytes(self._read(cache_bin + layout.low_bits_empty, 2), "little")
            return (empty - head & LOW) // WORD
        return int.from_bytes(self._read(cache_bin + layout.ncached, 4), "little")

    def _word(self, address: int) -> int:
        return int.from_bytes(self._read(address, WORD), "little")
