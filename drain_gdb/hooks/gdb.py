"""Hooks as gdb's own internal breakpoints: numbered below zero, listed to nobody.

Tested with gdb 13.1 and 18.1.  What is read at a stop is read in the way that costs
least there: evaluating ``$rdi`` takes a sixth of what asking a frame for it takes,
since no frame is unwound.
"""

from __future__ import annotations

import re
import signal
import threading
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import gdb

from drain_gdb.debuggee.protocol import Module
from drain_gdb.errors import CountingError
from drain_gdb.hooks.calls import CALLERS, Registers, registers_of
from drain_gdb.hooks.points import HookPoint
from drain_gdb.hooks.stops import (
    GONE,
    HOOK,
    INTERRUPT,
    OTHER,
    TIME,
    Debuggee,
    Done,
    Hit,
    Returned,
)
from drain_gdb.memory import WORD

UNSIGNED = (1 << 64) - 1
TARGET = "target:"
"""What gdb writes before the path of a file that it reads from the process's system."""


def _register(name: str) -> int:
    return int(gdb.parse_and_eval(f"${name}")) & UNSIGNED


class _Stop:
    """The thread that gdb has just stopped; see :class:`drain_gdb.hooks.stops.Stopped`."""

    __slots__ = ("_owner", "_registers", "thread")

    def __init__(self, owner: GdbDebugger, registers: Registers, thread: int) -> None:
        self._owner = owner
        self._registers = registers
        self.thread = thread

    def argument(self, position: int) -> int:
        """The integer argument at ``position``."""
        return _register(self._registers.arguments[position])

    def stack_pointer(self) -> int:
        """The stack pointer."""
        return _register(self._registers.stack_pointer)

    def return_address(self) -> int:
        """Where the function will return to."""
        if self._registers.link is not None:
            return _register(self._registers.link)
        word = gdb.selected_inferior().read_memory(self.stack_pointer(), WORD)
        return int.from_bytes(bytes(word), "little")

    def result(self) -> int:
        """What was returned."""
        return _register(self._registers.result)

    def on_return(self, done: Done) -> None:
        """Wait for the return at its address."""
        after = self.stack_pointer() + self._registers.popped
        self._owner.await_return(self.return_address(), (self.thread, after), done)


class _Hook(gdb.Breakpoint):
    """A breakpoint at an address, which belongs to one process."""

    def __init__(self, owner: GdbDebugger, address: int) -> None:
        super().__init__(f"*{address:#x}", internal=True)
        self.silent = True
        self._owner = owner

    def stop(self) -> bool:
        """Whether gdb stops here."""
        thread = gdb.selected_thread()
        if thread is None:
            return False
        pid, lwp, number = thread.ptid
        try:
            return pid == self._owner.pid and self._owner.at(self, lwp or number)
        except KeyboardInterrupt:
            return True


class _Entry(_Hook):
    def __init__(self, owner: GdbDebugger, point: HookPoint) -> None:
        super().__init__(owner, point.address)
        self.point = point


class _Return(_Hook):
    """At an address that calls return to; only those waited for are its business."""


