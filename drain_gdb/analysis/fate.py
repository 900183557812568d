"""What becomes of unused pages: whether they go by themselves, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from drain_gdb.analysis.report import ArenaRow
from drain_gdb.jemalloc.settings import Settings
from drain_gdb.words import seconds

SLACK_SECONDS = 5
"""Decay steps are seconds apart where little is allocated (DECAY_NTICKS_PER_UPDATE)."""
BUSY_SECONDS = 1
"""Where the last step is no longer ago the decay is at work."""
LONG_MS = 3_600_000
"""A decay time of an hour is no decay to wait for: some set 9000000000, which is 104 days."""


@dataclass(frozen=True)
class Fate:
    """What becomes of unused pages: ``goes_by_itself`` and why.

    ``as_set``: the decay time alone keeps them.
    """

    goes: str
    why: str
    as_set: bool = False


def stays(decay: Optional[int]) -> bool:
    """Whether pages stay for their decay time alone, whatever goes on."""
    return decay is not None and not 0 <= decay < LONG_MS


def fate_of(arena: ArenaRow, decay: Optional[int], option: str, settings: Settings) -> Fate:
    """What becomes of the unused pages of ``arena``, whose ``option`` is ``decay``."""
    background = settings.background_thread
    if decay is None:
        return Fate("unknown", "Their decay time is not known")
    if decay < 0:
        return Fate("no", f"{option} is -1, so they are never purged", as_set=True)
    said = f"{option} is {decay:,}".replace(",", "")
    span = seconds(decay / 1000)
    if stays(decay):
        return Fate("no", f"{said}, so they stay for up to {span}", as_set=True)
    if background:
        return Fate("in_time", f"A background thread purges them within {span} ({said})")
    if background is None:
        asked = "" if settings.options is None else f" ({settings.variable} asks for none)"
        return Fate(
            "unknown",
            f"{said}; whether a background thread runs is not known{asked}, and without one"
            " they stay while the program is idle",
        )
    idle = arena.idle_seconds
    busy = idle is not None and idle < BUSY_SECONDS
    if arena.threads == 0 and not busy:
        return Fate("no", f"No background thread runs and no thread uses the arena ({said})")
    if idle is not None and idle > decay / 1000 + SLACK_SECONDS:
        return Fate(
            "no",
            "No background thread runs, and next to nothing was allocated or freed for"
            f" {seconds(idle)}, so they stay ({said})",
        )
    return Fate(
        "in_time" if busy else "unknown",
        f"They go within {span} while the program allocates and frees, and stay once it is"
        f" idle: no background thread runs ({said})",
    )
