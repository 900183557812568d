"""Who pins the slabs: for people, as JSON, as CSV."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from drain_gdb.analysis.heap_profile import StackRow
from drain_gdb.analysis.pins import ALL, OWNER, SPARSE, GroupRow, Piece, Pins, TogetherRow
from drain_gdb.render.aligned import aligned
from drain_gdb.render.libraries import coloured_hexdump
from drain_gdb.render.remarks import of_whom
from drain_gdb.render.rows import Table, csv_text
from drain_gdb.render.style import SCREEN, Style, count, percent, printable, size, wrap
from drain_gdb.words import listed, many

SCHEMA = "drain_gdb.pins/1"
SHOWN = 12
"""Groups of the first screen."""
NAME = 14
"""Letters of a group's name in a table, at least."""
FRAMES = 8
FIELDS = (
    *("size", "what", "recogniser", "regions", "live_bytes", "share"),
    *("alone_slabs", "alone_cached_slabs", "alone_bytes", "shared_bytes", "large_bytes"),
    *("sizes", "evidence"),
)


class Column(NamedTuple):
    """A column of the table: in which scopes it is shown."""

    head: str
    cell: Callable[[GroupRow], str]
    scopes: Sequence[str] = (SPARSE, ALL)


COLUMNS = (
    Column("regions", lambda row: count(row.regions)),
    Column("live", lambda row: size(row.live_bytes), (ALL,)),
    Column("share", lambda row: percent(row.share)),
    Column("alone", lambda row: size(row.alone_bytes)),
    Column("slabs", lambda row: count(row.alone_slabs)),
    Column("cached", lambda row: count(row.alone_cached_slabs), (SPARSE,)),
    Column("shared", lambda row: size(row.shared_bytes), (SPARSE,)),
)
_ALONE = "alone: what comes back, in so many slabs, if only this group goes"
NOTES = {
    SPARSE: f"share: of the waste. {_ALONE}; cached: of these, those that return once thread"
    " caches are flushed, the others at once. shared: its part of the waste of slabs that it"
    " shares; that does not come back by itself",
    ALL: f"share: of all live bytes. {_ALONE}, large allocations apart",
}


def as_json(report: Pins, top: Optional[int] = None) -> str:
    """One JSON object and a newline."""
    return json.dumps(as_dict(report, top), indent=2) + "\n"


def as_dict(report: Pins, top: Optional[int] = None) -> Dict[str, Any]:
    """The report under its public keys."""
    groups = report.groups[:top]
    content: Dict[str, Any] = {
        "schema": SCHEMA,
        "process": {k: v for k, v in asdict(report.process).items() if k != "damage"},
        "scope": report.scope,
        "by": report.by,
        "threshold": report.threshold,
        "slabs": report.slabs,
        "pinned_slabs": report.pinned_slabs,
        "sparse_slabs": report.sparse_slabs,
        "survivors": report.survivors,
        "survivor_bytes": report.survivor_bytes,
        "recognised": report.recognised,
        "recognised_bytes": report.recognised_bytes,
        "waste_bytes": report.waste_bytes,
        "waste_elsewhere_bytes": report.waste_elsewhere_bytes,
        "groups": [_group(row) for row in groups],
        "folded": None if report.folded is None else asdict(report.folded),
        "together": [asdict(row) for row in report.together],
        "verification": {"status": report.verification, "partial": report.partial},
        "why_not_more": report.why_not_more,
    }
    if report.stacks is not None:
        rows = [{**asdict(stack), "estimated": True} for stack in report.stacks[:top]]
        content["stacks"] = rows
    return content


def _group(row: GroupRow) -> Dict[str, Any]:
    content = {name: getattr(row, name) for name in FIELDS}
    content["owners"] = [asdict(chain) for chain in row.owners]
    content["kinds"] = [{"what": what, "percent": number} for what, number in row.kinds]
    if row.examples:
        content["examples"] = [
            {"address": hex(each.address), "size": each.size, "data": each.data.hex()}
            for each in row.examples
        ]
    return content


WORDS = ("what", "recogniser", "evidence")


def table(report: Pins, top: Optional[int] = None) -> Table:
    """A row a group, under the JSON keys."""
    types = {"share": "float", **dict.fromkeys(WORDS, "str")}
    rows = [{name: getattr(row, name) for name in FIELDS} for row in report.groups[:top]]
    return Table({name: types.get(name, "int") for name in FIELDS}, rows)


def as_csv(report: Pins, top: Optional[int] = None) -> str:
    """The table with a header."""
    return csv_text(table(report, top))


def render(report: Pins, style: Style, top: Optional[int] = None) -> str:
    """The report for people."""
    rows = report.groups[: top or SHOWN]
    parts = ["\n".join(_head(report, style)), _table(report, rows, style)]
    rest = "\n".join(_rest(report, len(rows)))
    if rest:
        parts[-1] += "\n" + rest
    if report.together:
        parts.append("\n".join(["together:", *map(together, report.together)]))
    if report.stacks is not None:
        parts.append("\n".join(_stacks(report.stacks[: top or SHOWN])))
    details = list(_details(rows, style))
    if details:
        parts.append("\n".join(details))
    return "\n\n".join(parts) + "\n"


