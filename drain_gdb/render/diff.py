"""Two moments of a process and more, for people and as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from drain_gdb.analysis.cohort import Fate, summed
from drain_gdb.analysis.diff import RESIDENT, ClassChange, Diff, PartChange, Point
from drain_gdb.analysis.growth import GroupChange
from drain_gdb.analysis.projection import Projection
from drain_gdb.render.aligned import aligned
from drain_gdb.render.remarks import BAD, GOOD, WARN, Remark, painted
from drain_gdb.render.screen import PARTS
from drain_gdb.render.style import SCREEN, WIDTH, Style, count, percent, printable, size, wrap
from drain_gdb.words import listed, many, seconds

SCHEMA = "drain_gdb.diff/1"
NO_COHORT = "no cohort DSR: sums alone are known, and no slab's address"
GROUP_MAX = 30
"""Characters of a group's name in a table."""
NAME_MAX = 24
"""Characters of a file's name in a table."""


# -- JSON -------------------------------------------------------------------------


def as_json(report: Diff) -> str:
    """One JSON object and a newline."""
    content = {
        "schema": SCHEMA,
        "same_process": report.same.same,
        "same_process_by": report.same.why or None,
        "forced": report.forced,
        "seconds": report.seconds,
        "moments": [_moment(point) for point in report.trend],
        "verification": [
            sweep.verification.status
            for moment in (report.before, report.after)
            for sweep in moment.reports
        ],
        "sound": report.sound,
        "cohort": _fate(report.cohort),
        "bins": [_bin(each) for each in report.classes],
        "account_by": report.account_by,
        "account": [
            {"part": p.part, "before": p.before, "after": p.after, "change": p.change}
            for p in report.account
        ],
        "projection": _projection(report.projection),
        "groups": None if report.groups is None else [_group(each) for each in report.groups],
        "why_no_groups": report.why_no_groups,
    }
    return json.dumps(content, indent=2) + "\n"


def _projection(found: Projection) -> Dict[str, Any]:
    return {
        "half_life_seconds": found.half_life_seconds,
        "earliest_seconds": found.earliest_seconds,
        "latest_seconds": found.latest_seconds,
        "never": found.known and found.half_life_seconds is None,
        "assumes": found.assumes,
        "steady": found.steady,
    }


def _figure(figure: Any) -> Optional[Dict[str, Any]]:
    return None if figure is None else figure._asdict()


def _fate(fate: Fate) -> Dict[str, Any]:
    return {
        "slabs": fate.slabs,
        "released": _figure(fate.released),
        "drainable": fate.drainable,
        "pinned": _figure(fate.pinned),
        "dsr": _figure(fate.dsr),
        "made": fate.made,
        "new": _figure(fate.new),
    }


def _bin(each: ClassChange) -> Dict[str, Any]:
    fate = each.fate
    return {
        "size": each.size,
        "slab_size": each.slab_size,
        "slabs_before": fate.slabs,
        "slabs_after": fate.after,
        **{key: value for key, value in _fate(fate).items() if key != "slabs"},
        "waste_before": each.waste_before,
        "waste_after": each.waste_after,
    }


def _group(each: GroupChange) -> Dict[str, Any]:
    moments = {"before": each.before, "after": each.after}
    return {
        "what": each.what,
        **{f"{k}_{m}": v for m, held in moments.items() for k, v in asdict(held).items()},
        "change": each.change,
    }


def _moment(point: Point) -> Dict[str, Any]:
    return {
        "name": point.name,
        "seconds": point.seconds,
        "resident_bytes": point.resident_bytes,
        "live_bytes": point.live_bytes,
        "waste_bytes": point.waste_bytes,
        "slabs": point.slabs,
        "cohort": None if point.fate is None else _fate(point.fate),
    }


# -- text -------------------------------------------------------------------------


def render(report: Diff, style: Style, top: int) -> str:
    """What became of the slabs, the table of size classes, the account, the trend."""
    lines = [*_head(report, style), *_cohort(report, style), wrap(projected(report), "  ", SCREEN)]
    if len(report.trend) > 2:
        lines += ["", *_trend(report.trend)]
    lines += ["", *_classes(report.classes, top)]
    lines += ["", *_account(report, style)]
    if report.why_no_groups is not None:
        lines += ["", wrap(f"which groups grew is not known: {report.why_no_groups}", "  ", SCREEN)]
    elif report.groups is not None:
        lines += ["", *_groups(report.groups, style, top)]
    return "\n".join([*lines, ""])


