"""--format malloc_stats against the process's own malloc_stats_print()."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

import pytest

from drain_gdb.jemalloc.printed import parse, read_printed
from tests.conftest import Livelist, RedisCore
from tests.support.inputs import program
from tests.support.processes import READY_SECONDS, Program
from tests.support.runs import shell, sweep_json

DIRECTLY = ("--debugger", "none", "--stop")
GONE = {
    *("config", "opt", "prof", "stats.mutexes", "stats.zero_reallocs"),
    *("stats.background_thread", "arenas.narenas", "arenas.tcache_max", "arenas.nhbins"),
    *("arenas.dirty_decay_ms", "arenas.muzzy_decay_ms", "arenas.hugepage", "system"),
}
"""Not in the memory that is walked."""
GONE_OF_ARENA = {"uptime_ns", "hpa_shard", "sec_bytes", "name"}
UNNAMED = {
    *(f"{state}_{what}" for state in ("dirty", "muzzy") for what in ("npurge", "purged")),
    *(f"{state}_{what}" for state in ("dirty", "muzzy") for what in ("nmadvise", "decay_ms")),
    *("mapped", "abandoned_vm", "extent_avail", "extents"),
}
"""What a layout without debug information need not name, of an arena."""
SHIFTED = {
    "num_ops": "num_ops",
    "num_wait": None,
    "num_spin_acq": "num_wait",
    "num_owner_switch": None,
    "total_wait_time": "num_spin_acq",
    "max_wait_time": None,
    "max_num_thds": "max_num_thds",
}
"""What 5.2.0 to 5.3.0 print under the name of a mutex's counter; None is a rate
(mutex_stats_emit() skips the rates' columns without counting them)."""

WHILE_PRINTING = {"active_pages", "dirty_pages", "large", "internal", "tcache"}
"""Other in a core than in what was printed: malloc_stats_print() has a buffer meanwhile."""


class Printed(NamedTuple):
    """A process that was looked at while it printed: its word and ours."""

    theirs: Path
    ours: Dict[str, Any]
    walked: Dict[str, Any]
    by_arena: Dict[str, Any]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Printed]:
    folder = tmp_path_factory.mktemp("printed")
    path = folder / "statistics"
    command = [str(program("printed", "-ljemalloc")), str(path), "J"]
    child = Program(command, {"MALLOC_CONF": "narenas:8"})
    try:
        ran = shell("sweep", "--pid", child.pid, *DIRECTLY, "--format", "malloc_stats")
        assert ran.status == 0, ran.err
        walked = sweep_json("--pid", child.pid, *DIRECTLY)
        by_arena = sweep_json("--pid", child.pid, *DIRECTLY, "--by", "arena")
        child.process.stdin.close()
        assert child.process.wait(READY_SECONDS) == 0
        yield Printed(path, json.loads(ran.out), walked, by_arena)
    finally:
        child.stop()


class Differences:
    """Two trees, key by key."""

    def __init__(self) -> None:
        self.compared = 0
        self.missing: Set[Tuple[str, ...]] = set()
        self.different: List[Tuple[object, ...]] = []

    def look(self, ours: Any, theirs: Any, path: Tuple[str, ...] = ()) -> None:
        if isinstance(theirs, dict) and "num_ops" in theirs:
            shown = {k: ours[mine] for k, mine in SHIFTED.items() if mine is not None}
            theirs = {k: theirs[k] for k in shown}
            self.look(list(shown.values()), list(theirs.values()), path)
        elif isinstance(theirs, dict):
            assert ours.keys() <= theirs.keys(), (path, ours.keys() - theirs.keys())
            self.missing |= {(*path, key) for key in theirs.keys() - ours.keys()}
            for key in ours:
                self.look(ours[key], theirs[key], (*path, key))
        elif isinstance(theirs, list):
            assert len(ours) == len(theirs), path
            for row, (mine, other) in enumerate(zip(ours, theirs)):
                self.look(mine, other, (*path, str(row)))
        else:
            self.compared += 1
            if ours != theirs:
                self.different.append((path, ours, theirs))


