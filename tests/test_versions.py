"""What single releases have of their own; test_matrix.py has them all."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Dict

import pytest

from drain_gdb.debuggee import recording
from drain_gdb.debuggee.recording import RecordingTarget
from drain_gdb.layout.records import StackedCaches
from drain_gdb.layout.serialize import from_value
from drain_gdb.memory import Memory
from tests.conftest import Core
from tests.support.inputs import wheel_file
from tests.support.processes import gcore
from tests.support.real import (
    ARROW_5_2,
    ARROW_5_2_TAGS,
    arrow_5_2,
    columnar_python,
    python_running,
)
from tests.support.runs import shell, sweep_json


def test_jemalloc_5_1_in_redis_6(old_redis: Core) -> None:
    """Quantum 8, bin_infos among the constants, one bin a size class; debug information."""
    report = sweep_json(old_redis.core, "--by", "slab")
    assert report["allocator"]["version"].startswith("5.1.0")
    assert report["coverage"]["anomalies"] == []
    kilobyte = next(row for row in report["bins"] if row["size"] == 1024)
    assert kilobyte["live"] == pytest.approx(10_000, abs=20)


def test_jemalloc_5_2_in_arrow(tmp_path: Path) -> None:
    """Private prefix, bins behind pointers, caches that count; its own list of live regions."""
    child = arrow_5_2(wheel_file(ARROW_5_2, "pyarrow/libarrow.so.17", *ARROW_5_2_TAGS))
    try:
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    report = sweep_json(core, "--by", "slab")
    assert report["allocator"]["version"].startswith("5.2.1")
    assert report["allocator"]["symbol_prefix"] == "je_arrow_private_je_"
    assert report["coverage"]["anomalies"] == []
    lines = [line.split() for line in child.output if line.startswith("live")]
    small = [int(address, 16) for _, address, size in lines if int(size) <= 14336]
    # One more: the allocator's own record of its background threads.
    assert report["totals"]["live"] - len(small) in (0, 1)
    pinned = {int(s["address"], 16) for s in report["slabs"] if s["live"]}
    sizes = {int(s["address"], 16): s["size"] * s["nregs"] for s in report["slabs"]}
    starts = sorted(sizes)
    for address in small:
        start = max(s for s in starts if s <= address)
        assert address < start + sizes[start]
        assert start in pinned


@pytest.fixture(scope="module")
def columnar(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Any]:
    """A sweep of a Python that holds pyarrow buffers, and one that holds polars frames."""
    codes = {
        "pyarrow": "import pyarrow as p; m = p.jemalloc_memory_pool();"
        "x = [p.allocate_buffer(100, memory_pool=m) for _ in range(30000)]; del x[::2]",
        "both": "import pyarrow, polars as p; m = pyarrow.jemalloc_memory_pool();"
        "x = [pyarrow.allocate_buffer(100, memory_pool=m) for _ in range(30000)];"
        "y = p.DataFrame({'a': [1, 2]})",
        "polars": "import polars as p;"
        "x = [p.DataFrame({'a': list(range(40))}) for _ in range(4000)]; del x[::2]",
    }
    found = {}
    for name, code in codes.items():
        child = python_running(columnar_python(), code)
        try:
            found[name] = sweep_json("--pid", child.pid, "--debugger", "none")
            if name == "both":
                path = tmp_path_factory.mktemp("both") / "both.drain"
                found["recording"] = shell(
                    "record", "--pid", child.pid, "--debugger", "none", "-o", path
                )
                found["recorded"] = path
        finally:
            child.stop()
    return found


@pytest.mark.long
def test_jemalloc_5_3_0_in_arrow(columnar: Dict[str, Any]) -> None:
    report = columnar["pyarrow"]
    assert report["allocator"]["layout_source"] == "symbols"
    assert report["allocator"]["symbol_prefix"] == "je_arrow_private_je_"
    assert report["verification"]["status"] == "exact"
    buffers = next(row for row in report["bins"] if row["size"] == 128)
    assert buffers["live"] == 15_000


def test_jemalloc_5_3_1_without_statistics_in_polars(columnar: Dict[str, Any]) -> None:
    """Nothing to verify against: said so, the counters unknown, the structure checked."""
    report = columnar["polars"]
    assert report["allocator"]["version"].startswith("5.3.1")
    assert report["allocator"]["symbol_prefix"] == "_rjem_je_"
    assert report["allocator"]["statistics"] is False
    assert report["verification"]["status"] == "unavailable"
    assert report["verification"]["mismatches"] == []
    assert report["verification"]["slabs_recorded"] is None
    assert report["counters"]["requests"] == {"allocs": None, "deallocs": None}
    assert report["extents"]["metadata_bytes"] is None
    (finding,) = report["coverage"]["anomalies"]
    assert "statistics are off" in finding
    assert "reached through the threads" in finding
    # What the caches hold lies in slabs of its size and is allocated there, or it would
    # be a mismatch.
    assert report["allocator"]["thread_caches"] >= 1
    assert report["totals"]["cached"] > 0
    assert report["totals"]["live"] > 2_000


def test_two_jemallocs_in_one_process(columnar: Dict[str, Any]) -> None:
    """Each is its own report, live and from one recording."""
    report, path = columnar["both"], columnar["recorded"]
    reports = {r["allocator"]["symbol_prefix"]: r for r in [report, *report["other_allocators"]]}
    assert set(reports) == {"_rjem_je_", "je_arrow_private_je_"}
    assert reports["je_arrow_private_je_"]["verification"]["status"] == "exact"
    assert reports["_rjem_je_"]["verification"]["status"] == "unavailable"
    assert columnar["recording"].status == 0
    for choice, prefix in (("je_arrow_private_je_", "je_arrow_private_je_"), ("0", None)):
        one = sweep_json(path, "--allocator", choice)
        assert "other_allocators" not in one
        assert len(one["allocator"]["not_swept"]) == 1
        assert prefix in (None, one["allocator"]["symbol_prefix"])
        assert one["totals"] == reports[one["allocator"]["symbol_prefix"]]["totals"]
    shown = shell("sweep", path).out
    assert shown.count("verdict: ") == 2
    refused = shell("sweep", path, "--format", "csv")
    assert refused.status == 1
    assert "this process holds 2 jemallocs, csv shows one; choose it with --alloc" in refused.err
    unknown = shell("sweep", path, "--allocator", "je_")
    assert unknown.status == 1
    assert "no allocator 'je_'" in unknown.err


def test_of_a_threads_own_data_only_the_cache_is_recorded(columnar: Dict[str, Any]) -> None:
    """The tsd_t stands among the program's thread-local variables."""
    target = RecordingTarget(recording.read(str(columnar["recorded"])))
    layouts = [from_value(value) for value in target.layouts() or ()]
    (layout,) = (each for each in layouts if each.prefix == "_rjem_je_")
    caches = layout.tcache
    assert isinstance(caches, StackedCaches)
    assert layout.threads is not None
    memory = Memory(target.read)
    tsd = layout.threads[0] - caches.descriptor & -4096
    recorded = sum(memory.readable(tsd + at) for at in range(0, 8192, 8))
    bins = caches.nbins_max * caches.bin_size // 8
    # The bins, and what is read of the descriptor's surroundings.
    assert 0 < recorded <= bins + 8


def test_a_version_alone_is_no_jemalloc(tmp_path: Path) -> None:
    """Any program may say a version of that form: it neither makes a jemalloc nor refuses one."""
    fake = tmp_path / "libold.so"
    source = tmp_path / "old.c"
    version = "4.5.0-0-g04380e79f1e2428bd0ad000bbc6e3d2dfc6b66a5"
    source.write_text(f'const char version[] = "{version}";\n')
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(fake), str(source)], check=True)
    code = f"import ctypes; ctypes.CDLL({str(fake)!r})"
    child = python_running(Path("/usr/bin/python3"), code)
    try:
        ran = shell("sweep", "--pid", child.pid)
    finally:
        child.stop()
    assert ran.status == 2
    assert "no jemalloc in this process" in ran.err
