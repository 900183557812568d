"""``draincount`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands import allocators
from drain_gdb.commands.base import Command, positive, report_options, seconds
from drain_gdb.errors import UsageError
from drain_gdb.hooks.layers import HITS_DEFAULT, LAYERS, REQUESTS, SECONDS_DEFAULT

ACTIONS = ("start", "show", "stop")
FORMATS = ("text", "json")
OF_START = ("layer", "size", "seconds", "hits", "allocator")


class CountWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.count.CountCommand"
    name = "draincount"
    shell = ""
    summary = "Count allocations and frees in a live process, proved by a second source."
    description = f"""\
draincount start takes a first look, draincount show and draincount stop a second one,
and report what was allocated and freed between them, by size class. Each report checks
itself: allocations less frees against the change in live regions, which two walks of the
heap find, and against jemalloc's own counters; it prints the variance of each.

Layers, of --layer:
  requests  jemalloc's own counters, read at both ends. No hook, no cost, no limit. The
            default. Small sizes; frees are derived: requests less the change in what is live.
  entry     hooks on every public function (malloc, calloc, realloc, free, mallocx, operator
            new, ...), found by their names alone. Counts by thread, frees by slab.
  fastpath  what malloc and free serve from the thread cache: their entries less the slow path.
  slowpath  what they do not: malloc_default, free_default. jemalloc 5.2 and later, with symbols.
  arena     regions that refills and flushes move between bins and thread caches. With symbols.

A hook is worth its price when the question is who: which thread allocates, whose slabs the
frees fall into, what a request costs in calls. How many and of what size, requests tells.

Cost: every call at the layer stops its thread for 0.1 to 0.5 ms; the price is measured on
the first hits and printed. A hooked process is slow, so there is a limit: {HITS_DEFAULT:,} hits
or {SECONDS_DEFAULT:.0f} s after the first, if neither --hits nor --for says another. At the limit
the process is stopped, the hooks are removed, and the counts are kept for draincount show.

With --for or --hits the process is let run at once, until the limit or Ctrl-C, and the report
follows. Without, start returns: continue, stop it by any means, then draincount show (go on
counting) or draincount stop.

Hooks are breakpoints of gdb's internal kind: info breakpoints does not list them, your own
are untouched. They go on stop, at the limit, on detach, when the process ends or runs another
program. Children of a fork are not counted and run without hooks; while a child of vfork
borrows the process's memory, gdb takes the hooks away. If gdb itself is killed while hooks are
set, the process dies at the next of them: end the count first. Non-stop mode takes no hooks,
since a limit would stop one thread and the others would run on uncounted.
In lldb a hit takes 1 to 3 ms, breakpoint list shows the hooks while they are set, those of a
process that is no more go at the next draincount, and Ctrl-C waits for the limit of --for.

Only calls in the window count. Threads that stand inside the allocator at either end may each
add one call to one side; they are counted and said. What jemalloc allocates for itself is in
its counters, not at its entries. A failed allocation counts where its arguments do not give it
away. Exit status ($_drain_status): 3 where a check fails or not all could be read."""
    examples = (
        "draincount start --for 10",
        "draincount start --layer entry --hits 20000",
        "draincount start --layer entry --size 1024",
        "draincount show",
        "draincount stop --format json --output count.json",
    )

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the actions and their options."""
        parser.add_argument("action", choices=ACTIONS, help="begin, look at, or end a count")
        start = parser.add_argument_group("options of start")
        start.add_argument("--layer", choices=LAYERS, help=f"where to count (default: {REQUESTS})")
        start.add_argument(
            "--size", type=positive, metavar="BYTES", help="only the size class that serves BYTES"
        )
        start.add_argument(
            "--for",
            dest="seconds",
            type=seconds,
            metavar="SECONDS",
            help="let the process run for so long, then report",
        )
        start.add_argument(
            "--hits",
            type=positive,
            metavar="N",
            help="let the process run until N hits of hooks, then report",
        )
        start.add_argument(
            "--asymmetric",
            action="store_true",
            help="count a layer even if only one side of it can be counted; every line says so",
        )
        allocators.add_option(parser)
        report_options(parser, FORMATS)

    def check(self, args: argparse.Namespace) -> None:
        """Refuse options of another action, and limits that nothing would reach."""
        if args.action != "start":
            given = [name for name in OF_START if getattr(args, name) is not None]
            given += ["asymmetric"] * args.asymmetric
            if given:
                names = ", ".join("--for" if n == "seconds" else f"--{n}" for n in given)
                raise UsageError(f"draincount {args.action} takes no {names}", "start does")
        elif args.hits is not None and args.layer in (None, REQUESTS):
            raise UsageError(
                f"--layer {REQUESTS} sets no hook, so there is no hit to count",
                "use --for SECONDS, or another layer",
            )
