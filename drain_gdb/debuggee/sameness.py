"""Which process it is that was looked at, and whether two looks were at the same one.

A process number is given again, and a program that is started anew looks like the one
before.  What tells them apart: when it was started, the random bytes that the kernel gave
it (AT_RANDOM), which files it runs, and where the kernel put them.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Iterator, Optional, Sequence, Tuple

from drain_gdb.debuggee import stat
from drain_gdb.debuggee.coremap import AT_RANDOM
from drain_gdb.debuggee.identity import start_of
from drain_gdb.debuggee.protocol import Identity, Mapping, Module, Placed, Process, Target
from drain_gdb.debuggee.recording import RecordingTarget
from drain_gdb.debuggee.surroundings import runs_here
from drain_gdb.errors import UnreadableMemory
from drain_gdb.words import listed

RANDOM_SIZE = 16
"""Bytes at AT_RANDOM (getauxval(3))."""
BOOT = "/proc/sys/kernel/random/boot_id"


def identity_of(target: Target, allocators: Sequence[str], inside: int) -> Identity:
    """What tells the process from others.

    Its jemallocs are in the modules ``allocators``; memory of theirs is at ``inside``.
    """
    if isinstance(target, RecordingTarget):
        return target.identity()
    process, mappings = target.process(), target.mappings()
    modules = {module.path: module for module in target.modules()}
    started, boot = _start(process, inside)
    return Identity(
        random=_random(target),
        started=started,
        boot=boot,
        program=_placed(modules.get(process.executable or ""), mappings),
        allocators=tuple(
            placed
            for path in allocators
            for placed in [_placed(modules.get(path), mappings)]
            if placed is not None
        ),
    )


def _random(target: Target) -> Optional[str]:
    address = target.auxiliary().get(AT_RANDOM)
    if address is None:
        return None
    try:
        return hashlib.sha256(target.read(address, RANDOM_SIZE)).hexdigest()
    except UnreadableMemory:
        return None


def _placed(module: Optional[Module], mappings: Sequence[Mapping]) -> Optional[Placed]:
    return None if module is None else Placed(module.build_id, start_of(module, mappings))


def _start(process: Process, inside: int) -> Tuple[Optional[int], Optional[str]]:
    """When a process of this machine was started, and in which run of the machine."""
    if process.source == "live" and process.pid is not None and runs_here(process.pid, inside):
        with suppress(OSError, ValueError, IndexError):
            return stat.start_of(process.pid), _text(BOOT).strip()
    return None, None


def _text(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


@dataclass(frozen=True)
class Look:
    """A look at a process.

    Attributes:
        roots: where each of its jemallocs has the root of its tree.

    """

    process: Process
    identity: Identity
    roots: Tuple[int, ...]


@dataclass(frozen=True)
class Sameness:
    """Whether two looks were at one process; None where nothing tells.

    ``why`` are the differences, or what it is known by, in words.
    """

    same: Optional[bool]
    why: str


def compare(first: Look, second: Look) -> Sameness:
    """Whether both are looks at one process."""
    differing = list(_differences(first, second))
    if differing:
        return Sameness(False, listed(differing))
    a, b = first.identity, second.identity
    known = []
    if a.started is not None and a.started == b.started:
        known.append("the time it was started")
    if a.random is not None and a.random == b.random:
        known.append("the random bytes the kernel gave it")
    if not known and first.process.pid is not None and first.process.pid == second.process.pid:
        known.append("its number and where its jemalloc lies")
    return Sameness(True, listed(known)) if known else Sameness(None, "")


def _differences(first: Look, second: Look) -> Iterator[str]:
    a, b = first.identity, second.identity
    if _differ(a.random, b.random):
        yield "the kernel gave them other random bytes"
    if _differ(a.boot, b.boot):
        yield "the machine was started anew between them"
    elif _differ(a.started, b.started):
        yield "they were started at other times"
    if a.program is not None and b.program is not None:
        yield from _of_file("program", a.program, b.program)
    for one, other in zip(a.allocators, b.allocators):
        yield from _of_file("jemalloc", one, other)
    if not set(first.roots) & set(second.roots):
        yield "their jemallocs lie elsewhere"
    pids = first.process.pid, second.process.pid
    if _differ(*pids):
        same = a.random is not None and a.random == b.random
        fork = " (one may be a fork of the other)" if same else ""
        yield f"they have the numbers {pids[0]} and {pids[1]}{fork}"


def _of_file(what: str, one: Placed, other: Placed) -> Iterator[str]:
    if _differ(one.build_id, other.build_id):
        yield f"the {what} is another file (build-ids {one.build_id} and {other.build_id})"
    elif _differ(one.start, other.start):
        yield f"the {what} is loaded at another address"


def _differ(one: object, other: object) -> bool:
    """Whether both are known, and not the same."""
    return one is not None and other is not None and one != other