def test_every_field_is_the_process_own(printed: Printed) -> None:
    found = Differences()
    theirs = json.loads(printed.theirs.read_text())
    found.look(printed.ours["jemalloc"], theirs["jemalloc"])
    assert found.different == []
    # Eight arenas and their sum, each of 36 bins and 196 large classes.
    assert found.compared > 9 * (36 * 9 + 196)
    of_arenas = {path[2] for path in found.missing if path[0] == "stats.arenas" and len(path) == 3}
    assert of_arenas <= GONE_OF_ARENA | UNNAMED
    others = {path for path in found.missing if path[0] != "stats.arenas"}
    assert {".".join(path[:2]) for path in others if path[0] in ("stats", "arenas")} <= GONE | {
        "stats.mapped"
    }
    mutexes = {path[3] for path in found.missing if len(path) == 4 and path[2] == "mutexes"}
    assert {name for name in mutexes if not name.startswith("hpa_")} <= {
        *("extent_avail", "decay_dirty", "decay_muzzy"),
    }


def test_a_sweep_of_the_statistics_is_that_of_the_process(printed: Printed) -> None:
    """What both know is equal; what statistics cannot know is null."""
    told = sweep_json(printed.theirs)
    assert told["process"]["source"] == "statistics"
    assert told["verification"]["status"] == "unavailable"
    known = {*("slabs", "regions", "allocated", "free", "slab_bytes", "allocated_bytes")}
    known |= {"free_bytes", "utilization", "partial"}
    for key, value in told["totals"].items():
        assert value == (printed.walked["totals"][key] if key in known else None), key
    same = {*known, "arena", "shard", "index", "size", "slab_size", "nregs"}
    for report, walked in (
        (told, printed.walked),
        (sweep_json(printed.theirs, "--by", "arena"), printed.by_arena),
    ):
        rows = [{key: row[key] for key in same} for row in report["bins"]]
        assert rows == [{key: row[key] for key in same} for row in walked["bins"]]
    extents = printed.walked["extents"]
    unknown = {*("large_cached_bytes", "large_cached_count", "hpa_cached_bytes"), "pinned_bytes"}
    for key in extents.keys() - unknown - {"transition_bytes", "unused"}:
        assert told["extents"][key] == extents[key], key
    for key in ("version", "page_size", "arenas", "thread_cache_bytes"):
        assert told["allocator"][key] == printed.walked["allocator"][key]
    assert told["counters"]["arena"] == printed.walked["counters"]["arena"]


def test_what_is_made_of_a_redis_core_is_what_redis_printed(
    stripped_redis: RedisCore, tmp_path: Path
) -> None:
    """Read back, every figure on which Redis says the same before and after the core."""
    made = tmp_path / "made"
    ran = shell("sweep", stripped_redis.core, "--format", "malloc_stats", "--output", made)
    assert ran.status == 0, ran.err
    before, after = map(parse, stripped_redis.printed)
    ours = read_printed(str(made))
    assert (ours.version, ours.page, ours.quantum) == (after.version, after.page, after.quantum)
    (index,) = ours.arenas
    mine, theirs, again = (each.arenas[index] for each in (ours, before, after))
    compared = []
    for name in (field.name for field in fields(theirs)):
        value = getattr(mine, name)
        steady = getattr(theirs, name) == getattr(again, name)
        if steady and isinstance(value, int) and name not in WHILE_PRINTING:
            assert value == getattr(theirs, name), name
            compared.append(name)
    assert {"threads", "muzzy_pages", "retained", "base"} <= set(compared)
    pages = (theirs.active_pages or 0) + (theirs.dirty_pages or 0)
    assert pages == (again.active_pages or 0) + (again.dirty_pages or 0)
    assert (mine.active_pages or 0) + (mine.dirty_pages or 0) == pages
    # How many slabs were made is in the text form alone.
    before_bins, after_bins = (
        {replace(row, nslabs=None) for row in each.bins or ()} for each in (theirs, again)
    )
    same = before_bins & after_bins
    assert len(same) > 10
    assert same <= set(mine.bins or ())


def test_it_is_asked_for_a_whole_heap(livelist: Livelist) -> None:
    ran = shell("sweep", livelist.core, "--format", "malloc_stats", "--by", "arena")
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert "shows the whole" in ran.err


def test_a_recording_without_the_counters_is_refused_in_one_line() -> None:
    recording = Path(__file__).parent / "recordings" / "jemalloc-5.3.0.drain"
    ran = shell("sweep", recording, "--format", "malloc_stats")
    assert ran.status == 2
    assert ran.err.count("\n") == 1
    assert "recording" in ran.err
