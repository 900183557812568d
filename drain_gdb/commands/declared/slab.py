"""``drainslab`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands.base import Command, Operands, report_options


class SlabWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.slab.SlabCommand"
    name = "drainslab"
    shell = "slab"
    stands = True
    operands = Operands("ADDR", "an address in it, or in a debugger an expression", several=False)
    summary = "The map of one slab: each region live, cached or free."
    description = """\
A letter a region, in the order they lie in: L for live, C for one in a thread cache,
. for free (F in JSON). A bar stands where a page ends. What lies before and behind
the slab is named, with its occupancy where it is a slab too."""
    examples = (
        "drainslab 0x7f5a12c0d480",
        "drainslab --format json 0x7f5a12c0d480",
    )

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        report_options(parser)
