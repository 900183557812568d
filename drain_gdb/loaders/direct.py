"""The shell form without a debugger: cores and processes read directly.

This needs packages that a debugger's Python need not have; it is imported only where
it is used.
"""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Optional

from drain_gdb.debuggee import ptrace
from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.motion import MovingTarget
from drain_gdb.debuggee.procfs import ProcessTarget
from drain_gdb.debuggee.protocol import Target


@dataclass
class Direct:
    """A core, or a process, to be read by a command.

    Attributes:
        core: the core, None where ``pid`` names a process.
        exe: the core's program, None where it is to be found.
        sysroot: below which the files of the process lie.
        stop: whether a process is stopped for each copy of its memory.
        stands: whether it is stopped for as long as it is looked at.

    """

    core: Optional[File]
    pid: Optional[int]
    exe: Optional[str]
    sysroot: Optional[str]
    stop: bool
    stands: bool = False

    def __post_init__(self) -> None:
        self._moving: Optional[MovingTarget] = None
        self._standing = ExitStack()
        self._stood_since: Optional[float] = None
        self._stood: Optional[float] = None

    def open(self) -> Target:
        """What is to be read."""
        _allow_files()
        if self.core is not None:
            return CoreTarget(self.core, self.exe, self.sysroot)
        assert self.pid is not None
        if self.stands:
            self._stood_since = time.monotonic()
            stop = self._standing.enter_context(ptrace.stopped(self.pid))
            return ProcessTarget(self.pid, self.sysroot, stop)
        stopper = partial(ptrace.stopped, self.pid) if self.stop else None
        self._moving = MovingTarget(ProcessTarget(self.pid, self.sysroot), stopper)
        return self._moving

    def open_live(self) -> ProcessTarget:
        """The process, as the system shows it while it runs."""
        _allow_files()
        assert self.pid is not None
        return ProcessTarget(self.pid, self.sysroot)

    def release(self) -> Optional[float]:
        """Let a process run on that stands.

        For how many seconds it was stopped; None where it never was.
        """
        self._standing.close()
        if self._stood_since is not None and self._stood is None:
            self._stood = time.monotonic() - self._stood_since
        if self._moving is not None and self.stop:
            return self._moving.stopped_seconds
        return self._stood


def _allow_files() -> None:
    """Of a process that has loaded a thousand libraries as many files are opened."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
