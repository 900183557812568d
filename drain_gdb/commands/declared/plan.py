"""``drainplan`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands import allocators
from drain_gdb.commands.base import Command, report_options


class PlanWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.plan.PlanCommand"
    name = "drainplan"
    shell = "plan"
    takes_statistics = True
    summary = "What each remedy would give back, before it is done, and what it takes."
    description = """\
Each remedy with the slabs and bytes it frees and what of RSS that is, alone and on top of
those before it in the table: a flush makes dirty what a purge then takes. What does not
apply to this process says why. A figure that is not certain has its bounds, and where no
honest one is to be had there is none.

With --pins, what comes back if the groups of objects went that pin most: the best one, and
the best two, three and five together, as drainpins has them. A live process stands still
meanwhile; recordings and statistics hold no contents to tell groups by.

Then, with --verbose, what active defragmentation takes for each tenth of what it can free,
in the best order; how the survivors lie in the slabs of each class: clustered, at random or
evenly spread (their dispersion, 1 for random, and its distance from 1 in standard
deviations), beside the slabs that would be free if as many had been freed at random; and
huge pages without, or with next to no, live memory."""
    examples = (
        "drainplan",
        "drainplan --pins",
        "drainplan --verbose",
        "drainplan --format json --output plan.json",
    )

    def has_to_stand(self, args: argparse.Namespace) -> bool:
        """It reads contents only to say who pins."""
        return bool(args.pins)

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        allocators.add_option(parser)
        parser.add_argument(
            "--pins",
            action="store_true",
            help="say which groups of objects free most; a live process stands still meanwhile",
        )
        report_options(parser)
        parser.add_argument(
            "--verbose",
            action="store_true",
            help="remedies that do not apply, too; the curve, the scatter, huge pages",
        )
