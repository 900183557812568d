"""Groups of objects that pin slabs: how this program lets go of them, or keeps them apart."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Optional, Sequence

from drain_gdb.analysis.defragment import SERVERS
from drain_gdb.analysis.growth import NO_REGIONS, why_no_groups
from drain_gdb.analysis.report import Sweep
from drain_gdb.analysis.situation import Situation
from drain_gdb.objects.recogniser import STRUCTURE

if TYPE_CHECKING:
    from drain_gdb.analysis.pins import Pins

LOOK = "drainplan --pins says which groups of objects free most"
LEAST = 0.05
"""Waste under this share of the slabs is next to nothing."""
PATTERN = re.compile(r"[\w:/|.,;#@-]+")
"""Patterns of keys that a glob can stand for."""


def why_not(report: Sweep) -> Optional[str]:
    """Why no group would free anything, or it cannot be known; None where one may."""
    totals = report.totals
    if totals.live is None:
        return NO_REGIONS
    why = why_no_groups(report.process)
    if why is None and (totals.waste_bytes or 0) <= LEAST * totals.slab_bytes:
        return "slabs waste next to nothing"
    return why


def how(situation: Situation, found: Pins, groups: Sequence[str]) -> str:
    """The command or call for ``groups``; where they have none, in words."""
    settings = situation.settings
    if settings.program in SERVERS:
        keys = {row.what for row in found.groups if row.evidence == STRUCTURE}
        listed = [_listing(situation, name) for name in groups if name in keys]
        where = "; ".join(filter(None, listed)) or situation.command("--scan")
        return f"{where} lists their keys: UNLINK those that can go, or keep them in another server"
    if settings.program == "python":
        return "let go of them, or keep them in a process of their own"
    prefix = settings.prefix
    call = f'{prefix}mallctl("arenas.create", &arena, &size, NULL, 0)'
    flags = "MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE"
    return f"free them, or allocate them apart: {call}, then {prefix}mallocx(bytes, {flags})"


def _listing(situation: Situation, name: str) -> Optional[str]:
    """What lists the keys of a pattern; None where no glob stands for it."""
    if not PATTERN.fullmatch(name):
        return None
    glob = re.sub("[#@]", "*", name)
    return situation.command(f"--scan --pattern {shlex.quote(glob)}")
