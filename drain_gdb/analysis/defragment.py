"""Active defragmentation of a Redis or Valkey: whether it begins, where it ends, how it is told to.

What is free in slabs is what a server calls fragmentation (frag_smallbins_bytes, zmalloc.c).  It
begins where that is above both of its thresholds, and 6.2 and 7 then go through all of their
data.  With jemalloc 5.3, as Redis 8 has it, it may end as soon as what is left is below them,
somewhere on the way to slabs that are packed.
"""

from __future__ import annotations

from typing import Tuple

from drain_gdb.analysis.situation import Situation
from drain_gdb.jemalloc.settings import Settings

SERVERS = ("redis", "valkey")
MIB = 1 << 20
THRESHOLD, IGNORED = 10, 100 * MIB
"""active-defrag-threshold-lower and active-defrag-ignore-bytes by default (redis.conf)."""


def thresholds(settings: Settings) -> Tuple[int, int]:
    """``(per cent of what is allocated, bytes)`` that it leaves alone; the defaults if unknown."""
    threshold, ignored = settings.defrag_threshold, settings.defrag_ignore_bytes
    return (
        THRESHOLD if threshold is None else threshold,
        IGNORED if ignored is None else ignored,
    )


def begins(situation: Situation, free: int) -> bool:
    """Whether it does where so many bytes are free in slabs."""
    threshold, ignored = thresholds(situation.settings)
    return free >= ignored and 100 * free >= threshold * situation.held_bytes


def enough(situation: Situation) -> int:
    """Bytes free in slabs under which it may end."""
    threshold, ignored = thresholds(situation.settings)
    return max(threshold * situation.held_bytes // 100, ignored)


def fewest(situation: Situation, free: int, packed: int) -> int:
    """The fewest bytes that come back of those that packing would give; it is told as below."""
    if situation.old or not begins(situation, free):
        return packed
    return min(packed, max(0, free - enough(situation)))


def how(situation: Situation, free: int) -> str:
    """The commands, with thresholds that let it begin where its own would not."""
    settings = situation.settings
    said = situation.command("CONFIG SET activedefrag yes")
    if settings.active_defragmentation is None:
        said += " (if it was built with it)"
    if settings.defragments:
        said = "active defragmentation is on"
    threshold, ignored = thresholds(settings)
    if free < ignored:
        by = "" if settings.defrag_ignore_bytes is not None else " by default"
        said += f", with active-defrag-ignore-bytes 1mb: it ignores up to {ignored // MIB}mb{by}"
    if 100 * free < threshold * situation.held_bytes:
        said += ", with active-defrag-threshold-lower 1"
    return f"{said}; then {situation.command('MEMORY PURGE')}"
