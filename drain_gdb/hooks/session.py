"""A count from its start to its end, whatever ends it.

Hooks are set after the first walk and removed before the last, always: when the user
stops the count, at its limit, when the process ends, runs another program or is
detached from, and on any error.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Tuple

from drain_gdb.debuggee.functions import Function, functions
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import CountingError, DrainError
from drain_gdb.hooks.account import Count, Hits, Moment, Window, count, moment
from drain_gdb.hooks.counter import Counter, SizeClasses
from drain_gdb.hooks.layers import ENTRY, FASTPATH, HITS_DEFAULT, REQUESTS, SECONDS_DEFAULT
from drain_gdb.hooks.points import SIDES, HookPoint, Plan, make_plan, ranges_of
from drain_gdb.hooks.stops import HOOK, INTERRUPT, TIME, Debuggee, Debugger, Done, Stopped
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.regions import RegionFinder
from drain_gdb.jemalloc.walk import walk
from drain_gdb.memory import Memory

PRICED, GROUP = 200, 20
"""Hits that the price is measured on, in groups of so many."""
BACKGROUND = "jemalloc_bg_thd"
"""jemalloc's own threads (background_thread.c), which always stand inside it."""
CODE = re.compile(r"\.text$|\.plt\b")

OpenTarget = Callable[[], Target]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        size: bytes; only the size class that serves them is counted.
        seconds, hits: limits; None where the default holds.

    """

    layer: str = REQUESTS
    size: Optional[int] = None
    seconds: Optional[float] = None
    hits: Optional[int] = None
    asymmetric: bool = False

    @property
    def runs(self) -> bool:
        """Whether the process is let run at once, until the limit."""
        return self.seconds is not None or self.hits is not None

    @property
    def hits_limit(self) -> Optional[int]:
        """Hits after which the process is stopped; None for no such limit."""
        return self.hits if self.runs else HITS_DEFAULT

    @property
    def seconds_limit(self) -> Optional[float]:
        """Seconds after which the process is stopped; None for no such limit."""
        if self.layer == REQUESTS or self.runs:
            return self.seconds
        return SECONDS_DEFAULT


class Session:
    """One count of one process.

    Attributes:
        plan: what is hooked, None without hooks.
        ended: why the count is over, None while it goes on.

    """

    def __init__(
        self, debugger: Debugger, request: Request, open_target: OpenTarget, say: Say
    ) -> None:
        self.plan: Optional[Plan] = None
        self.ended: Optional[str] = None
        self._debugger = debugger
        self._request = request
        self._open_target = open_target
        self._say = say
        self._reason: Optional[str] = None
        self._ranges: List[Tuple[int, int]] = []
        self._price = _Price()
        self._end: Optional[Moment] = None
        self._gone: Optional[int] = None
        self._running = False

    def begin(self, target: Target, heap: Heap) -> None:
        """Walk, then set the hooks; raises a named error and leaves none behind."""
        request = self._request
        self._layout = heap.layout
        self._bins = heap.bins
        self._process = target.process()
        classes = SizeClasses(heap.layout.parameters)
        self._szind = None if request.size is None else classes.of(request.size)
        if request.seconds_limit is not None:
            self._debugger.require_timer()
        if request.layer != REQUESTS:
            self._debugger.require_hooks()
            self._prepare(target, heap)
        self._start = moment(heap, self._inside())
        self._names = dict(self._debugger.threads())
        self._began = time.monotonic()
        self._debugger.watch(self._when_ended, self._when_stopped)
        if self.plan is not None:
            find = RegionFinder(target.read, heap.layout).find
            layout = heap.layout
            self._counter = Counter(
                layout.parameters, layout.tcache, find, target.read, self._szind
            )
            try:
                self._debugger.set_hooks(self.plan.points, self._hit, self._returned)
            except BaseException:
                self._release()
                raise

    def _prepare(self, target: Target, heap: Heap) -> None:
        """Plan the hooks and say which places are inside the allocator."""
        layout = heap.layout
        module = next(m for m in target.modules() if m.path == layout.module)
        found: List[Function] = functions(target, module, self._debugger.symbol_files(module))
        request = self._request
        # One function of it may jump to another through its table of linkage (.plt).
        code = [(s.start, s.end) for s in module.sections if CODE.match(s.name)]
        own = [f for f in found if any(start <= f.address < end for start, end in code)]

        def inlined(name: str) -> List[int]:
            places = self._debugger.inlined(name)
            return [at for at in places if any(start <= at < end for start, end in code)]

        self.plan = make_plan(request.layer, own, layout.prefix, inlined, request.asymmetric)
        self._ranges = code if layout.prefix is None else ranges_of(own, layout.prefix)

    def _inside(self) -> int:
        return self._debugger.inside(self._ranges, BACKGROUND) if self._ranges else 0

    # -- while the process runs ------------------------------------------------------

    def run(self) -> bool:
        """Let the process run to the limit; False where something else stopped it before."""
        seconds = self._request.seconds_limit
        self._running = True
        try:
            if seconds is not None:
                self._debugger.set_timer(seconds)
            why = self._debugger.run()
        except KeyboardInterrupt:
            why = INTERRUPT
        except BaseException:
            if self.ended is None:
                self._finish("an error ended it")
            raise
        finally:
            self._running = False
        if why == INTERRUPT and self.ended is None:
            self.end("interrupted")
        return self.ended is not None

    def _hit(self, point: HookPoint, stopped: Stopped) -> bool:
        """Count a hit, unless the limit is reached: then the process stops before it."""
        limit = self._request.hits_limit
        if limit is not None and self._debugger.hits > limit:
            self._reason = f"the limit of {limit:,} hits is reached"
            return True
        seconds = self._request.seconds_limit
        if self._debugger.hits == 1 and not self._running and seconds is not None:
            self._debugger.set_timer(seconds)
        if stopped.thread not in self._names:
            self._names.update(self._debugger.threads())
        if self._fails(point.name, lambda: self._counter.hit(point, stopped)):
            return True
        if self._price.add(self._debugger.hits):
            self._say(self._price_line())
        return False

    def _returned(self, done: Done, stopped: Stopped) -> bool:
        """Count what could only be counted at the return."""
        return self._fails("a return", lambda: done(stopped))

    def _fails(self, where: str, action: Callable[[], None]) -> bool:
        """Whether ``action`` fails, which ends the count: no error may reach the debugger."""
        try:
            action()
        except DrainError as error:
            self._reason = f"an error at {where}: {error}"
        except Exception as error:  # noqa: BLE001 - the boundary
            self._reason = f"an internal error at {where}: {type(error).__name__}: {error}"
        return self._reason is not None

    def _price_line(self) -> str:
        price = self._price.seconds or 0.0
        limit = self._request.hits_limit
        whole = "" if limit is None else f"; {limit:,} of them {limit * price:.1f} s"
        return f"a hit takes {price * 1e6:.0f} us{whole}; Ctrl-C stops"

    def _when_stopped(self, why: str) -> None:
        """The process stands: at a limit the count is over."""
        if why == TIME:
            self._reason = f"the limit of {self._request.seconds_limit:g} s is reached"
        if why in (HOOK, TIME) and self._reason is not None:
            self.end(self._reason)
            if not self._running:
                self._say(f"{self.ended}, the hooks are removed; draincount show: the counts")

    def _when_ended(self, how: str) -> None:
        """The process is no more, or not this one any more."""
        self._finish(how)
        self._say(f"{how}: the count is over; draincount show: what was counted until then")

    # -- the end ---------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Remove the hooks, walk once more."""
        self._finish(reason)
        try:
            self._end = self._take()
        except DrainError as error:
            self.ended = f"{reason}; the heap could not be walked: {error}"

    def _finish(self, reason: str) -> None:
        self._release()
        self._seconds = time.monotonic() - self._began
        self.ended = reason

    def settle(self) -> None:
        """Notice an end that the debugger has not told of."""
        if self.ended is None:
            self._debugger.settle()

    def _release(self) -> None:
        self._debugger.clear_timer()
        self._debugger.unwatch()
        self._debugger.clear_hooks()

    def _take(self) -> Moment:
        """The moment now; the slabs that frees fell in are looked for along."""
        target = self._open_target()
        heap = self._walk(target)
        self._names.update(self._debugger.threads())
        if self.plan is not None:
            there = set(heap.slabs.address).intersection(self._counter.tally.slabs)
            self._gone = len(self._counter.tally.slabs) - len(there)
        return moment(heap, self._inside())

    def _last(self) -> Optional[Moment]:
        """The moment now, or that of the end where the debugger notices it only here."""
        try:
            return self._take()
        except DrainError:
            self.settle()
            if self.ended is None:
                raise
            return self._end

    def _walk(self, target: Target) -> Heap:
        """The heap now; without statistics the threads' caches are to be found anew."""
        mapped = target.mapped()
        if self._layout.threads is None:
            return walk(Memory(target.read, mapped=mapped), self._layout)
        heaps, refused = find_heaps(target, lambda: Memory(target.read, mapped=mapped))
        for heap in heaps:
            if heap.layout.rtree == self._layout.rtree:
                return heap
        raise refused[0] if refused else CountingError("this jemalloc is not there any more")

    def report(self) -> Count:
        """What was counted, until the end or until now."""
        end = self._end if self.ended is not None else self._last()
        seconds = self._seconds if self.ended is not None else time.monotonic() - self._began
        parameters = self._layout.parameters
        size = None if self._szind is None else parameters.sizes[self._szind]
        window = Window(
            process=self._process,
            module=self._layout.module,
            version=self._layout.version,
            layer=self._request.layer,
            plan=self.plan,
            size=size,
            seconds=seconds,
            ended=self.ended,
        )
        hits: Optional[Hits] = None
        if self.plan is not None:
            tally = self._counter.tally
            gone = None if end is None else self._gone
            hits = Hits(dict(tally.calls), self._debugger.hits, self._price.seconds, tally, gone)
        return count(
            window, self._start, end, hits, self._names, parameters.sizes, parameters.nbins
        )

    def fast_calls(self) -> Optional[Tuple[Optional[int], Optional[int]]]:
        """Calls of functions that begin with the malloc and the free fast path.

        None without hooks; of a side that this layer does not count, None.
        """
        if self.plan is None:
            return None
        counted = self._request.layer in (ENTRY, FASTPATH)
        allocs, frees = (
            self._counter.tally.fast[side] if counted and self.plan.only in (None, side) else None
            for side in SIDES
        )
        return allocs, frees


