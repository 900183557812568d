"""Where a snapshot comes from, for programs: a file, a process, or the debugger around us."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Iterator, Optional, Union

from drain_gdb.debuggee.corefile import compression, examine
from drain_gdb.debuggee.files import File, is_recording, is_text
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import TargetError, UsageError
from drain_gdb.loaders.dependencies import NEEDED_DIRECTLY, NEEDED_TO_UNPACK, ensure
from drain_gdb.memory import Progress
from drain_gdb.snapshot import Snapshot

if TYPE_CHECKING:
    from drain_gdb.jemalloc.statistics import Statistics

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
    return _opened(
        None if target is None else os.fspath(target),
        pid,
        None if exe is None else os.fspath(exe),
        None if sysroot is None else os.fspath(sysroot),
    )


@contextmanager
def open_file(
    path: str,
    progress: Progress,
    exe: Optional[str] = None,
    sysroot: Optional[str] = None,
) -> Iterator[Union[Snapshot, Statistics]]:
    """A core or a recording as a snapshot, or what malloc_stats_print() has printed."""
    if is_text(path) and not is_recording(path):
        printed = import_module("drain_gdb.jemalloc.printed")
        if printed.is_printed(path):
            statistics: Statistics = printed.read_printed(path)
            yield statistics
            return
    with _opened(path, None, exe, sysroot, progress) as snapshot:
        yield snapshot


def _opened(
    path: Optional[str],
    pid: Optional[int],
    exe: Optional[str],
    sysroot: Optional[str],
    progress: Optional[Progress] = None,
) -> Snapshot:
    if path is not None and is_recording(path):
        recording = import_module("drain_gdb.debuggee.recording")
        return Snapshot(recording.RecordingTarget(recording.read(path)), progress)
    ensure(NEEDED_DIRECTLY)
    with ExitStack() as stack:
        core = None
        if path is not None:
            core = stack.enter_context(File(path))
            packed = compression(core)
            if packed is not None:
                ensure(NEEDED_TO_UNPACK.get(packed, ()))
                unpack = import_module("drain_gdb.debuggee.compressed").unpack
                core = stack.enter_context(unpack(path, packed, lambda _: None))
            examine(core)
        direct = import_module("drain_gdb.loaders.direct").Direct(
            core, pid, exe, sysroot, stop=False, stands=True
        )
        stack.callback(direct.release)
        found: Target = direct.open()
        return Snapshot(found, progress, stack.pop_all().close)


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
