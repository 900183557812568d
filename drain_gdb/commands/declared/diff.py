"""``draindiff`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands import allocators
from drain_gdb.commands.base import Command, Operands, positive, report_options, seconds


class DiffWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.diff.DiffCommand"
    name = "draindiff"
    shell = "diff"
    takes_statistics = True
    compares = True
    operands = Operands("MOMENT", "a core, a recording or statistics, earlier ones first", True)
    summary = "Two moments of a process, or more: what drained, what stayed, what is new."
    description = """\
Of the slabs of the first moment (the cohort), by size class, how many the last one finds
released, drainable and still pinned; the cohort DSR is the share that is released or
drainable. Slabs are told from their successors at the same address by the bins' own
counts of slabs made: where a bin made none between, all is exact, else there are bounds.
Statistics of jemalloc tell sums alone: no addresses, so bounds and no cohort DSR.

Then the parts of the resident memory before and after, and when half of today's waste
will be gone if all goes on as it went, with what that assumes: two moments cannot tell a
rate from one event. With three moments and more a line each, the cohort always that of the
first, and the projection only where all steps drained at one rate.

In a debugger one MOMENT is compared with the process as it is now; so it is in the shell
with --pid PID, and there the process is stopped for the copy only; with --pins, which says
of each group of objects how it grew, it stands still meanwhile. That all are moments
of one process is checked: by when it was started, the random bytes that the kernel gave
it, build-ids and where its files lie, as far as each is known."""
    examples = (
        "draindiff before.drain after.drain",
        "draindiff monday.drain tuesday.drain wednesday.drain",
        "draindiff --pins core.1234 core.1234.later",
        "draindiff --format json --output diff.json core.1234 core.1234.later",
    )

    def has_to_stand(self, args: argparse.Namespace) -> bool:
        """It reads contents only to say what grew."""
        return bool(args.pins)

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument(
            "--now", action="store_true", help="the process itself is the last moment"
        )
        parser.add_argument(
            "--force", action="store_true", help="compare what is not of one process, too"
        )
        parser.add_argument(
            "--seconds",
            type=seconds,
            metavar="N",
            help="how much time lies between the first and the last: cores do not say",
        )
        parser.add_argument(
            "--pins",
            action="store_true",
            help="say which groups of objects grew, as drainpins --all names them; recordings and"
            " statistics hold no contents to tell them by",
        )
        parser.add_argument(
            "--top",
            type=positive,
            default=12,
            metavar="N",
            help="size classes and groups shown (default: 12)",
        )
        allocators.add_option(parser)
        report_options(parser)