def _head(report: Diff, style: Style) -> Iterator[str]:
    process = (report.after if report.after.look else report.before).reports[0].process
    who = process.name or "a process"
    pid = "" if process.pid is None else f" (pid {process.pid})"
    apart = "" if report.seconds is None else f", {seconds(report.seconds)} apart"
    names = [report.before.name, report.after.name]
    yield style.strong(wrap(f"{who}{pid}: {' -> '.join(names)}{apart}", "  ", SCREEN))
    for remark in remarks(report):
        yield painted(remark, style, "  ")


def remarks(report: Diff) -> Iterator[Remark]:
    """Whether both are of one process, and how far the figures of each hold."""
    if report.forced:
        text = f"FORCED: not of the same process: {report.same.why}; addresses alone say"
        yield Remark(BAD, text)
    elif report.same.same is None:
        yield Remark(WARN, "whether both are of the same process is not known")
    else:
        yield Remark(GOOD, f"the same process, by {report.same.why}")
    for moment in (report.before, report.after):
        status = {sweep.verification.status for sweep in moment.reports}
        if any(sweep.coverage.partial for sweep in moment.reports):
            yield Remark(BAD, f"PARTIAL: part of {moment.name} could not be read")
        if "mismatch" in status:
            within = all(s.sound for s in moment.reports)
            text = "nearly verified (read in motion)" if within else "NOT VERIFIED: see drainsweep"
            yield Remark(WARN if within else BAD, f"{moment.name}: {text}")


def _cohort(report: Diff, style: Style) -> Iterator[str]:
    fate = report.cohort
    whose = f"of {many(fate.slabs, 'slab')} in {printable(report.before.name)}"
    if fate.gone is None or fate.pinned is None:
        yield style.strong(
            wrap(f"{whose} {bounds(fate.released, count)} are released", "  ", SCREEN)
        )
        yield NO_COHORT
        return
    parts = [
        f"{bounds(fate.released, count)} released",
        f"{count(fate.drainable)} drainable",
        f"{bounds(fate.pinned, count)} pinned",
    ]
    rate = "-" if fate.dsr is None else bounds(fate.dsr, percent)
    yield style.strong(wrap(f"cohort DSR {rate}: {whose} {listed(parts)}", "  ", SCREEN))
    yield f"new since: {bounds(fate.new, count)} of {many(fate.after, 'slab')} that are there now"
    why = why_bounds(fate)
    if why is not None:
        yield wrap(why, "  ", SCREEN)


def why_bounds(fate: Fate) -> Optional[str]:
    """Why figures have bounds; None where they are certain."""
    if fate.certain:
        return None
    why = (
        f"{count(fate.made)} were made between"
        if fate.made is not None
        else "how many were made between is not known of every size class"
    )
    return f"bounds, since a slab may lie where an earlier one lay: {why}"


def projected(report: Diff) -> str:
    """When half of the waste is gone, and what that assumes."""
    found = report.projection
    waste = size(sum(each.waste_after for each in report.classes))
    if not found.known:
        return f"no projection: {found.assumes}"
    ends = [found.earliest_seconds, found.latest_seconds]
    times = ["never" if each is None else f"in {seconds(each)}" for each in ends]
    when = (
        times[0]
        if times[0] == times[1]
        else f"{times[0]} at the earliest, {times[1]} at the latest"
    )
    return f"half of today's {waste} of waste is gone {when}, if {found.assumes}"


Figure = Callable[[Any], str]


def bounds(figure: Any, show: Figure) -> str:
    """A Range or Share by its bounds."""
    if figure is None:
        return "-"
    low, high = show(figure.low), show(figure.high)
    return low if low == high else f"{low} to {high}"


def _classes(classes: Sequence[ClassChange], top: int) -> List[str]:
    """The size classes with most memory in slabs at either moment."""

    def weight(each: ClassChange) -> int:
        return each.slab_size * max(each.fate.slabs, each.fate.after)

    order = sorted(classes, key=weight, reverse=True)
    rows = [
        _row(str(each.size), each.fate, each.waste_before, each.waste_after)
        for each in sorted(order[:top], key=lambda each: each.size)
    ]
    rest = order[top:]
    if rest:
        wastes = [sum(getattr(e, name) for e in rest) for name in ("waste_before", "waste_after")]
        rows.append(_row(f"{len(rest)} more", summed([each.fate for each in rest]), *wastes))
    heads = ["size", "before", "after", "made", "released", "drainable", "pinned", "cohort DSR"]
    heads += ["waste", "change"]
    return _table(rows, heads, dispensable=("pinned", "change", "made", "drainable"))


