"""Where a snapshot comes from, for programs: a file, a process, or the debugger around us."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from importlib import import_module
from typing import Optional, Union

from drain_gdb.debuggee.corefile import compression, examine
from drain_gdb.debuggee.files import File, is_recording
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import TargetError, UsageError
from drain_gdb.loaders.dependencies import NEEDED_DIRECTLY, ensure
from drain_gdb.snapshot import Snapshot

Path = Union[str, "os.PathLike[str]"]


def open_snapshot(
    target: Optional[Path] = None,
    *,
    pid: Optional[int] = None,
    exe: Optional[Path] = None,
    sysroot: Optional[Path] = None,
) -> Snapshot:
    """A snapshot of a core, a recording, or the process ``pid``; read with no debugger.

    ``exe`` is the program of a core, ``sysroot`` the folder below which the files of another
    machine are.  A process stands still until the snapshot is closed: use ``with``.

    Raises :class:`~drain_gdb.errors.DrainError`, by name, where it cannot be read.
    """
    if (target is None) == (pid is None):
        raise UsageError("give one target: the path of a core or recording, or pid=")
    ensure(NEEDED_DIRECTLY)
    path = None if target is None else os.fspath(target)
    if path is not None and is_recording(path):
        recording = import_module("drain_gdb.debuggee.recording")
        return Snapshot(recording.RecordingTarget(recording.read(path)))
    with ExitStack() as stack:
        core = None
        if path is not None:
            core = stack.enter_context(File(path))
            packed = compression(core)
            if packed is not None:
                unpack = import_module("drain_gdb.debuggee.compressed").unpack
                core = stack.enter_context(unpack(path, packed, lambda _: None))
            examine(core)
        direct = import_module("drain_gdb.loaders.direct").Direct(
            core,
            pid,
            None if exe is None else os.fspath(exe),
            None if sysroot is None else os.fspath(sysroot),
            stop=False,
            stands=True,
        )
        stack.callback(direct.release)
        found: Target = direct.open()
        return Snapshot(found, close=stack.pop_all().close)


def current_snapshot() -> Snapshot:
    """A snapshot of what this gdb or lldb looks at, which must stand; for their Python alone.

    Raises :class:`~drain_gdb.errors.DrainError` where there is no process and no core.
    """
    if "gdb" in sys.modules:
        return Snapshot(import_module("drain_gdb.debuggee.gdb").GdbTarget())
    lldb = sys.modules.get("lldb")
    if lldb is not None and getattr(lldb, "debugger", None) is not None:
        adapter = import_module("drain_gdb.debuggee.lldb")
        return Snapshot(adapter.LldbTarget(lldb.debugger.GetSelectedTarget()))
    raise TargetError("there is no debugger around this Python", "use drain_gdb.open()")
