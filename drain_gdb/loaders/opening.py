"""Further files that a command compares with: what it takes to open one is loaded then."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, ContextManager, Optional, Union

from drain_gdb.commands.base import Progress

if TYPE_CHECKING:
    from drain_gdb.jemalloc.statistics import Statistics
    from drain_gdb.snapshot import Snapshot


def open_file(
    path: str, progress: Progress, exe: Optional[str] = None, sysroot: Optional[str] = None
) -> ContextManager[Union[Snapshot, Statistics]]:
    """A core or a recording as a snapshot, or what malloc_stats_print() has printed."""
    api = import_module("drain_gdb.loaders.api")
    found: ContextManager[Union[Snapshot, Statistics]] = api.open_file(path, progress, exe, sysroot)
    return found
