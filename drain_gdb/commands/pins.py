"""``drainpins``: who pins the sparse slabs."""

from __future__ import annotations

import argparse

from drain_gdb.analysis.heap_profile import read_profile
from drain_gdb.analysis.holders import Request
from drain_gdb.commands.base import PARQUET, Context
from drain_gdb.commands.declared.pins import PinsWords
from drain_gdb.commands.opened import opened
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL
from drain_gdb.render import pins
from drain_gdb.render.rows import write_parquet
from drain_gdb.render.style import Style


class PinsCommand(PinsWords):
    """Survey the heap, group what lives in it."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it."""
        profile = None if args.heap_profile is None else read_profile(args.heap_profile)
        request = Request(args.all, args.threshold, args.by, args.contents, profile)
        with opened(self, args, context) as snapshot:
            self.note_refused(snapshot.refused, context)
            report = snapshot.pins(request)
            context.session.met(snapshot.walked)
            context.release()
        complete = report.sound and not snapshot.refused
        if args.format == PARQUET:
            write_parquet(args.output, pins.table(report, args.top))
            return EXIT_DONE if complete else EXIT_PARTIAL
        if args.format == "json":
            shown = pins.as_json(report, args.top)
        elif args.format == "csv":
            shown = pins.as_csv(report, args.top)
        else:
            shown = pins.render(report, Style() if args.output else context.style, args.top)
        context.emit(shown, args.output)
        return EXIT_DONE if complete else EXIT_PARTIAL
