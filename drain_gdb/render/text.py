"""A sweep for people: top-down, at most 100 columns."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import Any, Callable, List, Optional, Sequence, Tuple

from drain_gdb.analysis.report import BinRow, Sweep
from drain_gdb.analysis.verdict import Verdict, judge
from drain_gdb.render.aligned import aligned
from drain_gdb.render.remarks import LISTED, meaning, painted, remarks, swept
from drain_gdb.render.screen import screen
from drain_gdb.render.style import SCREEN, WIDTH, Style, count, percent, size, wrap
from drain_gdb.words import many

BAR = 40
PARTIAL = "partial, of what could be read:"


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
EXTENT_COLUMNS = (
    Column("address", "extent", _own("address"), hex),
    Column("arena", "arena", _own("arena"), str),
    Column("state", "state", _own("state"), str),
    Column("size", "size", _own("size"), size),
    Column("bytes", "bytes", _own("bytes"), size),
)
WHOLE = {"slab": SLAB_COLUMNS, "large": LARGE_COLUMNS, "extent": EXTENT_COLUMNS}
"""Of views whose rows are no bins."""
NOTHING = {"large": "large allocations", "extent": "extents"}
SORTABLE = tuple(dict.fromkeys(c.key for c in (*BIN_COLUMNS, *sum(WHOLE.values(), ()))))
DISPENSABLE = ("retention_ratio", "cached", "drainable")
APART = ("drainable", "dsr", "live", "cached", "occupancy", "waste_bytes", "retention_ratio")
TOGETHER = ("allocated", "utilization", "free_bytes")
"""Columns of reports that tell live from cached regions, and of those that cannot."""
ASCENDING = ("arena", "size", "shard", "address", "index", "state")


def columns_of(by: str, apart: bool = True) -> Tuple[Column, ...]:
    """The columns of the table that ``by`` asks for; ``apart``: live and cached are known."""
    if by in WHOLE:
        return WHOLE[by]
    left_out = {"bin": ("arena", "shard"), "arena": ("shard",)}.get(by, ())
    left_out += TOGETHER if apart else APART
    return tuple(c for c in BIN_COLUMNS if c.key not in left_out)


def rows_of(report: Sweep) -> Sequence[Any]:
    """The rows of the table that was asked for."""
    found: Sequence[Any] = getattr(report, kept_in(report))
    return found


def kept_in(report: Sweep) -> str:
    """The member of the report that holds the rows of the table that was asked for."""
    if report.extent_rows is not None:
        return "extent_rows"
    if report.selection.by == "large":
        return "large"
    return "bins" if report.slabs is None else "slabs"


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
    remarked = "\n".join(painted(remark, style) for remark in remarks(report))
    parts = [f"{style.strong(wrap(swept(report), width=SCREEN))}\n{remarked}"]
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
        what = NOTHING.get(report.selection.by, "slabs")
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
    histograms = report.selection.by not in WHOLE and report.totals.histogram is not None
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
    sentence = meaning(report, verdict)
    partial = "of what could be read, " if report.coverage.partial else ""
    text = f"verdict: {partial}{sentence}"
    return style.strong(wrap(text, "  "))
