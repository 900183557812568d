"""A sweep for people: top-down, at most 100 columns."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, replace
from typing import Any, Callable, List, Optional, Sequence, Tuple

from drain_gdb.analysis.account import elsewhere
from drain_gdb.analysis.report import Allocator, BinRow, Sweep
from drain_gdb.analysis.verdict import Verdict, judge
from drain_gdb.debuggee.protocol import Motion
from drain_gdb.jemalloc.heap import InFlight, Mismatch
from drain_gdb.layout.versions import as_shown
from drain_gdb.render.aligned import aligned
from drain_gdb.render.elsewhere import sentence
from drain_gdb.render.screen import screen
from drain_gdb.render.style import SCREEN, WIDTH, Style, count, percent, size, wrap
from drain_gdb.words import amount, many, whole_percent

BAR = 40
LISTED = 8
PARTIAL = "partial, of what could be read:"
FOUND_BY = {
    "dwarf": "from its debug information",
    "symbols": "from its symbol table",
    "discovered": "without symbols",
}


@dataclass(frozen=True)
class View:
    """Which rows to show: by which column, how many; all causes, or those that matter."""

    sort: Optional[str] = None
    top: Optional[int] = None
    verbose: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table: its key in options and JSON, its head, its cell."""

    key: str
    head: str
    value: Callable[[Any], Any]
    show: Callable[[Any], str]


def _of_state(name: str) -> Callable[[BinRow], Any]:
    return lambda row: getattr(row.state, name)


def _own(name: str) -> Callable[[Any], Any]:
    return lambda row: getattr(row, name)


BIN_COLUMNS = (
    Column("arena", "arena", _own("arena"), count),
    Column("size", "size", _own("size"), str),
    Column("shard", "shard", _own("shard"), count),
    Column("slabs", "slabs", _of_state("slabs"), count),
    Column("drainable", "drainable", _of_state("drainable"), count),
    Column("dsr", "DSR", _of_state("dsr"), percent),
    Column("live", "live", _of_state("live"), count),
    Column("cached", "cached", _of_state("cached"), count),
    Column("allocated", "allocated", _of_state("allocated"), count),
    Column("occupancy", "occupancy", _of_state("occupancy"), percent),
    Column("utilization", "util", _of_state("utilization"), percent),
    Column("waste_bytes", "waste", _of_state("waste_bytes"), size),
    Column("free_bytes", "free", _of_state("free_bytes"), size),
    Column(
        "retention_ratio",
        "x ideal",
        _of_state("retention_ratio"),
        lambda ratio: "-" if ratio is None else f"{ratio:.2f}",
    ),
)
SLAB_COLUMNS = (
    Column("address", "slab", _own("address"), hex),
    Column("arena", "arena", _own("arena"), str),
    Column("shard", "shard", _own("shard"), str),
    Column("size", "size", _own("size"), str),
    Column("nregs", "nregs", _own("nregs"), str),
    Column("allocated", "allocated", _own("allocated"), str),
    Column("cached", "cached", _own("cached"), str),
    Column("live", "live", _own("live"), str),
    Column("occupancy", "occupancy", lambda row: row.live / row.nregs, percent),
)
LARGE_COLUMNS = (
    Column("size", "size", _own("size"), size),
    Column("count", "count", _own("count"), count),
    Column("bytes", "bytes", _own("bytes"), size),
    Column("resident_bytes", "resident", _own("resident_bytes"), size),
    Column("cached", "cached", _own("cached"), count),
    Column("cached_bytes", "cached bytes", _own("cached_bytes"), size),
)
SORTABLE = tuple(dict.fromkeys(c.key for c in (*BIN_COLUMNS, *SLAB_COLUMNS, *LARGE_COLUMNS)))
DISPENSABLE = ("retention_ratio", "cached", "drainable")
APART = ("drainable", "dsr", "live", "cached", "occupancy", "waste_bytes", "retention_ratio")
TOGETHER = ("allocated", "utilization", "free_bytes")
"""Columns of reports that tell live from cached regions, and of those that cannot."""
ASCENDING = ("arena", "size", "shard", "address", "index")


