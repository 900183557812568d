"""What a sweep says of itself in sentences: what was swept, how far it holds, what it means."""

from __future__ import annotations

import os
from typing import Iterator, NamedTuple, Sequence

from drain_gdb.analysis.account import elsewhere
from drain_gdb.analysis.report import Allocator, Sweep
from drain_gdb.analysis.verdict import Verdict
from drain_gdb.debuggee.protocol import Motion, Process
from drain_gdb.jemalloc.heap import InFlight, Mismatch
from drain_gdb.layout.versions import as_shown
from drain_gdb.render.elsewhere import sentence
from drain_gdb.render.style import SCREEN, WIDTH, Style, count, percent, size, wrap
from drain_gdb.words import amount, many, whole_percent

LISTED = 8
GOOD, WARN, BAD, PLAIN = "good", "warn", "bad", ""


class Remark(NamedTuple):
    """A sentence, and what it means: GOOD, WARN, BAD, or PLAIN, a detail of the one before.

    ``width`` is in how many columns a terminal has it.
    """

    level: str
    text: str
    width: int = SCREEN


def painted(remark: Remark, style: Style, indent: str = "") -> str:
    """``remark`` on a terminal, lines after the first indented."""
    level, text, width = remark
    if level == PLAIN:
        return f"  {text}"
    paint = {GOOD: style.good, WARN: style.warn, BAD: style.bad}[level]
    return paint(wrap(text, indent, width))


FOUND_BY = {
    "dwarf": "from its debug information",
    "symbols": "from its symbol table",
    "discovered": "without symbols",
}


def called(process: Process) -> str:
    """What a process is called."""
    return process.name or os.path.basename(process.executable or "") or "an unnamed program"


def of_whom(process: Process) -> str:
    """``core of NAME (pid N)``."""
    pid = f" (pid {process.pid})" if process.pid is not None else ""
    return f"{process.source} of {called(process)}{pid}"


def swept(report: Sweep) -> str:
    """What was swept, and how it was found."""
    process, allocator = report.process, report.allocator
    if allocator.layout_source is None:
        return _printed(report)
    version = as_shown(allocator.version) if allocator.version else "of unknown version"
    return (
        f"{of_whom(process)}: jemalloc {version} found"
        f" {FOUND_BY[allocator.layout_source]} in {allocator.library};"
        f" {_arenas(allocator)}, {many(allocator.thread_caches, 'thread cache')}"
    )


def _arenas(allocator: Allocator) -> str:
    return "arenas not found" if allocator.statistics is None else many(allocator.arenas, "arena")


def _printed(report: Sweep) -> str:
    """Of a report made from statistics."""
    allocator = report.allocator
    version = as_shown(allocator.version) if allocator.version else "of unknown version"
    held = allocator.thread_cache_bytes
    return f"statistics printed by jemalloc {version}: {many(allocator.arenas, 'arena')}" + (
        "" if held is None else f"; thread caches hold {size(held)}, large ones included"
    )


