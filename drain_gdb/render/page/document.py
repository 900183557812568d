"""The page, put together of reports by its templates; needs Jinja2."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from drain_gdb.analysis.causes import weight
from drain_gdb.analysis.plan import Plan
from drain_gdb.analysis.ranges import Range
from drain_gdb.analysis.report import Account, Sweep
from drain_gdb.analysis.verdict import judge
from drain_gdb.render import diff, plan, screen
from drain_gdb.render.page import charts
from drain_gdb.render.page.cells import Cells
from drain_gdb.render.page.content import Content
from drain_gdb.render.remarks import LISTED, Remark, meaning, remarks, swept
from drain_gdb.render.style import printable
from drain_gdb.words import count, many, percent, seconds, size, whole_percent

SHOW: Dict[str, Callable[[Any], str]] = {"count": count, "size": size, "percent": percent}
READOUT = (
    ("address", "Address"),
    ("what", "What"),
    ("arena", "Arena / shard"),
    ("bytes", "Bytes"),
    ("live", "Live"),
    ("cached", "Cached"),
    ("free", "Free"),
    ("occupancy", "Occupancy"),
    ("pinners", "Pinned by"),
)
GROUPS = 40
"""Groups of pins that are shown."""
OTHERWISE = "otherwise"
KINDS = (
    ("empty", "empty slab"),
    ("cache-held", "slab held by thread caches"),
    ("active", "large allocation"),
    ("dirty", "dirty"),
    ("muzzy", "muzzy"),
    ("retained", "retained"),
    (OTHERWISE, "other"),
)
"""Colours of the map besides the tenths of occupancy, in the order that its script has them."""


@dataclass(frozen=True)
class PageHeap:
    """One jemalloc on the page, with its number."""

    number: int
    sweep: Sweep
    plan: Optional[Plan]
    swept: str
    meaning: str
    remarks: List[Remark]


@dataclass(frozen=True)
class Map:
    """A heat map; ``told`` is what it shows, in words, ``shown`` which of KINDS."""

    title: str
    told: str
    shown: List[str]
    cells: Cells
    number: int = 0


def document(content: Content) -> str:
    """The page; one line feed ends it."""
    process, sweeps = content.process, content.sweeps
    name = printable(process.name or os.path.basename(process.executable or "") or "A process")
    heaps = [_heap(number, plan) for number, plan in enumerate(content.plans)]
    maps = list(_maps(content))
    return _render(
        name=name,
        process=process,
        heaps=heaps,
        refused=content.refused,
        unmapped=not content.cells,
        maps=[replace(each, number=number) for number, each in enumerate(maps)],
        causes=sweeps[0].causes,
        pins=content.pins,
        diff=content.diff,
        parts=_parts(content),
        **_account(content.account),
    )


def _heap(number: int, found: Plan) -> PageHeap:
    report = found.sweep
    partial = "of what could be read, " if report.coverage.partial else ""
    return PageHeap(
        number,
        report,
        found if report.believed else None,
        swept(report),
        partial + meaning(report, judge(report), "below"),
        list(remarks(report)),
    )


def _account(account: Account) -> Dict[str, Any]:
    headline = screen.headline(account)
    return {
        "account": account,
        "whole": weight(account) or 1,
        "waterfall": charts.waterfall(account),
        "headline": headline,
        "headline_note": headline.partition("(")[2].rstrip(")"),
        "address_space": screen.address_space(account),
    }


def _maps(content: Content) -> Iterator[Map]:
    """The heat maps, those of the moment before last."""
    several = len(content.sweeps) > 1

    def title(moment: str, report: Sweep) -> str:
        library = report.allocator.library
        return ", ".join(filter(None, [moment, library if several or not moment else ""]))

    now = "After" if content.earlier is not None else ""
    for report, cells in zip(content.sweeps, content.cells):
        yield _map(title(now, report), report, cells)
    if content.earlier is not None:
        for report, cells in zip(content.earlier.moment.reports, content.earlier.cells):
            yield _map(title("Before", report), report, cells)


def _map(title: str, report: Sweep, cells: Cells) -> Map:
    totals = report.totals
    tenths = "; ".join(map(count, totals.histogram or ()))
    others = ", ".join(f"{count(n)} {_state(name)}" for name, n in cells.extents.items())
    told = (
        f"{many(totals.slabs, 'slab')}, {count(totals.drainable)} of them drainable;"
        f" by tenths of occupancy, from empty to full: {tenths}."
        + (f" Outside slabs: {others}." if others else "")
    )
    known = [key for key, _ in KINDS]
    shown = [name if name in known else OTHERWISE for name in cells.extents]
    shown += ["empty"] if totals.empty else []
    shown += ["cache-held"] if totals.cache_held else []
    return Map(title, told, shown, cells)


def _state(name: str) -> str:
    return "large" if name == "active" else name


# -- templates --------------------------------------------------------------------


def _sentence(text: str) -> str:
    """``text`` as it may be shown, with a capital letter; names of programs keep theirs."""
    shown = printable(text)
    if "_" in shown.split(" ", 1)[0] or shown.startswith("jemalloc"):
        return shown
    return shown[:1].upper() + shown[1:]


def _interval(figure: Optional[Range], show: str) -> str:
    return plan.interval(figure, SHOW[show])


def _bounds(figure: Any, show: str) -> str:
    return diff.bounds(figure, SHOW[show])


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("drain_gdb.render.page", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bounds=_bounds,
        signed=diff.signed,
        seconds=seconds,
        count=count,
        size=size,
        percent=percent,
        whole_percent=whole_percent,
        many=many,
        sentence=_sentence,
        shown=printable,
        interval=_interval,
    )
    environment.globals.update(
        columns=charts.columns,
        changes=charts.changes,
        remarks_of=diff.remarks,
        projected=diff.projected,
        why_bounds=diff.why_bounds,
        no_cohort=diff.NO_COHORT,
        curve=charts.curve,
        span=charts.span,
        chart={
            "width": charts.WIDTH,
            "height": charts.HEIGHT,
            "left": charts.LEFT,
            "right": charts.RIGHT,
            "bottom": charts.BOTTOM,
        },
        part_names=screen.PARTS,
        causes_named=screen.CAUSES,
        goes=screen.GOES,
        staying=screen.STAYING,
        remedies_named=screen.REMEDIES,
        remedy_names=plan.NAMES,
        classes_told=plan.CLASSES,
        listed=LISTED,
        groups_shown=GROUPS,
        readout=READOUT,
        kinds=KINDS,
    )
    return environment


def _render(**content: Any) -> str:
    environment = _environment()
    style, script = _text(environment, "page.css"), _text(environment, "page.js", "map.js")
    page = environment.get_template("page.html").render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        **content,
    )
    return page + "\n"


def _text(environment: Environment, *names: str) -> str:
    """Files beside the templates, as they are."""
    loader = environment.loader
    assert loader is not None
    return "".join(loader.get_source(environment, name)[0] for name in names)


def _hash(text: str) -> str:
    """What allows ``text`` in a Content-Security-Policy."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _parts(content: Content) -> Sequence[Tuple[str, str]]:
    """Anchors and titles of the parts that are there."""
    believed = any(report.believed for report in content.sweeps)
    return [
        *([("moments", "Before and after")] if content.diff else []),
        ("memory", "Memory"),
        *([("plan", "Remedies"), ("classes", "Size classes")] if believed else []),
        ("map", "Address space"),
        *([("pins", "Pins")] if content.pins else []),
        ("words", "Words"),
    ]
