"""``drainrecord``: the allocator's metadata into a file that replays anywhere."""

from __future__ import annotations

import argparse
import os
import time

from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.sweep import sweep
from drain_gdb.commands.base import Command, Context, Progress, memory_of
from drain_gdb.debuggee.recording import Recorder, write
from drain_gdb.debuggee.serialize import to_json
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, OutputError, RecordingError
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.placed import columns_of, residence_of
from drain_gdb.jemalloc.settings import settings_of
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.serialize import to_value
from drain_gdb.render import recorded


class RecordCommand(Command):
    """Walk the heap once, keep what the walk read."""

    name = "drainrecord"
    shell = "record"
    summary = "Write a recording: jemalloc's metadata, to be looked at anywhere, later."
    description = """\
A recording is what drainsweep reads of a process, in one compressed file: the same
reports come from it with no core, no program files and no debugger, by giving it as
TARGET to drain-gdb. It holds jemalloc's own structures, the process's name, pid and
paths, and nothing of what the program stores: no object, variable or stack.

A live process is stopped for the copy only. In the shell it runs on before the file
is compressed and written, and the line printed says for how long it was stopped.
The file is readable by you alone and appears only when it is whole."""
    examples = (
        "drainrecord before.drain",
        "drainrecord --force before.drain",
    )
    file = "the recording to write; one that is there is kept"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of a recording."""
        parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
        parser.add_argument("--quiet", action="store_true", help="no progress, no line at the end")

    def check(self, args: argparse.Namespace) -> None:
        """Refuse a file that could not be written, before any process is stopped."""
        folder = os.path.dirname(os.path.abspath(args.file))
        if not os.path.isdir(folder):
            raise OutputError(f"cannot write {args.file}: there is no directory {folder}")
        if os.path.isdir(args.file):
            raise OutputError(f"cannot write {args.file}: it is a directory")
        if os.path.lexists(args.file) and not args.force:
            raise OutputError(f"{args.file} is there already", "add --force to replace it")

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
        copied = time.monotonic() - start
        stopped = context.release()
        values = [to_value(layout) for layout in layouts]
        stored = write(
            args.file, process, values, recorder, residence, settings, overwrite=args.force
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