def remarks(report: Sweep) -> Iterator[Remark]:
    """How far its figures hold, and what else is to be known before they are used."""
    found = report.verification
    if report.allocator.layout_source is None:
        yield from _believed(report)
        return
    unexplained = None if report.account is None else elsewhere(report.account)
    walked = f"{count(found.slabs_walked)} slabs and {count(found.regions_walked)} regions"
    if found.status == "exact":
        yield Remark(
            GOOD,
            f"verified: the {walked} equal jemalloc's own statistics"
            if found.slabs_walked
            else f"{'hardly used' if unexplained else 'verified'}: there are no slabs, and"
            " jemalloc's own statistics say so too",
        )
    elif found.status == "mismatch":
        theirs = (
            "jemalloc's structures contradict each other"
            if found.slabs_recorded is None
            else f"jemalloc's own statistics say {count(found.slabs_recorded)} and"
            f" {count(found.regions_recorded)}"
        )
        within = report.tolerance is not None and report.tolerance.within
        yield Remark(
            WARN if within else BAD,
            f"{'verified nearly' if within else 'NOT VERIFIED'}: {walked} walked, {theirs};"
            f" {many(len(found.mismatches), 'figure')} differ",
        )
        yield from _differing(found.mismatches, "walked", "recorded")
    elif report.allocator.statistics is None:
        yield Remark(
            BAD,
            f"not verifiable: the arenas, which keep jemalloc's own figures, are missing; the"
            f" bitmaps agree with the {walked} walked",
            WIDTH,
        )
    else:
        yield Remark(
            WARN,
            f"not verifiable: this jemalloc keeps no statistics to compare the {walked} walked"
            " with; its bitmaps, thread caches and lists of slabs with room agree with them",
        )
    told = any(cause.cause in ("not_jemalloc", "other_allocator") for cause in report.causes)
    if unexplained is not None and not told:
        yield Remark(WARN, sentence(unexplained))
    if not report.believed:
        yield Remark(
            BAD,
            "NO LAYOUT FITS: with the best of those known, what was walked has too little in"
            " common with jemalloc's own figures to mean anything, so none of it is shown;"
            " --verbose says what was tried",
        )
    if report.process.in_motion is not None:
        yield Remark(WARN, _motion(report, report.process.in_motion))
    coverage = report.coverage
    if coverage.missing:
        yield Remark(BAD, f"PARTIAL: missing: {'; '.join(coverage.missing)}", WIDTH)
    if coverage.unread:
        yield Remark(
            BAD,
            f"PARTIAL: {percent(coverage.readable)} of the metadata that was come to could be read;"
            f" {size(coverage.bytes_unreadable)} could not, with"
            f" {many(coverage.slabs_unreadable, 'extent')},"
            f" {many(coverage.caches_unreadable, 'thread cache')} and"
            f" {many(coverage.arenas_unreadable, 'arena')}, nor what these lead to;"
            " every total below is partial",
        )
    if found.in_flight:
        yield Remark(WARN, _in_flight(found.in_flight))
    if report.allocator.others:
        others = ", ".join(os.path.basename(path) for path in report.allocator.others)
        yield Remark(
            WARN, f"this process holds more than this jemalloc, not part of this report: {others}"
        )


def _believed(report: Sweep) -> Iterator[Remark]:
    """What a report made from statistics rests on."""
    found = report.verification
    if found.status == "mismatch":
        yield Remark(
            BAD,
            "NOT VERIFIED: the statistics do not add up; lines are missing or they were"
            f" printed while they changed; {many(len(found.mismatches), 'figure')} differ",
        )
        yield from _differing(found.mismatches, "the rows say", "stated")
        return
    yield Remark(
        WARN,
        "not verifiable: these are jemalloc's own figures, and nothing was walked to compare"
        " them with; what is allocated is live or cached, they do not tell which",
    )


def _differing(mismatches: Sequence[Mismatch], ours: str, theirs: str) -> Iterator[Remark]:
    for item in mismatches[:LISTED]:
        where = "" if item.arena is None else f"arena {item.arena} "
        where += "" if item.index is None else f"size class {item.index} "
        yield Remark(
            PLAIN,
            f"{where}{item.what}: {ours} {count(item.walked)}, {theirs} {count(item.recorded)}",
        )
    if len(mismatches) > LISTED:
        yield Remark(PLAIN, f"and {len(mismatches) - LISTED} more")


def _in_flight(found: Sequence[InFlight]) -> str:
    """What was going on inside jemalloc when the process was stopped."""
    named = [
        f"arena {each.arena}{'' if each.index is None else f' size class {each.index}'}:"
        f" {each.what}"
        for each in found
    ]
    listed = ", ".join(named[:LISTED])
    if len(named) > LISTED:
        listed += f" and {len(named) - LISTED} more"
    return (
        f"in flight: the process seems stopped inside jemalloc ({listed}); figures of these"
        " parts may be off by the regions and slabs that were on their way"
    )


def _motion(report: Sweep, motion: Motion) -> str:
    """How a process was read that ran on meanwhile, and how well that went."""
    text = "read in motion, never stopped: "
    if motion.copies > 1:
        text += f"in copy {motion.copies}, the best, "
    if motion.moved_bytes:
        text += (
            f"{size(motion.moved_bytes)} moved meanwhile, and were read again within"
            f" {motion.microseconds / 1000:,.2f} ms"
        )
    else:
        text += "nothing moved meanwhile"
    if not motion.settled:
        text += ", and more moved around them"
    tolerance = report.tolerance
    if tolerance is not None and tolerance.reached:
        text += (
            f"; off by {off(tolerance.reached)},"
            f" {'within' if tolerance.within else 'beyond'} the tolerance of"
            f" {100 * tolerance.stated:g} %"
        )
        if not tolerance.within:
            text += ": it moves too fast to be read so; stop it for the copy with --stop"
    return text


