"""What counting asks of a debugger; nothing else here knows one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Protocol, Sequence, Tuple

from drain_gdb.debuggee.protocol import Module
from drain_gdb.hooks.points import HookPoint

HOOK, TIME, INTERRUPT, OTHER, GONE = "hook", "time", "interrupt", "other", "gone"
"""Why a process that was let run is back: a hook stopped it, the timer did, the user
interrupted it, anything else (a breakpoint, a signal), or it is no more."""


class Stopped(Protocol):
    """A thread at a hook, or where the function called there has just returned to."""

    @property
    def thread(self) -> int:
        """The thread's id, as the operating system has it."""

    def argument(self, position: int) -> int:
        """At a hook, the integer argument at ``position`` from 0, as 64 bits."""

    def stack_pointer(self) -> int:
        """The stack pointer."""

    def return_address(self) -> int:
        """At a hook, where the function will return to."""

    def result(self) -> int:
        """After the return, what it returned, as 64 bits."""

    def on_return(self, done: Callable[[Stopped], None]) -> None:
        """Call ``done`` when this call of the function has returned."""


Done = Callable[[Stopped], None]
Hit = Callable[[HookPoint, Stopped], bool]
Returned = Callable[[Done, Stopped], bool]


@dataclass(frozen=True)
class Debuggee:
    """A process as the debugger numbers it; another one never equals it."""

    number: int
    pid: int


class Debugger(Protocol):
    """A debugger that can set hooks in one process."""

    hits: int
    """Stops at hooks so far, those at returns too."""

    def debuggee(self) -> Debuggee:
        """The process that commands are for now."""

    def require_hooks(self) -> None:
        """Raise CountingError where hooks cannot work here."""

    def require_timer(self) -> None:
        """Raise CountingError where a running process cannot be interrupted."""

    def settle(self) -> None:
        """Say through :meth:`watch` what has not been said yet of the process's end."""

    def symbol_files(self, module: Module) -> Sequence[str]:
        """Files that hold symbols of ``module``: its own, then separate ones."""

    def inlined(self, name: str) -> Sequence[int]:
        """Where function ``name`` begins, inlined copies too, by debug information."""

    def threads(self) -> Mapping[int, Optional[str]]:
        """The threads' ids and names."""

    def inside(self, ranges: Sequence[Tuple[int, int]], without: str) -> int:
        """How many threads, those named ``without`` left out, are in a call of the ranges.

        A range is ``(start, end)``; callers are looked at too.
        """

    def set_hooks(self, points: Sequence[HookPoint], hit: Hit, returned: Returned) -> None:
        """Call ``hit`` at each hit of each point, ``returned`` with what waited for a return.

        Both say whether the process stops there.
        """

    def clear_hooks(self) -> None:
        """Remove them all."""

    def watch(self, ended: Callable[[str], None], stopped: Callable[[str], None]) -> None:
        """From now on say how the process ended, and why it stopped (HOOK and so on)."""

    def unwatch(self) -> None:
        """Say no more."""

    def set_timer(self, seconds: float) -> None:
        """Stop the process after so long, once; if it stands already, just say TIME."""

    def clear_timer(self) -> None:
        """Do not stop it."""

    def run(self) -> str:
        """Let the process run until it stops, and say why."""
