"""Ways of configuring jemalloc at run time, each on a real process."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Dict

import pytest

from tests.conftest import read_lists
from tests.support.inputs import program
from tests.support.processes import Program
from tests.support.runs import sweep_json

SMALL_MAX = 14336
DIRECTLY = ("--debugger", "none", "--stop")
SETUPS = [
    "narenas:1",
    "narenas:64",
    "bin_shards:16-160:4",
    "background_thread:true",
    "dirty_decay_ms:0,muzzy_decay_ms:-1",
    "retain:false",
    "dss:primary",
    "hpa:true",
    "tcache_max:1024",
    "tcache_max:1048576",
    "slab_sizes:1-4096:17",
    "zero:true,junk:false",
    "metadata_thp:always",
    "lg_tcache_nslots_mul:3",
]


def _sweep(child: Program) -> Dict[str, Any]:
    try:
        report = sweep_json("--pid", child.pid, *DIRECTLY, "--by", "shard")
    finally:
        child.stop()
    assert report["verification"]["status"] == "exact"
    assert report["verification"]["slabs_walked"] > 0
    assert report["coverage"]["anomalies"] == []
    return report


@pytest.mark.parametrize("conf", SETUPS)
def test_is_exact(conf: str, tmp_path: Path) -> None:
    binary = str(program("livelist", "-ljemalloc"))
    child = Program([binary, str(tmp_path / "lists")], {"MALLOC_CONF": conf})
    report = _sweep(child)
    lists = read_lists(tmp_path / "lists")
    held = len(lists.live) + len(lists.libc)
    outside = report["extents"]["large_count"] - report["extents"]["large_cached_count"]
    # Every region the program and libc hold, and a stack for each thread cache.
    caches = report["allocator"]["thread_caches"]
    assert report["totals"]["live"] + outside == held + caches


def test_sampled_objects_lie_outside_slabs(tmp_path: Path) -> None:
    """Under heap profiling every sampled object gets an extent of its own (prof.c)."""
    binary = str(program("livelist", "-ljemalloc"))
    conf = {"MALLOC_CONF": "prof:true,lg_prof_sample:10"}
    report = _sweep(Program([binary, str(tmp_path / "lists")], conf))
    lists = read_lists(tmp_path / "lists")
    small = [size for _, size in lists.live if size <= SMALL_MAX]
    outside = report["extents"]["large_count"] - report["extents"]["large_cached_count"]
    sampled = outside - (len(lists.live) - len(small)) - report["allocator"]["thread_caches"]
    assert sampled > len(small) // 3
    # What is neither is the profiler's own: a record for each thread and call site.
    own = report["totals"]["live"] + sampled - len(small)
    assert 0 < own < 50


def test_shards_are_told_apart(tmp_path: Path) -> None:
    """With four shards, threads of one arena work in different ones."""
    binary = str(program("shards", "-ljemalloc"))
    report = _sweep(Program([binary], {"MALLOC_CONF": "narenas:1,bin_shards:16-160:4"}))
    rows = [row for row in report["bins"] if row["size"] == 96]
    assert [row["shard"] for row in rows] == [0, 1, 2, 3]
    assert all(row["live"] + row["cached"] >= 1000 for row in rows)
    unsharded = [row for row in report["bins"] if row["size"] > 160]
    assert {row["shard"] for row in unsharded} == {0}


def test_explicit_thread_caches() -> None:
    """Made, flushed and destroyed by the program; nothing else caches.

    A flush gives the cache itself back until it is used again (tcaches_flush()).
    """
    report = _sweep(Program([str(program("explicit", "-ljemalloc"))]))
    assert report["allocator"]["thread_caches"] == 1
    assert report["totals"]["cached"] == 7
    row = next(row for row in report["bins"] if row["size"] == 96)
    assert (row["live"], row["cached"]) == (100, 7)


PYTHON = ["/usr/bin/python3", "-c"]
HELD = "x = [bytes(100) for _ in range(20000)]"
PRELOAD = {"LD_PRELOAD": "libjemalloc.so.2", "PYTHONMALLOC": "malloc"}


def test_arenas_by_cpu() -> None:
    code = f"{HELD}; print('ready', flush=True); input()"
    conf = {"MALLOC_CONF": "percpu_arena:percpu"}
    assert _sweep(Program([*PYTHON, code], {**PRELOAD, **conf}))["totals"]["live"] > 20_000


def test_a_forked_child(tmp_path: Path) -> None:
    """The child of a fork, which has one thread and its parent's arenas."""
    code = f"""
import os, sys
{HELD}
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    del x[::2]
    print(os.getpid(), 'ready', flush=True)
    os.read(reader, 1)
    os._exit(0)
sys.stdin.read()
"""
    parent = Program([*PYTHON, code], PRELOAD)
    pid = int(parent.output[-1].split()[0])
    try:
        report = sweep_json("--pid", pid, *DIRECTLY)
    finally:
        subprocess.run(["kill", str(pid)], check=True)
        parent.stop()
    assert report["verification"]["status"] == "exact"
    assert report["totals"]["live"] > 10_000
