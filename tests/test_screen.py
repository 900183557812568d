"""The first screen: what a tired person sees of reports made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable

import pytest

from drain_gdb.analysis.causes import find_causes, telling
from drain_gdb.analysis.report import Account, ArenaRow, Selection, Sweep
from drain_gdb.jemalloc.settings import Settings
from drain_gdb.render import text
from drain_gdb.render.style import SCREEN, Style
from tests.support.reports import MIB, account_of, row, state, sweep_of

LINES = 24
PLAIN = Style(unicode=False)


def arena(dirty: int, **other: Any) -> ArenaRow:
    values = {"index": 0, "threads": 1, "slab_bytes": 4096, "dirty_bytes": dirty}
    values.update(muzzy_bytes=0, dirty_decay_ms=10_000, muzzy_decay_ms=0)
    return ArenaRow(**{**values, **other})


def told(account: Account, report: Sweep, everything: bool = False) -> Sweep:
    """``report`` with its account and causes, small ones only where ``everything`` is."""
    causes = find_causes(account, {0: report})
    causes = causes if everything else telling(account, causes)
    return replace(report, account=account, causes=causes)


def idle() -> Sweep:
    """A burst is over, and nothing gives its pages back."""
    account = account_of(
        dirty=418 * MIB, large=7 * MIB, metadata=3 * MIB, file_backed=4 * MIB, stacks=MIB // 8
    )
    report = sweep_of(
        row(4096, state(10, 1, 4096, 1, 9, cache_held=9, drainable_bytes=9 * 4096)),
        arenas=(arena(418 * MIB, idle_seconds=25.0),),
        settings=Settings(background_thread=False),
    )
    return told(account, report)


def sizes_alone() -> Sweep:
    """A core that does not tell what was resident."""
    account = account_of(
        source="sizes",
        live=100 * MIB,
        pinned_waste=120 * MIB,
        dirty=60 * MIB,
        retained=900 * MIB,
        metadata=9 * MIB,
    )
    report = sweep_of(
        row(1024, state(56320, 4, 1024, 102400)),
        arenas=(arena(60 * MIB, dirty_decay_ms=-1),),
        settings=Settings(program="redis"),
    )
    return told(account, report)


def two_causes() -> Sweep:
    """A Python that has dropped most of its objects."""
    account = account_of(
        pinned_waste=62 * MIB, dirty=48 * MIB, live=3 * MIB, file_backed=8 * MIB, metadata=4 * MIB
    )
    report = sweep_of(
        *(row(size, state(1000, 4, size, 1000)) for size in (64, 128, 32)),
        arenas=(arena(48 * MIB),),
        settings=Settings(program="python"),
    )
    return told(account, report)


def first_screen(report: Sweep) -> str:
    """What stands before the rates of slabs."""
    shown = text.render(report, PLAIN)
    return shown[: shown.index("\n\nDSR, live")]


IDLE = """\
core of server (pid 42): jemalloc 5.3.0 found without symbols in libj.so; 1
arena, 2 thread caches
verified: the 10 slabs and 7 regions equal jemalloc's own statistics

RSS 432.1 MiB
  dirty pages            418.0 MiB  97 %  #################################
  4 smaller parts         14.1 MiB   3 %  #

why, largest first:
1. dirty pages: 418.0 MiB (97 %), stays. No background thread runs, and next to
   nothing was allocated or freed for 25 s, so they stay (dirty_decay_ms is
   10000).
   -> purge, 418.0 MiB: mallctl("arena.4096.purge", NULL, NULL, NULL, 0)
   -> background thread, 418.0 MiB: MALLOC_CONF=background_thread:true
   -> decay, 418.0 MiB: MALLOC_CONF=dirty_decay_ms:0"""
SIZES_ALONE = """\
core of server (pid 42): jemalloc 5.3.0 found without symbols in libj.so; 1
arena, 2 thread caches
verified: the 56,320 slabs and 7 regions equal jemalloc's own statistics

289.0 MiB by size: how much of it is resident is not known
  free, pinned slabs     120.0 MiB  42 %  ##############
  live, in slabs         100.0 MiB  35 %  ############
  dirty pages             60.0 MiB  21 %  #######
  jemalloc's metadata      9.0 MiB   3 %  #

why, largest first:
1. pinned slabs: 120.0 MiB (42 %), stays. 56,320 of 56,320 slabs each hold a
   live region and room besides: the 1024-byte class (100 %).
   -> defragment, up to 70.0 MiB: redis-cli CONFIG SET activedefrag yes (if it
      was built with it); then redis-cli MEMORY PURGE
   -> restart, up to 120.0 MiB: a restart or failover to a replica
