"""What there is to know of a process beside its memory: its environment, threads, machine."""

from __future__ import annotations

import os
import re
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Pattern, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import UnreadableMemory

VARIABLES_MAX = 1 << 12
TEXT_MAX = 1 << 12
HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"
_MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r", re.M)


@dataclass(frozen=True)
class Surroundings:
    """Of a live process on this machine; what is not known is None.

    Attributes:
        threads: the names of its threads.
        cpus: how many it may run on.
        huge_pages: ``always``, ``madvise`` or ``never``: transparent ones, by the system.
        command: its command line.
        root: the directory that is its root.
        clock: nanoseconds of the monotonic clock, when it was looked at.

    """

    threads: Optional[Tuple[str, ...]] = None
    cpus: Optional[int] = None
    huge_pages: Optional[str] = None
    command: Optional[str] = None
    root: Optional[str] = None
    clock: Optional[int] = None


def surroundings(target: Target, inside: int) -> Surroundings:
    """What this machine knows of the process that has memory at ``inside``.

    Nothing, unless it is live and runs here: a debugger may be connected to another
    machine, where its number means another process.
    """
    process = target.process()
    if process.source != "live" or process.pid is None or not _runs_here(process.pid, inside):
        return Surroundings()
    place = f"/proc/{process.pid}"
    names = []
    with suppress(OSError):
        for thread in os.listdir(f"{place}/task"):
            with suppress(OSError):
                names.append(_text(f"{place}/task/{thread}/comm").rstrip("\n"))
    enabled = None
    with suppress(OSError):
        enabled = re.search(r"\[(\w+)\]", _text(HUGE_PAGES))
    cpus = command = None
    with suppress(OSError):
        cpus = len(os.sched_getaffinity(process.pid))
        command = _text(f"{place}/cmdline").rstrip("\0").replace("\0", " ")
    return Surroundings(
        threads=tuple(names) or None,
        cpus=cpus,
        huge_pages=None if enabled is None else enabled[1],
        command=command,
        root=f"{place}/root",
        clock=time.monotonic_ns(),
    )


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _runs_here(pid: int, inside: int) -> bool:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            mapped = _MAPPED.findall(file.read())
    except OSError:
        return False
    return any(int(start, 16) <= inside < int(end, 16) for start, end in mapped)


def environment(target: Target, wanted: Pattern[str]) -> Optional[Mapping[str, str]]:
    """The variables of the environment whose whole name is ``wanted``, and nothing else of it.

    None where the environment cannot be found: by the variable that POSIX names.
    """
    found: Dict[str, str] = {}
    symbol = target.symbol("environ") or target.symbol("__environ")
    if symbol is None:
        return None
    try:
        table = _word(target, symbol.address)
        pointers: List[int] = []
        while table and len(pointers) < VARIABLES_MAX:
            pointer = _word(target, table + 8 * len(pointers))
            if not pointer:
                break
            pointers.append(pointer)
        for pointer in pointers:
            name, _, value = string_at(target, pointer).partition("=")
            if wanted.fullmatch(name):
                found[name] = value
    except UnreadableMemory:
        return None
    return found


def _word(target: Target, address: int) -> int:
    (word,) = struct.unpack("<Q", target.read(address, 8))
    return int(word)


def string_at(target: Target, address: int) -> str:
    """The C string at ``address``, as far as it is text; cut short at ``TEXT_MAX`` bytes."""
    parts = []
    at, end = address, address + TEXT_MAX
    while at < end:
        # A piece that stays in its page is there whole if its first byte is.
        piece = target.read(at, min(256 - at % 256, end - at))
        text, zero, _ = piece.partition(b"\0")
        parts.append(text)
        if zero:
            break
        at += len(piece)
    return b"".join(parts).decode("utf-8", "replace")
