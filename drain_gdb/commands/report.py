"""``drainreport``: a page to look at."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import List, Optional

from drain_gdb.analysis.moment import moment_told
from drain_gdb.commands.base import Context, Progress
from drain_gdb.commands.declared.report import ReportWords
from drain_gdb.commands.opened import opened
from drain_gdb.commands.record import RecordCommand
from drain_gdb.debuggee.recording import place
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, MissingDependency
from drain_gdb.jemalloc.statistics import Statistics
from drain_gdb.render import recorded
from drain_gdb.render.page import content
from drain_gdb.render.page.content import Earlier

INSTALL = "pip install 'drain-gdb[report]'"
DIRECTLY = "none"
"""What no debugger is called."""


class ReportCommand(ReportWords):
    """Take all that the reports say, let the process run on, write the page."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it."""
        if find_spec("jinja2") is None:
            return self._record(args, context)
        document = import_module("drain_gdb.render.page.document").document
        earlier_path = self._earlier_path(args)
        earlier = None if earlier_path is None else self._earlier(earlier_path, args, context)
        start, refused = time.monotonic(), False
        if context.statistics is not None:
            found = content.content_told(context.statistics, earlier)
        else:
            with opened(self, args, context) as snapshot:
                self.note_refused(snapshot.refused, context)
                found = content.content(snapshot, earlier, not args.no_pins)
                refused = bool(snapshot.refused)
        copied = time.monotonic() - start
        stopped = context.release()
        page: bytes = document(found).encode("utf-8")
        place(args.file, (page,), args.force)
        if not args.quiet:
            line = recorded.line(found.sweeps, args.file, len(page), copied, stopped, context.style)
            context.write(line)
        sound = all(report.sound for report in found.sweeps)
        return EXIT_DONE if sound and not refused else EXIT_PARTIAL

    def _earlier_path(self, args: argparse.Namespace) -> Optional[str]:
        given = args.operands
        found: List[str] = given if isinstance(given, list) else [given] if given else []
        return found[0] if found else None

    def _earlier(self, path: str, args: argparse.Namespace, context: Context) -> Earlier:
        """The moment at ``path``; the page names the file alone."""
        name = os.path.basename(path)
        progress = Progress(self.name, None if args.quiet else context.progress)
        with ExitStack() as stack:
            stack.callback(progress.close)
            found = stack.enter_context(context.open_file(path, progress))
            if isinstance(found, Statistics):
                return Earlier(moment_told(name, found), [])
            return content.earlier(found, name)

    def _record(self, args: argparse.Namespace, context: Context) -> int:
        """Where a debugger's Python has no Jinja2: a recording, and how the page is made of it."""
        statistics = context.statistics is not None
        if statistics or context.open_target().process().debugger == DIRECTLY:
            raise MissingDependency(
                "this Python cannot import jinja2, which makes the page", f"run: {INSTALL}"
            )
        recording = os.path.splitext(args.file)[0] + ".drain"
        asked = argparse.Namespace(file=recording, force=args.force, quiet=args.quiet)
        recorder = RecordCommand()
        recorder.check(asked)
        status = recorder.run(asked, context)
        earlier = self._earlier_path(args)
        words = ["drain-gdb", "report", *([earlier] if earlier else []), recording]
        words += ["-o", args.file, *(["--force"] if args.force else [])]
        context.note(
            f"{self.name}: the Python of this debugger has no jinja2, so this is a recording;"
            f" in a shell, with {INSTALL}: {shlex.join(words)}"
        )
        return status
