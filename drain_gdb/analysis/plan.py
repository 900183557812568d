"""What each remedy would give back, before it is done: alone, and after those before it.

Remedies stand in the order in which they would be tried, the cheapest first.  What one gives
on top of those before it is less than alone: a flush makes dirty what a purge then takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.analysis import defragment, release
from drain_gdb.analysis.causes import AUTOMATIC_PER_CPU
from drain_gdb.analysis.defragment import SERVERS
from drain_gdb.analysis.fate import stays
from drain_gdb.analysis.granules import Granules
from drain_gdb.analysis.packing import Bin, Packing, Step, bins_told, curve, merged, pack
from drain_gdb.analysis.pins import Pins, TogetherRow, best_sets
from drain_gdb.analysis.ranges import Range, exact
from drain_gdb.analysis.report import Account, Sweep
from drain_gdb.analysis.scatter import Scatter, scatter
from drain_gdb.analysis.situation import FLUSH, PURGE, Situation
from drain_gdb.analysis.splitting import best_split
from drain_gdb.jemalloc.settings import Settings
from drain_gdb.words import size

EDATA_BYTES, LEAF_BYTES = 128, 8
"""Metadata of an extent: its edata_t, which base.c keeps at a cache line's multiple, and a leaf
element a page (edata.h, rtree.h)."""
LEAST = 0.01
"""Under this share of RSS a remedy gives next to nothing."""
WIDEST = 0.4
"""An interval whose ends are further apart, as a share of what would be left, is no figure."""


NOTHING = exact(0)


@dataclass(frozen=True)
class Gain:
    """What is freed: slabs, their bytes and those of extents, and what of RSS goes at once.

    A figure that would not be honest is None.
    """

    slabs: Optional[Range] = NOTHING
    bytes: Optional[Range] = NOTHING
    resident: Optional[Range] = NOTHING

    @property
    def figures(self) -> Tuple[Optional[Range], Optional[Range]]:
        """Those in bytes."""
        return self.bytes, self.resident


@dataclass(frozen=True)
class Planned:
    """A remedy.

    Attributes:
        how: the command or setting of this process.
        applies: whether it can be done here; ``why_not`` if not.
        alone: what it gives by itself.
        on_top: what it gives once those before it that apply are done; None where it does
            not apply.
        regions_moved, bytes_moved: what it takes, in the best order; None for nothing.
        groups: of the groups that pin, what the best one frees, the best two and more.

    """

    remedy: str
    how: str
    applies: bool
    alone: Gain
    on_top: Optional[Gain] = None
    why_not: Optional[str] = None
    regions_moved: Optional[int] = None
    bytes_moved: Optional[int] = None
    notes: Tuple[str, ...] = ()
    groups: Tuple[TogetherRow, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The remedies of one jemalloc and what they rest on.

    Attributes:
        resident_bytes: RSS of the process; None where it is not known.
        remedies: in the order in which they would be tried.
        defragmentation: the curve; scatter: by class; granules: None for statistics.

    """

    sweep: Sweep
    resident_bytes: Optional[int]
    remedies: Tuple[Planned, ...]
    defragmentation: Tuple[Step, ...]
    scatter: Tuple[Scatter, ...]
    granules: Optional[Granules]

    @property
    def best(self) -> Tuple[Planned, ...]:
        """Those that give something, best first: by RSS, then by bytes."""
        able = [each for each in self.telling if _worth(each) > (0, 0)]
        return tuple(sorted(able, key=_worth, reverse=True))

    @property
    def telling(self) -> Tuple[Planned, ...]:
        """Those that apply and give more than next to nothing, or of which it is not known."""
        whole = self.resident_bytes or self.sweep.totals.slab_bytes
        return tuple(
            each
            for each in self.remedies
            if each.applies
            and any(f is None or f.high >= LEAST * whole > 0 for f in each.alone.figures)
        )


def _worth(planned: Planned) -> Tuple[int, int]:
    gain = planned.alone
    return (gain.resident.value if gain.resident else 0, gain.bytes.value if gain.bytes else 0)


@dataclass
class _State:
    """The heap while remedies are done to it, one after the other.

    ``freed_dirty`` is what is dirty then and resident, beyond what was dirty at first.
    """

    slabs: int
    slab_bytes: int
    freed_dirty: int = 0
    purged: bool = False


