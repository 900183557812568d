"""What recognisers say of all live regions of a core, each asked in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.views import memory_of
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.objects.contents import HeapContents
from drain_gdb.objects.recogniser import Kind, Recogniser, Region


def contents_of(core: Path) -> HeapContents:
    """All that is in a core, read directly."""
    target = CoreTarget(File(str(core)))
    heaps, _ = find_heaps(target, lambda: memory_of(target, None))
    return HeapContents(target, LiveRegions(heaps, [memory_of(target, None) for _ in heaps]))


HELD = "held by "


@dataclass
class Named:
    """A region, and what it is said to be."""

    region: Region
    kind: Optional[Kind] = None
    by: Optional[Recogniser] = None

    @property
    def what(self) -> Optional[str]:
        return None if self.kind is None else self.kind.what


def named(
    contents: HeapContents, recognisers: Sequence[Recogniser], forms: Sequence[Recogniser] = ()
) -> Dict[int, Named]:
    """Every live region by its address: by itself, else by its holder, else by its form."""
    found = {}
    for row in range(len(contents.live)):
        for _, region in contents.regions(row):
            found[region.address] = _ask(region, recognisers)
    waiting = [each for each in found.values() if each.kind is not None]
    while waiting:
        waiting = [held for each in waiting for held in _held(contents, found, each)]
    for address, each in found.items():
        if each.kind is None:
            found[address] = _ask(each.region, forms)
    return found


def _ask(region: Region, recognisers: Sequence[Recogniser]) -> Named:
    for each in recognisers:
        words = region.words
        for index in each.keys:
            kind = each.by_word(index, words[index], region.size) if index < len(words) else None
            if kind is not None:
                return Named(region, kind, each)
        kind = each.recognise(region)
        if kind is not None:
            return Named(region, kind, each)
    return Named(region)


def _held(contents: HeapContents, found: Dict[int, Named], holder: Named) -> List[Named]:
    said = []
    assert holder.by is not None and holder.kind is not None
    for address, kind in holder.by.holds(holder.region, holder.kind):
        target = contents.region_at(address)
        if target is None:
            continue
        known = found[target.address].kind
        # A part of something is more than what it happens to point at, as an old word may do.
        if known is None or (known.what.startswith(HELD) and not kind.what.startswith(HELD)):
            found[target.address] = Named(target, kind, holder.by)
            said.append(found[target.address])
    return said
