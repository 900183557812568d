"""What of a process no jemalloc explains, in words."""

from __future__ import annotations

from drain_gdb.analysis.account import Elsewhere
from drain_gdb.analysis.report import Detail
from drain_gdb.render.style import percent, size

NAMED = 3
"""Kinds of memory that are named."""
NAMES = {"brk_heap": "the brk heap", "stacks": "the main stack", "thread_stacks": "thread stacks"}


def sentence(found: Elsewhere) -> str:
    """How much memory is not jemalloc's, and what it looks like."""
    named = [f"{size(d.resident_bytes)} {_called(part, d)}" for part, d in found.details[:NAMED]]
    left = found.bytes - sum(d.resident_bytes or 0 for _, d in found.details[:NAMED])
    if left >= found.bytes // 100:
        named.append(f"{size(left)} other")
    share = percent(found.bytes / found.anonymous_bytes)
    return (
        f"{size(found.bytes)} of anonymous memory, {share} of all of it, is not jemalloc's:"
        f" {', '.join(named)}"
    )


def _called(part: str, detail: Detail) -> str:
    if part in NAMES:
        return f"in {NAMES[part]}"
    if part == "unknown_allocator":
        return f"in {detail.what}"
    if detail.what is not None:
        return f"called {detail.what}"
    if detail.count == 1:
        return "in one mapping"
    return f"in {detail.count:,} mappings of {size(detail.bytes // detail.count)}"
