"""Cores and processes read without a debugger: the same answers as by gdb, errors too."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple

import pytest

from tests.conftest import Livelist, RedisCore
from tests.support.elfwriter import PF_W, many_segments, without
from tests.support.inputs import ROOT, debian_redis, program
from tests.support.processes import Program, gcore
from tests.support.real import STATIC, columnar_python, python_running
from tests.support.runs import Ran, of_heap, shell, sweep_json, without_finding

NONE = ("--debugger", "none")
POLARS = "import polars as p; x = [p.DataFrame({'a': list(range(40))}) for _ in range(500)]"
AARCH64 = 183


def equal(*target: object) -> Dict[str, Any]:
    """The report that gdb and direct reading agree on, every field of it."""
    by_gdb = sweep_json(*target, "--by", "slab", "--debugger", "gdb")
    directly = sweep_json(*target, "--by", "slab", *NONE)
    for report, debugger in ((by_gdb, "gdb"), (directly, "none")):
        for each in (report, *report.get("other_allocators", ())):
            assert each["process"].pop("debugger") == debugger
    assert directly == by_gdb
    return directly


def test_a_symbol_table(tmp_path: Path) -> None:
    child = Program([str(program("explicit", *STATIC))])
    try:
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    assert equal(core)["allocator"]["layout_source"] == "symbols"


def test_thread_caches_without_statistics() -> None:
    """They are found through the threads, whose registers cannot be read while they run."""
    child = python_running(columnar_python(), POLARS)
    try:
        report = sweep_json("--pid", child.pid, *NONE)
        by_gdb = sweep_json("--pid", child.pid, "--debugger", "gdb")
    finally:
        child.stop()
    assert report["allocator"]["statistics"] is False
    assert report["allocator"]["thread_caches"] == by_gdb["allocator"]["thread_caches"] > 0


def _live(pid: int, *options: str) -> Dict[str, Any]:
    report = sweep_json("--pid", pid, "--by", "slab", *options)
    assert report["process"].pop("taken_at")
    report["process"].pop("debugger")
    return of_heap(report)


def test_a_live_process(livelist: Livelist) -> None:
    """Stopped, and in motion where nothing moves, it is as a debugger sees it."""
    by_gdb = _live(livelist.pid, "--debugger", "gdb")
    assert by_gdb["verification"]["status"] == "exact"
    assert _live(livelist.pid, *NONE, "--stop") == by_gdb
    in_motion = _live(livelist.pid, *NONE)
    motion = in_motion["process"].pop("in_motion")
    assert motion["settled"] is True
    assert motion["moved_bytes"] == 0
    tolerance = in_motion["verification"].pop("tolerance")
    assert tolerance == {"stated": 0.001, "reached": 0, "within": True}
    assert by_gdb["process"].pop("in_motion") is None
    assert by_gdb["verification"].pop("tolerance") is None
    assert in_motion == by_gdb


def test_recordings_of_both_ways(livelist: Livelist, tmp_path: Path) -> None:
    still, moving = tmp_path / "still.drain", tmp_path / "moving.drain"
    ran = shell("record", "--pid", livelist.pid, *NONE, "--stop", "-o", still)
    assert ran.status == 0, ran
    assert "the process was stopped for 0." in ran.out
    ran = shell("record", "--pid", livelist.pid, *NONE, "-o", moving)
    assert ran.status == 0, ran
    assert "the process was not stopped" in ran.out
    first, second = sweep_json(still), sweep_json(moving)
    assert first["process"]["in_motion"] is None
    assert second["process"]["in_motion"]["settled"] is True
    assert "read in motion, never stopped" in shell("sweep", moving).out
    assert first["totals"] == second["totals"] == sweep_json(livelist.core)["totals"]


# -- what cannot be read ----------------------------------------------------------


def refused(ran: Ran, status: int, *words: str) -> None:
    """Nothing on stdout, one line on stderr that holds ``words``, no traceback."""
    assert ran.status == status, ran
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("drain-gdb: ")
    for word in words:
        assert word in line


def test_files_that_are_no_cores(tmp_path: Path, small_core: Path) -> None:
    text, pipe = tmp_path / "notes", tmp_path / "pipe"
    text.write_text("nothing to see here\n" * 10)
    os.mkfifo(pipe)
    refused(shell("sweep", text, *NONE), 2, "is not an ELF core file")
    refused(shell("sweep", pipe, *NONE), 2, "no regular file")
    refused(shell("sweep", tmp_path, *NONE), 2, "directory")
    refused(shell("sweep", tmp_path / "none", *NONE), 2, "No such file")
    refused(shell("sweep", debian_redis(), *NONE), 2, "not a core", "--exe")
    refused(shell("sweep", small_core, *NONE, "--exe", text), 2, "not an ELF file")
    refused(shell("sweep", small_core, "--stop", *NONE), 1, "--stop", "--pid")


def test_processes_that_are_not_there() -> None:
    refused(shell("sweep", "--pid", 2**22 + 1, *NONE), 2, "No such process")
    refused(shell("sweep", "--pid", 2**22 + 1, *NONE, "--stop"), 2, "No such process")


def test_a_process_without_jemalloc() -> None:
    child = Program(["/bin/sh", "-c", "echo ready; read line"])
    try:
        refused(shell("sweep", "--pid", child.pid, *NONE), 2, "no jemalloc in this process")
    finally:
        child.stop()


def test_the_wrong_program(stripped_redis: RedisCore) -> None:
    ran = shell("sweep", stripped_redis.core, "--exe", "/bin/ls", *NONE)
    refused(ran, 2, "ls is not the program of this process", "redis")


def test_a_core_of_another_architecture(small_core: Path, tmp_path: Path) -> None:
    core = tmp_path / "core"
    shutil.copyfile(small_core, core)
    with core.open("r+b") as file:
        file.seek(18)
        file.write(struct.pack("<H", AARCH64))
    refused(shell("sweep", core, *NONE), 2, "no program for aarch64", "--exe")
    exe = program("explicit", "-ljemalloc")
    ran = shell("sweep", core, *NONE, "--exe", exe)
    refused(ran, 2, "is of the architecture x86-64, the core of aarch64")


class Own(NamedTuple):
    """A library of our own to spoil, a core of a process that ran it, and its program."""

    library: Path
    core: Path


@pytest.fixture
def own_library(tmp_path: Path) -> Iterator[Own]:
    library = tmp_path / "libjemalloc.so.2"
    shutil.copyfile("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", library)
    child = Program([str(program("explicit", "-ljemalloc"))], {"LD_LIBRARY_PATH": str(tmp_path)})
    try:
        yield Own(library, gcore(child.pid, tmp_path / "core"))
    finally:
        child.stop()


def test_a_library_that_is_missing_or_another(own_library: Own) -> None:
    library, core = own_library
    report = equal(core)
    assert report["allocator"]["module"] == str(library)
    changed = bytearray(library.read_bytes())
    changed[changed.index(b"\x03\0\0\0GNU\0") + 8] ^= 0xFF
    library.unlink()
    refused(shell("sweep", core, *NONE), 2, "no jemalloc", str(library), "sysroot")
    library.write_bytes(changed)
    refused(shell("sweep", core, *NONE), 2, "is not the file this process ran", "upgrade")


def test_a_library_deleted_under_a_live_process(tmp_path: Path) -> None:
    """Where the kernel lets its file be read all the same."""
    library = tmp_path / "libjemalloc.so.2"
    shutil.copyfile("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", library)
    child = Program([str(program("explicit", "-ljemalloc"))], {"LD_LIBRARY_PATH": str(tmp_path)})
    try:
        before = sweep_json("--pid", child.pid, *NONE)
        library.unlink()
        after = sweep_json("--pid", child.pid, *NONE)
    finally:
        child.stop()
    assert after["totals"] == before["totals"]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_a_truncated_core(small_core: Path, tmp_path: Path, share: float) -> None:
    """Refused, or swept as far as it goes and called partial; the reason is said."""
    core = tmp_path / "core"
    shutil.copyfile(small_core, core)
    os.truncate(core, int(small_core.stat().st_size * share))
    ran = shell("sweep", core, "--format", "json", *NONE)
    assert ran.status in (2, 3), ran
    assert "is truncated" in ran.err
    assert "Traceback" not in ran.err
    if ran.status == 2:
        assert ran.out == ""
    else:
        report = json.loads(ran.out)
        partial = report["coverage"]["bytes_unreadable"] + report["coverage"]["slabs_unreadable"]
        assert partial > 0 or report["verification"]["status"] == "mismatch"


def test_more_segments_than_a_header_can_count(small_core: Path, tmp_path: Path) -> None:
    """PN_XNUM: a process of 70,000 mappings (elf(5))."""
    core = tmp_path / "core"
    many_segments(small_core, core, 70_000)
    said = subprocess.run(["readelf", "-hW", str(core)], capture_output=True, text=True, check=True)
    assert "65535 (7" in said.stdout
    report = sweep_json(core, *NONE)
    assert of_heap(report) == of_heap(sweep_json(small_core, *NONE))


def test_what_the_core_leaves_out_is_read_from_the_files(small_core: Path, tmp_path: Path) -> None:
    """Program headers, build-ids and constants: whatever cannot have changed.

    The dynamic linker's list is not there then: libraries are found by what is mapped.
    """
    core = tmp_path / "core"
    assert without(small_core, core, PF_W, 0) > 10
    report = sweep_json(core, *NONE)
    whole = sweep_json(small_core, *NONE)
    assert without_finding(of_heap(report)) == without_finding(of_heap(whole))


def test_what_may_have_changed_is_never_read_from_the_files(
    small_core: Path, tmp_path: Path
) -> None:
    """A variable as the file has it is not what the process had."""
    core = tmp_path / "core"
    assert without(small_core, core, PF_W, PF_W) > 10
    ran = shell("sweep", core, *NONE)
    assert ran.status == 2
    assert "could not be read" in ran.err or "cannot read" in ran.err


# -- what reads by default --------------------------------------------------------


def _without_debuggers(folder: Path) -> Dict[str, str]:
    return {"PATH": str(folder)}


def test_without_a_debugger_it_is_read_directly(livelist: Livelist, tmp_path: Path) -> None:
    env = _without_debuggers(tmp_path)
    ran = shell("sweep", livelist.core, "--format", "json", env=env)
    assert ran.status == 0
    assert json.loads(ran.out)["process"]["debugger"] == "none"
    assert "no debugger is installed, read directly (--debugger none)" in ran.err
    live = shell("sweep", "--pid", livelist.pid, "--format", "json", env=env)
    assert json.loads(live.out)["process"]["in_motion"] is None
    assert "the process was stopped for" in live.err
    refused(shell("sweep", livelist.core, "--debugger", "gdb", env=env), 2, "gdb is not installed")


def test_missing_packages_give_one_line_with_the_command(small_core: Path) -> None:
    """Of what unpacks cores nothing is needed, as this one is not compressed."""
    code = "import sys; sys.modules.update(elftools=None, lz4=None, zstandard=None);"
    code += "from drain_gdb.loaders.shell import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", str(small_core), *NONE],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    refused(
        Ran(done.returncode, done.stdout, done.stderr),
        2,
        "cannot import elftools; run: ",
        "pip install pyelftools",
    )