def columns_of(by: str, apart: bool = True) -> Tuple[Column, ...]:
    """The columns of the table that ``by`` asks for; ``apart``: live and cached are known."""
    if by in ("slab", "large"):
        return SLAB_COLUMNS if by == "slab" else LARGE_COLUMNS
    left_out = {"bin": ("arena", "shard"), "arena": ("shard",)}.get(by, ())
    left_out += TOGETHER if apart else APART
    return tuple(c for c in BIN_COLUMNS if c.key not in left_out)


def rows_of(report: Sweep) -> Sequence[Any]:
    """The rows of the table that was asked for."""
    if report.selection.by == "large":
        return report.large
    return report.bins if report.slabs is None else report.slabs


def arrange(rows: Sequence[Any], columns: Sequence[Column], view: View) -> List[Any]:
    """``rows`` in the order and number that ``view`` asks for.

    Addresses, sizes and numbers of arenas sort upwards, quantities downwards,
    unknown ones last.
    """
    arranged = list(rows)
    if view.sort is not None:
        column = next(c for c in columns if c.key == view.sort)
        down = column.key not in ASCENDING

        def key(row: Any) -> Tuple[bool, Any]:
            value = column.value(row)
            if value is None:
                return True, 0
            return False, -value if down else value

        arranged.sort(key=key)
    return arranged if view.top is None else arranged[: view.top]


def render_all(reports: Sequence[Sweep], style: Style, view: View = View()) -> str:
    """The reports of all allocators of a process: what is of the process stands in the first."""
    first, *others = reports
    rest = [replace(report, account=None, causes=()) for report in others]
    return "\n".join(render(report, style, view) for report in [first, *rest])


def render(report: Sweep, style: Style, view: View = View()) -> str:
    """The whole report; ends with a newline.

    Of a selection there is no account, no waterfall and no verdict: they weigh the whole heap.
    Where no layout fits, no figure is shown but those that say so.
    """
    parts = [f"{_swept(report, style)}\n{_verified(report, style)}"]
    whole = report.selection.whole and report.believed
    if report.account is not None and whole:
        parts.append(screen(report.account, report.causes, style, view.verbose))
    if report.believed:
        parts += [_totals(report, style), _table(report, style, view)]
    if whole:
        parts.append(_waterfall(report, style))
    if report.coverage.anomalies:
        parts.append(_anomalies(report, style))
    if report.selection.whole and report.believed:
        parts.append(_verdict(report, judge(report), style))
    return "\n\n".join(parts) + "\n"


def _swept(report: Sweep, style: Style) -> str:
    process, allocator = report.process, report.allocator
    if allocator.layout_source is None:
        return style.strong(wrap(_printed(report), width=SCREEN))
    name = process.name or os.path.basename(process.executable or "") or "an unnamed program"
    pid = f" (pid {process.pid})" if process.pid is not None else ""
    version = as_shown(allocator.version) if allocator.version else "of unknown version"
    line = (
        f"{process.source} of {name}{pid}: jemalloc {version} found"
        f" {FOUND_BY[allocator.layout_source]} in {allocator.library};"
        f" {_arenas(allocator)}, {many(allocator.thread_caches, 'thread cache')}"
    )
    return style.strong(wrap(line, width=SCREEN))


def _arenas(allocator: Allocator) -> str:
    return "arenas not found" if allocator.statistics is None else many(allocator.arenas, "arena")


def _printed(report: Sweep) -> str:
    """Of a report made from statistics."""
    allocator = report.allocator
    version = as_shown(allocator.version) if allocator.version else "of unknown version"
    held = allocator.thread_cache_bytes
    return f"statistics printed by jemalloc {version}: {many(allocator.arenas, 'arena')}" + (
        "" if held is None else f"; thread caches hold {size(held)}, large ones included"
    )


