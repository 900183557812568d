"""A count for people, and as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from typing import Any, Dict, Iterator, List, Optional, Sequence

from drain_gdb.hooks.account import EXACT, UNCHECKED, UNEQUAL, WITHIN, Check, Count
from drain_gdb.hooks.layers import ARENA, REQUESTS
from drain_gdb.layout.versions import as_shown
from drain_gdb.render.aligned import aligned
from drain_gdb.render.remarks import called
from drain_gdb.render.style import Style, count, percent, printable, wrap

SCHEMA = "drain_gdb.count/1"
_wrap = partial(wrap, indent="  ")
LISTED = 8
FUNCTIONS_LISTED = 6
VERIFIED = {
    "exact": "verified",
    "mismatch": "NOT VERIFIED",
    "unavailable": "not verifiable (no statistics)",
}
STATUS = {
    EXACT: "equal",
    WITHIN: "within what was in flight",
    UNEQUAL: "NOT EQUAL",
    UNCHECKED: "not comparable",
}


def render(report: Count, style: Style) -> str:
    """The whole report; ends with a newline.

    Where one side alone was counted, every line says so.
    """
    parts = [_head(report, style), _classes(report, style)]
    if report.threads:
        parts.append(_threads(report, style))
    if report.window.layer == REQUESTS and report.arenas:
        parts.append(_arenas(report, style))
    if report.hits is not None:
        parts.append(_remarks(report))
    parts.append(_checks(report, style))
    parts.append(_verdict(report, style))
    text = "\n\n".join(part for part in parts if part) + "\n"
    if report.only is None:
        return text
    mark = style.bad(f"  [asymmetric: {report.only} only]")
    return "".join(f"{line}{mark}\n" if line else "\n" for line in text.splitlines())


def _head(report: Count, style: Style) -> str:
    window, process = report.window, report.window.process
    name = called(process)
    version = as_shown(window.version) if window.version else "of unknown version"
    how = "by jemalloc's own counters, without hooks" if window.plan is None else ""
    how = how or f"at the {window.layer} layer"
    size = "" if window.size is None else f", size class {window.size} alone"
    state = window.ended or "it goes on"
    lines = [
        style.strong(
            _wrap(
                f"counted {how}{size}: {name} (pid {process.pid}), jemalloc {version} in"
                f" {os.path.basename(window.module)}, {window.seconds:.1f} s; {state}"
            )
        )
    ]
    if report.hits is not None and window.plan is not None:
        price = report.hits.price
        cost = "" if price is None else f", {price * 1e6:.0f} us each"
        functions = len(window.plan.points)
        lines.append(
            _wrap(
                f"hooks: {functions} functions ({window.plan.how}), {report.hits.hits:,} hits{cost}"
            )
        )
    walks = [f"at the start {VERIFIED[report.start.status]}"]
    if report.end is not None:
        walks.append(f"at the end {VERIFIED[report.end.status]}")
    line = f"the heap as walked: {', '.join(walks)}"
    moments = [m for m in (report.start, report.end) if m is not None]
    if any(m.partial for m in moments):
        line += "; PARTIAL: not all of the metadata could be read"
    good = all(m.status == "exact" and not m.partial for m in moments)
    lines.append((style.good if good else style.bad)(_wrap(line)))
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], style: Style, left: int = 0) -> str:
    lines = aligned([heads, *rows], ["left"] * left + ["right"] * (len(heads) - left))
    return "\n".join([style.strong(lines[0]), *lines[1:]])


def _signed(value: Optional[int]) -> str:
    return "-" if value is None else f"{value:+,}" if value else "0"


def _classes(report: Count, style: Style) -> str:
    """A row a size class: what was counted, beside what the other sources say of it."""
    layer = report.window.layer
    heads = ["size", "allocations", "frees", "net", "live, by the walk"]
    if layer == ARENA:
        heads = ["size", "out of bins", "back", "net", "given out, by the walk"]
        heads += ["out, by jemalloc", "back, by jemalloc"]
    elif layer != REQUESTS:
        heads.append("requests, by jemalloc")
    rows = []
    for row in report.classes:
        net = row.allocs - row.frees + row.resized
        line: List[Optional[int]] = [row.allocs, row.frees, net]
        if layer == ARENA:
            line += [row.regions, *(row.passed or (None, None))]
        else:
            line += [row.live, row.requests][: len(heads) - 4]
        if any(line):
            size = "unknown" if row.size is None else str(row.size)
            signed = [_signed(value) for value in line[2:4]]
            rows.append([size, *map(count, line[:2]), *signed, *map(count, line[4:])])
    return _table(heads, rows, style) if rows else "nothing was counted"


def _threads(report: Count, style: Style) -> str:
    rows = [
        [f"{row.thread}", printable(row.name or "(gone)"), count(row.allocs), count(row.frees)]
        for row in report.threads
    ]
    return _table(["thread", "name", "allocations", "frees"], rows, style)


def _arenas(report: Count, style: Style) -> str:
    rows = []
    for row in report.arenas:
        passed = ["-", "-"] if row.passed is None else [count(n) for n in row.passed]
        rows.append([str(row.arena), count(row.requests), *passed, _signed(row.regions)])
    heads = ["arena", "requests", "out of its bins", "back into them", "given out, by the walk"]
    return _table(heads, rows, style)


def _remarks(report: Count) -> str:
    assert report.hits is not None
    tally = report.hits.tally
    calls = sorted(report.hits.functions.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {number:,}" for name, number in calls[:FUNCTIONS_LISTED])
    more = len(calls) - FUNCTIONS_LISTED
    lines = [f"calls: {listed or 'none'}" + (f" and {more} more functions" if more > 0 else "")]
    found = [
        (tally.nested, "made by one function through another, counted once"),
        (tally.moved, "reallocations that moved, each a free and an allocation"),
        (tally.kept, "that stayed as they were"),
        (sum(tally.resized.values()), "large ones resized in place"),
        (tally.null, "frees of no pointer"),
        (tally.failed, "requests for more than there can be, or refused"),
        (tally.strangers, "frees of what this jemalloc does not hold"),
        (tally.unread, "of a compiler's clone, with arguments that cannot be read"),
    ]
    said = [f"{number:,} {what}" for number, what in found if number]
    if said:
        lines.append(f"of these {'; '.join(said)}")
    if tally.slabs:
        slabs = sorted(tally.slabs.items(), key=lambda item: (-item[1], item[0]))
        most = ", ".join(f"{address:#x} {number:,}" for address, number in slabs[:LISTED])
        gone = report.hits.slabs_gone
        rest = "" if gone is None else f", {gone:,} of which are gone"
        lines.append(f"frees fell into {len(slabs):,} slabs{rest}; most into {most}")
    return "\n".join(_wrap(line) for line in lines)


def _checks(report: Count, style: Style) -> str:
    rows = []
    for check in report.checks:
        variance = "-" if check.variance is None else f"{100 * check.variance:.4f} %"
        rows.append(
            [
                check.name,
                check.source,
                count(check.counted),
                count(check.independent),
                _signed(check.difference),
                variance,
                STATUS[check.status] if check.share is None else f"{percent(check.share)} of them",
            ]
        )
    if not rows:
        return ""
    heads = ["check", "against", "counted", "there", "difference", "variance", ""]
    return _table(heads, rows, style, left=2)


def _verdict(report: Count, style: Style) -> str:
    lines = list(_said(report))
    paint = style.good
    if any(check.status == UNEQUAL for check in report.checks):
        paint = style.bad
    elif report.only is not None or not complete(report):
        paint = style.warn
    return "\n".join([paint(_wrap(lines[0])), *map(_wrap, lines[1:])])


def complete(report: Count) -> bool:
    """Whether every check could be made."""
    return bool(report.checks) and all(check.status != UNCHECKED for check in report.checks)


def _said(report: Count) -> Iterator[str]:
    """What the checks come to, and what is missing from them."""
    states = [check.status for check in report.checks]
    if report.only is not None:
        yield (
            f"ASYMMETRIC: only {report.only} were counted, nothing can be concluded from a"
            " difference to what was counted elsewhere"
        )
    elif UNEQUAL in states:
        yield "NOT EQUAL: allocations and frees were counted at the same layer, but a check fails"
    elif complete(report):
        within = ", within what was in flight" if WITHIN in states else ""
        yield f"symmetric: both sides are counted at the same layer, and every check holds{within}"
    else:
        yield "symmetric: both sides are counted at the same layer; not all could be checked"
    if report.end is None and report.window.ended is not None:
        yield f"no walk at the end: {report.window.ended}"
    inside = [m.inside for m in (report.start, report.end) if m is not None]
    if any(inside):
        at = " and ".join(
            f"{number} at the {when}" for number, when in zip(inside, ("start", "end")) if number
        )
        yield f"in flight: threads that stood inside the allocator, {at}: each may add one call"
    if report.caches:
        yield (
            f"thread caches: {_signed(report.caches)}, each with a block of its own, which is left"
            " out of the check but not of the table"
        )
    if report.window.plan is not None:
        yield f"not counted at this layer: {'; '.join(report.window.plan.missing)}"
    elif report.window.layer == REQUESTS:
        yield (
            "frees are derived here: requests less the change in live regions; small sizes only."
            " Hooks (--layer entry) count them one by one, by thread and by slab"
        )


def as_json(report: Count) -> str:
    """One JSON object and a newline."""
    return json.dumps(as_dict(report), indent=2, ensure_ascii=False) + "\n"


def as_dict(report: Count) -> Dict[str, Any]:
    """The report under its public keys."""
    window, plan = report.window, report.window.plan
    content: Dict[str, Any] = {
        "schema": SCHEMA,
        "process": asdict(window.process),
        "allocator": {"name": "jemalloc", "version": window.version, "module": window.module},
        "layer": window.layer,
        "size": window.size,
        "seconds": window.seconds,
        "ended": window.ended,
        "symmetric": report.only is None,
        "counted_side": report.only or "both",
        "totals": {"allocs": report.allocs, "frees": report.frees},
        "classes": [asdict(row) for row in report.classes],
        "threads": [asdict(row) for row in report.threads],
        "arenas": [asdict(row) for row in report.arenas],
        "checks": [_check(check) for check in report.checks],
        "verification": {
            "start": report.start.status,
            "end": None if report.end is None else report.end.status,
            "partial": any(m.partial for m in (report.start, report.end) if m is not None),
        },
        "in_flight": {
            "start": report.start.inside,
            "end": None if report.end is None else report.end.inside,
        },
        "thread_caches": report.caches,
        "missing": [] if plan is None else list(plan.missing),
        "hooks": None,
    }
    for row in content["classes"] + content["arenas"]:
        row["passed"] = None if row["passed"] is None else row["passed"]._asdict()
    if report.hits is not None and plan is not None:
        tally = report.hits.tally
        content["hooks"] = {
            "functions": [point.name for point in plan.points],
            "found": plan.how,
            "hits": report.hits.hits,
            "seconds_each": report.hits.price,
            "calls": dict(report.hits.functions),
            **{
                name: getattr(tally, name)
                for name in ("nested", "moved", "kept", "null", "failed", "strangers", "unread")
            },
            "resized": sum(tally.resized.values()),
            "slabs": {hex(address): number for address, number in sorted(tally.slabs.items())},
            "slabs_gone": report.hits.slabs_gone,
        }
    return content


def _check(check: Check) -> Dict[str, Any]:
    return {
        "name": check.name,
        "source": check.source,
        "counted": check.counted,
        "independent": check.independent,
        "difference": check.difference,
        "variance": check.variance,
        "share": check.share,
        "status": check.status,
    }