class _Price:
    """What a hit costs: the lower quartile of the mean times of groups of hits.

    Calls come in bursts, and in a burst nearly all of the time is the hits' own; in a
    group, for a debugger may stop several threads at once and then look at each.
    """

    def __init__(self) -> None:
        self.seconds: Optional[float] = None
        self._means: List[float] = []
        self._start: Optional[Tuple[float, int]] = None

    def add(self, hits: int) -> bool:
        """Note the ``hits``-th; True when the price has just become known."""
        if self.seconds is not None:
            return False
        if self._start is None:
            self._start = time.perf_counter(), hits
        elif hits - self._start[1] >= GROUP:
            now = time.perf_counter()
            self._means.append((now - self._start[0]) / (hits - self._start[1]))
            self._start = now, hits
        if len(self._means) < PRICED // GROUP:
            return False
        self.seconds = sorted(self._means)[len(self._means) // 4]
        return True


class Counting:
    """The counts of a debugger: the latest of each process, over or not."""

    def __init__(self, make_debugger: Callable[[], Debugger]) -> None:
        self._make_debugger = make_debugger
        self._sessions: Dict[Debuggee, Session] = {}

    def start(
        self, request: Request, target: Target, heap: Heap, open_target: OpenTarget, say: Say
    ) -> Session:
        """Begin to count in the process at hand."""
        known = self.latest()
        if known is not None and known.ended is None:
            raise CountingError(
                "this process is being counted already", "end that with: draincount stop"
            )
        debugger = self._make_debugger()
        session = Session(debugger, request, open_target, say)
        session.begin(target, heap)
        self._sessions[debugger.debuggee()] = session
        return session

    def latest(self) -> Optional[Session]:
        """The latest count of the process at hand, None if there was none."""
        for session in self._sessions.values():
            session.settle()
        return self._sessions.get(self._make_debugger().debuggee())

    def last(self) -> Session:
        """That, or, where there was none, the last that is over; CountingError if none."""
        here = self.latest()
        over = [session for session in self._sessions.values() if session.ended is not None]
        if here is not None:
            return here
        if over:
            return over[-1]
        if self._sessions:
            raise CountingError("another process is being counted", "select that one first")
        raise CountingError("nothing has been counted", "begin with: draincount start")
