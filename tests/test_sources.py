"""The same moment read in several ways gives the same report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

from drain_gdb.debuggee.corenotes import NT_FILE
from tests.conftest import Livelist, RedisCore
from tests.support.elfwriter import without_note
from tests.support.inputs import LLDB, ROOT, debian_redis, program
from tests.support.processes import GdbServer, Program
from tests.support.runs import comparable, gdb, sweep_json


@pytest.fixture(scope="module")
def from_core(livelist: Livelist) -> Dict[str, Any]:
    report = sweep_json(livelist.core, "--by", "slab")
    assert report["process"]["source"] == "core"
    assert report["process"]["taken_at"] is None
    return comparable(report)


def test_live_attach_equals_core(livelist: Livelist, from_core: Dict[str, Any]) -> None:
    live = sweep_json("--pid", livelist.pid, "--by", "slab")
    assert live["process"]["source"] == "live"
    assert live["process"]["taken_at"] is not None
    assert comparable(live) == from_core


def test_gdbserver_equals_core(
    livelist: Livelist, from_core: Dict[str, Any], tmp_path: Path
) -> None:
    server = GdbServer(livelist.pid)
    try:
        output = tmp_path / "report.json"
        ran = gdb(
            f"target remote 127.0.0.1:{server.port}",
            f"drainsweep --by slab --format json --output {output}",
            "detach",
            before=["set sysroot /"],
        )
    finally:
        server.stop()
    assert output.exists(), ran
    assert comparable(json.loads(output.read_text())) == from_core


def test_typed_into_gdb_equals_the_shell(
    livelist: Livelist, from_core: Dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "report.json"
    ran = gdb(
        f"drainsweep --by slab --format json --output {output}",
        arguments=[str(program("livelist", "-ljemalloc")), str(livelist.core)],
    )
    assert output.exists(), ran
    assert comparable(json.loads(output.read_text())) == from_core


def test_the_program_is_found_from_the_core(stripped_redis: RedisCore, livelist: Livelist) -> None:
    given = sweep_json(stripped_redis.core, "--exe", debian_redis())
    found = sweep_json(stripped_redis.core)
    assert given == found
    assert Path(found["process"]["executable"]).samefile(debian_redis())
    assert found["process"]["name"] == "redis-server"


def test_a_process_that_moved_is_read_anew() -> None:
    """Two sweeps in one gdb, the process let run between them."""
    child = program("mover", "-ljemalloc")
    ran = gdb(
        "break moved",
        "run",
        "drainsweep --size 48 --format info",
        "continue",
        "drainsweep --size 48 --format info",
        "kill",
        arguments=[str(child)],
        env={"MALLOC_CONF": "tcache:false"},
    )
    counts = [
        int(line.split(":")[1])
        for line in ran.out.splitlines()
        if line.startswith("mem_drainprof_pinned_extents")
    ]
    assert counts == [4, 40], ran


def test_attaching_leaves_the_process_running(livelist: Livelist) -> None:
    status = Path(f"/proc/{livelist.pid}/status")
    sweep_json("--pid", livelist.pid)
    fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
    assert fields["TracerPid"] == "0"
    assert fields["State"][0] in "SR"


def test_a_core_in_a_folder_with_spaces_and_quotes(livelist: Livelist, tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" c'
    folder.mkdir()
    (folder / "core").symlink_to(livelist.core)
    assert sweep_json(folder / "core") == sweep_json(livelist.core)


def test_preloaded_into_any_program(tmp_path: Path) -> None:
    """jemalloc by LD_PRELOAD, in an interpreter that was not built for it."""
    code = "x = [bytes(100) for _ in range(20000)]; print('ready', flush=True); input()"
    child = Program(
        ["/usr/bin/python3", "-c", code],
        {"LD_PRELOAD": "libjemalloc.so.2", "PYTHONMALLOC": "malloc"},
    )
    try:
        report = sweep_json("--pid", child.pid)
    finally:
        child.stop()
    assert report["verification"]["status"] == "exact"
    objects = next(row for row in report["bins"] if row["size"] == 160)
    assert objects["live"] >= 20_000


@pytest.mark.parametrize("debugger", ["gdb", "lldb"])
def test_an_interrupt_while_attaching_is_none_of_the_process(debugger: str, tmp_path: Path) -> None:
    """Ctrl-C once the process is traced: it runs on, whatever came of the sweep."""
    child = Program([str(program("livelist", "-ljemalloc")), str(tmp_path / "lists")])
    command = [sys.executable, "-m", "drain_gdb", "sweep", "--pid", str(child.pid)]
    running = subprocess.Popen(
        [*command, "--debugger", debugger, "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "DRAIN_GDB_LLDB": LLDB},
    )
    try:
        while running.poll() is None and _tracer(child.pid) == 0:
            pass
        assert running.returncode is None, "it ended before it attached"
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate()
        assert b"Traceback" not in said
        assert running.returncode in (0, 130)
        assert child.process.poll() is None
        assert _tracer(child.pid) == 0
    finally:
        child.stop()


def _tracer(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return int(fields["TracerPid"])


@pytest.mark.parametrize("reader", ["gdb", "lldb", "none"])
def test_a_core_that_does_not_say_what_was_mapped(
    reader: str, livelist: Livelist, from_core: Dict[str, Any], tmp_path: Path
) -> None:
    """As qemu and some crash handlers write them: the program's own list of libraries has to do."""
    core = tmp_path / "core"
    without_note(livelist.core, core, NT_FILE)
    report = sweep_json(*(core, "--by", "slab", "--debugger", reader), env={"DRAIN_GDB_LLDB": LLDB})
    assert comparable(report) == from_core