def off(share: float) -> str:
    """A share in percent, to two digits where it is small."""
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def meaning(report: Sweep, verdict: Verdict, place: str = "above") -> str:
    """The verdict, with the figures it rests on; ``place``: where the account is told."""
    totals = report.totals
    waste = f"{size(verdict.waste)} of {size(totals.slab_bytes)} in slabs"
    region = "live" if totals.live is not None else "allocated"
    unused = f"{size(verdict.unused)} in unused dirty or muzzy pages"
    above = "" if report.account is None else f"; what there is besides is told {place}"
    if verdict.kind == "none":
        return f"there are no slabs, so there is no rate to give{above}."
    if verdict.kind == "nothing":
        return f"little to reclaim in slabs: {waste} hold no {region} region{above}."
    if verdict.kind == "unused":
        return f"{unused}: {_unused(report)}; the waste in slabs, {waste}, is small beside that."
    where = _where(verdict)
    if verdict.kind == "temporary":
        return (
            f"temporary: {waste} hold no live region, {size(verdict.drainable)} of it in"
            f" drainable slabs ({percent(totals.dsr)}); flush the thread caches, then"
            f" purge.{where}"
        )
    if verdict.kind == "structural":
        pinned = (
            f"every one of the {many(totals.slabs, 'slab')} is"
            if totals.pinned == totals.slabs
            else f"{count(totals.pinned)} of {many(totals.slabs, 'slab')} are"
        )
        return (
            f"structural: {waste} hold no live region, but {pinned} pinned by at least one, so"
            f" no purge and no waiting returns {size(verdict.pinned_waste)} of it.{where} What"
            f" helps: {_compacting(report)}."
        )
    if verdict.kind == "unknown":
        held = report.allocator.thread_cache_bytes
        return (
            f"not known which of it can go: {size(verdict.waste)} of {size(totals.slab_bytes)} in"
            " slabs hold no allocated region, and each of these slabs is kept by regions that are"
            f" live or in thread caches (which hold {size(held)} in all).{where} A core, or the"
            " process itself, tells which."
        )
    return (
        f"mixed: {waste} hold no live region; {size(verdict.drainable)} of it is in drainable"
        f" slabs (flush the thread caches, then purge), {size(verdict.pinned_waste)} is pinned"
        f" and stays.{where}"
    )


def _where(verdict: Verdict) -> str:
    """In which size class how much of the waste in slabs sits."""
    worst = verdict.worst
    if worst is None or not verdict.waste:
        return ""
    state = worst.state
    held, rate = state.waste_bytes, f"{percent(state.occupancy)} occupancy"
    if held is None:
        held, rate = state.free_bytes, f"{percent(state.utilization)} utilization"
    share = held / verdict.waste
    text = f"the {worst.size}-byte class: {size(held)} ({whole_percent(share)}) at {rate}"
    if amount(share) == "little":
        return f" It is spread over many classes; the worst is {text}."
    return f" {amount(share).capitalize()} of it sits in {text}."


def _unused(report: Sweep) -> str:
    """Whether unused pages go, as the causes have it."""
    kinds = ("dirty_pages", "muzzy_pages")
    goes = next((c.goes_by_itself for c in report.causes if c.cause in kinds), "unknown")
    said = {
        "yes": "they go by themselves",
        "in_time": "they go in time, a purge returns them at once",
        "no": "they stay until a purge",
    }
    return said.get(goes, "a purge returns them, decay only where it runs")


def _compacting(report: Sweep) -> str:
    """What undoes fragmentation in this very program, as the causes have it."""
    offered = [r.remedy for c in report.causes if c.cause == "pinned_slabs" for r in c.remedies]
    if "active_defrag" in offered:
        return "active defragmentation"
    if offered and "dedicated_arena" not in offered:
        return "a restart"
    return (
        "allocate what lives together together (by lifetime, in dedicated arenas), or active"
        " defragmentation"
    )