@dataclass(frozen=True)
class _Heap:
    """What the plan of one jemalloc is made from; ``pins`` are of all, None if not looked up."""

    situation: Situation
    bins: Sequence[Bin]
    pins: Optional[Pins]

    @property
    def report(self) -> Sweep:
        return self.situation.report

    @property
    def settings(self) -> Settings:
        return self.situation.settings

    @property
    def known(self) -> bool:
        """Whether residence is."""
        return self.situation.account.resident_bytes is not None

    def resident(self, slab_bytes: int) -> int:
        """How much of so many bytes of slabs is resident."""
        whole = self.report.totals.slab_bytes
        there = self.situation.there("live", "cached", "drainable", "pinned_waste")
        return slab_bytes * there // whole if whole and self.known else slab_bytes

    @property
    def packing(self) -> Packing:
        return pack(self.bins)

    @property
    def ideal(self) -> Packing:
        """All that a restart would not have: packed, without what caches hold."""
        spare = [(each.slabs - each.ideal, each.slab_size) for each in self.bins]
        spare = [(max(0, slabs), bytes_) for slabs, bytes_ in spare]
        return Packing(sum(n for n, _ in spare), sum(n * b for n, b in spare), None, None)


def plan(
    report: Sweep,
    number: int,
    bins: Sequence[Bin],
    account: Account,
    zeros: Optional[float] = None,
    where: Optional[Granules] = None,
    pins: Optional[Pins] = None,
) -> Plan:
    """The plan of the jemalloc ``number`` of a process, with its ``report`` and ``bins``.

    ``zeros`` is the share that holds but zeros of what lies on huge pages, None if unknown;
    ``pins`` who pins slabs, of all jemallocs together, None where nobody asked.
    """
    situation = Situation(number, report, report.settings or Settings(), account, zeros)
    heap = _Heap(situation, bins, pins)
    state = _State(report.totals.slabs, report.totals.slab_bytes)
    remedies: List[Planned] = []
    for each in REMEDIES:
        remedies += each(heap, state)
    return Plan(
        sweep=report,
        resident_bytes=account.resident_bytes,
        remedies=tuple(remedies),
        defragmentation=curve(bins),
        scatter=scatter(bins),
        granules=where,
    )


def plan_told(report: Sweep) -> Plan:
    """The plan of a heap that statistics alone tell of; ``report`` is by arena."""
    account = report.account or Account(None, None, ())
    return plan(report, 0, bins_told(report), account)


# -- what thread caches hold ------------------------------------------------------


def _flush(heap: _Heap, state: _State) -> Iterator[Planned]:
    situation, totals = heap.situation, heap.report.totals
    how = f"in each thread: {situation.call(FLUSH)}"
    if totals.cached is None:
        held = heap.report.allocator.thread_cache_bytes or 0
        yield Planned(
            "flush_caches",
            how,
            held > 0,
            Gain(None, Range(held, 0, held), exact(0)),
            Gain(None, Range(held, 0, held), exact(0)),
            None if held else "thread caches hold nothing",
            notes=("statistics do not tell which slabs caches hold: up to",),
        )
        return
    slabs = sum(each.held_slabs for each in heap.bins)
    slab_bytes = sum(each.held_slabs * each.slab_size for each in heap.bins)
    large = heap.report.extents.large_cached_bytes or 0
    gain = Gain(exact(slabs), exact(slab_bytes + large), exact(0))
    why_not = situation.closed if totals.cached or large else "thread caches hold nothing"
    applies = why_not is None
    if applies:
        state.slabs -= slabs
        state.slab_bytes -= slab_bytes
        state.freed_dirty += heap.resident(slab_bytes) + situation.there("large_cached")
    notes = ("what it frees is dirty then: RSS falls with the purge",) if applies else ()
    yield Planned(
        "flush_caches", how, applies, gain, gain if applies else None, why_not, notes=notes
    )


