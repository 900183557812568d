"""``drainpins`` as it is typed and explained."""

from __future__ import annotations

import argparse
import os

from drain_gdb.commands.base import PARQUET, Command, positive, report_options, settle_format
from drain_gdb.errors import UsageError

FORMATS = ("text", "json", "csv", PARQUET)
BY = ("what", "owner", "size")


class PinsWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.pins.PinsCommand"
    name = "drainpins"
    shell = "pins"
    stands = True
    summary = "Who pins the sparse slabs, and what comes back if one group of objects goes."
    description = """\
Survivors are the live regions of sparse slabs. Each belongs to one group: to the keys that
own it in a Redis or Valkey (by their pattern), else to the topmost object above it whose
type is known (C++, Python), else to the variable, or the stack of a thread, that it is
reached from. Old pointers own nothing: those in freed and cached regions, in unused pages
and below a stack pointer are not followed.

alone: slabs in which every live region is the group's, over all slabs, sparse or not. They
come back if only this group goes; those in which a thread cache holds regions do once it
is flushed, the others at once. shared: its part of the waste of slabs in which others live
too. It does not come back by itself, and shared bytes of several groups add up to nothing.
Which slabs come back together stands below.

--all: all live regions and large allocations, by bytes: the answer for a leak.

Contents are shown by --contents alone; names of groups are patterns, types and symbols.
A live process stands still meanwhile. Of a recording, which holds no contents, there are
sizes only. Exit status ($_drain_status): as that of drainsweep."""
    examples = (
        "drainpins",
        "drainpins --all --top 10",
        "drainpins --by what --threshold 0.25",
        "drainpins --heap-profile jeprof.1234.0.i0.heap",
        "drainpins --format json --output pins.json",
    )

    def check(self, args: argparse.Namespace) -> None:
        """Refuse a profile that is not there, before any process is stopped."""
        settle_format(args)
        if args.heap_profile is not None and not os.path.isfile(args.heap_profile):
            raise UsageError(f"cannot open {args.heap_profile}: no such file")

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument(
            "--all", action="store_true", help="all live regions, not only those of sparse slabs"
        )
        parser.add_argument(
            "--by", choices=BY, help="group by kind, owner or size (default: owner)"
        )
        parser.add_argument(
            "--threshold",
            type=_occupancy,
            metavar="X",
            help="occupancy below which a slab is sparse (default: 0.5, or, where most of the"
            " waste lies in fuller slabs, more)",
        )
        parser.add_argument("--top", type=positive, metavar="N", help="only the first N groups")
        parser.add_argument(
            "--contents", action="store_true", help="show the first bytes of an object of each"
        )
        parser.add_argument(
            "--heap-profile",
            metavar="FILE",
            help="a profile of the same process (jeprof, prof.dump): which stacks pin, estimated",
        )
        report_options(parser, FORMATS)


def _occupancy(text: str) -> float:
    """An argparse type: a fraction above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value