def _row(name: str, fate: Fate, waste_before: int, waste_after: int) -> List[str]:
    return [
        name,
        count(fate.slabs),
        count(fate.after),
        count(fate.made),
        bounds(fate.released, count),
        count(fate.drainable),
        bounds(fate.pinned, count),
        bounds(fate.dsr, percent),
        size(waste_after),
        signed(waste_after - waste_before),
    ]


def signed(change: Optional[int]) -> str:
    """A change of bytes in words, ``=`` for none."""
    if change is None:
        return "-"
    return f"{'-' if change < 0 else '+'}{size(abs(change))}" if change else "="


def _account(report: Diff, style: Style) -> Iterator[str]:
    """The parts, those that changed most first, and their sum."""
    if not report.account:
        yield "the parts of the resident memory are not known of both"
        return
    first, last = report.trend[0].resident_bytes, report.trend[-1].resident_bytes
    told = [not moment.heaps for moment in (report.before, report.after)]
    if report.account_by != RESIDENT:
        yield style.strong("parts by size: how much of them was resident is not known of both")
    elif any(told) and not all(told):
        yield style.strong("parts that jemalloc's own statistics tell of as well")
    else:
        what = "resident by jemalloc's own estimate" if all(told) else "RSS"
        change = signed(PartChange(what, first, last).change)
        yield style.strong(f"{what}: {size(first)} -> {size(last)}, {change}")
    changes = sorted(report.account, key=lambda each: abs(each.change or 0), reverse=True)
    if any(told):
        changes = [each for each in changes if each.change is not None]
    moved = [each for each in changes if each.change or each.change is None]
    rows = [
        [PARTS[each.part], size(each.before), size(each.after), signed(each.change)]
        for each in moved
        if each.before or each.after
    ]
    yield from _table(rows, ["part", "before", "after", "change"]) if rows else ["no part changed"]
    if rows and len(moved) < len(changes):
        yield f"{many(len(changes) - len(moved), 'part')} unchanged"


def _groups(groups: Sequence[GroupChange], style: Style, top: int) -> Iterator[str]:
    """Those that grew most, then those that shrank most, ``top`` at most."""
    changed = [each for each in groups if each.change]
    kept = sorted(changed, key=lambda each: (each.change < 0, -abs(each.change)))[:top]
    yield style.strong("groups of live regions, and what would come back if one of them went")
    rows = [
        [
            printable(each.what)[:GROUP_MAX],
            count(each.before.regions),
            count(each.after.regions),
            size(each.before.live_bytes),
            size(each.after.live_bytes),
            signed(each.change),
            size(each.before.alone_bytes),
            size(each.after.alone_bytes),
        ]
        for each in kept
    ]
    heads = ["group", "regions", "then", "bytes", "then", "change", "alone", "then"]
    yield from _table(rows, heads) if rows else ["no group changed"]
    if len(kept) < len(changed):
        yield f"{many(len(changed) - len(kept), 'more group')} changed (--top {len(changed)})"
    if rows and len(changed) < len(groups):
        yield f"{many(len(groups) - len(changed), 'group')} unchanged"


def _trend(trend: Sequence[Point]) -> List[str]:
    """A line a moment; cohorts are those of the first."""
    rows = []
    for point in trend:
        fate = point.fate
        rows.append(
            [
                _cut(point.name),
                "-" if point.seconds is None else seconds(point.seconds),
                size(point.resident_bytes),
                size(point.live_bytes),
                size(point.waste_bytes),
                count(point.slabs),
                "-" if fate is None else bounds(fate.dsr, percent),
                "-" if fate is None else bounds(fate.released, count),
                "-" if fate is None else count(fate.drainable),
                "-" if fate is None else bounds(fate.new, count),
            ]
        )
    heads = ["moment", "after", "RSS", "live", "waste", "slabs", "cohort DSR", "released"]
    heads += ["drainable", "new"]
    return _table(rows, heads, dispensable=("new", "drainable", "live"))


def _cut(name: str) -> str:
    shown = printable(os.path.basename(name))
    return shown if len(shown) <= NAME_MAX else shown[: NAME_MAX - 1] + "~"


def _table(
    rows: Sequence[Sequence[str]], heads: Sequence[str], dispensable: Sequence[str] = ()
) -> List[str]:
    """A table, without columns that say nothing, or can be spared where it is too wide."""
    columns = [i for i in range(len(heads)) if any(row[i] != "-" for row in rows)]
    for name in ("", *dispensable):
        columns = [column for column in columns if heads[column] != name]
        shown = aligned(
            [[row[column] for column in columns] for row in rows],
            ("left", *["right"] * (len(columns) - 1)),
            [heads[column] for column in columns],
        )
        if max(map(len, shown)) <= WIDTH:
            break
    return shown