class GdbDebugger:
    """The selected inferior; see :class:`drain_gdb.hooks.stops.Debugger`."""

    def __init__(self) -> None:
        self.hits = 0
        self._inferior = gdb.selected_inferior()
        self.pid = self._inferior.pid
        self._entries: List[_Entry] = []
        self._returns: Dict[int, _Return] = {}
        self._awaited: Dict[Tuple[int, int], Done] = {}
        self._left: Set[int] = set()
        self._ended: Optional[Callable[[str], None]] = None
        self._stopped: Optional[Callable[[str], None]] = None
        self._timer: Optional[threading.Timer] = None
        self._timed_out = False
        self._why = OTHER
        self._stays = False

    def debuggee(self) -> Debuggee:
        """The inferior and the process in it."""
        return Debuggee(self._inferior.num, self.pid)

    def _architecture(self) -> str:
        return self._inferior.architecture().name()

    def require_hooks(self) -> None:
        """Refuse architectures whose arguments are not known here, and non-stop mode."""
        registers_of(self._architecture())
        if gdb.parameter("non-stop"):
            raise CountingError(
                "in non-stop mode a limit would stop one thread, the others would run on uncounted",
                "set non-stop off before attaching, or use --layer requests",
            )

    def require_timer(self) -> None:
        """Refuse where the interrupt, as Ctrl-C, would reach the program."""
        said = gdb.execute("info signals SIGINT", to_string=True)
        match = re.search(r"^SIGINT\s+(\S+)\s+\S+\s+(\S+)", said, re.M)
        if match is not None and (match[1], match[2]) != ("Yes", "No"):
            raise CountingError(
                "gdb is set to hand SIGINT to the program, so it cannot be stopped in time",
                "handle SIGINT stop nopass, or give --hits",
            )

    def settle(self) -> None:
        """Nothing to do: gdb tells at once."""

    # -- what gdb knows --------------------------------------------------------------

    def symbol_files(self, module: Module) -> Sequence[str]:
        """The module's file, as the process sees it, and the debug files gdb found for it."""
        found = [module.path]
        for file in gdb.objfiles():
            owner = None if file.owner is None else file.owner.filename
            if owner is not None and file.filename is not None:
                found += [file.filename] * (owner.replace(TARGET, "", 1) == module.path)
        return found

    def inlined(self, name: str) -> Sequence[int]:
        """The places that ``break NAME`` would take."""
        try:
            _, places = gdb.decode_line(name)
        except gdb.error:
            return ()
        return [place.pc for place in places or ()]

    def threads(self) -> Mapping[int, Optional[str]]:
        """The threads by their ids in the operating system."""
        return {
            thread.ptid[1] or thread.ptid[2]: thread.name for thread in self._inferior.threads()
        }

    def inside(self, ranges: Sequence[Tuple[int, int]], without: str) -> int:
        """The threads whose frames touch one of ``ranges``, the selected one kept.

        And those whose calls were to be counted at their return, where they may stand.
        """
        selected = gdb.selected_thread()
        if selected is None:
            return 0
        frame = gdb.selected_frame()
        waiting = self._left.union(thread for thread, _ in self._awaited)
        number = 0
        try:
            for thread in self._inferior.threads():
                if thread.name != without:
                    thread.switch()
                    awaited = (thread.ptid[1] or thread.ptid[2]) in waiting
                    number += awaited or _touches(ranges)
        finally:
            selected.switch()
            frame.select()
        return number

    # -- hooks -----------------------------------------------------------------------

    def set_hooks(self, points: Sequence[HookPoint], hit: Hit, returned: Returned) -> None:
        """Set an internal breakpoint at each point."""
        self._hit, self._returned = hit, returned
        self._registers = registers_of(self._architecture())
        for point in points:
            self._entries.append(_Entry(self, point))

    def clear_hooks(self) -> None:
        """Remove them, and wait for no return any more."""
        for hook in (*self._entries, *self._returns.values()):
            if hook.is_valid():
                hook.delete()
        self._entries.clear()
        self._returns.clear()
        self._left = {thread for thread, _ in self._awaited}
        self._awaited.clear()

    def at(self, hook: _Hook, thread: int) -> bool:
        """A thread stands at ``hook``: whether it stays there."""
        stays = self._counted(hook, thread)
        self._stays = self._stays or stays
        return stays

    def _counted(self, hook: _Hook, thread: int) -> bool:
        stop = _Stop(self, self._registers, thread)
        self.hits += 1
        if not isinstance(hook, _Entry):
            done = self._awaited.pop((thread, stop.stack_pointer()), None)
            return done is not None and self._returned(done, stop)
        if self._hit(hook.point, stop):
            self.hits -= 1
            return True
        return False

    def await_return(self, address: int, call: Tuple[int, int], done: Done) -> None:
        """Call ``done`` when the call of (thread, stack pointer afterwards) is back.

        The breakpoint stays for the next call from there.
        """
        self._awaited[call] = done
        if address not in self._returns:
            self._returns[address] = _Return(self, address)

    # -- events ----------------------------------------------------------------------

    def watch(self, ended: Callable[[str], None], stopped: Callable[[str], None]) -> None:
        """Connect to gdb's events."""
        self._ended, self._stopped = ended, stopped
        gdb.events.exited.connect(self._on_exit)
        gdb.events.clear_objfiles.connect(self._on_exec)
        gdb.events.stop.connect(self._on_stop)

    def unwatch(self) -> None:
        """Disconnect."""
        if self._ended is not None:
            gdb.events.exited.disconnect(self._on_exit)
            gdb.events.clear_objfiles.disconnect(self._on_exec)
            gdb.events.stop.disconnect(self._on_stop)
        self._ended = self._stopped = None

    def _on_exit(self, event: gdb.ExitedEvent) -> None:
        """Exit, kill and detach are one event to gdb; only an exit has a code."""
        if event.inferior.num != self._inferior.num or self._ended is None:
            return
        code = getattr(event, "exit_code", None)
        self._why = GONE
        self._ended(
            "the process was detached from, or killed"
            if code is None
            else f"the process exited with {code}"
        )

    def _on_exec(self, event: gdb.ClearObjFilesEvent) -> None:
        if event.progspace == self._inferior.progspace and self._ended is not None:
            self._why = GONE
            self._ended("the process runs another program, or gdb follows its child")

    def _on_stop(self, event: gdb.StopEvent) -> None:
        """A stop at hooks alone that none of them asked for is Ctrl-C's: an exception in one."""
        if gdb.selected_inferior().num != self._inferior.num or self._stopped is None:
            return
        self._why = OTHER
        if isinstance(event, gdb.BreakpointEvent):
            if self._stays:
                self._why = HOOK
            elif all(isinstance(each, _Hook) for each in event.breakpoints):
                self._why = INTERRUPT
        elif isinstance(event, gdb.SignalEvent) and event.stop_signal == "SIGINT":
            self._why = TIME if self._timed_out else INTERRUPT
        self._timed_out = self._stays = False
        self._stopped(self._why)

    # -- time and running ------------------------------------------------------------

    def set_timer(self, seconds: float) -> None:
        """A thread of Python's that takes no signals: they are gdb's."""
        self._timer = timer = threading.Timer(
            seconds, lambda: gdb.post_event(lambda: self._on_time(timer))
        )
        timer.daemon = True
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            timer.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def clear_timer(self) -> None:
        """Stop the thread."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _on_time(self, timer: threading.Timer) -> None:
        if timer is not self._timer or self._stopped is None:
            return
        self._timer = None
        if any(thread.is_running() for thread in self._inferior.threads()):
            self._timed_out = True
            gdb.execute("interrupt")
        else:
            self._stopped(TIME)

    def run(self) -> str:
        """``continue``, and why it came back."""
        self._why = OTHER
        try:
            gdb.execute("continue")
        except gdb.error as error:
            raise CountingError(f"gdb cannot let the process run: {error}") from None
        return self._why


def _touches(ranges: Sequence[Tuple[int, int]]) -> bool:
    """Whether one of the selected thread's newest frames is in one of ``ranges``."""
    try:
        frame: Optional[gdb.Frame] = gdb.newest_frame()
        for _ in range(CALLERS):
            if frame is None:
                return False
            if any(start <= frame.pc() < end for start, end in ranges):
                return True
            frame = frame.older()
    except gdb.error:
        pass
    return False
