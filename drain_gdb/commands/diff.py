"""``draindiff``: two moments of a process, or more."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Iterator, Tuple

from drain_gdb.analysis.diff import Comparison
from drain_gdb.analysis.moment import Moment, moment_told
from drain_gdb.commands import allocators
from drain_gdb.commands.base import Context, Progress
from drain_gdb.commands.declared.diff import DiffWords
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, UsageError
from drain_gdb.jemalloc.statistics import Statistics
from drain_gdb.render import diff
from drain_gdb.render.style import Style
from drain_gdb.snapshot import Snapshot

NOW = "now"
"""What the process itself is called."""


class DiffCommand(DiffWords):
    """Take what each moment has to say, one after the other; compare."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it."""
        now = args.now or len(args.operands) == 1
        if args.now and not args.operands:
            raise UsageError("give an earlier MOMENT to compare with")
        moments = self._moments(args, context, now)
        first, complete = next(moments)
        comparison = Comparison(first, args.force, args.pins)
        for moment, whole in moments:
            comparison.add(moment)
            complete = complete and whole
        report = comparison.report(args.seconds)
        shown = diff.as_json(report)
        if args.format == "text":
            shown = diff.render(report, Style() if args.output else context.style, args.top)
        context.emit(shown, args.output)
        return EXIT_DONE if complete and report.sound else EXIT_PARTIAL

    def _moments(
        self, args: argparse.Namespace, context: Context, now: bool
    ) -> Iterator[Tuple[Moment, bool]]:
        """Each moment, and whether every allocator of it could be read."""
        for number, path in enumerate(args.operands):
            progress = Progress(self.name, None if args.quiet else context.progress)
            with ExitStack() as stack:
                stack.callback(progress.close)
                found = stack.enter_context(context.open_file(path, progress))
                if isinstance(found, Statistics):
                    yield moment_told(path, found), True
                else:
                    # Of moments between nobody asks who owns what.
                    who = args.pins and (not number or (not now and path is args.operands[-1]))
                    yield self._moment(args, context, path, found, who)
        if now:
            progress = Progress(self.name, None if args.quiet else context.progress)
            try:
                found = Snapshot(context.open_target(), progress, note=context.note)
                taken = self._moment(args, context, NOW, found, args.pins)
            finally:
                progress.close()
            context.release()
            yield taken

    def _moment(
        self, args: argparse.Namespace, context: Context, name: str, snapshot: Snapshot, who: bool
    ) -> Tuple[Moment, bool]:
        self.note_refused(snapshot.refused, context, name)
        chosen = allocators.numbers(snapshot.walked, args.allocator)
        return snapshot.moment(name, chosen, who), not snapshot.refused
