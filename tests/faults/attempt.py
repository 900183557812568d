"""One attempt: a command on damaged input, held against the truth of the twin."""

from __future__ import annotations

import json
import signal
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence
from unittest.mock import patch

from drain_gdb import snapshot
from drain_gdb.analysis.sweep import sweep
from drain_gdb.commands import record as record_command
from drain_gdb.commands.base import Command, Context
from drain_gdb.commands.record import RecordCommand
from drain_gdb.commands.sweep import SweepCommand
from drain_gdb.debuggee.protocol import Target
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.loaders.boundary import guarded
from drain_gdb.render.style import Style
from tests.faults.legal import unknowable
from tests.faults.mutate import Damage
from tests.faults.twins import Row, Twin, rows_of

SECONDS = 60
"""Of processor time: what others do on this machine is none of it."""
READS, READS_MORE = 20, 20_000
"""A sweep may make so many times the twin's reads, and so many more."""
BYTES, BYTES_MORE = 20, 8 << 30
FORMS = (
    ("--format", "text", "--verbose"),
    ("--format", "json"),
    ("--format", "csv"),
    ("--format", "info"),
    ("--by", "slab", "--format", "json"),
    ("--by", "slab", "--top", "20"),
    ("--by", "shard"),
    ("--by", "arena", "--sort", "live", "--format", "csv"),
)
RECORDED = len(FORMS)
"""The number of the form that is a recording instead of a report."""

KINDS = ("bytes", "slabs", "caches", "arenas")
"""Of what the coverage says how much could not be read."""

REFUSED = "refused"
MISMATCH = "mismatch or partial"
EXACT = "exact, and equal"
UNAVAILABLE = "not verifiable"
UNKNOWABLE = "not knowable"
WRONG = "WRONG"
FAILED = "FAILED"
OUTCOMES = (REFUSED, MISMATCH, EXACT, UNAVAILABLE, UNKNOWABLE, WRONG, FAILED)


class OutOfBounds(BaseException):
    """More reads, more bytes or more time than any damage may cost."""


@dataclass(frozen=True)
class Outcome:
    """One of ``OUTCOMES``, and what was the matter."""

    kind: str
    why: str = ""


class CountingTarget:
    """A target that lets through so many reads and bytes, and no more."""

    def __init__(self, target: Target, reads: int, size: int) -> None:
        self._target = target
        self._reads = reads
        self._bytes = size

    def read(self, address: int, size: int) -> bytes:
        self._reads -= 1
        self._bytes -= size
        if self._reads < 0 or self._bytes < 0:
            raise OutOfBounds("too many reads" if self._reads < 0 else "too many bytes read")
        return self._target.read(address, size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)


@contextmanager
def _within_time() -> Iterator[None]:
    def end(*_: object) -> None:
        raise OutOfBounds(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass
class Run:
    """What a command printed, its exit status, the heaps it reported on."""

    status: int
    out: str
    line: str
    notes: List[str]
    heaps: List[Heap]


def run(open_target: Callable[[], Target], form: int, reads: int, size: int) -> Run:
    """The command of that ``form``, with its exit status as the shell gives it."""
    out: List[str] = []
    notes: List[str] = []
    heaps: List[Heap] = []

    def noted(heap: Heap, *arguments: object) -> object:
        heaps.append(heap)
        return sweep(heap, *arguments)  # type: ignore[arg-type]

    context = Context(
        open_target=lambda: CountingTarget(open_target(), reads, size),  # type: ignore[arg-type, return-value]
        write=out.append,
        note=notes.append,
        style=Style(),
    )
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(patch.object(snapshot, "sweep_of", noted))
        stack.enter_context(patch.object(record_command, "sweep", noted))
        command: Command = RecordCommand() if form == RECORDED else SweepCommand()
        words: Sequence[str] = FORMS[form] if form < RECORDED else [str(Path(folder) / "file")]
        with _within_time():
            status, line = guarded(command.name, lambda: command.invoke(words, context))
    return Run(status, "".join(out), line, notes, heaps)


def attempt(twin: Twin, damage: Damage, open_damaged: Callable[[], Target], form: int) -> Outcome:
    """What a command makes of a damaged target."""
    reads = READS * twin.reads + READS_MORE
    size = BYTES * twin.size + BYTES_MORE
    try:
        done = run(open_damaged, form, reads, size)
    except OutOfBounds as error:
        return Outcome(FAILED, str(error))
    fault = fault_of(done, form)
    if fault is not None:
        return Outcome(FAILED, fault)
    if done.status == 2:
        return Outcome(REFUSED, done.line)
    (heap,) = done.heaps
    if heap.verification.status == "exact" and not same(rows_of(heap), twin.rows):
        why = unknowable(twin, damage, open_damaged())
        return Outcome(UNKNOWABLE, why) if why else Outcome(WRONG, _how(heap, twin))
    if done.status == 3:
        return Outcome(MISMATCH)
    return Outcome(EXACT if heap.verification.status == "exact" else UNAVAILABLE)


def same(found: Sequence[Row], true: Sequence[Row]) -> bool:
    """Whether slabs and live regions are the same, slab by slab, bin by bin, arena by arena.

    Two slabs of a size class with as many free regions may change arenas, by their own
    words: every slab stays what it was, as does every count of every bin and arena that
    the allocator keeps.  Only the links between slabs with room would tell, and those are
    followed in builds without statistics alone.
    """
    bare = [
        [(address, szind, *rest) for address, _, szind, _, *rest in rows] for rows in (found, true)
    ]
    counts = [Counter(row[1:5] for row in rows) for rows in (found, true)]
    return bare[0] == bare[1] and counts[0] == counts[1]


def _how(heap: Heap, twin: Twin) -> str:
    wrong = Counter(rows_of(heap))
    wrong.subtract(Counter(twin.rows))
    return f"slabs off: {[(row, n) for row, n in wrong.items() if n][:4]}"


def fault_of(done: Run, form: int) -> Optional[str]:
    """What no damage may lead to: None where the command behaved."""
    shown = [done.out, done.line, *done.notes]
    if done.status not in (0, 2, 3):
        return f"exit status {done.status}: {done.line}"
    if "internal error" in done.line:
        return done.line
    if not all(text.replace("\n", "").isprintable() for text in shown):
        return "a control character is printed"
    if done.status == 2 and (done.out or not done.line or "\n" in done.line):
        return f"refused, but not in one line: {done.out[:80]!r} {done.line!r}"
    if done.status != 2 and (not done.out or done.line):
        return f"a report that is none: {done.line!r}"
    if done.status != 2 and form < RECORDED and "json" in FORMS[form]:
        report = json.loads(done.out)
        states = report["verification"]["status"], report["coverage"]
        partial = any(states[1][f"{what}_unreadable"] for what in KINDS) or states[1]["missing"]
        if done.status != (3 if states[0] == "mismatch" or partial else 0):
            return f"exit status {done.status} of {states}"
    return None