def _verified(report: Sweep, style: Style) -> str:
    found = report.verification
    if report.allocator.layout_source is None:
        return _believed(report, style)
    unexplained = None if report.account is None else elsewhere(report.account)
    lines = []
    walked = f"{count(found.slabs_walked)} slabs and {count(found.regions_walked)} regions"
    if found.status == "exact":
        text = (
            f"verified: the {walked} equal jemalloc's own statistics"
            if found.slabs_walked
            else f"{'hardly used' if unexplained else 'verified'}: there are no slabs, and"
            " jemalloc's own statistics say so too"
        )
        lines.append(style.good(wrap(text, width=SCREEN)))
    elif found.status == "mismatch":
        theirs = (
            "jemalloc's structures contradict each other"
            if found.slabs_recorded is None
            else f"jemalloc's own statistics say {count(found.slabs_recorded)} and"
            f" {count(found.regions_recorded)}"
        )
        within = report.tolerance is not None and report.tolerance.within
        text = (
            f"{'verified nearly' if within else 'NOT VERIFIED'}: {walked} walked, {theirs};"
            f" {many(len(found.mismatches), 'figure')} differ"
        )
        lines.append((style.warn if within else style.bad)(wrap(text, width=SCREEN)))
        lines += _differing(found.mismatches, "walked", "recorded")
    elif report.allocator.statistics is None:
        text = (
            f"not verifiable: the arenas, which keep jemalloc's own figures, are missing; the"
            f" bitmaps agree with the {walked} walked"
        )
        lines.append(style.bad(wrap(text)))
    else:
        text = (
            f"not verifiable: this jemalloc keeps no statistics to compare the {walked} walked"
            " with; its bitmaps, thread caches and lists of slabs with room agree with them"
        )
        lines.append(style.warn(wrap(text, width=SCREEN)))
    told = any(cause.cause in ("not_jemalloc", "other_allocator") for cause in report.causes)
    if unexplained is not None and not told:
        lines.append(style.warn(wrap(sentence(unexplained), width=SCREEN)))
    if not report.believed:
        text = (
            "NO LAYOUT FITS: with the best of those known, what was walked has too little in"
            " common with jemalloc's own figures to mean anything, so none of it is shown;"
            " --verbose says what was tried"
        )
        lines.append(style.bad(wrap(text, width=SCREEN)))
    if report.process.in_motion is not None:
        lines.append(style.warn(wrap(_motion(report, report.process.in_motion), width=SCREEN)))
    coverage = report.coverage
    if coverage.missing:
        text = f"PARTIAL: missing: {'; '.join(coverage.missing)}"
        lines.append(style.bad(wrap(text)))
    if coverage.unread:
        text = (
            f"PARTIAL: {percent(coverage.readable)} of the metadata that was come to could be read;"
            f" {size(coverage.bytes_unreadable)} could not, with"
            f" {many(coverage.slabs_unreadable, 'extent')},"
            f" {many(coverage.caches_unreadable, 'thread cache')} and"
            f" {many(coverage.arenas_unreadable, 'arena')}, nor what these lead to;"
            " every total below is partial"
        )
        lines.append(style.bad(wrap(text, width=SCREEN)))
    if found.in_flight:
        lines.append(style.warn(wrap(_in_flight(found.in_flight), width=SCREEN)))
    if report.allocator.others:
        others = ", ".join(os.path.basename(path) for path in report.allocator.others)
        text = f"this process holds more than this jemalloc, not part of this report: {others}"
        lines.append(style.warn(wrap(text, width=SCREEN)))
    return "\n".join(lines)


def _believed(report: Sweep, style: Style) -> str:
    """What a report made from statistics rests on."""
    found = report.verification
    if found.status == "mismatch":
        lines = [
            style.bad(
                wrap(
                    "NOT VERIFIED: the statistics do not add up; lines are missing or they were"
                    f" printed while they changed; {many(len(found.mismatches), 'figure')} differ",
                    width=SCREEN,
                )
            )
        ]
        return "\n".join([*lines, *_differing(found.mismatches, "the rows say", "stated")])
    text = (
        "not verifiable: these are jemalloc's own figures, and nothing was walked to compare"
        " them with; what is allocated is live or cached, they do not tell which"
    )
    return style.warn(wrap(text, width=SCREEN))


def _differing(mismatches: Sequence[Mismatch], ours: str, theirs: str) -> List[str]:
    lines = []
    for item in mismatches[:LISTED]:
        where = "" if item.arena is None else f"arena {item.arena} "
        where += "" if item.index is None else f"size class {item.index} "
        lines.append(
            f"  {where}{item.what}: {ours} {count(item.walked)}, {theirs} {count(item.recorded)}"
        )
    if len(mismatches) > LISTED:
        lines.append(f"  and {len(mismatches) - LISTED} more")
    return lines