def _purge(heap: _Heap, state: _State) -> Iterator[Planned]:
    situation = heap.situation
    size_of = (heap.report.extents.dirty_bytes or 0) + (heap.report.extents.muzzy_bytes or 0)
    there = situation.alone("dirty") + situation.alone("muzzy")
    alone = exact(there) if heap.known else Range(size_of, 0, size_of)
    also = state.freed_dirty
    on_top = Range(alone.value + also, alone.low + (also if heap.known else 0), alone.high + also)
    notes = []
    if not heap.known:
        notes.append("residence is not known: up to")
    shared = situation.there("dirty", "muzzy") - there
    if shared:
        notes.append(f"{size(shared)} is shared with a fork and returns nothing")
    why_not = situation.closed if on_top.high > 0 else "nothing is dirty"
    applies = why_not is None
    state.purged = applies
    yield Planned(
        "purge",
        situation.call(PURGE, "MEMORY PURGE"),
        applies,
        Gain(exact(0), exact(size_of), alone),
        Gain(exact(0), exact(size_of + also), on_top) if applies else None,
        why_not,
        notes=tuple(notes),
    )
    left = Gain() if applies else Gain(exact(0), exact(size_of), alone)
    yield _decay(heap, alone, size_of, left if on_top.high > 0 else None)


def _decay(heap: _Heap, there: Range, size_of: int, on_top: Optional[Gain]) -> Planned:
    """The setting that keeps it so: after a purge it gives nothing on top."""
    applies = on_top is not None
    situation, settings = heap.situation, heap.settings
    as_set = any(stays(arena.dirty_decay_ms) for arena in heap.report.arenas)
    name, why_not = "background_thread", None if applies else "nothing is dirty"
    if as_set:
        name, how = "decay", situation.conf("dirty_decay_ms", "10000")
    elif settings.background_thread is True:
        name, how = "decay", situation.conf("dirty_decay_ms", "0")
    elif settings.program in SERVERS:
        how = situation.command("CONFIG SET jemalloc-bg-thread yes")
    else:
        how = situation.conf("background_thread", "true")
    return Planned(
        name,
        how,
        applies,
        Gain(exact(0), exact(size_of), there),
        on_top,
        why_not,
        notes=("what purge gives, in time, and again whenever it is due",) if applies else (),
    )


# -- packing -----------------------------------------------------------------------


def _defragment(heap: _Heap, state: _State) -> Iterator[Planned]:
    settings = heap.settings
    why_not, how = None, "-"
    if settings.program not in SERVERS:
        why_not = "this program has no active defragmentation"
    elif settings.active_defragmentation is False:
        why_not = "this build cannot: it runs on a jemalloc of the system's"
    whole = heap.packing
    notes: Tuple[str, ...] = ()
    fewest = whole.bytes
    if settings.program in SERVERS:
        free = sum((each.slabs * each.nregs - each.live) * each.size for each in heap.bins)
        how = defragment.how(heap.situation, free)
        fewest = defragment.fewest(heap.situation, free, whole.bytes)
        if fewest < whole.bytes:
            left = size(defragment.enough(heap.situation))
            notes = (f"its thresholds let it end with up to {left} of waste left",)
    least = pack(heap.bins, fewest / whole.bytes if whole.bytes else 0)
    slabs, freed = (
        Range(*_middle(least.slabs, whole.slabs)),
        Range(*_middle(least.bytes, whole.bytes)),
    )
    gain = Gain(slabs, freed, Range(*map(heap.resident, freed)))
    applies = why_not is None and whole.slabs > 0
    if why_not is None and not whole.slabs:
        why_not = "nothing can be packed"
    if applies:
        state.slabs -= slabs.value
        state.slab_bytes -= freed.value
    yield Planned(
        "active_defrag",
        how,
        applies,
        gain,
        gain if applies else None,
        why_not,
        whole.regions_moved,
        whole.bytes_moved,
        notes,
    )


def _middle(low: int, high: int) -> Tuple[int, int, int]:
    return (low + high) // 2, low, high


