"""The map of a slab, for people and as JSON."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Iterator, List, Tuple

from drain_gdb.objects.address import Address, SlabMap
from drain_gdb.render.style import Style, percent, size

SCHEMA = "drain_gdb.slab/1"
ROW = 64
"""Regions to a line."""
SHOWN = {"L": "L", "C": "C", "F": "."}


def as_json(found: SlabMap) -> str:
    """One JSON object and a newline."""
    content = {
        "schema": SCHEMA,
        "slab": {
            "address": hex(found.address),
            "arena": found.arena,
            "shard": found.shard,
            "index": found.index,
            "size": found.size,
            "nregs": len(found.regions),
            "allocated": found.live + found.cached,
            "cached": found.cached,
            "live": found.live,
        },
        "regions": found.regions,
    }
    return json.dumps(content, indent=2) + "\n"


def render(found: SlabMap, style: Style) -> str:
    """The slab drawn, its neighbours named."""
    nregs, pages = len(found.regions), (found.end - found.address) // found.page
    free = nregs - found.live - found.cached
    lines = [
        style.strong(f"slab {found.address:#x}")
        + f"..{found.end:#x}, {pages} {'page' if pages == 1 else 'pages'}"
        f" of {size(found.page)}; arena {found.arena}, bin {found.index}, shard {found.shard}",
        f"{nregs} regions of {found.size} bytes: {found.live} live, {found.cached} cached,"
        f" {free} free; occupancy {percent(found.live / nregs)}",
        "",
        *_rows(found, style),
        "",
        f"L live  C cached  . free  {_bar(style)} the next region begins in another page",
    ]
    if found.holding:
        counted = ", ".join(
            f"cache {number} ({sum(1 for _ in held)})"
            for number, held in groupby(sorted(found.holding))
        )
        lines.append(f"cached by thread {counted}")
    lines += [
        f"{where} {_neighbour(each)}"
        for where, each in zip(("before it:", "behind it:"), found.neighbours)
    ]
    return "\n".join([*lines, ""])


def _bar(style: Style) -> str:
    return "│" if style.unicode else "|"


def _rows(found: SlabMap, style: Style) -> Iterator[str]:
    """The regions, ``ROW`` a line, each line behind the address of its first one."""
    for first in range(0, len(found.regions), ROW):
        cells: List[str] = []
        pieces: List[Tuple[str, str]] = []
        for number in range(first, min(first + ROW, len(found.regions))):
            if number > first and _page(found, number) != _page(found, number - 1):
                pieces.append((_bar(style), _bar(style)))
            letter = found.regions[number]
            shown = SHOWN[letter]
            if number == found.at:
                shown = f"[{shown}]"
            pieces.append((letter, shown))
        for letter, group in groupby(pieces, key=lambda each: each[0]):
            text = "".join(shown for _, shown in group)
            cells.append({"L": style.good, "C": style.warn}.get(letter, str)(text))
        yield f"{found.address + first * found.size:#x}  {''.join(cells)}"


def _page(found: SlabMap, number: int) -> int:
    return number * found.size // found.page


def _neighbour(found: Address) -> str:
    if found.slab is None:
        return found.kind if found.size is None else f"{found.kind}, {size(found.size)}"
    slab = found.slab
    return (
        f"slab {slab.address:#x}, regions of {found.size} bytes,"
        f" {slab.live} of {slab.nregs} live ({percent(slab.live / slab.nregs)})"
    )
