"""``draincount``: how often the allocator is asked, held against what it says itself."""

from __future__ import annotations

import argparse

from drain_gdb.commands import allocators
from drain_gdb.commands.base import Context, Progress
from drain_gdb.commands.declared.count import CountWords
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import EXIT_DONE, EXIT_PARTIAL, CountingError, TargetError
from drain_gdb.hooks.account import UNEQUAL, Count
from drain_gdb.hooks.layers import REQUESTS
from drain_gdb.hooks.session import Counting, Request, Say, Session
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.render import counted

LISTED = 8


class CountCommand(CountWords):
    """Begin, show or end a count."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it; a report sets the status."""
        if context.counting is None:
            raise CountingError("counting needs a debugger's prompt and a live process")
        counting = context.counting()
        if args.action == "start":
            return self._start(args, context, counting)
        session = counting.last()
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
        self.note_refused(refused, context)
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