def _in_flight(found: Sequence[InFlight]) -> str:
    """What was going on inside jemalloc when the process was stopped."""
    named = [
        f"arena {each.arena}{'' if each.index is None else f' size class {each.index}'}:"
        f" {each.what}"
        for each in found
    ]
    listed = ", ".join(named[:LISTED])
    if len(named) > LISTED:
        listed += f" and {len(named) - LISTED} more"
    return (
        f"in flight: the process seems stopped inside jemalloc ({listed}); figures of these"
        " parts may be off by the regions and slabs that were on their way"
    )


def _motion(report: Sweep, motion: Motion) -> str:
    """How a process was read that ran on meanwhile, and how well that went."""
    text = "read in motion, never stopped: "
    if motion.copies > 1:
        text += f"in copy {motion.copies}, the best, "
    if motion.moved_bytes:
        text += (
            f"{size(motion.moved_bytes)} moved meanwhile, and were read again within"
            f" {motion.microseconds / 1000:,.2f} ms"
        )
    else:
        text += "nothing moved meanwhile"
    if not motion.settled:
        text += ", and more moved around them"
    tolerance = report.tolerance
    if tolerance is not None and tolerance.reached:
        text += (
            f"; off by {off(tolerance.reached)},"
            f" {'within' if tolerance.within else 'beyond'} the tolerance of"
            f" {100 * tolerance.stated:g} %"
        )
        if not tolerance.within:
            text += ": it moves too fast to be read so; stop it for the copy with --stop"
    return text


def off(share: float) -> str:
    """A share in percent, to two digits where it is small."""
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _totals(report: Sweep, style: Style) -> str:
    totals, selection = report.totals, report.selection
    lines = []
    if report.coverage.partial:
        lines.append(style.bad(PARTIAL))
    if not selection.whole:
        chosen = [] if selection.arena is None else [f"arena {selection.arena}"]
        if selection.size is not None and report.bins:
            chosen.append(f"size class {report.bins[0].size}")
        elif selection.size is not None:
            chosen.append(f"the size class of {selection.size} bytes")
        lines.append(f"only {' and '.join(chosen)}:")
    rows = [
        (
            "DSR, live",
            percent(totals.dsr),
            f"{count(totals.drainable)} of {many(totals.slabs, 'slab')} hold no live region:"
            f" {count(totals.empty)} empty, {count(totals.cache_held)} cache-held",
        ),
        (
            "DSR, bitmap",
            percent(totals.dsr_bitmap),
            f"{count(totals.empty)} hold no allocated region at all",
        ),
        (
            "occupancy",
            percent(totals.occupancy),
            f"{count(totals.live)} live, {count(totals.cached)} cached,"
            f" {count(totals.free)} free of {many(totals.regions, 'region')}",
        ),
        (
            "waste",
            size(totals.waste_bytes),
            f"of {size(totals.slab_bytes)} in slabs hold no live region",
        ),
        (
            "retention",
            "-" if totals.retention_ratio is None else f"{totals.retention_ratio:.2f} x",
            f"{many(totals.ideal_slabs, 'slab')} would hold what is live",
        ),
    ]
    if totals.live is None:
        rows = [
            (
                "utilization",
                percent(totals.utilization),
                f"{count(totals.allocated)} allocated (live or cached), {count(totals.free)} free"
                f" of {many(totals.regions, 'region')} in {many(totals.slabs, 'slab')}",
            ),
            (
                "free",
                size(totals.free_bytes),
                f"of {size(totals.slab_bytes)} in slabs hold no allocated region",
            ),
        ]
    width = max(len(value) for _, value, _ in rows)
    for name, value, text in rows:
        filled = textwrap.fill(
            f"{name:<12} {value:>{width}}   {text}", WIDTH, subsequent_indent=" " * (width + 16)
        )
        lines.append(filled.replace(name, style.strong(name), 1))
    return "\n".join(lines)


