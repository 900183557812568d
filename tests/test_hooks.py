"""The counter, the plan of hook points and the accounting, without a debugger."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import pytest

from drain_gdb.debuggee.functions import Function
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.protocol import Module, Process
from drain_gdb.errors import CountingError, UnreadableMemory
from drain_gdb.hooks import points, session
from drain_gdb.hooks.account import Hits, Moment, Window, count
from drain_gdb.hooks.counter import Counter, SizeClasses, Tally
from drain_gdb.hooks.layers import ARENA, ENTRY, FASTPATH, REQUESTS, SLOWPATH
from drain_gdb.hooks.points import ALLOCATIONS, FREES, HookPoint, Plan, make_plan, public_prefix
from drain_gdb.hooks.session import PRICED, Counting, Request
from drain_gdb.hooks.stops import HOOK, OTHER, TIME, Debuggee, Stopped
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.regions import Region, RegionFinder
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import CountedCaches, StackedCaches
from drain_gdb.memory import Memory
from drain_gdb.render import counted
from drain_gdb.render.style import Style
from tests.support.fakeheap import FakeHeap

PARAMETERS = Parameters(12, 4, 48)
NBINS = PARAMETERS.nbins
SIZES = PARAMETERS.sizes
SLAB, LARGE = 0x7000, 0x9000
PROCESS = Process("live", 42, "server", "/usr/bin/server", "gdb", None)


@dataclass
class Stop:
    """A call at a hook, and what it is to return."""

    arguments: Sequence[int] = ()
    back: int = 0
    sp: int = 0x1000
    ret: int = 0x400
    thread: int = 7
    waiting: List[Callable[[Stopped], None]] = field(default_factory=list)

    def argument(self, position: int) -> int:
        return self.arguments[position]

    def stack_pointer(self) -> int:
        return self.sp

    def return_address(self) -> int:
        return self.ret

    def result(self) -> int:
        return self.back

    def on_return(self, done: Callable[[Stopped], None]) -> None:
        self.waiting.append(done)

    def returns(self, value: int) -> None:
        self.back = value
        (done,) = self.waiting
        done(self)


class Bench:
    """A counter whose regions are a dictionary, and its functions by name."""

    def __init__(self, regions: Optional[Dict[int, Region]] = None, only: Optional[int] = None):
        self.regions = regions or {}
        self.memory: Dict[int, bytes] = {}
        caches = StackedCaches(0, 0, 0, 0, 0, 0, 24, 0, 8, 20, 22, 8, None, 0)
        self.counter = Counter(PARAMETERS, caches, self.regions.get, self._read, only)
        table = (*points.PUBLIC, *points.OPERATORS, *points.SLOW, *points.BINS)
        self.points = {
            s.name: HookPoint(s.name, 0x10000 * n, 0x10000 * n + 0x100, s)
            for n, s in enumerate(table, 1)
        }

    def _read(self, address: int, size: int) -> bytes:
        return self.memory[address][:size]

    def call(self, name: str, *arguments: int, **more: int) -> Stop:
        stop = Stop(arguments, **more)
        self.counter.hit(self.points[name], stop)
        return stop

    @property
    def tally(self) -> Tally:
        return self.counter.tally

    def net(self) -> Tuple[Dict[int, int], Dict[int, int]]:
        """Allocations and frees by bytes of their class."""
        sums: Tuple[Dict[int, int], Dict[int, int]] = ({}, {})
        for found, tallies in zip(sums, (self.tally.allocs, self.tally.frees)):
            for (_, szind), number in tallies.items():
                found[SIZES[szind]] = found.get(SIZES[szind], 0) + number
        return tuple({size: n for size, n in found.items() if n} for found in sums)  # type: ignore


def szind(size: int) -> int:
    found = SizeClasses(PARAMETERS).of(size)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("malloc", (0,), 8),
        ("malloc", (1025,), 1280),
        ("malloc", (14337,), 16384),
        ("calloc", (10, 10), 112),
        ("mallocx", (100, 0), 112),
        ("mallocx", (100, 9), 512),
        # An int argument's register may hold anything above it.
        ("mallocx", (100, 0xDEAD << 32 | 6), 128),
        ("aligned_alloc", (256, 300), 512),
        ("memalign", (1, 33), 48),
        ("posix_memalign", (0x5000, 64, 100), 128),
        ("posix_memalign", (0x5000, 2048, 13000), 14336),
        ("posix_memalign", (0x5000, 2048, 14337), 16384),
        ("realloc", (0, 70), 80),
        ("_Znwm", (20000,), 20480),
        ("_ZnwmSt11align_val_t", (100, 64), 128),
    ],
)
def test_an_allocation_by_its_arguments(name: str, arguments: Sequence[int], size: int) -> None:
    bench = Bench()
    assert bench.call(name, *arguments).waiting == []
    assert bench.net() == ({size: 1}, {})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("malloc", (1 << 63,)),
        ("calloc", (1 << 62, 16)),
        ("posix_memalign", (0x5000, 24, 100)),
        ("posix_memalign", (0x5000, 4, 100)),
        ("aligned_alloc", (0, 100)),
    ],
)
def test_what_cannot_be_had_is_no_allocation(name: str, arguments: Sequence[int]) -> None:
    bench = Bench()
    bench.call(name, *arguments)
    assert bench.net() == ({}, {})
    assert bench.tally.failed == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("valloc", (10,)), ("aligned_alloc", (4096, 100)), ("mallocx", (0, 6)), ("memalign", (64, 0))],
)
def test_what_versions_do_differently_is_seen_at_the_return(
    name: str, arguments: Sequence[int]
) -> None:
    bench = Bench({LARGE: Region(szind(16384), None), SLAB: Region(szind(4096), SLAB)})
    bench.call(name, *arguments).returns(LARGE)
    bench.call(name, *arguments).returns(SLAB)
    bench.call(name, *arguments).returns(0)
    assert bench.net() == ({16384: 1, 4096: 1}, {})
    assert bench.tally.failed == 1


def test_posix_memalign_puts_the_pointer_elsewhere() -> None:
    bench = Bench({SLAB: Region(szind(4096), SLAB)})
    bench.memory[0x5000] = SLAB.to_bytes(8, "little")
    bench.call("posix_memalign", 0x5000, 4096, 100).returns(0)
    # ENOMEM, in a register whose upper half is left over.
    bench.call("posix_memalign", 0x5000, 4096, 100).returns(12 | 1 << 40)
    assert bench.net() == ({4096: 1}, {})
    assert bench.tally.failed == 1


def test_frees_by_class_thread_and_slab() -> None:
    bench = Bench(
        {
            SLAB + 16: Region(szind(16), SLAB),
            SLAB + 32: Region(szind(16), SLAB),
            LARGE: Region(szind(20480), None),
        }
    )
    bench.call("free", SLAB + 16)
    bench.call("sdallocx", SLAB + 32, 16, 0, thread=8)
    bench.call("dallocx", LARGE, 0)
    bench.call("free", 0)
    bench.call("free", 0xBAD)
    assert bench.tally.frees == {(7, szind(16)): 1, (8, szind(16)): 1, (7, szind(20480)): 1}
    assert bench.tally.slabs == {SLAB: 2}
    assert (bench.tally.null, bench.tally.strangers) == (1, 1)
    assert bench.tally.fast == {FREES: 4}


def test_small_reallocations_are_decided_by_the_class() -> None:
    bench = Bench({SLAB: Region(szind(100), SLAB)})
    stops = [
        bench.call("realloc", SLAB, 112),
        bench.call("rallocx", SLAB, 110, 0),
        bench.call("realloc", SLAB, 113),
        bench.call("realloc", SLAB, 20000),
        # Aligned to 4,096 it is, to 8,192 it is not: where the new class is the old.
        bench.call("rallocx", SLAB, 1, 13),
    ]
    assert [len(stop.waiting) for stop in stops] == [0, 0, 0, 0, 1]
    assert bench.net() == ({128: 1, 20480: 1}, {112: 2})
    assert (bench.tally.kept, bench.tally.moved) == (2, 2)


def test_a_small_region_moves_for_its_alignment() -> None:
    bench = Bench({SLAB + 64: Region(szind(64), SLAB)})
    bench.call("rallocx", SLAB + 64, 64, 6)
    assert (bench.tally.kept, bench.tally.moved) == (1, 0)
    bench = Bench({SLAB + 64: Region(szind(128), SLAB)})
    bench.call("rallocx", SLAB + 64, 128, 7)
    assert (bench.tally.kept, bench.tally.moved) == (0, 1)
    assert bench.net() == ({128: 1}, {128: 1})


def test_large_reallocations_are_seen_at_the_return() -> None:
    bench = Bench({LARGE: Region(szind(20480), None)})
    kept = bench.call("realloc", LARGE, 20000)
    kept.returns(LARGE)
    assert (bench.tally.kept, bench.net()) == (1, ({}, {}))
    grown = bench.call("realloc", LARGE, 30000)
    bench.regions[LARGE] = Region(szind(30000), None)
    grown.returns(LARGE)
    assert bench.tally.resized == {(szind(20480), szind(30000)): 1}
    moved = bench.call("realloc", LARGE, 99999)
    bench.regions[0xA000] = Region(szind(99999), None)
    moved.returns(0xA000)
    assert bench.net() == ({114688: 1}, {32768: 1})
    failed = bench.call("realloc", 0xA000, 1 << 40)
    failed.returns(0)
    assert bench.tally.failed == 1
    down = bench.call("realloc", 0xA000, 100)
    assert down.waiting == []
    assert bench.net() == ({114688: 1, 112: 1}, {32768: 1, 114688: 1})


def test_realloc_to_nothing_is_whatever_it_returns() -> None:
    """opt.zero_realloc: free it, or allocate the smallest."""
    bench = Bench({SLAB: Region(szind(64), SLAB), 0xB000: Region(0, 0xB000)})
    bench.call("realloc", SLAB, 0).returns(0)
    assert bench.net() == ({}, {64: 1})
    bench.call("realloc", SLAB, 0).returns(0xB000)
    assert bench.net() == ({8: 1}, {64: 2})


def test_xallocx_resizes_large_ones_alone() -> None:
    bench = Bench({SLAB: Region(szind(64), SLAB), LARGE: Region(szind(20480), None)})
    assert bench.call("xallocx", SLAB, 5000, 0, 0).waiting == []
    grown = bench.call("xallocx", LARGE, 40000, 0, 0)
    bench.regions[LARGE] = Region(szind(40000), None)
    grown.returns(40960)
    assert bench.tally.resized == {(szind(20480), szind(40000)): 1}
    assert bench.tally.kept == 1
    assert bench.net() == ({}, {})


def test_an_operator_and_what_it_calls_count_once() -> None:
    bench = Bench({SLAB: Region(szind(64), SLAB)})
    new = bench.points["_Znwm"]
    bench.call("_Znwm", 64, sp=0x1000, ret=0x400)
    bench.call("malloc", 64, sp=0xFE0, ret=new.address + 5)
    assert bench.net() == ({64: 1}, {})
    # By a jump: the stack is as the caller left it.
    bench.call("_ZdlPv", SLAB, sp=0x1000, ret=0x404)
    bench.call("free", SLAB, sp=0x1000, ret=0x404)
    assert bench.net() == ({64: 1}, {64: 1})
    assert bench.tally.nested == 2
    assert bench.tally.calls == {"_Znwm": 1, "_ZdlPv": 1}


def test_the_same_call_again_is_another_call() -> None:
    bench = Bench({SLAB: Region(szind(64), SLAB)})
    for _ in range(3):
        bench.call("_ZdlPv", SLAB)
    bench.call("_Znwm", 64)
    bench.call("free", SLAB, ret=0x500)
    bench.call("malloc", 64, ret=0x400, thread=8)
    assert bench.tally.nested == 0
    assert bench.net()[1] == {64: 4}
    assert bench.tally.calls == {"_ZdlPv": 3, "_Znwm": 1, "free": 1, "malloc": 1}


def test_an_array_operator_through_two_others() -> None:
    """As libstdc++ has them: new[] calls new, which calls malloc."""
    bench = Bench()
    bench.call("_Znam", 64)
    bench.call("_Znwm", 64, sp=0xFE0, ret=bench.points["_Znam"].address + 9)
    bench.call("malloc", 64, sp=0xFC0, ret=bench.points["_Znwm"].address + 9)
    assert bench.net() == ({64: 1}, {})
    assert bench.tally.nested == 2


def test_one_size_class_alone() -> None:
    bench = Bench({SLAB: Region(szind(64), SLAB), LARGE: Region(szind(128), LARGE)}, szind(64))
    bench.call("malloc", 64)
    bench.call("malloc", 65)
    bench.call("free", SLAB)
    bench.call("free", LARGE)
    assert bench.net() == ({64: 1}, {64: 1})
    assert bench.tally.slabs == {SLAB: 1}


def test_refills_and_flushes_by_regions() -> None:
    bench = Bench()
    bench.call("arena_cache_bin_fill_small", 0, 0, 0, 0, 5 | 7 << 32, 100)
    # A stack of 5.3: 30 regions below its bottom, of which 10 stay.
    bench.memory[0x6000] = (0x7FFF_0010).to_bytes(8, "little")
    bench.memory[0x6000 + 22] = (0x0010 + 30 * 8).to_bytes(2, "little")
    bench.call("tcache_bin_flush_small", 0, 0, 0x6000, 5, 10)
    bench.call("arena_ptr_array_fill_small", 0, 0, 6, 0, 0, 0).returns(1 << 16 | 40)
    bench.call("arena_malloc_hard", 0, 0, 64, 0)
    bench.call("arena_malloc_hard", 0, 0, 64000, 0)
    assert bench.net() == ({SIZES[5]: 100, SIZES[6]: 40, 64: 1}, {SIZES[5]: 20})


def test_refills_of_caches_that_count() -> None:
    bench = Bench()
    caches = CountedCaches(0, 0, 0, True, 0, 0, 1, 1, 32, 12, 0, 16)
    bench.counter = Counter(PARAMETERS, caches, bench.regions.get, bench._read)
    stop = bench.call("arena_tcache_fill_small", 0, 0, 0, 0x6000, 5, 0)
    bench.memory[0x6000 + 12] = (200).to_bytes(4, "little")
    stop.returns(0)
    bench.call("tcache_bin_flush_small", 0, 0, 0x6000, 5, 150)
    assert bench.net() == ({SIZES[5]: 200}, {SIZES[5]: 50})


# -- the plan ---------------------------------------------------------------------------


def functions(*names: str, size: int = 16) -> List[Function]:
    return [Function(name, 0x1000 + 0x100 * n, size) for n, name in enumerate(names)]


PLAIN = ("malloc", "calloc", "realloc", "free", "mallocx", "sdallocx", "mallctl", "_Znwm", "_ZdlPv")
SLOW = ("je_malloc_default", "je_free_default", "je_sdallocx_default")
BINS = (
    "je_arena_cache_bin_fill_small",
    "je_arena_malloc_hard",
    "je_tcache_bin_flush_small",
    "je_arena_dalloc_small",
)


def nowhere(_: str) -> Sequence[int]:
    return ()


def plan(layer: str, *names: str, private: Optional[str] = "je_", asymmetric: bool = False) -> Plan:
    return make_plan(layer, functions(*names), private, nowhere, asymmetric)


@pytest.mark.parametrize("prefix", ["", "je_", "je_arrow_", "_rjem_"])
def test_the_public_prefix(prefix: str) -> None:
    names = [prefix + name for name in PLAIN if not name.startswith("_Z")]
    others = ("zmalloc", "je_malloc_default", "_rjem_je_malloc_default", "xmalloc", "free_all")
    assert public_prefix(functions(*names, *others)) == prefix
    made = plan(ENTRY, *names, *others)
    assert [p.name for p in made.points] == [
        prefix + s.name for s in points.PUBLIC if prefix + s.name in names
    ]
    assert made.only is None


def test_operators_belong_to_an_allocator_without_prefix_or_with_their_source() -> None:
    assert {"_Znwm", "_ZdlPv"} <= {p.name for p in plan(ENTRY, *PLAIN).points}
    prefixed = ["je_malloc", "je_mallocx", "_Znwm"]
    assert "_Znwm" not in {p.name for p in plan(ENTRY, *prefixed).points}
    own = plan(ENTRY, *prefixed, "_ZL13fallback_implILb0EEPvm")
    assert "_Znwm" in {p.name for p in own.points}


def test_an_alias_is_one_point() -> None:
    same = [Function(name, 0x5000, 16) for name in ("_ZdlPv", "__libc_free", "free")]
    made = make_plan(ENTRY, [*same, *functions("mallocx")], "je_", nowhere, False)
    assert [p.name for p in made.points] == ["free", "mallocx"]


def test_no_names_no_hooks() -> None:
    with pytest.raises(CountingError, match="has none; --layer requests needs none"):
        plan(ENTRY, "main", private=None)


@pytest.mark.parametrize("layer", [FASTPATH, SLOWPATH, ARENA])
def test_a_layer_needs_both_its_sides(layer: str) -> None:
    names = [*PLAIN, *SLOW, *BINS]
    whole = plan(layer, *names)
    assert whole.only is None
    assert {p.signature.side for p in whole.points} == {ALLOCATIONS, FREES}
    gone = ["je_tcache_bin_flush_small"]
    if layer != ARENA:
        gone = ["je_free_default", "je_sdallocx_default"]
    rest = [name for name in names if name not in gone]
    lacking = " or ".join(name[3:] for name in gone)
    with pytest.raises(CountingError, match=rf"side of allocations alone: .*{lacking};.*--asymm"):
        plan(layer, *rest)
    half = plan(layer, *rest, asymmetric=True)
    assert half.only == ALLOCATIONS
    assert {p.signature.side for p in half.points} == {ALLOCATIONS}
    with pytest.raises(CountingError, match=r"cannot be counted: .* and none is "):
        plan(layer, *PLAIN, asymmetric=True)


def test_a_slow_path_without_symbol_is_said() -> None:
    """Where free() is there but its slow path is not, a side is counted in part."""
    made = plan(SLOWPATH, *PLAIN, "je_malloc_default", "je_sdallocx_default")
    assert made.only is None
    assert "the slow path of free, which has no symbol" in made.missing
    rust = [name for name in PLAIN if name != "free"]
    made = plan(SLOWPATH, *rust, "je_malloc_default", "je_sdallocx_default")
    assert not any("no symbol" in each for each in made.missing)


def test_static_functions_have_no_prefix() -> None:
    names = [*PLAIN, "malloc_default", "free_default"]
    assert len(plan(SLOWPATH, *names, private="je_").points) == 2


def test_a_copy_that_was_only_renamed_has_its_arguments() -> None:
    names = [*PLAIN, "je_malloc_default.lto_priv.0", "je_free_default.constprop.1"]
    made = {p.name: p for p in plan(SLOWPATH, *names, "je_malloc_default.cold").points}
    assert made["je_malloc_default.lto_priv.0"].readable
    assert not made["je_free_default.constprop.1"].readable
    assert "je_malloc_default.cold" not in made
    missing = plan(SLOWPATH, *names).missing
    assert any("je_free_default.constprop.1" in each for each in missing)


def test_what_cannot_be_read_has_no_class() -> None:
    bench = Bench()
    bench.points["free_default"] = HookPoint(
        "je_free_default.constprop.1", 0x10, 0x20, points.SLOW[1], readable=False
    )
    flush = bench.points["tcache_bin_flush_small"]
    bench.points["flush"] = replace(flush, name="flush.constprop.0", readable=False)
    bench.call("free_default", 0xBAD)
    bench.call("flush", 0, 0, 0xBAD, 0, 0)
    assert bench.tally.frees == {(7, -1): 1}
    assert bench.tally.unread == 2


def test_the_fast_path_is_the_entry_less_the_slow_path() -> None:
    made = plan(FASTPATH, *PLAIN, *SLOW)
    assert made.how == "entry minus slow path"
    bench = Bench({SLAB: Region(szind(64), SLAB)})
    bench.points = {p.name: p for p in made.points}
    bench.call("malloc", 64)
    bench.call("malloc", 64)
    bench.call("je_malloc_default", 64)
    bench.call("free", SLAB)
    bench.call("je_free_default", SLAB)
    assert bench.net() == ({64: 1}, {})
    assert bench.tally.fast == {ALLOCATIONS: 2, FREES: 1}
    assert bench.tally.slabs == {SLAB: 0}


def test_the_fast_path_by_debug_information() -> None:
    """Where it is inlined decides; a function that is not public is said."""
    known = functions(*PLAIN, *SLOW, "other")
    at = {f.name: f.address for f in known}
    places = {
        "imalloc_fastpath": [at["malloc"], at["other"] + 3],
        "free_fastpath": [at["free"] + 1],
    }
    made = make_plan(FASTPATH, known, "je_", lambda name: places.get(name, ()), False)
    assert {p.name for p in made.points if not p.slow} == {"malloc", "free"}
    assert "debug information" in made.how
    assert "the fast path in other" in made.missing


def test_inlined_copies_are_said() -> None:
    known = functions(*PLAIN, *BINS)
    at = {f.name: f.address for f in known}
    flush = at["je_tcache_bin_flush_small"]

    def inlined(name: str) -> Sequence[int]:
        return [flush + 4, 0xF000] if name == "je_tcache_bin_flush_small" else ()

    made = make_plan(ARENA, known, "je_", inlined, False)
    assert "1 inlined copies of je_tcache_bin_flush_small" in made.missing


# -- the accounting -----------------------------------------------------------------------


def a_moment(
    live: Mapping[int, int],
    requests: Optional[Mapping[int, int]],
    inside: int = 0,
    caches: int = 1,
) -> Moment:
    return Moment(
        live=live,
        allocated={(0, c): n for c, n in live.items() if c < NBINS},
        caches=caches,
        requests=None if requests is None else {(0, c): n for c, n in requests.items()},
        passed=None,
        inside=inside,
        status="exact",
        partial=False,
    )


ENTRY_PLAN = Plan(ENTRY, "", (), None, ("this and that",), "by name")


def a_window(
    layer: str = ENTRY, plan: Optional[Plan] = ENTRY_PLAN, ended: str = "stopped"
) -> Window:
    return Window(PROCESS, "/lib/libjemalloc.so.2", "5.3.0-0-gabc", layer, plan, None, 1.5, ended)


def a_tally(allocs: Mapping[int, int], frees: Mapping[int, int]) -> Tally:
    tally = Tally()
    tally.allocs.update({(7, c): n for c, n in allocs.items()})
    tally.frees.update({(7, c): n for c, n in frees.items()})
    return tally


def a_count(
    tally: Tally, start: Moment, end: Optional[Moment], window: Optional[Window] = None
) -> counted.Count:
    hits = Hits({"malloc": 3}, 10, 0.0002, tally, 0)
    return count(window or a_window(), start, end, hits, {7: "server"}, SIZES, NBINS)


def test_a_count_that_balances() -> None:
    big = szind(20480)
    tally = a_tally({3: 10, big: 2}, {3: 4})
    report = a_count(tally, a_moment({3: 5}, {3: 100}), a_moment({3: 11, big: 2}, {3: 110}))
    assert [(c.counted, c.independent, c.status) for c in report.checks] == [
        (8, 8, "exact"),
        (10, 10, "exact"),
    ]
    assert all(check.variance == 0 for check in report.checks)
    assert (report.allocs, report.frees) == (12, 4)
    (thread,) = report.threads
    assert (thread.name, thread.allocs, thread.frees) == ("server", 12, 4)


def test_a_count_that_does_not() -> None:
    tally = a_tally({3: 10}, {3: 4})
    report = a_count(tally, a_moment({3: 5}, {3: 100}), a_moment({3: 9}, {3: 110}))
    live, requests = report.checks
    assert (live.difference, live.variance, live.status) == (2, 2 / 14, "unequal")
    assert requests.status == "exact"
    text = counted.render(report, Style())
    assert "NOT EQUAL: " in text
    assert "14.2857 %" in text


def test_calls_in_flight_explain_as_many() -> None:
    tally = a_tally({3: 10}, {3: 4})
    ends = a_moment({3: 5}, {3: 100}, inside=1), a_moment({3: 9}, {3: 110}, inside=1)
    report = a_count(tally, *ends)
    assert [check.status for check in report.checks] == ["within", "exact"]
    assert "within what was in flight" in counted.render(report, Style())


def test_resized_in_place_moves_between_classes() -> None:
    one, other = szind(20480), szind(40960)
    tally = a_tally({}, {})
    tally.resized[one, other] = 3
    report = a_count(tally, a_moment({one: 3}, {}), a_moment({other: 3}, {}))
    assert [(row.index, row.resized, row.live) for row in report.classes] == [
        (one, -3, -3),
        (other, 3, 3),
    ]
    assert report.checks[0].status == "exact"


def test_thread_caches_own_blocks_are_left_out() -> None:
    block = szind(20480)
    start, end = a_moment({}, {}), a_moment({3: 1, block: 2}, {3: 1}, caches=3)
    report = a_count(a_tally({3: 1}, {}), start, end)
    assert report.caches == 2
    assert report.checks[0].status == "exact"


def test_without_an_end_nothing_is_claimed() -> None:
    for tally in (a_tally({3: 10}, {3: 4}), a_tally({}, {})):
        report = a_count(
            tally, a_moment({3: 5}, {3: 100}), None, a_window(ended="it exited with 0")
        )
        assert [check.status for check in report.checks] == ["unchecked"] * 2
        assert [check.difference for check in report.checks] == [None] * 2
        assert "no walk at the end: it exited with 0" in counted.render(report, Style())


def test_without_statistics_the_walk_is_the_one_check() -> None:
    report = a_count(a_tally({3: 2}, {}), a_moment({}, None), a_moment({3: 2}, None))
    assert [check.status for check in report.checks] == ["exact", "unchecked"]


def test_a_layer_that_serves_some_is_not_compared_but_said() -> None:
    partial = Plan(SLOWPATH, "", (), None, ("what the fast path serves",), "by name")
    tally = a_tally({3: 5}, {3: 1})
    ends = a_moment({3: 0}, {3: 0}), a_moment({3: 30}, {3: 50})
    report = a_count(tally, *ends, a_window(SLOWPATH, partial))
    assert [check.status for check in report.checks] == ["unchecked"] * 2
    assert report.checks[1].share == 0.1
    assert "10.0 % of them" in counted.render(report, Style())


def test_one_side_alone_says_so_in_every_line() -> None:
    half = Plan(ARENA, "", (), ALLOCATIONS, (), "by name")
    ends = a_moment({3: 0}, {3: 0}), a_moment({3: 30}, {3: 50})
    report = a_count(a_tally({3: 5}, {}), *ends, a_window(ARENA, half))
    lines = [line for line in counted.render(report, Style()).splitlines() if line]
    assert len(lines) > 5
    assert [line for line in lines if not line.endswith("[asymmetric: allocations only]")] == []
    content = counted.as_dict(report)
    assert (content["symmetric"], content["counted_side"]) == (False, "allocations")


def test_requests_alone_derive_the_frees() -> None:
    window = a_window(REQUESTS, None)
    start, end = a_moment({3: 5}, {3: 100}), a_moment({3: 11}, {3: 110})
    report = count(window, start, end, None, {}, SIZES, NBINS)
    (row,) = report.classes
    assert (row.allocs, row.frees) == (10, 4)
    assert "derived" in counted.render(report, Style())


def test_lines_fit_and_terminals_are_not_steered() -> None:
    tally = a_tally({3: 10}, {3: 4})
    tally.slabs.update({0x7F00_0000_0000 + 0x1000 * n: n for n in range(20)})
    ends = a_moment({3: 5}, {3: 100}), a_moment({3: 11}, {3: 110})
    hits = Hits({f"function_{n}": n for n in range(20)}, 10, None, tally, 3)
    report = count(a_window(), *ends, hits, {7: "evil\033[2J"}, SIZES, NBINS)
    text = counted.render(report, Style())
    assert "\033" not in text
    assert max(map(len, text.splitlines())) <= 100


# -- a whole count, without a debugger ------------------------------------------------------


@dataclass
class FakeDebugger:
    """Hooks that a test hits itself."""

    hits: int = 0
    where: Debuggee = field(default_factory=lambda: Debuggee(1, 42))
    hit: Optional[Callable[[HookPoint, Stopped], bool]] = None
    points: Sequence[HookPoint] = ()
    timer: Optional[float] = None
    ended: Optional[Callable[[str], None]] = None
    stopped: Optional[Callable[[str], None]] = None
    work: Callable[[], str] = lambda: OTHER

    def debuggee(self) -> Debuggee:
        return self.where

    def require_hooks(self) -> None:
        pass

    def require_timer(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def symbol_files(self, module: Module) -> Sequence[str]:
        return [module.path]

    def inlined(self, name: str) -> Sequence[int]:
        return ()

    def threads(self) -> Mapping[int, Optional[str]]:
        return {7: "server"}

    def inside(self, ranges: Sequence[Tuple[int, int]], without: str) -> int:
        assert ranges
        return 0

    def set_hooks(
        self,
        points: Sequence[HookPoint],
        hit: Callable[[HookPoint, Stopped], bool],
        returned: Callable[[Callable[[Stopped], None], Stopped], bool],
    ) -> None:
        self.points, self.hit, self.returned = points, hit, returned

    def clear_hooks(self) -> None:
        self.points, self.hit = (), None

    def watch(self, ended: Callable[[str], None], stopped: Callable[[str], None]) -> None:
        self.ended, self.stopped = ended, stopped

    def unwatch(self) -> None:
        self.ended = self.stopped = None

    def set_timer(self, seconds: float) -> None:
        self.timer = seconds

    def clear_timer(self) -> None:
        self.timer = None

    def run(self) -> str:
        return self.work()

    def malloc(self, size: int = 64) -> bool:
        """A call of malloc; whether the process stops there."""
        assert self.hit is not None
        point = next(p for p in self.points if p.name == "malloc")
        self.hits += 1
        stops = self.hit(point, Stop((size,)))
        self.hits -= stops
        if stops and self.stopped is not None:
            self.stopped(HOOK)
        return stops


@dataclass
class Live(BytesTarget):
    """A fake heap that says it is alive."""

    def __post_init__(self) -> None:
        self.described_as = PROCESS


@dataclass
class Setting:
    """A process with one slab, its hooks and what was said."""

    debugger: FakeDebugger
    counting: Counting
    target: BytesTarget
    heap: Heap
    said: List[str] = field(default_factory=list)

    def start(self, request: Request) -> session.Session:
        return self.counting.start(
            request, self.target, self.heap, lambda: self.target, self.said.append
        )


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    fake = FakeHeap()
    fake.slab(3, range(5))
    fake.cache(0, {})
    target = fake.target()
    target.described_as = PROCESS
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    module = next(m for m in target.modules() if m.path == heap.layout.module)
    start = 0x4000_0000
    text = type(module.sections[0])(".text", start, start + 0x10000)
    whole = Module(module.path, (*module.sections, text), module.build_id)
    target.module_list = [whole]
    code = [Function(f.name, f.address - 0x1000 + start, 16) for f in functions(*PLAIN)]
    monkeypatch.setattr(session, "functions", lambda *_: code)
    debugger = FakeDebugger()
    return Setting(debugger, Counting(lambda: debugger), target, heap)


def test_hooks_go_at_the_limit_and_nothing_is_counted_beyond(setting: Setting) -> None:
    begun = setting.start(Request(ENTRY, hits=3))
    assert [setting.debugger.malloc() for _ in range(4)] == [False] * 3 + [True]
    assert setting.debugger.points == ()
    assert begun.ended == "the limit of 3 hits is reached"
    report = begun.report()
    assert report.allocs == 3
    assert report.hits is not None
    assert report.hits.hits == 3
    assert report.end is not None


def test_the_default_limits_hold_where_none_is_given(setting: Setting) -> None:
    request = Request(ENTRY)
    assert (request.hits_limit, request.seconds_limit) == (100_000, 60.0)
    begun = setting.start(request)
    assert setting.debugger.timer is None
    setting.debugger.malloc()
    assert setting.debugger.timer == 60.0
    assert setting.debugger.stopped is not None
    setting.debugger.stopped(TIME)
    assert begun.ended == "the limit of 60 s is reached"
    assert setting.debugger.points == ()
    assert any("the hooks are removed" in line for line in setting.said)


def test_a_stop_of_another_kind_ends_nothing(setting: Setting) -> None:
    begun = setting.start(Request(ENTRY))
    assert setting.debugger.stopped is not None
    setting.debugger.stopped(OTHER)
    assert begun.ended is None
    assert setting.debugger.points != ()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnreadableMemory(0xBAD, 8), "an error at malloc: cannot read 8 bytes at 0xbad"),
        (ZeroDivisionError("spoilt"), "an internal error at malloc: ZeroDivisionError: spoilt"),
    ],
)
def test_an_error_at_a_hook_removes_them_all(
    error: Exception, said: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = setting.start(Request(ENTRY))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(begun._counter, "hit", fail)
    assert setting.debugger.malloc()
    assert setting.debugger.points == ()
    assert begun.ended is not None
    assert said in begun.ended


def test_an_error_at_a_return_ends_the_count(setting: Setting) -> None:
    begun = setting.start(Request(ENTRY))

    def fail(_: Stopped) -> None:
        raise UnreadableMemory(0xBAD, 8)

    assert setting.debugger.returned(fail, Stop())
    assert setting.debugger.stopped is not None
    setting.debugger.stopped(HOOK)
    assert begun.ended is not None
    assert "an error at a return" in begun.ended
    assert setting.debugger.points == ()


def test_an_error_while_hooks_are_set_leaves_none(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(points: Sequence[HookPoint], *_: object) -> None:
        setting.debugger.points = points
        raise KeyboardInterrupt

    monkeypatch.setattr(setting.debugger, "set_hooks", fail)
    with pytest.raises(KeyboardInterrupt):
        setting.start(Request(ENTRY))
    assert setting.debugger.points == ()
    assert setting.counting.latest() is None


def test_the_end_of_the_process_keeps_the_counts(setting: Setting) -> None:
    begun = setting.start(Request(ENTRY))
    setting.debugger.malloc()
    assert setting.debugger.ended is not None
    setting.debugger.ended("the process exited with 3")
    assert setting.debugger.points == ()
    setting.debugger.where = Debuggee(1, 0)
    assert setting.counting.latest() is None
    assert setting.counting.last() is begun
    report = begun.report()
    assert report.allocs == 1
    assert report.end is None
    assert "the process exited with 3" in counted.render(report, Style())


def test_one_count_at_a_time(setting: Setting) -> None:
    setting.start(Request(REQUESTS))
    with pytest.raises(CountingError, match="being counted already"):
        setting.start(Request(ENTRY))
    setting.counting.last().end("stopped")
    setting.start(Request(ENTRY))


def test_nothing_counted_nothing_shown(setting: Setting) -> None:
    with pytest.raises(CountingError, match="begin with: draincount start"):
        setting.counting.last()


def test_another_process_is_not_taken_for_the_counted_one(setting: Setting) -> None:
    begun = setting.start(Request(ENTRY))
    setting.debugger.where = Debuggee(2, 43)
    with pytest.raises(CountingError, match="another process is being counted; select"):
        setting.counting.last()
    begun.end("stopped")
    assert setting.counting.last() is begun


def test_the_price_is_said_once_and_before_the_end(setting: Setting) -> None:
    setting.start(Request(ENTRY, hits=PRICED + 50))
    for _ in range(PRICED + 40):
        assert not setting.debugger.malloc()
    (line,) = setting.said
    assert line.startswith("a hit takes ")
    assert f"{PRICED + 50:,} of them" in line


def test_calls_of_the_fast_path_for_info(setting: Setting) -> None:
    begun = setting.start(Request(ENTRY))
    setting.debugger.malloc()
    setting.debugger.malloc(1 << 20)
    assert begun.fast_calls() == (2, 0)
    begun.end("stopped")
    assert begun.fast_calls() == (2, 0)
    assert setting.start(Request(REQUESTS)).fast_calls() is None


def test_a_region_is_found_without_a_walk(setting: Setting) -> None:
    heap = setting.heap
    find = RegionFinder(setting.target.read, heap.layout).find
    address = heap.slabs.address[0]
    assert find(address + 2 * heap.bins[3].reg_size) == Region(3, address)
    assert find(0) is None
    assert find(1 << 47) is None
    assert find(0x1000) is None