2. live data: 100.0 MiB (35 %). The program holds it: 102,400 objects of the
   1024-byte class (100 % of it).
   -> find the owner: drainpins --all says who holds it; if it grows: draindiff
      of two recordings, the heap profiler (prof:true, jeprof)
3. dirty pages: 60.0 MiB (21 %), stays. dirty_decay_ms is -1, so they are never
   purged.
   -> purge, up to 60.0 MiB: redis-cli MEMORY PURGE"""
TWO_CAUSES = """\
core of server (pid 42): jemalloc 5.3.0 found without symbols in libj.so; 1
arena, 2 thread caches
verified: the 3,000 slabs and 7 regions equal jemalloc's own statistics

RSS 125.0 MiB
  free, pinned slabs      62.0 MiB  50 %  #################
  dirty pages             48.0 MiB  38 %  #############
  files                    8.0 MiB   6 %  ##
  jemalloc's metadata      4.0 MiB   3 %  #
  live, in slabs           3.0 MiB   2 %  #

why, largest first:
1. pinned slabs: 62.0 MiB (50 %), stays. 3,000 of 3,000 slabs each hold a live
   region and room besides: 128-, 64- and 32-byte classes (57 %, 29 % and 14 %).
   -> restart, 62.0 MiB: a restart with the same data
2. dirty pages: 48.0 MiB (38 %), may stay. dirty_decay_ms is 10000; whether a
   background thread runs is not known, and without one they stay while the
   program is idle.
   -> purge, 48.0 MiB: ctypes.CDLL(None).mallctl(b"arena.4096.purge", None,
      None, None, 0)"""


@pytest.mark.parametrize(
    ("scene", "screen"), [(idle, IDLE), (sizes_alone, SIZES_ALONE), (two_causes, TWO_CAUSES)]
)
def test_the_first_screen(scene: Callable[[], Sweep], screen: str) -> None:
    assert first_screen(scene()) == screen
    lines = screen.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= SCREEN


def test_little_is_left_out_unless_it_is_asked_for() -> None:
    report = idle()
    assert report.account is not None
    few = text.render(report, PLAIN)
    every = told(report.account, report, everything=True)
    many = text.render(every, PLAIN, text.View(verbose=True))
    assert "live data" not in few
    assert "4 smaller parts" in few
    assert "live data: 7.0 MiB (2 %)" in many
    for name in ("large, live", "files", "jemalloc's metadata", "main stack"):
        assert name not in few
        assert name in many
    hows = [remedy.how for cause in two_causes().causes for remedy in cause.remedies]
    shown = " ".join(text.render(two_causes(), PLAIN, text.View(verbose=True)).split())
    assert all(how in shown for how in hows)


def test_nothing_is_said_of_the_process_where_rows_are_selected() -> None:
    report = replace(idle(), selection=Selection(arena=0))
    assert "RSS" not in text.render(report, PLAIN)


def test_it_is_told_once_of_several_allocators() -> None:
    shown = text.render_all([idle(), idle()], PLAIN)
    assert shown.count("RSS 432.1 MiB") == shown.count("why, largest first") == 1
    assert shown.count("DSR, live") == 2


def test_options_of_the_process_steer_no_terminal() -> None:
    report = replace(idle(), settings=Settings(options={"a": "\033[2J"}, background_thread=False))
    assert report.account is not None
    report = told(report.account, report)
    for view in (text.View(), text.View(verbose=True)):
        assert "\033" not in text.render(report, PLAIN, view)


def test_headings_alone_are_painted() -> None:
    painted = text.render(idle(), Style(colour=True, unicode=False))
    assert "\033[01m1. dirty pages: 418.0 MiB (97 %), stays.\033[39;49;00m" in painted


def test_the_verdict_agrees_with_the_causes() -> None:
    extents = replace(idle().extents, dirty_bytes=418 * MIB)
    shown = " ".join(text.render(replace(idle(), extents=extents), PLAIN).split())
    assert "verdict: 418.0 MiB in unused dirty or muzzy pages: they stay until a purge" in shown
    shown = " ".join(text.render(sizes_alone(), PLAIN).split())
    assert "verdict: structural" in shown
    assert shown.endswith("What helps: active defragmentation.")


def test_no_size_class_that_holds_little_holds_most() -> None:
    rows = [row(size, state(20_000, 4, size, 20_000)) for size in range(1024, 1024 + 16 * 12, 16)]
    shown = " ".join(text.render(sweep_of(*rows), PLAIN).split())
    assert "It is spread over many classes; the worst is the 1200-byte class" in shown
    assert "Most of it" not in shown
