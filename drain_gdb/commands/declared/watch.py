"""``drainwatch`` as it is typed and explained."""

from __future__ import annotations

import argparse
import os

from drain_gdb.commands.base import Command, require_rows, seconds
from drain_gdb.errors import OutputError


class WatchWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.watch.WatchCommand"
    name = "drainwatch"
    shell = "watch"
    watches = True
    summary = "A sweep every few seconds while the process runs: what drains, what appears."
    description = """\
A row a sweep: the time, RSS, live bytes and waste in slabs, the slabs there are, and what
became of those of the first sweep: the cohort DSR (their share that is released or has no
live region), how many are released and drainable; and the slabs that are new since. A
range stands where a slab may be an earlier one's successor at the same address.

For the shell: the process is never stopped, and each sweep is put together of copies of
what moves, as with drain-gdb sweep --debugger none; its accounting is checked each time.
In a terminal the table redraws (with the package rich: pip install 'drain-gdb[watch]'),
elsewhere a line is printed a sweep. It ends with the process, after --for, or at Ctrl-C."""
    examples = (
        "drainwatch --every 5s",
        "drainwatch --every 1m --for 8h --output trend.csv",
        "drainwatch --every 500ms --output trend.parquet",
        "drainwatch --every 10m --recordings moments",
    )

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument(
            "--every",
            type=seconds,
            default=5.0,
            metavar="TIME",
            help="from the start of a sweep to that of the next: 500ms, 5s, 1m (default: 5s)",
        )
        parser.add_argument(
            "--for", dest="duration", type=seconds, metavar="TIME", help="end after so long"
        )
        parser.add_argument(
            "-o",
            "--output",
            metavar="FILE",
            help="keep the rows, by its ending: .csv, .jsonl (as they come), or .parquet (at the"
            " end; needs pyarrow)",
        )
        parser.add_argument(
            "--recordings", metavar="DIR", help="write a recording of each sweep into DIR"
        )
        parser.add_argument("--quiet", action="store_true", help="print no rows")

    def check(self, args: argparse.Namespace) -> None:
        """Refuse what could not be written, before the process is looked at."""
        if args.output is not None:
            require_rows(args.output)
        if args.recordings is not None and not os.path.isdir(args.recordings):
            raise OutputError(f"cannot write into {args.recordings}: it is no directory")
