"""``drainwatch``: a sweep every few seconds, of a process that runs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack
from typing import Iterator, Optional

from drain_gdb.analysis.watch import Row, Trend
from drain_gdb.commands.base import Context
from drain_gdb.commands.declared.watch import WatchWords
from drain_gdb.commands.record import take
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, ProcessEnded, UsageError
from drain_gdb.jemalloc.again import Repeated
from drain_gdb.render.rows import Rows
from drain_gdb.render.watch import screen
from drain_gdb.words import many


class WatchCommand(WatchWords):
    """Sweep, show, wait, until it is over."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it; after the first sweep Ctrl-C is the way to end it, and no interruption."""
        if context.live is None:
            raise UsageError(
                "a debugger has stopped the process, which is watched while it runs",
                "run drain-gdb watch --pid PID in a shell",
            )
        live = context.live()
        repeated, trend = Repeated(live), Trend()
        sweeps, sound, ended = 0, True, ""
        with ExitStack() as stack:
            kept = None if args.output is None else stack.enter_context(Rows(args.output, Row))
            process = live.process()
            title = f"{process.name or 'process'} (pid {live.pid})"
            redraws = not args.quiet and sys.stdout.isatty()
            shown = stack.enter_context(screen(title, context.write, context.style, redraws))
            try:
                for _ in _ticks(args.every, args.duration):
                    target, heaps = repeated.walk()
                    if not sweeps:
                        self.note_refused(repeated.refused, context)
                    taken_at = target.process().taken_at
                    assert taken_at is not None
                    row = trend.row(heaps, live.resident_bytes(), taken_at)
                    sweeps, sound = sweeps + 1, sound and row.sound
                    if kept is not None:
                        kept.put(row)
                    if not args.quiet:
                        shown.show(row)
                    if args.recordings is not None:
                        name = f"{live.pid}-{sweeps:06}.drain"
                        layouts = [heap.layout for heap in heaps]
                        path = os.path.join(args.recordings, name)
                        take(target, layouts).write(path, overwrite=True)
            except ProcessEnded as error:
                if not sweeps:
                    raise
                ended = f"{error.message}, "
            except KeyboardInterrupt:
                if not sweeps:
                    raise
                ended = "interrupted, "
        context.note(f"{self.name}: {ended}{many(sweeps, 'sweep')}, the process was never stopped")
        return EXIT_DONE if sound and not repeated.refused else EXIT_PARTIAL


def _ticks(every: float, duration: Optional[float]) -> Iterator[None]:
    """At once and then every so many seconds, by the clock; those that were missed are left out."""
    start = time.monotonic()
    number = 0
    while True:
        yield
        passed = time.monotonic() - start
        number = max(number + 1, int(passed / every) + (passed % every > 0))
        if duration is not None and number * every >= duration:
            time.sleep(max(0.0, duration - passed))
            return
        time.sleep(max(0.0, number * every - passed))
