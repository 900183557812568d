"""Stops every thread of a process for a moment, by ptrace(2), and lets them run on.

PTRACE_SEIZE and PTRACE_INTERRUPT send no signal, so the process and its parent see
nothing of it; a SIGSTOP would be seen.  Should this program be killed meanwhile, the
kernel lets the threads run on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from typing import AbstractSet, Callable, Dict, Iterator, List, Mapping, Sequence, Set

from drain_gdb.debuggee.protocol import Thread
from drain_gdb.errors import TargetError

PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
PTRACE_EVENT_STOP = 128
PTRACE_GETREGSET, NT_PRSTATUS = 0x4204, 1
PROGRAM_COUNTER = {"x86_64": 16, "aarch64": 32}
"""Its number among the registers, by machine (struct user_regs_struct, struct user_pt_regs)."""
STACK_POINTER = {"x86_64": 19, "aarch64": 31}
"""Likewise."""
REGISTERS_MAX = 64
WALL = 0x40000000
"""__WALL of waitpid(2): threads, too."""
STOP_SECONDS = 5.0
"""A thread that has not stopped by then waits in the kernel for something else."""
POLL_SECONDS = 50e-6
STEP_SECONDS = 15e-3
"""As long as threads may go on by themselves while the others stand."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, thread: int, data: int = 0) -> None:
    if _libc.ptrace(request, thread, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


Busy = Callable[[Mapping[int, int]], AbstractSet[int]]
"""Which of some threads ought to go on a little first; of each there is given the address
that it executes, or 0 where that is not known."""


class Stop:
    """The threads of a process while they are stopped.

    Attributes:
        seconds: from the first thread that was stopped to the last one that was let go.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # Each thread that stands, with the signal that it was about to take.
        self._held: Dict[int, int] = {}
        # Those that job control had stopped before; they are not to go on.
        self._paused: Set[int] = set()
        self._start = time.monotonic()
        self.seconds = 0.0

    def stop_all(self) -> None:
        """Stop every thread, those that start meanwhile included."""
        deadline = self._start + STOP_SECONDS
        known: List[int] = []
        while True:
            fresh = [thread for thread in _threads(self._pid) if thread not in known]
            if not fresh:
                return
            seized = [thread for thread in fresh if _seize(self._pid, thread)]
            known += fresh
            for thread in seized:
                self._await(thread, deadline)

    def let_all_run(self) -> None:
        """End the stop."""
        for thread, pending in self._held.items():
            with suppress(OSError):
                _ptrace(PTRACE_DETACH, thread, pending)
        self.seconds = time.monotonic() - self._start

    def threads(self) -> List[Thread]:
        """Those that stand, with their registers."""
        number = STACK_POINTER.get(os.uname().machine)
        found = ((thread, _registers(thread)) for thread in sorted(self._held))
        return [
            Thread(thread, registers[number], tuple(registers))
            for thread, registers in found
            if number is not None and number < len(registers)
        ]

    def step_out(self, busy: Busy) -> bool:
        """Let those go on alone that are ``busy``, each until it is not; for a short time.

        No more at once than there are processors: one that is stopped again before it had
        one has come no further.  False where some still are busy, or are not to go on.
        """
        processors = len(os.sched_getaffinity(self._pid))
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            going = busy({thread: _executes(thread) for thread in self._held})
            if not going or going & self._paused:
                return not going
            holding = busy(dict.fromkeys(going, 0))
            some = [*holding, *(going - holding)][:processors]
            running = {thread for thread in some if self._continue(thread)}
            while running:
                time.sleep(POLL_SECONDS)
                late = time.monotonic() > deadline
                done = running if late else running - busy(dict.fromkeys(running, 0))
                for thread in done:
                    with suppress(OSError):
                        _ptrace(PTRACE_INTERRUPT, thread)
                    self._await(thread, time.monotonic() + STOP_SECONDS)
                running = running - done
        return False

    def _continue(self, thread: int) -> bool:
        """Let a thread that stands go on; False where it has ended."""
        try:
            _ptrace(PTRACE_CONT, thread, self._held.pop(thread))
        except OSError:
            return False
        return True

    def _await(self, thread: int, deadline: float) -> None:
        """Wait until a thread stands or has ended."""
        while True:
            try:
                done, status = os.waitpid(thread, os.WNOHANG | WALL)
            except ChildProcessError:
                return
            if done:
                if os.WIFSTOPPED(status):
                    by_trace = status >> 16 == PTRACE_EVENT_STOP
                    self._held[thread] = 0 if by_trace else os.WSTOPSIG(status)
                    if by_trace and os.WSTOPSIG(status) != signal.SIGTRAP:
                        self._paused.add(thread)
                return
            if time.monotonic() > deadline:
                raise TargetError(
                    f"cannot stop process {self._pid}: its thread {thread} does not stop, its"
                    f" state is {_status(self._pid, thread, 'State') or 'unknown'}",
                    "leave --stop out to read it in motion",
                )
            time.sleep(POLL_SECONDS)


@contextmanager
def stopped(pid: int) -> Iterator[Stop]:
    """All threads of ``pid`` stand still; afterwards, whatever happens, they run on.

    Raises :class:`TargetError` where they cannot be stopped.
    """
    with _before_others():
        stop = Stop(pid)
        try:
            stop.stop_all()
            yield stop
        finally:
            stop.let_all_run()


@contextmanager
def _before_others() -> Iterator[None]:
    """Have a processor whenever one is wanted, where that is allowed (sched(7)).

    Threads that run still, or again, would keep it from stopping the last one or from
    letting it go.
    """
    try:
        policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


def _registers(thread: int) -> Sequence[int]:
    """The general registers of a thread that stands; none where they cannot be read."""
    words = (ctypes.c_uint64 * REGISTERS_MAX)()
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(words), ctypes.sizeof(words))
    if _libc.ptrace(PTRACE_GETREGSET, thread, NT_PRSTATUS, ctypes.addressof(vector)) == -1:
        return ()
    return words[: vector[1] // ctypes.sizeof(ctypes.c_uint64)]


def _executes(thread: int) -> int:
    """The address that a thread which stands executes; 0 where that is not known."""
    number = PROGRAM_COUNTER.get(os.uname().machine)
    registers = _registers(thread)
    return 0 if number is None or number >= len(registers) else registers[number]


def _threads(pid: int) -> List[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        raise TargetError(f"cannot stop process {pid}: No such process") from None


def _seize(pid: int, thread: int) -> bool:
    """Ask a thread to stop; False where it has ended."""
    try:
        _ptrace(PTRACE_SEIZE, thread)
        _ptrace(PTRACE_INTERRUPT, thread)
    except OSError as error:
        if error.errno == errno.ESRCH or _status(pid, thread, "State")[:1] in ("", "Z", "X"):
            return False
        tracer = _status(pid, thread, "TracerPid")
        raise TargetError(
            f"cannot stop process {pid}: {error.strerror}",
            f"process {tracer} is tracing it already"
            if tracer not in ("", "0")
            else "it must be yours to trace (root, or the same user where the system's"
            " kernel.yama.ptrace_scope allows it)",
        ) from None
    return True


def _status(pid: int, thread: int, name: str) -> str:
    """A line of /proc/PID/task/TID/status; empty where there is none."""
    try:
        with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8", errors="replace") as file:
            match = re.search(rf"^{name}:\s*(.*)$", file.read(), re.M)
    except OSError:
        return ""
    return match[1] if match else ""
