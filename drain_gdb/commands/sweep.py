"""``drainsweep``: occupancy and DSR of every slab."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple

from drain_gdb.analysis.evidence import evidence
from drain_gdb.analysis.malloc_stats import malloc_stats
from drain_gdb.analysis.report import Selection, Sweep
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.analysis.sweep import coverage_totals
from drain_gdb.commands import allocators
from drain_gdb.commands.base import PARQUET, Context
from drain_gdb.commands.declared.sweep import MALLOC_STATS, OPENMETRICS, SweepWords
from drain_gdb.commands.opened import walked
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, UsageError
from drain_gdb.jemalloc.counters import read_counters
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.render import machine, openmetrics, text
from drain_gdb.render.rows import write_parquet
from drain_gdb.render.style import Style

if TYPE_CHECKING:
    from drain_gdb.hooks.session import Counting


class SweepCommand(SweepWords):
    """Walk the heap once, report what could be given back."""

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
        if args.format == PARQUET:
            write_parquet(args.output, machine.table(self._one(reports, args)))
        else:
            counting = context.counting() if args.format == "info" and context.counting else None
            context.emit(self._render(reports, args, context.style, counting), args.output)
        sound = all(report.sound for report in reports)
        return EXIT_DONE if complete and sound else EXIT_PARTIAL

    def _sweep(self, args: argparse.Namespace, context: Context) -> Tuple[List[Sweep], bool]:
        """A report of each allocator asked for, and whether every one could be read."""
        selection = Selection(args.by, args.arena, args.size)
        if context.statistics is not None:
            return [sweep_statistics(context.statistics, selection, args.verbose)], True
        snapshot = walked(self, args, context)
        heaps = snapshot.walked
        if args.verbose:
            for heap in heaps:
                _explain(heap, context)
        chosen = allocators.numbers(snapshot.walked, args.allocator)
        reports = snapshot.sweeps(selection, chosen, args.verbose)
        if args.pins:
            reports = snapshot.with_who(reports)
        return reports, not snapshot.refused

    def _statistics(self, args: argparse.Namespace, context: Context) -> int:
        """What the process's own malloc_stats_print() would say, in its JSON form."""
        if context.statistics is not None:
            raise UsageError("the target is such statistics", "leave --format malloc_stats out")
        if args.by != "bin" or args.arena is not None or args.size is not None:
            raise UsageError(
                f"--format {MALLOC_STATS} shows the whole of it",
                "leave --by, --arena and --size out",
            )
        snapshot = walked(self, args, context)
        chosen = snapshot.walked
        if args.allocator is not None:
            chosen = [allocators.choose(chosen, args.allocator)]
        prefixes = [heap.layout.prefix for heap in chosen]
        allocators.require_one(prefixes, f"--format {MALLOC_STATS} shows")
        (heap,) = chosen
        counters = read_counters(memory_of(snapshot.target), heap)
        context.emit(machine.as_malloc_stats(malloc_stats(heap, counters)), args.output)
        exact = heap.verification.status == "exact" and not coverage_totals(heap).partial
        if not exact:
            context.note(f"{self.name}: these statistics do not hold exactly; see drainsweep")
        return EXIT_DONE if exact and not snapshot.refused else EXIT_PARTIAL

    def _render(
        self,
        reports: Sequence[Sweep],
        args: argparse.Namespace,
        style: Style,
        counting: Optional[Counting],
    ) -> str:
        if args.format == "text":
            shown = Style() if args.output else style
            return text.render_all(reports, shown, _view(args))
        if args.format in ("json", OPENMETRICS):
            arranged = [_arranged(report, args) for report in reports]
            as_text = machine.as_json if args.format == "json" else openmetrics.as_openmetrics
            return as_text(arranged)
        one = self._one(reports, args)
        if args.format == "csv":
            return machine.as_csv(one)
        session = None if counting is None else counting.latest()
        return machine.as_info(one, None if session is None else session.fast_calls())

    def _one(self, reports: Sequence[Sweep], args: argparse.Namespace) -> Sweep:
        """The report, with its rows as asked for, of a process with one allocator."""
        prefixes = [report.allocator.symbol_prefix for report in reports]
        allocators.require_one(prefixes, f"{args.format} shows")
        return _arranged(reports[0], args)


def _explain(heap: Heap, context: Context) -> None:
    layout = heap.layout
    if layout.evidence:
        context.note(f"{layout.module}: recognised by {layout.evidence}")
    for note in layout.notes:
        context.note(f"{layout.module}: rejected {note}")
    infos = layout.bin_info
    context.note(
        f"{layout.module}: jemalloc {layout.version}, {layout.source}, {layout.parameters},"
        f" rtree root at {layout.rtree.root:#x}, arenas {_place(layout.arena.table)},"
        f" bin_infos {_place(None if infos is None else infos.address)}"
    )
    for struct, form, seen in evidence(heap):
        context.note(f"  {struct}: as in {form}: {seen}")


def _place(address: Optional[int]) -> str:
    return "not found" if address is None else f"at {address:#x}"


def _view(args: argparse.Namespace) -> text.View:
    return text.View(args.sort, args.top, args.verbose)


def _arranged(report: Sweep, args: argparse.Namespace) -> Sweep:
    """``report`` with its rows in the order and number asked for."""
    columns = text.columns_of(args.by, report.totals.live is not None)
    rows: Any = tuple(text.arrange(text.rows_of(report), columns, _view(args)))
    return replace(report, **{text.kept_in(report): rows})