def _table(report: Sweep, style: Style, view: View) -> str:
    """The rows; where they would be too wide, without the least telling columns."""
    columns = columns_of(report.selection.by, report.totals.live is not None)
    source = rows_of(report)
    rows = arrange(source, columns, view)
    lines = _aligned(report, rows, columns, style)
    for key in (key for key in DISPENSABLE if key != view.sort):
        if max(map(len, lines)) > WIDTH:
            columns = tuple(column for column in columns if column.key != key)
            lines = _aligned(report, rows, columns, style)
    if not rows:
        what = "large allocations" if report.selection.by == "large" else "slabs"
        return f"no {what}{' (partial)' if report.coverage.partial else ''}"
    lines[0] = style.strong(lines[0])
    if report.coverage.partial:
        lines.insert(0, style.bad(PARTIAL))
    if len(rows) < len(source):
        lines.append(f"({len(rows)} of {many(len(source), 'row')})")
    return "\n".join(lines)


def _aligned(
    report: Sweep, rows: Sequence[Any], columns: Sequence[Column], style: Style
) -> List[str]:
    heads = [column.head for column in columns]
    cells = [[column.show(column.value(row)) for column in columns] for row in rows]
    histograms = (
        report.selection.by not in ("slab", "large") and report.totals.histogram is not None
    )
    if histograms:
        heads.append("0 occupancy 1")
        edge = "│" if style.unicode else "|"
        for row, line in zip(rows, cells):
            line.append(f"{edge}{style.histogram(row.state.histogram)}{edge}")
    sides = ["right"] * len(columns) + ["left"] * (len(heads) - len(columns))
    return aligned([heads, *cells], sides)


def _waterfall(report: Sweep, style: Style) -> str:
    """Where the memory is; outside slabs always of the whole process."""
    totals, extents = report.totals, report.extents
    rows: List[Tuple[str, Optional[int], str]] = [
        ("live", totals.live_bytes, "in slabs, held by the application"),
        ("cached", totals.cached_bytes, "in slabs, held by thread caches"),
    ]
    if totals.live is None:
        rows = [("allocated", totals.allocated_bytes, "in slabs, live or in thread caches")]
    rows += [
        (
            "free in slabs",
            totals.free_bytes,
            "in slabs, not allocated",
        ),
        ("large", extents.large_bytes, _large(report)),
        ("dirty", extents.dirty_bytes, f"unused, not given back yet{_lying(report, 'dirty')}"),
        ("muzzy", extents.muzzy_bytes, f"unused, returned lazily{_lying(report, 'muzzy')}"),
        ("retained", extents.retained_bytes, f"address space only{_lying(report, 'retained')}"),
        ("metadata", extents.metadata_bytes, "jemalloc's own structures"),
    ]
    if extents.pinned_bytes:
        rows.append(("pinned pages", extents.pinned_bytes, "unused, the extent hooks keep them"))
    if extents.hpa_cached_bytes:
        rows.append(("in HPA caches", extents.hpa_cached_bytes, "freed, kept for reuse"))
    if extents.transition_bytes:
        rows.append(("in flight", extents.transition_bytes, "between two states"))
    top = max((value or 0 for _, value, _ in rows), default=0) or 1
    lines = [style.strong(f"{'memory':<14}{'bytes':>11}")]
    if report.coverage.partial:
        lines.insert(0, style.bad(PARTIAL))
    bar = WIDTH - 14 - 11 - 2 - max(len(text) for _, _, text in rows) - 2
    for name, value, text in rows:
        drawn = style.bar((value or 0) / top, min(bar, BAR))
        lines.append(f"{name:<14}{size(value):>11}  {drawn:<{min(bar, BAR)}}  {text}".rstrip())
    return "\n".join(lines)


def _lying(report: Sweep, state: str) -> str:
    """How many extents there are of a state, and the largest."""
    found = report.extents.unused.get(state)
    if found is None or not found.count:
        return ""
    return f": {many(found.count, 'extent')}, up to {size(found.largest_bytes)}"


def _large(report: Sweep) -> str:
    extents = report.extents
    text = many(extents.large_count, "allocation") + " outside slabs"
    if extents.large_cached_count:
        text += f", {size(extents.large_cached_bytes)} of it in thread caches"
    return text


