"""Real cores that lack something: swept as far as they go, and never taken for whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from drain_gdb.debuggee import recording
from drain_gdb.memory import Memory
from tests.conftest import Livelist
from tests.faults.twins import of_core
from tests.support.elfwriter import without_rest
from tests.support.inputs import program
from tests.support.processes import Program, gcore
from tests.support.real import STATIC
from tests.support.runs import shell, sweep_json, sweeps

PAGE = 4096
READERS = ("gdb", "none")
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def started(folder: Path) -> Program:
    return Program([str(program("livelist", "-ljemalloc")), str(folder / "lists")])


def metadata_pages(core: Path, folder: Path) -> List[int]:
    """Pages of extents, as a recording has them, ascending."""
    drain = folder / "whole.drain"
    assert shell("record", core, "-o", drain, "--quiet").status == 0
    found = recording.read(str(drain))
    small = (at for at, size in zip(found.starts, found.sizes) if 128 <= size < 1 << 16)
    return sorted({at & -PAGE for at in small})


def totals_of(ran_out: str) -> Dict[str, Any]:
    content: Dict[str, Any] = json.loads(ran_out)
    return content


FORMATS = ("text", "csv", "info", "json")


def marked_everywhere(core: Path, reader: str, folder: Path) -> Dict[str, Any]:
    """The report of a partial core, whose every format says that it is."""
    words = [f"--format {form}" for form in FORMATS]
    if reader == "gdb":
        found = sweeps(core, folder, *words)
    else:
        found = [shell("sweep", core, "--debugger", reader, *each.split()) for each in words]
    assert [ran.status for ran in found] == [3] * len(FORMATS), found
    text, rows, info, content = (ran.out for ran in found)
    assert "PARTIAL: " in text
    assert text.count("partial, of what could be read:") == 3
    assert {row["partial"] for row in csv.DictReader(io.StringIO(rows))} == {"true"}
    assert "mem_drainprof_partial:1" in info
    report: Dict[str, Any] = json.loads(content)
    assert report["totals"]["partial"] and report["coverage"]["partial"]
    assert 0 < report["coverage"]["readable"] < 1
    assert report["verification"]["status"] == "mismatch"
    return report


@pytest.mark.parametrize("how", [pytest.param("unmap", marks=pytest.mark.long), "hide"])
def test_pages_of_metadata_that_a_core_leaves_out(
    how: str, livelist: Livelist, tmp_path: Path
) -> None:
    """Pages among the extents that are gone, or excluded from cores (MADV_DONTDUMP)."""
    child = started(tmp_path)
    try:
        whole = gcore(child.pid, tmp_path / "whole.core")
        expected = sweep_json(whole, "--by", "slab")
        pages = metadata_pages(whole, tmp_path)
        lost = [pages[len(pages) // 3], pages[len(pages) // 2]]
        assert [child.ask(f"{how} {page:#x}") for page in lost] == ["done"] * len(lost)
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    reports = [marked_everywhere(core, reader, tmp_path) for reader in READERS]
    for report in reports:
        assert 0 < report["coverage"]["slabs_unreadable"] <= len(lost) * PAGE // 128
        slabs = report["totals"]["slabs"]
        assert 0 < expected["totals"]["slabs"] - slabs <= len(lost) * PAGE // 128
        assert report["coverage"]["readable"] > 0.99
    assert reports[0]["totals"] == reports[1]["totals"]


@pytest.mark.parametrize("reader", READERS)
def test_the_least_a_core_must_hold(reader: str, tmp_path: Path) -> None:
    """coredump_filter: private anonymous memory and headers are enough; without, nothing is."""
    child = started(tmp_path)
    try:
        filters = Path(f"/proc/{child.pid}/coredump_filter")
        filters.write_text("0x31")
        enough = gcore(child.pid, tmp_path / "enough")
        filters.write_text("0x10")
        little = gcore(child.pid, tmp_path / "little")
    finally:
        child.stop()
    report = sweep_json(enough, "--debugger", reader)
    assert report["verification"]["status"] == "exact"
    assert report["coverage"]["readable"] == 1
    assert little.stat().st_size < enough.stat().st_size / 100
    ran = shell("sweep", little, "--debugger", reader)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("drain-gdb: ")
    assert "Traceback" not in ran.err


def kernel_core(folder: Path, limit: int) -> Path:
    """A core of livelist that the kernel writes, at most ``limit`` bytes of it (RLIMIT_CORE)."""
    folder.mkdir()
    child = subprocess.Popen(
        [
            *("prlimit", f"--core={limit}:{limit}", "--"),
            *(str(program("livelist", "-ljemalloc")), str(folder / "lists")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGABRT)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    # It is named after the process where core_uses_pid says so.
    (found,) = folder.glob("core*")
    return found


def cut_core(folder: Path, share: float, whole: Path) -> Path:
    """A core of livelist that ends after a ``share`` of it.

    The kernel cuts it off where it writes cores itself; where it hands them to a program
    instead, ``whole`` is cut off.
    """
    pattern = CORE_PATTERN.read_text().strip()
    if "/" in pattern or "%" in pattern or pattern.startswith("|"):
        core = folder / "core"
        shutil.copyfile(whole, core)
        os.truncate(core, int(whole.stat().st_size * share))
        return core
    # The limit counts what is written; pages of zeros are left out.
    written = kernel_core(folder / "whole", 1 << 40).stat().st_blocks * 512
    return kernel_core(folder / "cut", int(written * share))


@pytest.mark.parametrize("share", [pytest.param(0.4, marks=pytest.mark.long), 0.8, 0.97])
def test_a_core_cut_off_by_a_limit(share: float, livelist: Livelist, tmp_path: Path) -> None:
    core = cut_core(tmp_path, share, livelist.core)
    outcomes: List[Tuple[int, Any]] = []
    for reader in READERS:
        ran = shell("sweep", core, "--debugger", reader, "--format", "json")
        assert ran.status in (2, 3), ran
        assert "is truncated" in ran.err
        assert "Traceback" not in ran.err
        outcomes.append((ran.status, totals_of(ran.out)["totals"] if ran.out else None))
    assert outcomes[0] == outcomes[1]
    if outcomes[0][0] == 3:
        marked_everywhere(core, "none", tmp_path)


def test_a_core_that_ends_among_its_notes(livelist: Livelist, tmp_path: Path) -> None:
    """gcore writes them last; nothing but them says where anything was mapped."""
    core = tmp_path / "core"
    shutil.copyfile(livelist.core, core)
    os.truncate(core, int(livelist.core.stat().st_size * 0.99))
    for reader in READERS:
        ran = shell("sweep", core, "--debugger", reader)
        assert (ran.status, ran.out) == (2, "")
        (line,) = ran.err.splitlines()
        assert "is truncated" in line
        assert "its notes, which say what was mapped where, are among them" in line


def test_a_core_without_the_tree(tmp_path: Path) -> None:
    """jemalloc's first metadata lies highest in memory, so that it is the first to be cut off."""
    child = Program([str(program("livelist", *STATIC)), str(tmp_path / "lists")])
    try:
        whole = gcore(child.pid, tmp_path / "whole")
    finally:
        child.stop()
    twin = of_core(whole)
    memory = Memory(twin.target.read)
    nodes = [memory.u64(spot.address) for spot in twin.spots["rtree: root and nodes"]]
    core = whole
    for node in sorted(nodes, reverse=True):
        core = without_rest(core, tmp_path / f"without-{node:#x}", node)
    for reader in READERS:
        ran = shell("sweep", core, "--debugger", reader)
        assert (ran.status, ran.out) == (2, "")
        count = len(nodes)
        assert f"{count} of the {count} nodes that its root leads to cannot be read" in ran.err