def _fewer_arenas(heap: _Heap, state: _State) -> Iterator[Planned]:
    situation, settings = heap.situation, heap.settings
    arenas = {each.arena for each in heap.bins if each.slabs}
    number = settings.cpus or AUTOMATIC_PER_CPU
    how = (
        situation.conf("percpu_arena", "disabled")
        if settings.percpu_arena
        else situation.conf("narenas", "1" if len(arenas) <= number else str(number))
    )
    if len(arenas) < 2:
        yield Planned("fewer_arenas", how, False, Gain(), why_not="one arena holds all slabs")
        return
    one = merged(heap.bins)
    slabs = sum(each.slabs for each in heap.bins)
    packed = sum(each.ideal for each in one)
    rounding = sum(each.ideal for each in heap.bins) - packed
    bytes_packed = sum((each.slabs - each.ideal) * each.slab_size for each in one)
    bytes_rounding = sum(e.ideal * e.slab_size for e in heap.bins) - sum(
        e.ideal * e.slab_size for e in one
    )
    # In one arena, too, the last slab of a class is not full: half of that is left.
    low, high, bytes_rounding = rounding // 2, slabs - packed, bytes_rounding // 2
    # What would be left lies between these; its middle is as good as any.
    narrow = high - low <= WIDEST * max(1, slabs - low)
    if not narrow:
        gain = Gain(None, None, None)
        notes: Tuple[str, ...] = (
            f"no honest figure: between {size(bytes_rounding)} and {size(bytes_packed)} of slabs",
        )
    else:
        resident = [heap.resident(each) for each in (bytes_rounding, bytes_packed)]
        gain = Gain(
            Range((low + high) // 2, low, high),
            Range((bytes_rounding + bytes_packed) // 2, bytes_rounding, bytes_packed),
            Range(sum(resident) // 2, *resident),
        )
        notes = ("between what rounding costs and perfect packing of all arenas together",)
    yield Planned("fewer_arenas", how, True, gain, Gain(None, None, None), None, notes=notes)


def _groups(heap: _Heap, state: _State) -> Iterator[Planned]:
    """Objects that go, or lie apart: the most that one group frees, then what several do."""
    name, how = "dedicated_arena", release.LOOK
    why_not = release.why_not(heap.report)
    if why_not is not None or heap.pins is None:
        unknown = Gain(None, None, None)
        on_top = None if why_not else unknown
        yield Planned(name, how, why_not is None, unknown, on_top, why_not)
        return
    sets = best_sets(heap.pins)
    if not sets:
        why_not = "no slab is of one group, or of a few, alone"
        yield Planned(name, how, False, Gain(), why_not=why_not)
        return
    best = sets[0]
    slabs = Range(best.slabs, best.slabs - best.cached_slabs, best.slabs)
    gain = Gain(slabs, exact(best.bytes), exact(0))
    how = release.how(heap.situation, heap.pins, best.groups)
    yield Planned(
        name,
        how,
        True,
        gain,
        Gain(None, None, None),
        notes=(
            "whole slabs, with the live data in them; what comes back is dirty then: RSS falls"
            " with the purge",
        ),
        groups=sets,
    )


# -- settings for the next start ----------------------------------------------------


def _tcache_max(heap: _Heap, state: _State) -> Iterator[Planned]:
    situation, extents = heap.situation, heap.report.extents
    large = extents.large_cached_bytes
    option = ("lg_tcache_max", "13") if situation.old else ("tcache_max", "8192")
    if not large:
        why_not = (
            "caches hold no large allocations" if large == 0 else "it is not known what they hold"
        )
        yield Planned("tcache_max", situation.conf(*option), False, Gain(), why_not=why_not)
        return
    there = situation.there("large_cached")
    gain = Gain(exact(0), exact(large), exact(there) if heap.known else Range(large, 0, large))
    yield Planned(
        "tcache_max",
        situation.conf(*option),
        True,
        gain,
        Gain() if situation.closed is None else gain,
        notes=("keeps large allocations out of thread caches for good: what a flush gives now",),
    )


def _slab_sizes(heap: _Heap, state: _State) -> Iterator[Planned]:
    """Smaller slabs for classes whose slabs have several pages, with regions where they lie.

    Where in its slab each lies counts for nothing: the value is for regions at random, the
    bounds are for the worst and the best that may be.
    """
    if heap.situation.before(5, 2, 0):
        why_not = "this jemalloc has no such option: it came with 5.2.0"
        yield Planned("slab_sizes", "a jemalloc from 5.2.0 on", False, Gain(), why_not=why_not)
        return
    page = heap.report.allocator.page_size
    better = [best_split(each, page) for each in merged(heap.bins) if each.by_live is not None]
    chosen = [split for split in better if split is not None]
    said = "|".join(f"{split.size}-{split.size}:{split.pages}" for split in chosen)
    how = heap.situation.conf("slab_sizes", said or "SIZE-SIZE:PAGES")
    if not chosen:
        why_not = "no class wastes less in smaller slabs"
        yield Planned("slab_sizes", how, False, Gain(), why_not=why_not)
        return
    freed = Range(*(sum(getattr(split, name) for split in chosen) for name in Range._fields))
    resident = Range(*map(heap.resident, freed))
    notes = ("for regions that lie at random in their slabs; at the next start",)
    yield Planned(
        "slab_sizes", how, True, Gain(None, freed, resident), Gain(None, None, None), notes=notes
    )


def _quantum(heap: _Heap, state: _State) -> Iterator[Planned]:
    how = "a jemalloc that was configured --with-lg-quantum=3"
    why_not = (
        "it takes another build of jemalloc, configured --with-lg-quantum=3, and what that would"
        " save is not known: of what was asked for the size class alone is kept"
    )
    yield Planned("lg_quantum", how, False, Gain(None, None, None), why_not=why_not)


def _huge_pages(heap: _Heap, state: _State) -> Iterator[Planned]:
    situation, account = heap.situation, heap.situation.account
    how = situation.conf("thp", "never")
    if account.huge_bytes is None or (account.huge_bytes and situation.zeros is None):
        yield Planned(
            "huge_pages_off",
            how,
            False,
            Gain(None, None, None),
            why_not="it is not known what lies on huge pages",
        )
        return
    own = [part.part for part in account.parts if part.allocator == situation.number]
    there = situation.unwritten(*own)
    if not there:
        why = (
            "nothing lies on huge pages" if not account.huge_bytes else "all of them is written to"
        )
        yield Planned("huge_pages_off", how, False, Gain(), why_not=why)
        return
    gain = Gain(exact(0), exact(0), exact(there))
    yield Planned(
        "huge_pages_off",
        how,
        True,
        gain,
        gain,
        notes=("pages that are resident for their neighbours alone, which hold but zeros",),
    )


def _restart(heap: _Heap, state: _State) -> Iterator[Planned]:
    """The same data in a new process: packed, nothing cached or dirty, less metadata."""
    situation, report = heap.situation, heap.report
    ideal = heap.ideal
    page = report.allocator.page_size
    metadata = ideal.slabs * EDATA_BYTES + ideal.bytes // page * LEAF_BYTES
    unused = situation.there("dirty", "muzzy", "large_cached")
    unwritten = situation.unwritten("live", "cached", "drainable", "pinned_waste", "large")
    resident = heap.resident(ideal.bytes) + min(metadata, situation.there("metadata")) + unused
    large = report.extents.large_cached_bytes or 0
    told = heap.report.totals.live is None
    low = 0 if not heap.known else resident
    gain = Gain(
        exact(ideal.slabs),
        exact(ideal.bytes + large),
        Range(resident, low, max(resident, resident + unwritten)),
    )
    left = max(0, report.totals.slabs - ideal.slabs)
    freed_before = report.totals.slabs - state.slabs
    bytes_before = report.totals.slab_bytes - state.slab_bytes
    done = heap.resident(bytes_before) + (unused if state.purged else 0)
    then = max(0, resident - done)
    on_top = Gain(
        exact(max(0, ideal.slabs - freed_before)),
        exact(max(0, ideal.bytes - bytes_before)),
        Range(then, min(then, low), then),
    )
    notes = [f"{left:,} slabs would hold what is live"]
    if told:
        notes.append("cached regions count as live: statistics do not tell them apart")
    how = (
        "a restart or failover to a replica"
        if heap.settings.program in SERVERS
        else ("a restart with the same data")
    )
    yield Planned("restart", how, ideal.slabs > 0, gain, on_top, None, notes=tuple(notes))


REMEDIES: Sequence[Callable[[_Heap, _State], Iterator[Planned]]] = (
    *(_flush, _purge, _defragment, _huge_pages, _tcache_max, _slab_sizes, _quantum),
    *(_fewer_arenas, _groups, _restart),
)