def _anomalies(report: Sweep, style: Style) -> str:
    found = report.coverage.anomalies
    lines = [style.warn(f"{many(len(found), 'finding')} to look at:")]
    lines += [wrap(f"- {text}", "  ") for text in found[:LISTED]]
    if len(found) > LISTED:
        lines.append(f"- and {len(found) - LISTED} more (all with --format json)")
    return "\n".join(lines)


def _verdict(report: Sweep, verdict: Verdict, style: Style) -> str:
    sentence = _sentence(report, verdict)
    partial = "of what could be read, " if report.coverage.partial else ""
    text = f"verdict: {partial}{sentence}"
    return style.strong(wrap(text, "  "))


def _sentence(report: Sweep, verdict: Verdict) -> str:
    totals = report.totals
    waste = f"{size(verdict.waste)} of {size(totals.slab_bytes)} in slabs"
    region = "live" if totals.live is not None else "allocated"
    unused = f"{size(verdict.unused)} in unused dirty or muzzy pages"
    above = "" if report.account is None else "; what there is besides is told above"
    if verdict.kind == "none":
        return f"there are no slabs, so there is no rate to give{above}."
    if verdict.kind == "nothing":
        return f"little to reclaim in slabs: {waste} hold no {region} region{above}."
    if verdict.kind == "unused":
        return f"{unused}: {_unused(report)}; the waste in slabs, {waste}, is small beside that."
    where = _where(verdict)
    if verdict.kind == "temporary":
        return (
            f"temporary: {waste} hold no live region, {size(verdict.drainable)} of it in"
            f" drainable slabs ({percent(totals.dsr)}); flush the thread caches, then"
            f" purge.{where}"
        )
    if verdict.kind == "structural":
        pinned = (
            f"every one of the {many(totals.slabs, 'slab')} is"
            if totals.pinned == totals.slabs
            else f"{count(totals.pinned)} of {many(totals.slabs, 'slab')} are"
        )
        return (
            f"structural: {waste} hold no live region, but {pinned} pinned by at least one, so"
            f" no purge and no waiting returns {size(verdict.pinned_waste)} of it.{where} What"
            f" helps: {_compacting(report)}."
        )
    if verdict.kind == "unknown":
        held = report.allocator.thread_cache_bytes
        return (
            f"not known which of it can go: {size(verdict.waste)} of {size(totals.slab_bytes)} in"
            " slabs hold no allocated region, and each of these slabs is kept by regions that are"
            f" live or in thread caches (which hold {size(held)} in all).{where} A core, or the"
            " process itself, tells which."
        )
    return (
        f"mixed: {waste} hold no live region; {size(verdict.drainable)} of it is in drainable"
        f" slabs (flush the thread caches, then purge), {size(verdict.pinned_waste)} is pinned"
        f" and stays.{where}"
    )


def _where(verdict: Verdict) -> str:
    """In which size class how much of the waste in slabs sits."""
    worst = verdict.worst
    if worst is None or not verdict.waste:
        return ""
    state = worst.state
    held, rate = state.waste_bytes, f"{percent(state.occupancy)} occupancy"
    if held is None:
        held, rate = state.free_bytes, f"{percent(state.utilization)} utilization"
    share = held / verdict.waste
    text = f"the {worst.size}-byte class: {size(held)} ({whole_percent(share)}) at {rate}"
    if amount(share) == "little":
        return f" It is spread over many classes; the worst is {text}."
    return f" {amount(share).capitalize()} of it sits in {text}."


def _unused(report: Sweep) -> str:
    """Whether unused pages go, as the causes have it."""
    kinds = ("dirty_pages", "muzzy_pages")
    goes = next((c.goes_by_itself for c in report.causes if c.cause in kinds), "unknown")
    said = {
        "yes": "they go by themselves",
        "in_time": "they go in time, a purge returns them at once",
        "no": "they stay until a purge",
    }
    return said.get(goes, "a purge returns them, decay only where it runs")


def _compacting(report: Sweep) -> str:
    """What undoes fragmentation in this very program, as the causes have it."""
    offered = [r.remedy for c in report.causes if c.cause == "pinned_slabs" for r in c.remedies]
    if "active_defrag" in offered:
        return "active defragmentation"
    if offered and "dedicated_arena" not in offered:
        return "a restart"
    return (
        "allocate what lives together together (by lifetime, in dedicated arenas), or active"
        " defragmentation"
    )