def _head(report: Pins, style: Style) -> Iterator[str]:
    yield style.strong(wrap(f"{of_whom(report.process)}: {_question(report)}", width=SCREEN))
    yield _verified(report, style)
    held = f"{many(report.survivors, 'live region')} of {size(report.survivor_bytes)}"
    if report.scope == ALL:
        text = f"{held} in {many(report.slabs, 'slab')} and large allocations"
    else:
        text = (
            f"{report.sparse_slabs:,} of {many(report.slabs, 'slab')} are occupied less than"
            f" {percent(report.threshold)}: {held} pin {size(report.waste_bytes)} there"
        )
        if report.waste_elsewhere_bytes > report.waste_bytes:
            rest = size(report.waste_elsewhere_bytes)
            text += f"; {rest} of waste lie in fuller slabs (--threshold 1 looks at all)"
    yield wrap(text, width=SCREEN)
    if report.why_not_more is not None:
        yield style.warn(wrap(f"by size only: {report.why_not_more}", width=SCREEN))
        return
    whose = "have an owner" if report.by == OWNER else "are known"
    known = report.recognised / report.survivors if report.survivors else None
    of_bytes = report.recognised_bytes / report.survivor_bytes if report.survivor_bytes else None
    yield f"{percent(known)} of them {whose}, {percent(of_bytes)} of their bytes"


def _question(report: Pins) -> str:
    return "who holds its memory" if report.scope == ALL else "who pins its sparse slabs"


def _verified(report: Pins, style: Style) -> str:
    if report.partial:
        return style.bad("PARTIAL: part of jemalloc's metadata could not be read")
    if report.verification == "exact":
        return style.good("verified: the walk equals jemalloc's own statistics")
    if report.verification == "mismatch":
        return style.bad("NOT VERIFIED: the walk differs from jemalloc's own statistics")
    return style.warn("not verifiable: this jemalloc keeps no statistics")


def _table(report: Pins, rows: Sequence[GroupRow], style: Style) -> str:
    columns = [column for column in COLUMNS if report.scope in column.scopes]
    heads = [column.head for column in columns]
    cells = [[column.cell(row) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells)]
    room = max(SCREEN - sum(width + 2 for width in widths), NAME)
    names = cut([printable(row.what) for row in rows], room)
    named = [[name, *line] for name, line in zip(names, cells)]
    head, *lines = aligned([["group", *heads], *named], ("left", *["right"] * len(heads)))
    return "\n".join([style.strong(head), *lines, wrap(NOTES[report.scope], width=SCREEN)])


def cut(names: Sequence[str], room: int) -> List[str]:
    """Names in at most ``room`` letters: without their ends, or their middles if those tell."""
    short = [name if len(name) <= room else f"{name[: room - 3]}..." for name in names]
    several = Counter(short)
    end = (room - 3) // 2
    return [
        each if several[each] == 1 or each == name else f"{name[: room - 3 - end]}...{name[-end:]}"
        for name, each in zip(names, short)
    ]


def _rest(report: Pins, shown: int) -> Iterator[str]:
    rest = report.groups[shown:]
    if rest:
        held = size(sum(row.live_bytes for row in rest))
        yield f"{many(len(rest), 'more group')} of {held} (--top {len(report.groups)} shows them)"
    few = report.folded
    if few is not None:
        number = many(few.groups, "group")
        yield f"{number} of one or two regions: {few.regions:,}, {size(few.live_bytes)}"


def together(row: TogetherRow) -> str:
    """What some groups free together, how many of them there are first."""
    names = listed([printable(name) for name in row.groups])
    held = f", {row.cached_slabs:,} of them after a flush" if row.cached_slabs else ""
    text = f"  {len(row.groups)}: {size(row.bytes)} in {many(row.slabs, 'slab')}{held}: {names}"
    return wrap(text, "     ", SCREEN)


def _stacks(rows: Sequence[StackRow]) -> Iterator[str]:
    yield "by the heap profile, estimated: the waste of each size class by who allocated in it"
    if not rows:
        yield "  none of its stacks holds objects of a size class that wastes anything"
    for row in rows:
        yield (
            f"  {size(row.waste_bytes)}: about {many(row.objects, 'object')} of"
            f" {size(row.live_bytes)}, class {row.size}"
        )
        yield wrap(f"    {' <- '.join(row.frames[:FRAMES])}", "      ")


def _details(rows: Sequence[GroupRow], style: Style) -> Iterator[str]:
    for row in rows:
        lines: List[str] = []
        if row.kinds:
            kinds = ", ".join(f"{what} {number} %" for what, number in row.kinds)
            lines.append(wrap(f"  consists of: {kinds}", "    "))
        lines += [
            wrap(f"  held by: {' <- '.join(chain.chain)} ({chain.regions:,})", "    ")
            for chain in row.owners
        ]
        for example in row.examples:
            lines += _hexdump(example, style)
        if lines:
            yield style.strong(wrap(row.what))
            yield from lines


def _hexdump(example: Piece, style: Style) -> Iterator[str]:
    yield f"  {example.address:#x}, {example.size} bytes:"
    lines = []
    for at in range(0, len(example.data), 16):
        part = example.data[at : at + 16]
        cells = " ".join(f"{byte:02x}" for byte in part)
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{example.address + at:08x}  {cells:<47}  |{letters}|")
    shown = "\n".join(lines)
    shown = coloured_hexdump(shown) if style.colour else shown
    yield from (f"    {line}" for line in shown.splitlines())
