"""``draincount``: how often the allocator is asked, held against what it says itself."""

from __future__ import annotations

import argparse

from drain_gdb.commands import allocators
from drain_gdb.commands.base import Command, Context, Progress, memory_of, positive
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, CountingError, TargetError, UsageError
from drain_gdb.hooks.account import UNEQUAL, Count
from drain_gdb.hooks.points import LAYERS, REQUESTS
from drain_gdb.hooks.session import (
    HITS_DEFAULT,
    SECONDS_DEFAULT,
    Counting,
    Request,
    Say,
    Session,
)
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.render import counted

ACTIONS = ("start", "show", "stop")
FORMATS = ("text", "json")
LISTED = 8
OF_START = ("layer", "size", "seconds", "hits", "allocator")


class CountCommand(Command):
    """Begin, show or end a count."""

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
            type=_seconds,
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
        parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
        parser.add_argument("--output", metavar="FILE", help="write the report to FILE")
        parser.add_argument("--quiet", action="store_true", help="no progress, no notes")

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

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it; a report sets the status."""
        if context.counting is None:
            raise CountingError("counting needs a debugger's prompt and a live process")
        if args.action == "start":
            return self._start(args, context, context.counting)
        session = context.counting.last()
        if session.ended is None:
            # It refuses a process that runs, before anything is ended.
            context.open_target()
        if args.action == "stop" and session.ended is None:
            session.end("stopped")
        return self._report(session, args, context)

    def _start(self, args: argparse.Namespace, context: Context, counting: Counting) -> int:
        target = context.open_target()
        source = target.process().source
        if source != "live":
            raise TargetError(
                f"this is a {source}: nothing is called in it any more, so nothing can be counted",
                "drainsweep shows how much it had requested and freed",
            )
        heap = self._heap(target, args, context)
        request = Request(
            layer=args.layer or REQUESTS,
            size=args.size,
            seconds=args.seconds,
            hits=args.hits,
            asymmetric=args.asymmetric,
        )

        def say(line: str) -> None:
            if not args.quiet:
                context.note(f"{self.name}: {line}")

        session = counting.start(request, target, heap, context.open_target, say)
        self._announce(session, request, say)
        if request.runs and session.run():
            return self._report(session, args, context)
        if request.runs:
            say("the process stopped before the limit; the count goes on when it is continued")
        return EXIT_DONE

    def _heap(self, target: Target, args: argparse.Namespace, context: Context) -> Heap:
        progress = Progress(self.name, None if args.quiet else context.progress)
        try:
            heaps, refused = find_heaps(target, lambda: memory_of(target, progress))
        finally:
            progress.close()
        for error in refused:
            context.note(f"{self.name}: one allocator is left out: {error}")
        if args.allocator is not None:
            return allocators.choose(heaps, args.allocator)
        allocators.require_one([heap.layout.prefix for heap in heaps], "counting is for")
        return heaps[0]

    def _announce(self, session: Session, request: Request, say: Say) -> None:
        """What is counted, and when it ends."""
        if session.plan is None:
            say("counting by jemalloc's own counters, without hooks")
        else:
            plan = session.plan
            names = [point.name for point in plan.points]
            more = len(names) - LISTED
            listed = ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
            say(f"counting at the {plan.layer} layer, {plan.how}; hooks on {listed}")
            if plan.only is not None:
                say(f"ASYMMETRIC: only {plan.only} are counted")
        limits = []
        if request.layer != REQUESTS and request.hits_limit is not None:
            limits.append(f"{request.hits_limit:,} hits")
        if request.seconds_limit is not None:
            limits.append(f"{request.seconds_limit:g} s")
        if limits:
            say(f"it ends after {' or '.join(limits)}; Ctrl-C stops the process before")
        if not request.runs:
            say("now continue; then draincount show, or draincount stop")

    def _report(self, session: Session, args: argparse.Namespace, context: Context) -> int:
        report = session.report()
        shown = counted.as_json(report)
        if args.format == "text":
            shown = counted.render(report, type(context.style)() if args.output else context.style)
        context.emit(shown, args.output)
        return _status(report)


def _status(report: Count) -> int:
    """The exit status: 3 for a failed check, a walk that does not verify or is partial."""
    moments = [m for m in (report.start, report.end) if m is not None]
    failed = any(check.status == UNEQUAL for check in report.checks)
    doubtful = any(m.status == "mismatch" or m.partial for m in moments)
    return EXIT_PARTIAL if failed or doubtful or report.end is None else EXIT_DONE


def _seconds(text: str) -> float:
    """An argparse type: seconds above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value
