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
import time
from contextlib import contextmanager, suppress
from typing import Dict, Iterator, List

from drain_gdb.errors import TargetError

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
PTRACE_EVENT_STOP = 128
WALL = 0x40000000
"""__WALL of waitpid(2): threads, too."""
STOP_SECONDS = 5.0
"""A thread that has not stopped by then waits in the kernel for something else."""
POLL_SECONDS = 50e-6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, thread: int, data: int = 0) -> None:
    if _libc.ptrace(request, thread, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """All threads of ``pid`` stand still; afterwards, whatever happens, they run on.

    Raises :class:`TargetError` where they cannot be stopped.
    """
    held: Dict[int, int] = {}
    try:
        _stop_all(pid, held)
        yield
    finally:
        for thread, pending in held.items():
            with suppress(OSError):
                _ptrace(PTRACE_DETACH, thread, pending)


def _stop_all(pid: int, held: Dict[int, int]) -> None:
    """Stop every thread, those that start meanwhile included.

    ``held`` gets each that stands, with the signal that it was about to take.
    """
    deadline = time.monotonic() + STOP_SECONDS
    known: List[int] = []
    while True:
        fresh = [thread for thread in _threads(pid) if thread not in known]
        if not fresh:
            return
        seized = [thread for thread in fresh if _seize(pid, thread)]
        known += fresh
        for thread in seized:
            _await(pid, thread, held, deadline)


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


def _await(pid: int, thread: int, held: Dict[int, int], deadline: float) -> None:
    """Wait until a thread stands or has ended."""
    while True:
        try:
            done, status = os.waitpid(thread, os.WNOHANG | WALL)
        except ChildProcessError:
            return
        if done:
            if os.WIFSTOPPED(status):
                event = status >> 16
                held[thread] = 0 if event == PTRACE_EVENT_STOP else os.WSTOPSIG(status)
            return
        if time.monotonic() > deadline:
            raise TargetError(
                f"cannot stop process {pid}: its thread {thread} does not stop, its state is"
                f" {_status(pid, thread, 'State') or 'unknown'}",
                "leave --stop out to read it in motion",
            )
        time.sleep(POLL_SECONDS)
