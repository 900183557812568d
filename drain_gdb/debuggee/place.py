"""Where the process or core lies that a debugger looks at, for reading it beside it."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Place(NamedTuple):
    """It stands still as long as the debugger keeps it.

    Attributes:
        core: path of the core; None for a live process.
        pid: of a process of this machine; None for another.
        program: the core's program, None where it is to be found.
        sysroot: below which its files lie, None for where they lay.

    """

    core: Optional[str]
    pid: Optional[int]
    program: Optional[str] = None
    sysroot: Optional[str] = None
