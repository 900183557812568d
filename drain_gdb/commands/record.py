"""``drainrecord``: the allocator's metadata into a file that replays anywhere."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Optional, Sequence

from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.sweep import sweep
from drain_gdb.commands.base import Context, Progress
from drain_gdb.commands.declared.record import RecordWords
from drain_gdb.debuggee.protocol import Identity, Process, Target
from drain_gdb.debuggee.recording import Recorder, write
from drain_gdb.debuggee.residence import Residence
from drain_gdb.debuggee.sameness import identity_of
from drain_gdb.debuggee.serialize import to_json
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, RecordingError
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.placed import columns_of, residence_of
from drain_gdb.jemalloc.settings import settings_of
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.records import Layout
from drain_gdb.layout.serialize import to_value
from drain_gdb.memory import Progress as Told
from drain_gdb.render import recorded


class RecordCommand(RecordWords):
    """Walk the heap once, keep what the walk read."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Copy, let the process run on, write the file."""
        start = time.monotonic()
        target = context.open_target()
        progress = Progress(self.name, None if args.quiet else context.progress)
        try:
            found, refused = find_heaps(target, lambda: memory_of(target, progress))
            taken = take(target, [each.layout for each in found], progress)
        finally:
            progress.close()
        self.note_refused(refused, context)
        copied = time.monotonic() - start
        stopped = context.release()
        stored = taken.write(args.file, overwrite=args.force)
        reports = [sweep(heap, taken.process, Selection()) for heap in taken.heaps]
        if not args.quiet:
            line = recorded.line(reports, args.file, stored, copied, stopped, context.style)
            context.write(line)
        sound = all(report.sound for report in reports)
        return EXIT_DONE if sound and not refused else EXIT_PARTIAL


@dataclass(frozen=True)
class Taken:
    """All that a recording holds, out of the process and not written yet."""

    process: Process
    heaps: Sequence[Heap]
    recorder: Recorder
    residence: Optional[Residence]
    settings: Sequence[object]
    identity: Identity

    def write(self, path: str, overwrite: bool) -> int:
        """Write the recording; returns its bytes."""
        return write(
            path,
            self.process,
            [to_value(heap.layout) for heap in self.heaps],
            self.recorder,
            self.residence,
            self.settings,
            self.identity,
            overwrite=overwrite,
        )


def take(target: Target, layouts: Sequence[Layout], progress: Optional[Told] = None) -> Taken:
    """Walk the jemallocs at ``layouts`` and keep what the walks read, and what is around them.

    Raises :class:`~drain_gdb.errors.RecordingError` where this may be no metadata.
    """
    recorder = Recorder()
    heaps = [walk(memory_of(target, progress, recorder), layout) for layout in layouts]
    for heap in heaps:
        _require_metadata(heap)
    return Taken(
        process=target.process(),
        heaps=heaps,
        recorder=recorder,
        residence=residence_of(target, columns_of(heaps)),
        settings=[to_json(settings_of(target, heap)) for heap in heaps],
        identity=identity_of(target, [layout.module for layout in layouts], layouts[0].rtree.root),
    )


def _require_metadata(heap: Heap) -> None:
    """Refuse a walk that was led astray: what it read may be the program's data."""
    arenas = {arena.index for arena in heap.arenas}
    strange = {kind.arena for kind in heap.slabs.kinds} - arenas
    strange |= {kind.arena for kind in heap.extents.kinds} - arenas
    if strange:
        raise RecordingError(
            f"nothing is recorded: there are extents of arena {min(strange)}, which cannot be"
            " read or is not there, so what was read may be no metadata",
            "see what drainsweep says of it",
        )
