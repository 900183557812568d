"""What a debugger looks at, read beside it: its file or process, and not through it."""

from __future__ import annotations

from importlib import import_module

from drain_gdb.debuggee.place import Place
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import TargetError
from drain_gdb.loaders.dependencies import NEEDED_DIRECTLY, ensure


def open_beside(place: Place) -> Target:
    """The core or process at ``place``."""
    ensure(NEEDED_DIRECTLY)
    if place.core is not None:
        file = import_module("drain_gdb.debuggee.files").File(place.core)
        core: Target = import_module("drain_gdb.debuggee.elfcore").CoreTarget(
            file, place.program, place.sysroot
        )
        return core
    if place.pid is None:
        raise TargetError(
            "only cores and processes of this machine are read directly",
            "choose the reader debugger again",
        )
    process: Target = import_module("drain_gdb.debuggee.procfs").ProcessTarget(
        place.pid, place.sysroot
    )
    return process
