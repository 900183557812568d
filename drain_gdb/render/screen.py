"""What comes first: the resident memory, split into parts, and why it is what it is.

It is written for 80 columns, and with the lines above it for a screen of 24.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence

from drain_gdb.analysis.causes import weight
from drain_gdb.analysis.report import Account, Cause, Part, Remedy
from drain_gdb.render.style import SCREEN, Style, wrap
from drain_gdb.words import listed, size, whole_percent

PARTS = {
    "allocated": "allocated, in slabs",
    "free": "free, in slabs",
    "live": "live, in slabs",
    "cached": "cached, in slabs",
    "drainable": "free, drainable slabs",
    "pinned_waste": "free, pinned slabs",
    "large": "large, live",
    "large_cached": "large, cached",
    "dirty": "dirty pages",
    "muzzy": "muzzy pages",
    "retained": "retained",
    "metadata": "jemalloc's metadata",
    "brk_heap": "brk heap",
    "stacks": "main stack",
    "thread_stacks": "thread stacks",
    "file_backed": "files",
    "file_copies": "copies of files, .bss",
    "shared": "shared memory",
    "other_anonymous": "other anonymous",
    "unknown_allocator": "other allocators",
}
CAUSES = {
    "live_data": "live data",
    "pinned_slabs": "pinned slabs",
    "cached_regions": "thread caches",
    "drainable_slabs": "drainable slabs",
    "dirty_pages": "dirty pages",
    "muzzy_pages": "muzzy pages",
    "many_arenas": "many arenas",
    "huge_pages": "huge pages",
    "retained_resident": "retained, but resident",
    "metadata": "metadata",
    "not_jemalloc": "not jemalloc's",
    "other_allocator": "another allocator",
    "untouched": "never touched",
    "profiling": "heap profiler",
    "shared_pages": "shared with a fork",
    "small_process": "small process",
}
REMEDIES = {
    "purge": "purge",
    "decay": "decay",
    "background_thread": "background thread",
    "flush_caches": "flush caches",
    "active_defrag": "defragment",
    "fewer_arenas": "fewer arenas",
    "dedicated_arena": "dedicated arena",
    "tcache_max": "smaller caches",
    "restart": "restart",
    "huge_pages_off": "no huge pages",
    "profiling_rate": "fewer samples",
    "look_elsewhere": "look elsewhere",
    "find_owner": "find the owner",
}
GOES = {
    "yes": "goes by itself",
    "in_time": "goes in time",
    "no": "stays",
    "unknown": "may stay",
}
STAYING = ("live_data", "untouched", "small_process", "not_jemalloc", "shared_pages")
"""Causes of which it says nothing that they stay."""
PARTS_SHOWN = 6
PART_LEAST = 0.02
"""Parts beyond that many, and smaller ones, are summed up."""
BAR = 34
FIRST_REMEDIES, OTHER_REMEDIES = 3, 1
"""Remedies shown of the first cause, and of the others; all of them with --verbose."""
NAME = max(map(len, PARTS.values()))


def screen(account: Account, causes: Sequence[Cause], style: Style, verbose: bool = False) -> str:
    """The account as bars, then ``causes``; every part and remedy where ``verbose``."""
    return f"{_account(account, style, verbose)}\n\n{_causes(account, causes, style, verbose)}"


class Summed(NamedTuple):
    """A part of all allocators: its key, its name for people, its bytes."""

    part: str
    name: str
    bytes: int


def summed(account: Account) -> List[Summed]:
    """The parts that are not empty, largest first; by size where residence is not known."""
    known = account.resident_bytes is not None
    sums: Dict[str, int] = {}
    for part in account.parts:
        held = part.resident_bytes if known else _size(part)
        sums[part.part] = sums.get(part.part, 0) + (held or 0)
    names = {**PARTS, "large": "large"} if account.source == "statistics" else PARTS
    found = [Summed(part, names[part], held) for part, held in sums.items() if held]
    return sorted(found, key=lambda each: each.bytes, reverse=True)


def _size(part: Part) -> int:
    """Its size, where residence is not known; what is only address space has none."""
    return 0 if part.part == "retained" else part.bytes


def _account(account: Account, style: Style, verbose: bool) -> str:
    whole = weight(account)
    parts = summed(account)
    least = 0.0 if verbose else PART_LEAST * whole
    shown = [each for each in parts if each.bytes >= least]
    shown = shown if verbose else shown[:PARTS_SHOWN]
    shown = parts if len(parts) == len(shown) + 1 else shown
    lines = [style.strong(headline(account))]
    lines += [_bar(name, held, whole, style) for _, name, held in shown]
    rest = parts[len(shown) :]
    if rest:
        lines.append(
            _bar(f"{len(rest)} smaller parts", sum(each.bytes for each in rest), whole, style)
        )
    space = address_space(account)
    if space is not None:
        lines.append(wrap(space, "  ", SCREEN))
    return "\n".join(lines)


def headline(account: Account) -> str:
    """How much memory there is, and by whose word."""
    whole = weight(account)
    if account.resident_bytes is None:
        return f"{size(whole)} by size: how much of it is resident is not known"
    if account.source == "statistics":
        return f"{size(whole)} is jemalloc's, by its own estimate (all that is not retained)"
    notes = {
        "core": "as the core holds it, without files",
        "smaps": "by smaps: parts of one mapping by their share",
    }
    note = notes.get(account.source or "", "")
    if account.swapped_bytes:
        note = listed([*filter(None, [note]), f"{size(account.swapped_bytes)} swapped out"])
    if account.huge_bytes:
        note = listed([*filter(None, [note]), f"{size(account.huge_bytes)} on huge pages"])
    return f"RSS {size(whole)}" + (f" ({note})" if note else "")


def _bar(name: str, held: int, whole: int, style: Style) -> str:
    share = held / whole if whole else 0
    line = f"  {name:<{NAME}} {size(held):>10} {whole_percent(share):>5}  {style.bar(share, BAR)}"
    return line.rstrip()


def address_space(account: Account) -> Optional[str]:
    """What jemalloc has of address space that is not resident; None for none, or if unknown."""
    if account.resident_bytes is None:
        return None
    space: Dict[str, int] = {}
    for part in account.parts:
        if part.allocator is not None and part.resident_bytes is not None:
            kind = "retained" if part.part == "retained" else "in use"
            space[kind] = space.get(kind, 0) + part.bytes - part.resident_bytes
    words = [f"{size(held)} {kind}" for kind, held in space.items() if held > 0]
    return f"address space without memory: {listed(words)}" if words else None


def _causes(account: Account, causes: Sequence[Cause], style: Style, verbose: bool) -> str:
    if not causes:
        return style.strong("why: nothing stands out")
    lines: List[str] = [style.strong("why, largest first:")]
    whole = weight(account)
    for number, cause in enumerate(causes, 1):
        share = "" if cause.bytes > whole else f" ({whole_percent(cause.bytes / max(1, whole))})"
        goes = "" if cause.cause in STAYING else f", {GOES[cause.goes_by_itself]}"
        head = f"{number}. {CAUSES[cause.cause]}: {size(cause.bytes)}{share}{goes}."
        text = wrap(f"{head} {cause.evidence}.", "   ", SCREEN)
        lines.append(text.replace(head, style.strong(head), 1))
        most = FIRST_REMEDIES if number == 1 else OTHER_REMEDIES
        for remedy in cause.remedies if verbose else cause.remedies[:most]:
            known = account.resident_bytes is not None
            lines.append(wrap(f"   -> {_remedy(remedy, known)}", "      ", SCREEN))
    return "\n".join(lines)


def _remedy(remedy: Remedy, known: bool) -> str:
    """A remedy and what it gives back; at most that where residence is not ``known``."""
    name = REMEDIES.get(remedy.remedy)
    if name is None:
        return remedy.how
    back = "" if remedy.bytes is None else f", {'' if known else 'up to '}{size(remedy.bytes)}"
    return f"{name}{back}: {remedy.how}"
