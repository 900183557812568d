"""Hooks as lldb's breakpoints, with callbacks.  Tested with lldb 19.1 and 23.1.

lldb has no breakpoints of a tool's own: while they are set, breakpoint list shows them.
It tells of stops through a stop hook; of the end of a process it tells nobody, so that
is looked for at the next command.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import lldb

from drain_gdb.debuggee.protocol import Module
from drain_gdb.errors import CountingError
from drain_gdb.hooks.calls import CALLERS, Registers, registers_of
from drain_gdb.hooks.points import HookPoint
from drain_gdb.hooks.stops import (
    GONE,
    HOOK,
    OTHER,
    TIME,
    Debuggee,
    Done,
    Hit,
    Returned,
)
from drain_gdb.memory import WORD

NAME = "drain_gdb"
CALLBACK = "import drain_gdb.hooks.lldb\nreturn drain_gdb.hooks.lldb.hit(frame, bp_loc)"
GRACE = 0.5
"""Seconds in which a hook is expected to stop a process whose time is over."""
ALIVE = (lldb.eStateStopped, lldb.eStateRunning, lldb.eStateStepping)


class _Hook(NamedTuple):
    """A breakpoint of ours; ``point`` is None where calls return to."""

    owner: LldbDebugger
    point: Optional[HookPoint]


_HOOKS: Dict[Tuple[int, int], _Hook] = {}
"""Process id and number of a breakpoint to what it is."""
_WATCHING: Dict[int, LldbDebugger] = {}
"""Process id to the one that wants to know of its stops."""


def hit(frame: lldb.SBFrame, location: lldb.SBBreakpointLocation) -> bool:
    """What lldb calls at a breakpoint: whether the process stops there."""
    thread = frame.GetThread()
    key = thread.GetProcess().GetProcessID(), location.GetBreakpoint().GetID()
    hook = _HOOKS.get(key)
    return hook is not None and hook.owner.at(hook.point, frame, thread.GetThreadID())


class StopHook:
    """What lldb tells of stops (target stop-hook add -P)."""

    def __init__(self, target: lldb.SBTarget, *_: object) -> None:
        pass

    def handle_stop(self, context: lldb.SBExecutionContext, _: lldb.SBStream) -> bool:
        """Pass it on; the stop stands."""
        watching = _WATCHING.get(context.GetProcess().GetProcessID())
        if watching is not None:
            watching.on_stop()
        return True


class _Stop:
    """A thread that lldb has just stopped; see :class:`drain_gdb.hooks.stops.Stopped`."""

    def __init__(self, owner: LldbDebugger, frame: lldb.SBFrame, thread: int) -> None:
        self.thread = thread
        self._owner = owner
        self._frame = frame
        self._registers = owner.registers

    def _register(self, name: str) -> int:
        return int(self._frame.FindRegister(name).GetValueAsUnsigned())

    def argument(self, position: int) -> int:
        """The integer argument at ``position``."""
        return self._register(self._registers.arguments[position])

    def stack_pointer(self) -> int:
        """The stack pointer."""
        return int(self._frame.GetSP())

    def return_address(self) -> int:
        """Where the function will return to."""
        if self._registers.link is not None:
            return self._register(self._registers.link)
        return self._owner.word(self.stack_pointer())

    def result(self) -> int:
        """What was returned."""
        return self._register(self._registers.result)

    def on_return(self, done: Done) -> None:
        """Wait for the return at its address."""
        after = self.stack_pointer() + self._registers.popped
        self._owner.await_return(self.return_address(), (self.thread, after), done)


class LldbDebugger:
    """A target's process; see :class:`drain_gdb.hooks.stops.Debugger`."""

    def __init__(self, target: lldb.SBTarget) -> None:
        self.hits = 0
        self._target = target
        self._process = target.GetProcess()
        self._lldb = target.GetDebugger()
        self.pid = int(self._process.GetProcessID()) if self._process.IsValid() else 0
        self._numbers: List[int] = []
        self._returns: Dict[int, int] = {}
        self._awaited: Dict[Tuple[int, int], Done] = {}
        self._left: Set[int] = set()
        self._ended: Optional[Callable[[str], None]] = None
        self._stopped: Optional[Callable[[str], None]] = None
        self._timer: Optional[threading.Timer] = None
        self._timed_out = self._hook_stopped = False
        self._why = OTHER

    @property
    def registers(self) -> Registers:
        """Those of the target's architecture."""
        return registers_of(self._architecture())

    def _architecture(self) -> str:
        return str(self._target.GetTriple()).split("-", maxsplit=1)[0]

    def debuggee(self) -> Debuggee:
        """The target by its number, and the process in it."""
        return Debuggee(int(self._lldb.GetIndexOfTarget(self._target)), self.pid)

    def require_hooks(self) -> None:
        """Refuse architectures whose arguments are not known here."""
        registers_of(self._architecture())

    def require_timer(self) -> None:
        """A process can always be interrupted."""

    def settle(self) -> None:
        """Notice that the process has ended."""
        if self._ended is not None and self._process.GetState() not in ALIVE:
            self._end()

    def _end(self) -> None:
        self._why = GONE
        exited = self._process.GetState() == lldb.eStateExited
        code = self._process.GetExitStatus()
        if self._ended is not None:
            self._ended(
                f"the process exited with {code}"
                if exited and code >= 0
                else "the process was detached from, or killed"
            )

    # -- what lldb knows -------------------------------------------------------------

    def symbol_files(self, module: Module) -> Sequence[str]:
        """The module's file, and the one lldb has its symbols from."""
        found = [module.path]
        for each in self._target.module_iter():
            file, symbols = each.GetFileSpec(), each.GetSymbolFileSpec()
            path = os.path.join(file.GetDirectory() or "", file.GetFilename() or "")
            other = os.path.join(symbols.GetDirectory() or "", symbols.GetFilename() or "")
            if os.path.realpath(path) == os.path.realpath(module.path) and other != path:
                found.append(other)
        return found

    def inlined(self, name: str) -> Sequence[int]:
        """The places that a breakpoint of that name would take."""
        breakpoint_ = self._target.BreakpointCreateByName(name)
        places = [
            int(breakpoint_.GetLocationAtIndex(index).GetLoadAddress())
            for index in range(breakpoint_.GetNumLocations())
        ]
        self._target.BreakpointDelete(breakpoint_.GetID())
        return places

    def threads(self) -> Mapping[int, Optional[str]]:
        """The threads by their ids in the operating system."""
        return {int(t.GetThreadID()): t.GetName() for t in self._process}

    def inside(self, ranges: Sequence[Tuple[int, int]], without: str) -> int:
        """The threads whose frames touch one of ``ranges``.

        And those whose calls were to be counted at their return, where they may stand.
        """
        waiting = self._left.union(thread for thread, _ in self._awaited)
        number = 0
        for thread in self._process:
            places = [thread.GetFrameAtIndex(n).GetPC() for n in range(CALLERS)]
            inside = int(thread.GetThreadID()) in waiting or any(
                start <= at < end for at in places for start, end in ranges
            )
            number += inside and thread.GetName() != without
        return number

    def word(self, address: int) -> int:
        """The word at ``address``."""
        data = self._process.ReadMemory(address, WORD, lldb.SBError()) or b""
        return int.from_bytes(data, "little")

    # -- hooks -----------------------------------------------------------------------

    def set_hooks(self, points: Sequence[HookPoint], hit: Hit, returned: Returned) -> None:
        """Set a breakpoint with a callback at each point."""
        self._hit, self._returned = hit, returned
        # A callback set within a callback is lost with the latter's variables: all of
        # them have theirs from this name.
        name = lldb.SBBreakpointName(self._target, NAME)
        name.SetScriptCallbackBody(CALLBACK)
        for point in points:
            self._set(point.address, point)

    def _set(self, address: int, point: Optional[HookPoint]) -> int:
        made = self._target.BreakpointCreateByAddress(address)
        number = int(made.GetID())
        _HOOKS[self.pid, number] = _Hook(self, point)
        self._numbers.append(number)
        made.AddName(NAME)
        return number

    def clear_hooks(self) -> None:
        """Remove them, and wait for no return any more."""
        for number in self._numbers:
            self._target.BreakpointDelete(number)
            _HOOKS.pop((self.pid, number), None)
        self._target.DeleteBreakpointName(NAME)
        self._numbers.clear()
        self._returns.clear()
        self._left = {thread for thread, _ in self._awaited}
        self._awaited.clear()

    def at(self, point: Optional[HookPoint], frame: lldb.SBFrame, thread: int) -> bool:
        """A thread stands at a hook: whether it stays there."""
        stop = _Stop(self, frame, thread)
        if point is None:
            self.hits += 1
            done = self._awaited.pop((thread, stop.stack_pointer()), None)
            stays = done is not None and self._returned(done, stop)
        else:
            self.hits += 1
            stays = self._timed_out or self._hit(point, stop)
            self.hits -= stays
        self._hook_stopped = self._hook_stopped or stays
        return stays

    def await_return(self, address: int, call: Tuple[int, int], done: Done) -> None:
        """Call ``done`` when the call of (thread, stack pointer afterwards) is back.

        The breakpoint stays for the next call from there.
        """
        self._awaited[call] = done
        if address not in self._returns:
            self._returns[address] = self._set(address, None)

    # -- events ----------------------------------------------------------------------

    def watch(self, ended: Callable[[str], None], stopped: Callable[[str], None]) -> None:
        """Have lldb tell of stops."""
        self._ended, self._stopped = ended, stopped
        _WATCHING[self.pid] = self
        said = self._say("target stop-hook list")
        if "drain_gdb" not in said:
            self._say("script import drain_gdb.hooks.lldb")
            self._say(f"target stop-hook add -P {__name__}.{StopHook.__name__}")

    def _say(self, command: str) -> str:
        result = lldb.SBCommandReturnObject()
        self._lldb.GetCommandInterpreter().HandleCommand(command, result)
        return (result.GetOutput() or "") + (result.GetError() or "")

    def unwatch(self) -> None:
        """Do not listen any more; the stop hook stays, it may be running now."""
        self._ended = self._stopped = None
        _WATCHING.pop(self.pid, None)

    def on_stop(self) -> None:
        """The process stands."""
        reasons = [thread.GetStopReason() for thread in self._process]
        self._why = OTHER
        if lldb.eStopReasonExec in reasons and self._ended is not None:
            self._why = GONE
            self._ended("the process runs another program")
        elif self._timed_out:
            self._why = TIME
        elif self._hook_stopped:
            self._why = HOOK
        self._timed_out = self._hook_stopped = False
        if self._stopped is not None:
            self._stopped(self._why)

    # -- time and running ------------------------------------------------------------

    def set_timer(self, seconds: float) -> None:
        """A thread of Python's; the next hook stops the process, or else an interrupt."""
        self._timer = threading.Timer(seconds, self._on_time)
        self._timer.daemon = True
        self._timer.start()

    def clear_timer(self) -> None:
        """Stop the thread."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _on_time(self) -> None:
        """Anything else asked of lldb here would wait for the process to stop."""
        self._timed_out = True
        time.sleep(GRACE)
        if self._timed_out:
            self._process.SendAsyncInterrupt()

    def run(self) -> str:
        """Continue, in lldb's synchronous mode, and why it came back.

        lldb takes no notice of Ctrl-C meanwhile.
        """
        self._why = OTHER
        was = self._lldb.GetAsync()
        self._lldb.SetAsync(False)
        try:
            error = self._process.Continue()
        finally:
            self._lldb.SetAsync(was)
        if error.Fail():
            raise CountingError(f"lldb cannot let the process run: {error.GetCString()}")
        if self._process.GetState() in ALIVE:
            self.on_stop()
        else:
            self._end()
        return self._why
