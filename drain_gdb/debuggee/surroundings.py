"""What there is to know of a process beside its memory: its environment, threads, machine."""

from __future__ import annotations

import os
import re
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Iterator, Mapping, Optional, Pattern, Sequence, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import UnreadableMemory

VARIABLES_MAX = 1 << 12
TABLE_PIECE = 64
PAGE = 1 << 12
"""Bytes of the smallest page."""
TOGETHER_MAX = 1 << 18
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
    if process.source != "live" or process.pid is None or not runs_here(process.pid, inside):
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


def runs_here(pid: int, inside: int) -> bool:
    """Whether the process that has memory at ``inside`` is number ``pid`` of this machine."""
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
    symbol = target.symbol("environ") or target.symbol("__environ")
    if symbol is None:
        return None
    try:
        pointers = list(_pointers(target, _words(target, symbol.address, 1)[0]))
        texts = list(_strings(target, pointers))
    except UnreadableMemory:
        return None
    pairs = (text.partition("=") for text in texts)
    return {name: value for name, _, value in pairs if wanted.fullmatch(name)}


def _words(target: Target, address: int, count: int) -> Tuple[int, ...]:
    return struct.unpack(f"<{count}Q", target.read(address, 8 * count))


def _pointers(target: Target, table: int) -> Iterator[int]:
    """The pointers from ``table`` on, up to a null pointer; some at a time, for remote targets."""
    for _ in range(VARIABLES_MAX // TABLE_PIECE if table else 0):
        # As many as lie in a page with the first one.
        count = min(TABLE_PIECE, (PAGE - table % PAGE) // 8) or 1
        for pointer in _words(target, table, count):
            if not pointer:
                return
            yield pointer
        table += 8 * count


def _strings(target: Target, pointers: Sequence[int]) -> Iterator[str]:
    """The strings at ``pointers``: at once where they lie together, as the kernel puts them."""
    first, last = min(pointers, default=0), max(pointers, default=0)
    together = b""
    if last - first < TOGETHER_MAX:
        with suppress(UnreadableMemory):
            together = target.read(first, last - first)
    for pointer in pointers:
        text, zero, _ = together[pointer - first :].partition(b"\0")
        yield text.decode("utf-8", "replace") if zero else string_at(target, pointer)


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
