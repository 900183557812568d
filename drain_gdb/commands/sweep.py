"""``drainsweep``: occupancy and DSR of every slab."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Dict, List, Optional, Sequence, Tuple

from drain_gdb.analysis.account import account, join
from drain_gdb.analysis.causes import find_causes, least
from drain_gdb.analysis.malloc_stats import malloc_stats
from drain_gdb.analysis.report import Cause, Selection, Sweep
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.analysis.sweep import VIEWS, coverage_totals, sweep
from drain_gdb.commands import allocators
from drain_gdb.commands.base import Command, Context, Progress, memory_of, natural, positive
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.zeros import zero_share
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, DrainError, UsageError
from drain_gdb.hooks.session import Counting
from drain_gdb.jemalloc.counters import read_counters
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.placed import columns_of, residence_of
from drain_gdb.jemalloc.settings import settings_of
from drain_gdb.layout.model import known_releases
from drain_gdb.layout.records import Layout
from drain_gdb.render import machine, text
from drain_gdb.render.style import Style

MALLOC_STATS = "malloc_stats"
FORMATS = ("text", "json", "csv", "info", MALLOC_STATS)


class SweepCommand(Command):
    """Walk the heap once, report what could be given back."""

    name = "drainsweep"
    shell = "sweep"
    takes_statistics = True
    summary = "Why RSS is what it is; occupancy and DSR of every jemalloc slab."
    description = f"""\
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
Read without debug information: jemalloc {", ".join(known_releases())}."""
    examples = (
        "drainsweep",
        "drainsweep --by arena --sort waste_bytes --top 10",
        "drainsweep --size 1280 --by slab",
        "drainsweep --by large --sort bytes",
        "drainsweep --format json --output sweep.json",
        "drainsweep --format malloc_stats --output stats.json",
    )

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
            choices=text.SORTABLE,
            metavar="COLUMN",
            help=f"order rows by one of: {', '.join(text.SORTABLE)}",
        )
        allocators.add_option(parser)
        parser.add_argument("--top", type=positive, metavar="N", help="only the first N rows")
        parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
        parser.add_argument("--output", metavar="FILE", help="write the report to FILE")
        parser.add_argument("--quiet", action="store_true", help="no progress, no notes")
        parser.add_argument(
            "--verbose",
            action="store_true",
            help="every part, cause and remedy, and how jemalloc was found, step by step",
        )

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Sweep and report."""
        columns = text.columns_of(args.by, context.statistics is None)
        if args.sort is not None and args.sort not in [c.key for c in columns]:
            raise UsageError(
                f"--by {args.by} has no column {args.sort}",
                f"sort by one of: {', '.join(c.key for c in columns)}",
            )
        if args.format == MALLOC_STATS:
            return self._statistics(args, context)
        reports, complete = self._sweep(args, context)
        context.emit(self._render(reports, args, context.style, context.counting), args.output)
        sound = all(report.sound for report in reports)
        return EXIT_DONE if complete and sound else EXIT_PARTIAL

    def _sweep(self, args: argparse.Namespace, context: Context) -> Tuple[List[Sweep], bool]:
        """A report of each allocator asked for, and whether every one could be read."""
        selection = Selection(args.by, args.arena, args.size)
        if context.statistics is not None:
            return [sweep_statistics(context.statistics, selection)], True
        target = context.open_target()
        heaps, refused = self._heaps(target, args, context)
        if args.verbose:
            for heap in heaps:
                _explain(heap.layout, context)
        chosen = heaps if args.allocator is None else [allocators.choose(heaps, args.allocator)]
        left_out = [heap.layout.module for heap in heaps if heap not in chosen]
        process = target.process()
        columns = columns_of(heaps)
        residence = residence_of(target, columns)
        joined = join(columns, residence)
        whole = account(joined)
        reports: Dict[int, Sweep] = {}
        for heap in chosen:
            number = heaps.index(heap)
            resident = partial(joined.large_resident, number)
            settings = settings_of(target, heap)
            reports[number] = sweep(heap, process, selection, left_out, whole, settings, resident)
        causes: Tuple[Cause, ...] = ()
        if selection.whole:
            huge = residence is not None and (whole.huge_bytes or 0) >= least(whole)
            zeros = zero_share(target, residence) if residence is not None and huge else None
            causes = find_causes(whole, reports, zeros)
        return [replace(report, causes=causes) for report in reports.values()], not refused

    def _heaps(
        self, target: Target, args: argparse.Namespace, context: Context
    ) -> Tuple[List[Heap], List[DrainError]]:
        progress = Progress(self.name, None if args.quiet else context.progress)
        try:
            heaps, refused = find_heaps(target, lambda: memory_of(target, progress))
        finally:
            progress.close()
        for error in refused:
            context.note(f"{self.name}: one allocator is left out: {error}")
        return heaps, refused

    def _statistics(self, args: argparse.Namespace, context: Context) -> int:
        """What the process's own malloc_stats_print() would say, in its JSON form."""
        if context.statistics is not None:
            raise UsageError("the target is such statistics", "leave --format malloc_stats out")
        if args.by != "bin" or args.arena is not None or args.size is not None:
            raise UsageError(
                f"--format {MALLOC_STATS} shows the whole of it",
                "leave --by, --arena and --size out",
            )
        target = context.open_target()
        heaps, refused = self._heaps(target, args, context)
        chosen = heaps if args.allocator is None else [allocators.choose(heaps, args.allocator)]
        prefixes = [heap.layout.prefix for heap in chosen]
        allocators.require_one(prefixes, f"--format {MALLOC_STATS} shows")
        (heap,) = chosen
        counters = read_counters(memory_of(target, None), heap)
        context.emit(machine.as_malloc_stats(malloc_stats(heap, counters)), args.output)
        exact = heap.verification.status == "exact" and not coverage_totals(heap).partial
        if not exact:
            context.note(f"{self.name}: these statistics do not hold exactly; see drainsweep")
        return EXIT_DONE if exact and not refused else EXIT_PARTIAL

    def _render(
        self,
        reports: Sequence[Sweep],
        args: argparse.Namespace,
        style: Style,
        counting: Optional[Counting],
    ) -> str:
        view = text.View(args.sort, args.top, args.verbose)
        columns = text.columns_of(args.by, reports[0].totals.live is not None)
        if args.format == "text":
            shown = Style() if args.output else style
            return text.render_all(reports, shown, view)
        arranged = [_arranged(report, columns, view) for report in reports]
        if args.format == "json":
            return machine.as_json(arranged)
        prefixes = [report.allocator.symbol_prefix for report in reports]
        allocators.require_one(prefixes, f"{args.format} shows")
        if args.format == "csv":
            return machine.as_csv(arranged[0])
        session = None if counting is None else counting.latest()
        return machine.as_info(arranged[0], None if session is None else session.fast_calls())


def _explain(layout: Layout, context: Context) -> None:
    for note in layout.notes:
        context.note(f"{layout.module}: rejected {note}")
    context.note(
        f"{layout.module}: jemalloc {layout.version}, {layout.source}, {layout.parameters},"
        f" rtree root at {layout.rtree.root:#x}, arenas at {layout.arena.table:#x},"
        f" bin_infos at {layout.bin_info.address:#x}"
    )


def _arranged(report: Sweep, columns: Sequence[text.Column], view: text.View) -> Sweep:
    """``report`` with its rows in the order and number asked for."""
    if report.selection.by == "large":
        return replace(report, large=tuple(text.arrange(report.large, columns, view)))
    if report.slabs is None:
        return replace(report, bins=tuple(text.arrange(report.bins, columns, view)))
    return replace(report, slabs=tuple(text.arrange(report.slabs, columns, view)))
