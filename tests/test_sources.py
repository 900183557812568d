"""The same moment read in several ways gives the same report."""

from __future__ import annotations

import json
import lzma
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from drain_gdb.debuggee.corenotes import NT_FILE
from tests.conftest import Livelist, RedisCore
from tests.support.elfwriter import without_note
from tests.support.inputs import LLDB, ROOT, debian_redis, program
from tests.support.processes import GdbServer, Program, gcore
from tests.support.runs import comparable, gdb, sweep_json

GDB = ("--debugger", "gdb")


@pytest.fixture(scope="module")
def from_core(livelist: Livelist) -> Dict[str, Any]:
    report = sweep_json(livelist.core, "--by", "slab", *GDB)
    assert report["process"]["source"] == "core"
    assert report["process"]["taken_at"] is None
    return comparable(report)


def test_live_attach_equals_core(livelist: Livelist, from_core: Dict[str, Any]) -> None:
    live = sweep_json("--pid", livelist.pid, "--by", "slab", *GDB)
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
    given = sweep_json(stripped_redis.core, "--exe", debian_redis(), *GDB)
    found = sweep_json(stripped_redis.core, *GDB)
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
    sweep_json("--pid", livelist.pid, *GDB)
    fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
    assert fields["TracerPid"] == "0"
    assert fields["State"][0] in "SR"


def test_a_core_in_a_folder_with_spaces_and_quotes(livelist: Livelist, tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" c'
    folder.mkdir()
    (folder / "core").symlink_to(livelist.core)
    assert sweep_json(folder / "core", *GDB) == sweep_json(livelist.core, *GDB)


def test_preloaded_into_any_program(tmp_path: Path) -> None:
    """jemalloc by LD_PRELOAD, in an interpreter that was not built for it."""
    code = "x = [bytes(100) for _ in range(20000)]; print('ready', flush=True); input()"
    child = Program(
        ["/usr/bin/python3", "-c", code],
        {"LD_PRELOAD": "libjemalloc.so.2", "PYTHONMALLOC": "malloc"},
    )
    try:
        report = sweep_json("--pid", child.pid, *GDB)
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


# -- symbols --------------------------------------------------------------------------


def _run(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


def _with_its_table(full: Path, twin: Path) -> None:
    _run("objcopy", "--strip-debug", full, twin)


def _described_only(full: Path, twin: Path) -> None:
    _run("objcopy", "--strip-all", "--keep-section=.debug_*", full, twin)


def _described_elsewhere(full: Path, twin: Path) -> None:
    """As distributions do: the rest is in a file that the program names."""
    _run("objcopy", "--only-keep-debug", full, f"{twin}.debug")
    _run("strip", "-o", twin, full)
    _run("objcopy", f"--add-gnu-debuglink={twin}.debug", twin)


def _with_a_packed_table(full: Path, twin: Path) -> None:
    """As Fedora does (MiniDebugInfo)."""
    packed = twin.with_suffix(".table")
    _run("objcopy", "--strip-debug", full, packed)
    packed.with_suffix(".xz").write_bytes(lzma.compress(packed.read_bytes()))
    _run("strip", "-o", twin, full)
    _run("objcopy", f"--add-section=.gnu_debugdata={packed.with_suffix('.xz')}", twin)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core of a program with variables that few others have."""
    child = Program([str(program("shapes"))])
    try:
        return gcore(child.pid, tmp_path_factory.mktemp("shapes") / "core")
    finally:
        child.stop()


@pytest.mark.parametrize(
    "keep", [_with_its_table, _described_only, _described_elsewhere, _with_a_packed_table]
)
def test_gdb_finds_variables_wherever_their_names_are(
    keep: Callable[[Path, Path], None], shapes: Path, tmp_path: Path
) -> None:
    """By a search that is only begun where some file may have them."""
    twin = tmp_path / "shapes"
    keep(program("shapes"), twin)
    expected = {
        name: address
        for address, _, name in _lines("nm", program("shapes"))
        if name.startswith("shape_")
    }
    assert expected.keys() == {"shape_global", "shape_local_global"}
    found, one = _variables(twin, shapes)
    assert found.keys() == expected.keys()
    assert one == found["shape_local_global"]
    assert len({at - int(expected[name], 16) for name, at in found.items()}) == 1


def test_gdb_is_asked_for_no_variable_that_no_file_has(shapes: Path, tmp_path: Path) -> None:
    twin = tmp_path / "shapes"
    _run("strip", "-o", twin, program("shapes"))
    assert _variables(twin, shapes, "gdb.execute = None") == ({}, None)


def _lines(*words: object) -> List[List[str]]:
    ran = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
    return [line.split() for line in ran.stdout.splitlines() if len(line.split()) == 3]


def _variables(binary: Path, core: Path, *first: str) -> Tuple[Dict[str, int], Optional[int]]:
    """What gdb's adapter says of two variables together, and of one, after some statements."""
    script = [
        "from drain_gdb.debuggee.gdb import GdbTarget",
        "target = GdbTarget(); modules = target.modules()",
        *first,
        "both = target.symbols('shape_global', 'shape_local_global')",
        "one = target.symbol('shape_local_global')",
        "import json; found = {s.name: s.address for s in both}",
        "print('said', json.dumps([found, one and one.address]))",
    ]
    ran = gdb(*(f"python {line}" for line in script), arguments=[str(binary), str(core)])
    (said,) = [line for line in ran.out.splitlines() if line.startswith("said")]
    found, one = json.loads(said.partition(" ")[2])
    return found, one
