"""Why the resident memory is what it is: the causes, largest first, and what makes each go.

Each function looks at one part of the account and says what it is, whether it goes by
itself and how it is made to, with the commands of this very process.  Where residence is not
known the sizes stand in; what a remedy gives back is then an upper bound.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from drain_gdb.analysis import defragment
from drain_gdb.analysis.fate import Fate, fate_of
from drain_gdb.analysis.report import Account, ArenaRow, Cause, Part, Remedy, Sweep
from drain_gdb.analysis.situation import FLUSH, PURGE, Situation, resident
from drain_gdb.debuggee.foreign import CPYTHON, GLIBC
from drain_gdb.jemalloc.settings import Settings
from drain_gdb.words import (
    SOME_FROM,
    count,
    listed,
    many,
    size,
    whole_percent,
)

LEAST_SHARE = 0.05
"""Causes under this share of the resident memory are shown only when asked for."""
MIB = 1 << 20
SMALL_PROCESS = 16 * MIB
"""RSS that a program may have for being there: its files, libraries, stacks, first arena."""
NAMED = 3
"""Size classes, or parts, that are named in one sentence."""
FIXED = ("file_backed", "file_copies", "stacks")
"""What a program costs for being there; worth a look only beyond ``SMALL_PROCESS``."""
NOT_JEMALLOC = ("brk_heap", "thread_stacks", "shared", "other_anonymous")
LG_SAMPLE_MAX = 63
"""Of 64-bit sizes."""
AUTOMATIC_PER_CPU = 4
"""Arenas that threads are spread over by default, for each CPU (malloc_narenas_default())."""
NAMES = {
    "brk_heap": "the brk heap",
    "stacks": "the main stack",
    "thread_stacks": "stacks of threads",
    "file_backed": "files",
    "file_copies": "variables and copied pages of files",
    "shared": "shared memory",
    "other_anonymous": "anonymous memory that is not jemalloc's",
}
LOOK = {
    "brk_heap": "another malloc is in use beside jemalloc: see who calls sbrk()",
    "thread_stacks": "fewer threads, or smaller stacks (pthread_attr_setstacksize, ulimit -s)",
    "file_backed": "the system takes pages of files back when memory is short",
    "shared": "shared memory: see ipcs -m, /dev/shm and memfd_create()",
}
MAPS = "see who calls mmap: strace -f -k -e trace=mmap"
OWN_STATISTICS = {
    CPYTHON: "sys._debugmallocstats(); PYTHONMALLOC=malloc does without them, by malloc()",
    GLIBC: "malloc_stats(); malloc_trim(0) gives back what is free",
    "the Java virtual machine": "jcmd {pid} VM.native_memory, if it was started with"
    " -XX:NativeMemoryTracking=summary; -Xmx bounds its heap",
    "V8": "process.memoryUsage(); --max-old-space-size bounds its heap",
    "Ruby": "GC.stat, ObjectSpace.memsize_of_all",
    ".NET": "dotnet-counters monitor -p {pid}; DOTNET_GCHeapHardLimit bounds its heap",
    "Erlang": "erlang:memory(), instrument:carriers()",
    "PHP": "memory_get_usage(true); memory_limit bounds it, USE_ZEND_ALLOC=0 does without it,"
    " by malloc()",
    "LuaJIT": 'collectgarbage("count")',
    "InnoDB": "SHOW ENGINE INNODB STATUS; innodb_buffer_pool_size bounds its pool",
}
"""Where those tell that map memory for themselves (RUNTIMES, foreign.py)."""


def find_causes(
    account: Account, reports: Mapping[int, Sweep], zeros: Optional[float] = None
) -> Tuple[Cause, ...]:
    """The causes in the process of ``account``, largest first.

    ``reports`` are of its jemallocs, by their numbers in the account, each of the whole heap;
    ``zeros`` is the share that holds but zeros of what lies on huge pages, None if unknown.
    """
    found: List[Cause] = []
    for number, report in reports.items():
        heap = Situation(number, report, report.settings or Settings(), account, zeros)
        own = [each for cause in CAUSES for each in cause(heap)]
        where = "" if len(reports) == 1 else f"In {report.allocator.library}. "
        found += [replace(cause, evidence=where + cause.evidence) for cause in own]
    found += _of_process(account, next(iter(reports.values())))
    found = [cause for cause in found if cause.bytes > 0]
    return tuple(sorted(found, key=lambda cause: cause.bytes, reverse=True))


def weight(account: Account) -> int:
    """What the shares of causes are of: RSS, or all sizes where it is not known."""
    if account.resident_bytes is not None:
        return account.resident_bytes
    return sum(part.bytes for part in account.parts if part.part != "retained")


def telling(account: Account, causes: Sequence[Cause]) -> Tuple[Cause, ...]:
    """The causes that are worth being told of unasked."""
    return tuple(cause for cause in causes if cause.bytes >= least(account))


def least(account: Account) -> float:
    """Bytes from which on a cause is worth being told of."""
    return LEAST_SHARE * weight(account)


# -- unused pages -----------------------------------------------------------------


def _unused(heap: Situation, state: str) -> Iterator[Cause]:
    """Dirty or muzzy pages."""
    there = heap.there(state)
    option = f"{state}_decay_ms"
    background = heap.settings.background_thread
    held: Dict[str, int] = {}
    fate = Fate("unknown", "Their decay time is not known")
    # Of several arenas the one that holds the most speaks for all of the same fate.
    for arena in sorted(heap.report.arenas, key=lambda arena: _pages(arena, state)):
        pages = _pages(arena, state)
        if pages:
            fate = fate_of(arena, getattr(arena, option), option, heap.settings)
            held[fate.goes] = held.get(fate.goes, 0) + pages
    if not there:
        return
    evidence = fate.why
    extents = heap.report.extents.unused.get(state)
    if len(held) > 1:
        evidence += f" (so for {whole_percent(held[fate.goes] / sum(held.values()))} of them)"
    elif extents is not None and extents.count:
        evidence += f"; {many(extents.count, 'extent')}, the largest {size(extents.largest_bytes)}"
    back = heap.alone(state)
    if back < there:
        evidence += (
            f"; {size(there - back)} is shared with a fork: giving that back returns nothing"
            " to the machine"
        )
    if state == "muzzy":
        evidence += "; the system takes them when memory is short"
    remedies: List[Remedy] = []
    closed = heap.closed
    if closed is None:
        remedies.append(Remedy("purge", back, heap.call(PURGE, "MEMORY PURGE")))
    else:
        evidence += f"; {closed}: no other code can purge them"
    if fate.as_set:
        remedies.append(Remedy("decay", back, heap.conf(option, "10000")))
    elif background is not True:
        if heap.settings.program in ("redis", "valkey"):
            how = heap.command("CONFIG SET jemalloc-bg-thread yes")
        else:
            how = heap.conf("background_thread", "true")
        remedies.append(Remedy("background_thread", back, how))
        remedies.append(Remedy("decay", back, heap.conf(option, "0")))
    elif closed is not None:
        remedies.append(Remedy("decay", back, heap.conf(option, "0")))
    yield Cause(f"{state}_pages", there, fate.goes, tuple(remedies), evidence)


def _pages(arena: ArenaRow, state: str) -> int:
    return arena.dirty_bytes if state == "dirty" else arena.muzzy_bytes


def _dirty(heap: Situation) -> Iterator[Cause]:
    yield from _unused(heap, "dirty")


def _muzzy(heap: Situation) -> Iterator[Cause]:
    yield from _unused(heap, "muzzy")


# -- thread caches ------------------------------------------------------------------


def _cached(heap: Situation) -> Iterator[Cause]:
    report, totals = heap.report, heap.report.totals
    small, large = heap.there("cached"), heap.there("large_cached")
    if totals.cached is None or totals.drainable_bytes is None:
        yield from _told_cached(heap)
        return
    number = totals.cached + (report.extents.large_cached_count or 0)
    evidence = (
        f"Freed by the program, but held by {many(report.allocator.thread_caches, 'thread cache')}:"
        f" {many(number, 'region')}"
    )
    if large:
        evidence += f", {size(large)} of it in large ones"
    back = large + min(heap.there("drainable", "cached"), totals.drainable_bytes)
    remedies: List[Remedy] = []
    closed = heap.closed
    if closed is None:
        how = f"in each thread: {heap.call(FLUSH)}; what it frees is dirty then"
        remedies.append(Remedy("flush_caches", back, how))
    else:
        evidence += f"; {closed}: no other code can flush them"
    largest = max((row.size for row in report.bins), default=0)
    if large > small and largest:
        option = ("lg_tcache_max", "13") if heap.old else ("tcache_max", "8192")
        remedies.append(Remedy("tcache_max", large, heap.conf(*option)))
    else:
        remedies.append(Remedy("tcache_max", back, heap.conf("tcache", "false")))
    yield Cause("cached_regions", small + large, "no", tuple(remedies), evidence)


def _told_cached(heap: Situation) -> Iterator[Cause]:
    """What thread caches hold where statistics alone tell it: all of it, in one figure."""
    held = heap.report.allocator.thread_cache_bytes or 0
    how = f"in each thread: {heap.call(FLUSH)}; what it frees is dirty then"
    yield Cause(
        "cached_regions",
        held,
        "no",
        (Remedy("flush_caches", held, how),),
        "Freed by the program, but held by thread caches; part of what counts as allocated",
    )


def _drainable(heap: Situation) -> Iterator[Cause]:
    totals = heap.report.totals
    if totals.drainable is None or totals.drainable_bytes is None:
        return
    evidence = (
        f"{many(totals.drainable, 'slab')} without a live region:"
        f" {count(totals.cache_held)} held by thread caches alone, {count(totals.empty)} empty"
    )
    there = heap.there("drainable")
    back = min(there + heap.there("cached"), totals.drainable_bytes)
    closed = heap.closed
    if closed is None:
        how = f"in each thread: {heap.call(FLUSH)}; then purge"
        remedy = Remedy("flush_caches", back, how)
    else:
        evidence += f"; {closed}: no other code can flush the caches"
        remedy = Remedy("tcache_max", back, heap.conf("tcache", "false"))
    yield Cause("drainable_slabs", there, "no", (remedy,), evidence)


# -- slabs that are pinned ------------------------------------------------------------


@dataclass(frozen=True)
class _Class:
    """Figures of one size class, of all arenas.

    Where live regions are not known, for statistics do not tell them, all that are allocated
    stand in.
    """

    size: int
    waste: int = 0
    live: int = 0
    regions: int = 0
    ideal: int = 0
    slab_bytes: int = 0
    drainable: int = 0


def _classes(report: Sweep) -> List[_Class]:
    sums: Dict[int, List[int]] = {}
    for row in report.bins:
        state = row.state
        live, held = state.live, state.live_bytes
        if live is None or held is None:
            live, held = state.allocated, state.allocated_bytes
        drainable, ideal = state.drainable_bytes or 0, state.ideal_slabs
        if ideal is None:
            ideal = -(-live // row.nregs)
        figures = (
            *(state.slab_bytes - held - drainable, held, live),
            *(ideal * row.slab_size, state.slab_bytes, drainable),
        )
        before = sums.get(row.size, [0] * len(figures))
        sums[row.size] = [a + b for a, b in zip(before, figures)]
    return [_Class(each, *figures) for each, figures in sums.items()]


def _pinned(heap: Situation) -> Iterator[Cause]:
    """Room in slabs that a live region keeps: for there are many arenas, or scattered."""
    report = heap.report
    there = heap.there("pinned_waste", "free")
    classes = _classes(report)
    waste = sum(each.waste for each in classes)
    if not there or not waste:
        return
    ideal = sum(each.ideal for each in classes)
    in_use = sum(1 for arena in report.arenas if arena.slab_bytes)
    rounding = 0
    if report.merged_bytes is not None and in_use > 1:
        rounding = min(there, max(0, ideal - report.merged_bytes) * there // waste)
    if rounding:
        yield _many_arenas(heap, rounding, in_use)
    scattered = there - rounding
    named = sorted(classes, key=lambda each: each.waste, reverse=True)[:NAMED]
    named = [each for each in named if each.waste >= LEAST_SHARE * waste]
    evidence = (
        f"{_held(report)} and room besides: {_sizes(named)}"
        f" ({listed([whole_percent(each.waste / waste) for each in named])})"
    )
    gain = (
        sum(max(0, each.slab_bytes - each.drainable - each.ideal) for each in classes)
        * there
        // waste
    )
    gain = min(gain, scattered)
    yield Cause("pinned_slabs", scattered, "no", tuple(_compacting(heap, gain, there)), evidence)


def _held(report: Sweep) -> str:
    totals = report.totals
    if totals.live is None:
        return f"{many(totals.slabs, 'slab')} with regions that are live or cached"
    return f"{count(totals.pinned)} of {many(totals.slabs, 'slab')} each hold a live region"


def _sizes(classes: Sequence[_Class]) -> str:
    if len(classes) == 1:
        return f"the {classes[0].size}-byte class"
    return listed([f"{each.size}-" for each in classes]) + "byte classes"


def _many_arenas(heap: Situation, rounding: int, in_use: int) -> Cause:
    settings = heap.settings
    threads = "" if settings.threads is None else f", {many(settings.threads, 'thread')}"
    cpus = "" if settings.cpus is None else f" and {many(settings.cpus, 'CPU')}"
    return Cause(
        "many_arenas",
        rounding,
        "no",
        (
            Remedy(
                "fewer_arenas",
                rounding,
                _fewer(heap, settings.cpus or max(1, in_use // 4)),
            ),
        ),
        f"{many(in_use, 'arena')}{threads}{cpus}: each arena has slabs of its own of every class,"
        " and room in each of them",
    )


def _fewer(heap: Situation, number: int) -> str:
    """The option that leaves some ``number`` arenas; percpu_arena goes before narenas."""
    if heap.settings.percpu_arena:
        return heap.conf("percpu_arena", "disabled")
    return heap.conf("narenas", str(number))


def _compacting(heap: Situation, gain: int, waste: int) -> Iterator[Remedy]:
    """What moves live regions together, by what this program can do."""
    settings = heap.settings
    if settings.program not in defragment.SERVERS:
        yield Remedy("restart", gain, "a restart with the same data")
        if settings.program == "python":
            return
        yield Remedy(
            "dedicated_arena",
            None,
            "allocate what lives long apart from what does not (arenas.create, MALLOCX_ARENA)",
        )
        return
    if settings.active_defragmentation is not False:
        # It ends somewhere from there on.
        back = (defragment.fewest(heap, waste, gain) + gain) // 2
        yield Remedy("active_defrag", back, defragment.how(heap, waste))
        yield Remedy("restart", gain, "a restart or failover to a replica")
    else:
        yield Remedy(
            "restart",
            gain,
            "a restart or failover to a replica; this build cannot defragment (it runs on a"
            " jemalloc of the system's)",
        )


# -- what is in use -------------------------------------------------------------------


def _live(heap: Situation) -> Iterator[Cause]:
    """What the program holds: growth, a leak, or simply the data."""
    report = heap.report
    sampled = _sampled_bytes(heap)
    there = heap.there("live", "large") - sampled - heap.unwritten("live", "large")
    if report.totals.live is None:
        told = heap.there("allocated", "large")
        there = max(0, told - (report.allocator.thread_cache_bytes or 0))
    groups = [(each.live, each.regions, f"{each.size}-byte") for each in _classes(report)]
    for row in report.large:
        held = row.bytes if row.resident_bytes is None else row.resident_bytes
        held, number = held - (row.cached_bytes or 0), row.count - (row.cached or 0)
        if row is report.large[0]:
            held, number = held - sampled, number - report.extents.sampled_count
        groups.append((held, number, size(row.size)))
    groups = sorted((g for g in groups if g[0] > 0), reverse=True)[:NAMED]
    total = max(1, there)
    named = [g for g in groups if g[0] >= SOME_FROM * total] or groups[:1]
    shares = [whole_percent(min(1, held / total)) for held, _, _ in named]
    words = [
        f"{many(number, 'object')} of the {name} class ({share} of it)"
        for (_, number, name), share in zip(named, shares)
    ]
    evidence = f"The program holds it: {listed(words)}" if words else "The program holds it"
    how = "drainpins --all says who holds it; if it grows: draindiff of two recordings"
    if heap.settings.has_profiler is not False:
        how += ", the heap profiler (prof:true, jeprof)"
    yield Cause("live_data", there, "no", (Remedy("find_owner", None, how),), evidence)


def _untouched(heap: Situation) -> Iterator[Cause]:
    """Large allocations that the program has hardly touched: size, not RSS."""
    part, account, report = heap.part("large"), heap.account, heap.report
    if part is None or part.resident_bytes is None or account.resident_bytes is None:
        return
    allocated = part.bytes - report.extents.sampled_bytes
    untouched = allocated - (part.resident_bytes - _sampled_bytes(heap))
    if untouched < max(account.resident_bytes, SMALL_PROCESS):
        return
    share = whole_percent(untouched / allocated)
    number = (report.extents.large_count or 0) - report.extents.sampled_count
    yield Cause(
        "untouched",
        untouched,
        "yes",
        (Remedy("none", None, "nothing is wrong: it takes address space, not memory"),),
        f"{share} of {size(allocated)} in {many(number, 'large allocation')}"
        " was never touched: allocated, but not in RSS",
    )


def _sampled_bytes(heap: Situation) -> int:
    """Resident bytes of sampled allocations, by the residence of their class."""
    extents = heap.report.extents
    if not extents.sampled_bytes or not heap.report.large:
        return 0
    row = heap.report.large[0]
    if row.resident_bytes is None:
        return extents.sampled_bytes
    return extents.sampled_bytes * row.resident_bytes // max(1, row.bytes)


def _profiling(heap: Situation) -> Iterator[Cause]:
    settings, extents = heap.settings, heap.report.extents
    rate = settings.lg_prof_sample
    known = rate is not None and rate <= LG_SAMPLE_MAX
    average = (
        "" if rate is None or not known else f", one each {size(1 << rate)} (lg_prof_sample {rate})"
    )
    yield Cause(
        "profiling",
        _sampled_bytes(heap),
        "no",
        (
            Remedy(
                "profiling_rate",
                None,
                heap.conf("lg_prof_sample", "19" if rate is None else str(max(19, rate + 3))),
            ),
        ),
        f"The heap profiler is on: {many(extents.sampled_count, 'sampled allocation')} of small"
        f" sizes, each with pages of its own{average}",
    )


# -- jemalloc's own, and pages --------------------------------------------------------


def _metadata(heap: Situation) -> Iterator[Cause]:
    report, settings = heap.report, heap.settings
    cpus, arenas = settings.cpus, report.allocator.arenas
    automatic = settings.arenas or AUTOMATIC_PER_CPU * (cpus or 1)
    remedies = []
    if cpus is not None and arenas > automatic + 1:
        how = "the program makes arenas itself: arena.<i>.destroy those that it no longer needs"
        remedies.append(Remedy("fewer_arenas", None, how))
    elif arenas > (cpus or AUTOMATIC_PER_CPU):
        how = _fewer(heap, cpus or AUTOMATIC_PER_CPU)
        remedies.append(Remedy("fewer_arenas", None, how))
    if settings.metadata_huge_pages not in (None, "disabled"):
        remedies.append(Remedy("huge_pages_off", None, heap.conf("metadata_thp", "disabled")))
    if not remedies:
        remedies.append(Remedy("none", None, "it grows with arenas, threads and extents"))
    yield Cause(
        "metadata",
        heap.there("metadata"),
        "no",
        tuple(remedies),
        f"Jemalloc's own structures, for {many(report.allocator.arenas, 'arena')},"
        f" {many(report.allocator.thread_caches, 'thread cache')} and"
        f" {many(report.totals.slabs + (report.extents.large_count or 0), 'extent')} in use",
    )


def _huge(heap: Situation) -> Iterator[Cause]:
    """Memory that was never written to, and is resident for its neighbours' sake."""
    account, settings = heap.account, heap.settings
    there = heap.unwritten(*(part.part for part in account.parts if part.allocator == heap.number))
    without = max(0, weight(account) - there)
    asked = settings.huge_pages == "always"
    by = "jemalloc's option thp" if asked else f"the system ({settings.system_huge_pages})"
    yield Cause(
        "huge_pages",
        there,
        "no",
        (Remedy("huge_pages_off", there, heap.conf("thp", "never")),),
        f"{size(account.huge_bytes)} lies on huge pages, by {by}; {whole_percent(heap.zeros or 0)}"
        f" of them was never written: with small pages RSS would be some {size(without)}",
    )


