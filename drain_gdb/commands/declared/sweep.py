"""``drainsweep`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands import allocators
from drain_gdb.commands.base import (
    PARQUET,
    Command,
    natural,
    positive,
    report_options,
    settle_format,
)

MALLOC_STATS = "malloc_stats"
OPENMETRICS = "openmetrics"
FORMATS = ("text", "json", "csv", PARQUET, "info", OPENMETRICS, MALLOC_STATS)
VIEWS = ("bin", "arena", "shard", "slab", "large", "extent")
SORTABLE = (
    *("arena", "size", "shard", "slabs", "drainable", "dsr", "live", "cached", "occupancy"),
    *("waste_bytes", "retention_ratio", "address", "nregs", "allocated"),
    *("count", "bytes", "resident_bytes", "cached_bytes"),
    *("utilization", "free_bytes", "state"),
)
"""Columns of any view, as the tables have them."""


class SweepWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.sweep.SweepCommand"
    name = "drainsweep"
    shell = "sweep"
    takes_statistics = True
    summary = "Why RSS is what it is; occupancy and DSR of every jemalloc slab."
    description = """\
First comes the resident memory in parts that add up to it, and why it is there: the
causes, largest first, whether each goes by itself, and the command or setting of this
very process that makes it go. Settings are read, not assumed. Causes under 5 % of the
resident memory are shown with --verbose.

A slab is the unit that jemalloc gives back to the system for small sizes; one live
region pins it. DSR (drainability satisfaction rate) is the share of slabs without a
live region: in the live view regions in thread caches do not count as live, in the
bitmap view they do. Every sweep compares itself with jemalloc's own statistics.

Units: bytes, unless KiB, MiB, ... are written; rates are of slabs or regions.
Columns: slabs; drainable (no live region); live and cached regions; occupancy (live
of all regions); waste (bytes that hold no live region); x ideal (slabs for each one
that would be needed); and slabs by occupancy, in ten steps from empty to full.

Only memory is read: nothing is called and nothing is written in the process.
Read without debug information: jemalloc 5, every commit from 5.0.0 on."""
    examples = (
        "drainsweep",
        "drainsweep --by arena --sort waste_bytes --top 10",
        "drainsweep --size 1280 --by slab",
        "drainsweep --by large --sort bytes",
        "drainsweep --by slab --output slabs.parquet",
        "drainsweep --pins",
        "drainsweep --format json --output sweep.json",
        "drainsweep --format openmetrics --output drain.prom",
        "drainsweep --format malloc_stats --output stats.json",
    )

    def check(self, args: argparse.Namespace) -> None:
        """Refuse Parquet that goes to no file."""
        settle_format(args)

    def has_to_stand(self, args: argparse.Namespace) -> bool:
        """It reads contents only to say who pins."""
        return bool(args.pins)

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of a sweep."""
        parser.add_argument(
            "--by", choices=VIEWS, default="bin", help="what a row is (default: bin)"
        )
        parser.add_argument("--arena", type=natural, metavar="N", help="only this arena")
        parser.add_argument(
            "--size", type=positive, metavar="BYTES", help="only the size class that serves BYTES"
        )
        parser.add_argument(
            "--sort",
            choices=SORTABLE,
            metavar="COLUMN",
            help=f"order rows by one of: {', '.join(SORTABLE)}",
        )
        allocators.add_option(parser)
        parser.add_argument(
            "--pins",
            action="store_true",
            help="say of pinned slabs who pins them, as drainpins does; a live process stands"
            " still meanwhile",
        )
        parser.add_argument("--top", type=positive, metavar="N", help="only the first N rows")
        report_options(parser, FORMATS)
        parser.add_argument(
            "--verbose",
            action="store_true",
            help="every part, cause and remedy, and how jemalloc was found, step by step",
        )
