"""What an address is, for people and as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any, Dict, Iterator, Sequence

from drain_gdb.objects.address import LARGE, METADATA, REGION, STACK, Address, SlabPlace
from drain_gdb.render.style import WIDTH, Style, percent, printable, size, wrap

SCHEMA = "drain_gdb.find/1"
UNUSED = {
    "dirty": "unused: dirty pages",
    "muzzy": "unused: muzzy pages",
    "retained": "unused: retained address space",
}
KINDS = {
    METADATA: "jemalloc's metadata",
    "anonymous": "memory of nobody known",
    "unmapped": "nothing that can be read",
}
FRAMES = 24


def as_json(found: Sequence[Address]) -> str:
    """One JSON object and a newline."""
    content = {"schema": SCHEMA, "addresses": [_as_dict(each) for each in found]}
    return json.dumps(content, indent=2) + "\n"


def _as_dict(found: Address) -> Dict[str, Any]:
    content = asdict(found)
    content["address"] = hex(found.address)
    for key, place in (("slab", found.slab), ("region", found.region)):
        if place is not None:
            content[key] = {**asdict(place), "address": hex(place.address)}
    if found.region is not None:
        content["region"]["end"] = hex(found.region.end)
    content["backtrace"] = list(found.backtrace)
    content["owners"] = None if found.owners is None else list(found.owners)
    return content


def render(found: Address, modules: Sequence[str], style: Style) -> str:
    """Some lines; ``modules`` hold the jemallocs, by number."""
    lines = list(_lines(found, modules, style))
    head = f"{found.address:#x}  "
    return "\n".join([style.strong(head) + lines[0], *(f"    {line}" for line in lines[1:]), ""])


def _lines(found: Address, modules: Sequence[str], style: Style) -> Iterator[str]:
    if found.kind in (REGION, LARGE) and found.region is not None:
        yield _allocation(found, style)
    else:
        yield _other(found)
    if found.what is not None:
        yield f"what it is: {printable(found.what)}"
    if found.owners is not None:
        chain = " <- ".join(found.owners) or "no owner was found"
        yield wrap(f"held by: {chain}", "        ", WIDTH - 4)
    if found.held_by_cache is not None:
        yield f"freed by the program, held by thread cache {found.held_by_cache}"
    if found.slab is not None:
        yield _slab(found, found.slab)
    if found.allocator is not None and len(modules) > 1:
        yield f"of the jemalloc in {printable(os.path.basename(modules[found.allocator]))}"
    if found.backtrace:
        yield "allocated by (sampled by the heap profiler):"
        for number, frame in enumerate(found.backtrace[:FRAMES]):
            yield f"  #{number} {printable(frame)}"


def _allocation(found: Address, style: Style) -> str:
    """A region or a large allocation, with where in it the address lies."""
    assert found.region is not None
    colour = {"live": style.good, "cached": style.warn}.get(found.state or "", str)
    state = colour(found.state or "")
    what = f"a large allocation of {size(found.size or 0)}"
    if found.kind == REGION:
        what = f"a region of {found.size} bytes"
    place = f"{found.region.address:#x}..{found.region.end:#x}"
    if found.region.offset:
        place += f", {found.region.offset:#x} into it"
    return f"{state}: {what}, {place}" + (f": {found.detail}" if found.detail else "")


def _other(found: Address) -> str:
    said = UNUSED.get(found.kind) or KINDS.get(found.kind) or found.kind
    if found.kind == STACK:
        thread = "a thread" if found.thread is None else f"thread {found.thread}"
        said = f"the stack of {thread}"
    if found.module is not None:
        name = os.path.basename(found.module)
        said = f"{found.symbol} in {name}" if found.symbol else f"{found.kind}: {name}"
    if found.arena is not None:
        said += f", arena {found.arena}"
    if found.detail:
        said += f" ({found.detail})"
    return wrap(said, "    ")


def _slab(found: Address, slab: SlabPlace) -> str:
    number = "" if found.region is None else f"region {found.region.index} of {slab.nregs} in "
    return (
        f"{number}slab {slab.address:#x}: {slab.live} live, {slab.cached} cached,"
        f" {slab.free} free ({percent(slab.live / slab.nregs)})\n"
        f"    arena {found.arena}, bin {found.index}, shard {found.shard}"
    )
