"""Single figures that the kernel has of a process (/proc/PID/stat, proc(5))."""

from __future__ import annotations

from typing import List

STATE, STARTED = 3, 22
"""Numbers of fields; the second one, in brackets, may hold anything."""


def _fields(pid: int) -> List[str]:
    """The fields from the third on; OSError where there is no such process."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def state_of(pid: int) -> str:
    """A letter: R for running, S for sleeping, Z for ended but not waited for, ..."""
    return _fields(pid)[0]


def start_of(pid: int) -> int:
    """When it was started, in clock ticks since the machine was."""
    return int(_fields(pid)[STARTED - STATE])