def _retained(heap: Situation) -> Iterator[Cause]:
    part = heap.part("retained")
    if part is None or not part.resident_bytes:
        return
    huge = part.huge_bytes or 0
    why = (
        "on transparent huge pages, which their neighbours keep resident"
        if 2 * huge >= part.resident_bytes
        else "the system did not take it (madvise failed, or the memory is locked)"
    )
    how = heap.conf("thp", "never") if huge else "see ulimit -l, mlockall(), the extent hooks"
    remedy = Remedy("huge_pages_off" if huge else "look_elsewhere", part.resident_bytes, how)
    yield Cause(
        "retained_resident",
        part.resident_bytes,
        "no",
        (remedy,),
        f"Given back, and resident nevertheless: {why}",
    )


CAUSES: Sequence[Callable[[Situation], Iterator[Cause]]] = (
    *(_live, _untouched, _profiling, _cached, _drainable, _pinned, _dirty, _muzzy),
    *(_huge, _retained, _metadata),
)


# -- the process ------------------------------------------------------------------


def _of_process(account: Account, report: Sweep) -> Iterator[Cause]:
    process = report.process
    maps = f"{MAPS} -p {process.pid}" if process.source == "live" else MAPS
    fixed = sum(resident(part) for part in account.parts if part.part in FIXED)
    wanted = (*NOT_JEMALLOC, *(FIXED if fixed >= SMALL_PROCESS else ()))
    others = [part for part in account.parts if part.part in wanted]
    others = sorted((p for p in others if resident(p)), key=resident, reverse=True)
    if others:
        first = others[0]
        named = [p for p in others if resident(p) >= SOME_FROM * sum(map(resident, others))][:NAMED]
        how = LOOK.get(first.part, maps)
        yield Cause(
            "not_jemalloc",
            sum(map(resident, others)),
            "no",
            (Remedy("look_elsewhere", None, how),),
            listed([_named(part) for part in named]),
        )
    for part in account.parts:
        if part.part == "unknown_allocator" and resident(part):
            yield Cause(
                "other_allocator",
                resident(part),
                "unknown",
                (Remedy("look_elsewhere", None, _of_allocator(part, report)),),
                f"It belongs to {_details(part) or 'another allocator'}",
            )
    if account.shared_bytes:
        yield Cause(
            "shared_pages",
            account.shared_bytes,
            "in_time",
            (Remedy("none", None, "they go with the fork, or as either side writes to them"),),
            "In the RSS of both sides of the fork, in memory once",
        )
    rss = account.resident_bytes
    if rss is not None and rss < SMALL_PROCESS:
        yield Cause(
            "small_process",
            rss,
            "no",
            (Remedy("none", None, "nothing to win here"),),
            "What a program costs for being there: its files, libraries, stacks, first arena",
        )


def _named(part: Part) -> str:
    details = _details(part)
    return f"{size(resident(part))} {NAMES[part.part]}" + (f" ({details})" if details else "")


def _details(part: Part) -> str:
    words = []
    for detail in part.details[:NAMED]:
        held = detail.bytes if detail.resident_bytes is None else detail.resident_bytes
        if held < SOME_FROM * resident(part):
            break
        if detail.what is not None:
            words.append(os.path.basename(detail.what))
        else:
            each = size(detail.bytes // max(1, detail.count))
            words.append(f"{many(detail.count, 'mapping')} of {each}")
    return listed(words)


def _of_allocator(part: Part, report: Sweep) -> str:
    known = OWN_STATISTICS.get(part.details[0].what or "") if part.details else None
    if known is None:
        return f"its own statistics, for {_details(part) or 'it'}"
    pid = report.process.pid if report.process.source == "live" else None
    return f"its own statistics: {known.format(pid=pid or 'PID')}"
