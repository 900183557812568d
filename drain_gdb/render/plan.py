"""A plan, for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from drain_gdb.analysis.plan import Gain, Plan, Planned
from drain_gdb.analysis.ranges import Range
from drain_gdb.render.aligned import aligned
from drain_gdb.render.pins import together
from drain_gdb.render.remarks import painted, remarks, swept
from drain_gdb.render.style import SCREEN, Style, count, percent, size, wrap
from drain_gdb.words import many, whole_percent

SCHEMA = "drain_gdb.plan/1"
NAMES = {
    "flush_caches": "flush thread caches",
    "purge": "purge",
    "decay": "decay by itself",
    "background_thread": "background thread",
    "active_defrag": "active defragmentation",
    "huge_pages_off": "no huge pages",
    "tcache_max": "smaller thread caches",
    "slab_sizes": "smaller slabs",
    "lg_quantum": "finer size classes",
    "fewer_arenas": "fewer arenas",
    "dedicated_arena": "release of groups",
    "restart": "restart",
}
CLASSES = 8
"""Classes of the scatter that are shown."""


# -- JSON -------------------------------------------------------------------------


def as_json(plans: Sequence[Plan]) -> str:
    """One JSON object and a newline; plans of further allocators in ``other_allocators``."""
    first, *others = map(_as_dict, plans)
    content = {**first, "other_allocators": others} if others else first
    return json.dumps(content, indent=2) + "\n"


def _as_dict(plan: Plan) -> Dict[str, Any]:
    best = [each.remedy for each in plan.best]
    ranked = sorted(
        plan.remedies,
        key=lambda each: best.index(each.remedy) if each.remedy in best else len(best),
    )
    order = [each.remedy for each in plan.remedies if each.applies]
    return {
        "schema": SCHEMA,
        "allocator": plan.sweep.allocator.module,
        "verification": plan.sweep.verification.status,
        "resident_bytes": plan.resident_bytes,
        "order": order,
        "remedies": [_remedy(each) for each in ranked],
        "defragmentation": [asdict(step) for step in plan.defragmentation],
        "scatter": [{**asdict(each), "word": each.word} for each in plan.scatter],
        "huge_pages": None if plan.granules is None else asdict(plan.granules),
    }


def _remedy(each: Planned) -> Dict[str, Any]:
    return {
        "remedy": each.remedy,
        "how": each.how,
        "applies": each.applies,
        "why_not": each.why_not,
        **_gain(each.alone),
        "on_top": None if each.on_top is None else _gain(each.on_top),
        "regions_moved": each.regions_moved,
        "bytes_moved": each.bytes_moved,
        "notes": list(each.notes),
        **({"groups": [asdict(row) for row in each.groups]} if each.groups else {}),
    }


def _gain(gain: Gain) -> Dict[str, Any]:
    figures = {"slabs": gain.slabs, "bytes": gain.bytes, "resident": gain.resident}
    return {
        f"{name}_freed": None if figure is None else figure._asdict()
        for name, figure in figures.items()
    }


# -- text -------------------------------------------------------------------------


def render(plan: Plan, style: Style, verbose: bool) -> str:
    """The remedies, best named first, then what they rest on."""
    shown = plan.remedies if verbose else plan.telling
    lines = [*_head(plan, style), "", *_table([each for each in shown if each.applies])]
    for each in shown:
        lines += ["", *_told(each, style)]
    if not verbose:
        nothing = [each for each in plan.remedies if each.applies and each not in shown]
        never = [each for each in plan.remedies if not each.applies]
        lines += ["", *_left_out("gives next to nothing now", nothing)]
        lines += _left_out("does not apply (why: --verbose)", never)
    if verbose:
        lines += [*_curve(plan, style), *_scatter(plan, style), *_huge_pages(plan, style)]
    else:
        lines += _scatter_line(plan)
    return "\n".join([*lines, ""])


def _head(plan: Plan, style: Style) -> Iterator[str]:
    yield style.strong(wrap(swept(plan.sweep), width=SCREEN))
    for remark in remarks(plan.sweep):
        yield painted(remark, style)
    yield ""
    rss = "RSS is not known" if plan.resident_bytes is None else f"RSS {size(plan.resident_bytes)}"
    best = plan.best
    if not best:
        yield style.strong(f"{rss}: no remedy would give more than next to nothing back")
        return
    first = best[0]
    gain, name = first.alone, NAMES[first.remedy]
    if gain.resident is None or gain.resident.high:
        yield style.strong(f"{rss}: {name} gives back most, {interval(gain.resident, size)}")
    else:
        yield style.strong(f"{rss}: {name} frees most, {interval(gain.bytes, size)}")


def _left_out(why: str, remedies: Sequence[Planned]) -> List[str]:
    names = ", ".join(NAMES[each.remedy] for each in remedies)
    return [wrap(f"{why}: {names}", "  ", SCREEN)] if names else []


def _table(remedies: Sequence[Planned]) -> List[str]:
    rows = [
        [
            NAMES[each.remedy],
            interval(each.alone.slabs, count),
            interval(each.alone.bytes, size),
            interval(each.alone.resident, size),
            "-" if each.on_top is None else interval(each.on_top.resident, size),
        ]
        for each in remedies
    ]
    heads = ["remedy", "slabs", "bytes freed", "of RSS", "after those above"]
    if not rows:
        return []
    return aligned(rows, ("left", *["right"] * 4), heads)


def interval(figure: Optional[Range], show: Callable[[int], str]) -> str:
    """A figure in words, with its bounds where it is not certain; ``?`` where there is none."""
    if figure is None:
        return "?"
    if figure.low == figure.high:
        return show(figure.value)
    if not figure.low:
        return f"up to {show(figure.high)}"
    return f"{show(figure.low)} to {show(figure.high)}"


def _told(each: Planned, style: Style) -> Iterator[str]:
    if each.why_not is not None:
        yield wrap(f"{NAMES[each.remedy]}: no, {each.why_not}", "  ", SCREEN)
        return
    name = NAMES[each.remedy]
    yield style.strong(name) + wrap(f"{name}: {each.how}", "  ", SCREEN)[len(name) :]
    if each.regions_moved:
        moved = f"moves {many(each.regions_moved, 'region')}, {size(each.bytes_moved)}"
        yield f"  {moved}, at the least"
    yield from map(together, each.groups)
    for note in each.notes:
        yield "  " + wrap(note, "  ", SCREEN - 2)


def _curve(plan: Plan, style: Style) -> Iterator[str]:
    if not plan.defragmentation:
        return
    rows = [
        [
            whole_percent(step.share),
            size(step.bytes_freed),
            count(step.slabs_freed),
            count(step.regions_moved),
            size(step.bytes_moved),
        ]
        for step in plan.defragmentation
    ]
    heads = ["of what packing frees", "bytes", "slabs", "regions moved", "bytes moved"]
    yield ""
    yield style.strong("what packing takes, in the best order")
    yield from aligned(rows, ["right"] * 5, heads)


def _scatter(plan: Plan, style: Style) -> Iterator[str]:
    told = [each for each in plan.scatter if each.word is not None][:CLASSES]
    if not told:
        return
    rows = [
        [
            str(each.size),
            count(each.slabs),
            count(each.drainable),
            f"{each.expected_if_random:,.1f}",
            "-" if each.dispersion is None else f"{each.dispersion:.3f}",
            "-" if each.z is None else f"{each.z:+.0f}",
            each.word or "",
        ]
        for each in told
    ]
    heads = ["size", "slabs", "drainable", "if random", "dispersion", "z", "survivors lie"]
    yield ""
    yield style.strong("how survivors lie in their slabs")
    yield from aligned(rows, (*["right"] * 6, "left"), heads)
    yield "  (a class that several kinds of objects share looks clustered too)"


def _scatter_line(plan: Plan) -> List[str]:
    told = next((each for each in plan.scatter if each.word is not None), None)
    if told is None or told.dispersion is None:
        return []
    worst = ", the worst there is: no slab drains by itself" if told.word == "evenly spread" else ""
    line = (
        f"survivors of the {told.size}-byte class: {told.word} (dispersion {told.dispersion:.3f})"
    )
    return ["", wrap(line + worst, "  ", SCREEN)]


def _huge_pages(plan: Plan, style: Style) -> Iterator[str]:
    found = plan.granules
    if found is None or not found.touched:
        return
    yield ""
    yield wrap(
        f"huge pages of {size(found.size)}: {count(found.touched)} in use,"
        f" {count(found.empty)} without anything live,"
        f" {count(found.pinned_below_5_percent)} with under 5 %"
        f" ({percent(found.pinned_below_5_percent / found.touched)})",
        "  ",
    )
