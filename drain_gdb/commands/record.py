"""``drainrecord``: the allocator's metadata into a file that replays anywhere."""

from __future__ import annotations

import argparse
import time

from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.sweep import sweep
from drain_gdb.commands.base import Context, Progress
from drain_gdb.commands.declared.record import RecordWords
from drain_gdb.debuggee.recording import Recorder, write
from drain_gdb.debuggee.sameness import identity_of
from drain_gdb.debuggee.serialize import to_json
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, RecordingError
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.placed import columns_of, residence_of
from drain_gdb.jemalloc.settings import settings_of
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.serialize import to_value
from drain_gdb.render import recorded


class RecordCommand(RecordWords):
    """Walk the heap once, keep what the walk read."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Copy, let the process run on, write the file."""
        start = time.monotonic()
        target = context.open_target()
        progress = Progress(self.name, None if args.quiet else context.progress)
        recorder = Recorder()
        try:
            found, refused = find_heaps(target, lambda: memory_of(target, progress))
            layouts = [each.layout for each in found]
            heaps = [walk(memory_of(target, progress, recorder), layout) for layout in layouts]
        finally:
            progress.close()
        for error in refused:
            context.note(f"{self.name}: one allocator is left out: {error}")
        for heap in heaps:
            _require_metadata(heap)
        process, residence = target.process(), residence_of(target, columns_of(heaps))
        settings = [to_json(settings_of(target, heap)) for heap in heaps]
        identity = identity_of(target, [layout.module for layout in layouts], layouts[0].rtree.root)
        copied = time.monotonic() - start
        stopped = context.release()
        values = [to_value(layout) for layout in layouts]
        stored = write(
            args.file,
            process,
            values,
            recorder,
            residence,
            settings,
            identity,
            overwrite=args.force,
        )
        reports = [sweep(heap, process, Selection()) for heap in heaps]
        if not args.quiet:
            line = recorded.line(reports, args.file, stored, copied, stopped, context.style)
            context.write(line)
        sound = all(report.sound for report in reports)
        return EXIT_DONE if sound and not refused else EXIT_PARTIAL


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
