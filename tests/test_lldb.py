"""The commands inside lldb, its adapter held against gdb's, and the shell form with it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple, Type, Union

import pytest

from drain_gdb.commands.registry import COMMANDS
from drain_gdb.loaders import launch
from tests.conftest import Livelist, RedisCore
from tests.support.inputs import LLDB, ROOT, falkordb_redis, newer_debuggers, program
from tests.support.processes import GdbServer, LldbServer, Program, gcore
from tests.support.real import STATIC, strip
from tests.support.runs import (
    LLDBINIT,
    Ran,
    comparable,
    gdb,
    lldb,
    shell,
    sweep_json,
    without_finding,
)

WAIT_SECONDS = 60
USE_LLDB = {"DRAIN_GDB_LLDB": LLDB}
IMPORT = f"import sys; sys.path.insert(0, {str(ROOT)!r})"


@pytest.fixture(params=["lldb", pytest.param("newer-lldb", marks=pytest.mark.long)])
def each_lldb(request: pytest.FixtureRequest) -> str:
    return LLDB if request.param == "lldb" else str(newer_debuggers() / "lldb")


def _livelist_program() -> Path:
    return program("livelist", "-ljemalloc")


def _after(said: str, command: str) -> List[str]:
    """The lines that lldb printed after it repeated ``command``."""
    lines = said.splitlines()
    at = lines.index(f"(lldb) {command}") + 1
    ends = [n for n in range(at, len(lines)) if lines[n].startswith("(lldb) ")]
    return lines[at : (ends or [len(lines)])[0]]


def _status(ran: Ran) -> List[int]:
    return [int(n) for n in re.findall(r"^status (\d+)$", ran.out, re.M)]


SAY_STATUS = "script print('status', _drain_status)"


def test_loading_says_and_changes_nothing() -> None:
    asked = ["breakpoint list", "settings show", "target list"]
    nothing = ROOT / "tests" / "__init__.py"
    loaded = lldb(*asked, arguments=[_livelist_program()])
    bare = lldb(*asked, arguments=[_livelist_program()], init=nothing)
    assert loaded.err == bare.err == ""
    assert loaded.out == bare.out.replace(str(nothing), str(LLDBINIT))


@pytest.fixture(scope="module")
def helped() -> str:
    """What one lldb answers to each way of asking for help."""
    ran = lldb(*(words for c in COMMANDS for words in (f"help {c.name}", f"{c.name} --help")))
    assert ran.err == ""
    return ran.out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_help_is_that_of_the_option(command: Any, helped: str) -> None:
    by_option = _after(helped, f"{command.name} --help")
    # lldb says the summary itself before, and breaks lines anew.
    words = " ".join(_after(helped, f"help {command.name}")).split()
    assert " ".join(by_option).split() == words[-len(" ".join(by_option).split()) :]
    assert command.summary in by_option


def test_drainhelp_and_lldbs_own_help_list_every_command() -> None:
    ran = lldb("drainhelp", "help")
    for command in COMMANDS:
        assert command.summary in "\n".join(_after(ran.out, "drainhelp"))
        assert any(line.split()[:2] == [command.name, "--"] for line in _after(ran.out, "help"))


def test_init_prints_the_line_that_loads(each_lldb: str) -> None:
    ran = shell("init", "lldb")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"command script import {LLDBINIT}\n"
    done = subprocess.run(
        [each_lldb, "--no-lldbinit", "--batch", "-o", ran.out.strip(), "-o", "drainhelp"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "drainsweep" in done.stdout


@pytest.fixture(scope="module")
def from_core(livelist: Livelist) -> Dict[str, Any]:
    """What gdb reports."""
    return comparable(sweep_json(livelist.core, "--by", "slab", "--debugger", "gdb"))


def _typed(folder: Path, *arguments: object, **options: Any) -> Dict[str, Any]:
    """The report of ``drainsweep`` typed into lldb."""
    output = folder / "report.json"
    before: List[str] = options.pop("commands", [])
    ran = lldb(
        *before,
        f"drainsweep --by slab --format json --output {output}",
        "detach",
        arguments=arguments,
        **options,
    )
    assert output.exists(), ran
    content: Dict[str, Any] = json.loads(output.read_text())
    assert content["process"]["debugger"] == "lldb"
    return content


def test_typed_into_lldb_on_a_core(
    each_lldb: str, livelist: Livelist, from_core: Dict[str, Any], tmp_path: Path
) -> None:
    found = _typed(tmp_path, _livelist_program(), "-c", livelist.core, program=each_lldb)
    assert comparable(found) == from_core


def test_typed_into_lldb_on_a_live_process(
    each_lldb: str, livelist: Livelist, from_core: Dict[str, Any], tmp_path: Path
) -> None:
    found = _typed(tmp_path, "-p", livelist.pid, program=each_lldb)
    assert found["process"]["source"] == "live"
    assert comparable(found) == from_core


@pytest.mark.parametrize("server", [GdbServer, LldbServer])
def test_behind_a_server(
    server: Type[Union[GdbServer, LldbServer]],
    each_lldb: str,
    livelist: Livelist,
    from_core: Dict[str, Any],
    tmp_path: Path,
) -> None:
    running = server(livelist.pid)
    # gdbserver's list of libraries leads lldb astray; it finds them itself without.
    commands = [
        "settings set plugin.process.gdb-remote.use-libraries-svr4 false",
        f"gdb-remote 127.0.0.1:{running.port}",
    ]
    try:
        found = _typed(tmp_path, _livelist_program(), commands=commands, program=each_lldb)
    finally:
        running.stop()
    assert comparable(found) == from_core


def test_behind_a_server_elsewhere(
    livelist: Livelist, from_core: Dict[str, Any], tmp_path: Path
) -> None:
    """The kernel of this machine knows nothing of the process."""
    running = LldbServer(livelist.pid)
    commands = [
        "script import drain_gdb.debuggee.lldb as adapter",
        "script adapter._text = lambda path: open(path + '.elsewhere').read()",
        f"gdb-remote 127.0.0.1:{running.port}",
    ]
    try:
        found = _typed(tmp_path, _livelist_program(), commands=commands)
    finally:
        running.stop()
    assert comparable(found) == from_core


def test_attaching_leaves_the_process_running(livelist: Livelist) -> None:
    assert sweep_json("--pid", livelist.pid, env=USE_LLDB)["process"]["debugger"] == "lldb"
    status = Path(f"/proc/{livelist.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["TracerPid"] == "0"
    assert fields["State"][0] in "SR"


def test_a_process_that_moved_is_read_anew() -> None:
    """Two sweeps in one lldb, the process let run between them."""
    ran = lldb(
        "breakpoint set --name moved",
        "process launch",
        "drainsweep --size 48 --format info",
        "process continue",
        "drainsweep --size 48 --format info",
        "process kill",
        arguments=[program("mover", "-ljemalloc")],
        env={"MALLOC_CONF": "tcache:false"},
    )
    counts = re.findall(r"^mem_drainprof_pinned_extents:(\d+)$", ran.out, re.M)
    assert counts == ["4", "40"], ran


def test_a_running_process_is_refused() -> None:
    ran = lldb(
        "breakpoint set --name moved",
        "process launch",
        "breakpoint disable",
        "script d = lldb.debugger; d.SetAsync(True); d.HandleCommand('process continue');"
        f" d.HandleCommand('drainsweep'); {SAY_STATUS.partition(' ')[2]}",
        "process kill",
        arguments=[program("waiter", "-ljemalloc")],
    )
    assert "error: drainsweep: the process is running" in ran.err, ran
    assert _status(ran) == [2]


@pytest.mark.parametrize(
    ("command", "line", "status"),
    [
        ("drainsweep", "there is no process and no core here; attach to one, or load", 2),
        ("drainsweep --by page", "argument --by: invalid choice: 'page'", 1),
        ("drainsweep 17", "unrecognized arguments: 17", 1),
        ("drainsweep 'a b", 'cannot read "\'a b": No closing quotation', 1),
    ],
    ids=["nothing-loaded", "bad-choice", "stray-word", "half-a-quote"],
)
def test_an_error_is_lldbs_own_line(command: str, line: str, status: int) -> None:
    ran = lldb(command, SAY_STATUS)
    (said,) = ran.err.splitlines()
    assert said.startswith(f"error: drainsweep: {line}")
    assert _after(ran.out, command) == []
    assert _status(ran) == [status]


def test_a_core_whose_program_is_of_another_architecture(
    livelist: Livelist, tmp_path: Path
) -> None:
    core = tmp_path / "core"
    subprocess.run(["cp", str(livelist.core), str(core)], check=True)
    with core.open("r+b") as file:
        file.seek(18)
        file.write(b"\xb7\0")  # EM_AARCH64
    ran = shell("sweep", core, env=USE_LLDB)
    assert (ran.status, ran.out) == (2, "")
    assert "the core is of the architecture aarch64, its program " in ran.err
    assert "is of x86-64" in ran.err


@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_truncated_core(livelist: Livelist, tmp_path: Path, share: float) -> None:
    core = tmp_path / "core"
    subprocess.run(["cp", str(livelist.core), str(core)], check=True)
    os.truncate(core, int(livelist.core.stat().st_size * share))
    ran = shell("sweep", core, env=USE_LLDB)
    assert ran.status in (2, 3), ran
    assert "is truncated" in ran.err
    assert "Traceback" not in ran.err


def test_an_internal_error_is_one_line(livelist: Livelist) -> None:
    spoil = [
        "script import drain_gdb.debuggee.lldb as adapter",
        "script adapter.LldbTarget.read = lambda *_: 1 // 0",
        "drainsweep",
    ]
    arguments = [_livelist_program(), "-c", livelist.core]
    ran = lldb(*spoil, arguments=arguments)
    assert "error: drainsweep: internal error: ZeroDivisionError: integer division" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in lldb(*spoil, arguments=arguments, env={"DRAIN_GDB_DEBUG": "1"}).err


class Terminal:
    """An lldb that a person types into."""

    def __init__(self, *arguments: object, env: Dict[str, str]) -> None:
        pid, self._master = pty.fork()
        if not pid:
            command = [LLDB, "--no-lldbinit", *map(str, arguments)]
            os.execvpe(LLDB, command, {**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8", **env})
        self._pid = pid
        self._watchdog = threading.Timer(WAIT_SECONDS, os.kill, (pid, 9))
        self._watchdog.start()
        self.said = ""

    def type(self, line: str) -> None:
        os.write(self._master, line.encode())

    def until(self, wanted: str) -> str:
        """What it says up to ``wanted``."""
        while wanted not in self.said:
            try:
                self.said += os.read(self._master, 1 << 16).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"{wanted!r} was never said: {self.said}") from None
        found, _, self.said = self.said.partition(wanted)
        return found

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        self._watchdog.cancel()
        os.close(self._master)


@pytest.fixture
def terminal(request: pytest.FixtureRequest, livelist: Livelist) -> Any:
    env: Dict[str, str] = getattr(request, "param", {})
    lldb_there = Terminal(_livelist_program(), "-c", livelist.core, env=env)
    lldb_there.until("was loaded")
    lldb_there.type(f"command script import {LLDBINIT}\n")
    yield lldb_there
    lldb_there.close()


SLOW = """
from drain_gdb.debuggee.lldb import LldbTarget

kept = LldbTarget.read

def read(self, address, size):
    print("reading", flush=True)
    while not self._debugger.InterruptRequested():
        pass
    return kept(self, address, size)

LldbTarget.read = read
"""


def test_an_interrupt_leaves_lldb_usable(terminal: Terminal, tmp_path: Path) -> None:
    """Ctrl-C while memory is read."""
    (tmp_path / "slow.py").write_text(SLOW)
    terminal.type(f"command script import {tmp_path / 'slow.py'}\n")
    terminal.type("drainsweep\n")
    terminal.until("reading")
    terminal.type("\x03")
    terminal.until("error: drainsweep: interrupted")
    terminal.type("script slow.LldbTarget.read = slow.kept; print('status', _drain_status)\n")
    terminal.until("status 130")
    terminal.type("drainsweep --quiet --format info\n")
    terminal.until("mem_drainability_ratio:0.")
    terminal.type("script print('status', _drain_status)\n")
    terminal.until("status 0")


@pytest.mark.parametrize(
    ("terminal", "setting", "coloured"),
    [({}, "true", True), ({}, "false", False), ({"NO_COLOR": "1"}, "true", False)],
    indirect=["terminal"],
    ids=["on", "off", "NO_COLOR"],
)
def test_lldbs_own_colour_setting_is_honoured(
    terminal: Terminal, setting: str, coloured: bool
) -> None:
    terminal.type(f"settings set use-color {setting}\n")
    terminal.type("drainsweep --quiet\n")
    terminal.until("core of livelist")
    assert ("\033[32mverified: the" in terminal.until("verdict")) == coloured


def test_progress_is_shown_on_a_terminal(terminal: Terminal) -> None:
    terminal.type("drainsweep\n")
    terminal.until("MiB of metadata read")


GDB_TARGET = "__import__('drain_gdb.debuggee.gdb').debuggee.gdb.GdbTarget()"
LLDB_TARGET = (
    "__import__('drain_gdb.debuggee.lldb').debuggee.lldb"
    ".LldbTarget(lldb.debugger.GetSelectedTarget())"
)
SHAPES = "['shape', 'inner', 'nothing'], 'shape_global', ['shape_global', 'local_global']"


def _told(run: Callable[..., Ran], script: str, target: str, file: Path, **options: Any) -> Any:
    """What ``tests/support/inside.py`` says in a debugger."""
    tell = f"tell({target}, {SHAPES}, {str(file)!r})"
    lines = [IMPORT, "from tests.support.inside import tell", tell]
    ran = run(*(f"{script} {line}" for line in lines), "detach", **options)
    assert file.exists(), ran
    told = json.loads(file.read_text())
    file.unlink()
    return told


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Program, Path]]:
    """A program with structs of every shape, waiting, and its core."""
    child = Program([str(program("shapes"))])
    yield child, gcore(child.pid, tmp_path_factory.mktemp("shapes") / "core")
    child.stop()


@pytest.mark.parametrize("source", ["live", "core"])
def test_the_adapter_says_what_gdbs_says(
    source: str, each_lldb: str, shapes: Tuple[Program, Path], tmp_path: Path
) -> None:
    """Of files, the address space, variables, threads and structs."""
    child, core = shapes
    binary, file = str(program("shapes")), tmp_path / "told.json"
    in_gdb = ["-p", str(child.pid)] if source == "live" else [binary, str(core)]
    in_lldb = ["-p", str(child.pid)] if source == "live" else [binary, "-c", str(core)]
    by_gdb = _told(gdb, "python", GDB_TARGET, file, arguments=in_gdb)
    by_lldb = _told(lldb, "script", LLDB_TARGET, file, arguments=in_lldb, program=each_lldb)
    assert by_lldb == by_gdb
    assert by_lldb["absent"] is None
    assert by_lldb["structs"]["nothing"] is None
    assert len(by_lldb["symbols"]) == 2
    assert len(by_lldb["mappings"]) > 5
    assert (by_lldb["mapped"] is not None) == (source == "live")


def test_structs_are_as_the_compiler_made_them(
    each_lldb: str, shapes: Tuple[Program, Path], tmp_path: Path
) -> None:
    """Held against sizeof, _Alignof and offsetof of the program itself."""
    child, core = shapes
    options = [str(program("shapes")), "-c", str(core)]
    file = tmp_path / "told.json"
    told = _told(lldb, "script", LLDB_TARGET, file, arguments=options, program=each_lldb)
    shape = told["structs"]["shape"]
    said = dict(line.split() for line in child.output[1:-1])
    assert [str(shape["size"]), str(shape["align"])] == child.output[0].split()
    offsets = {m["name"]: str(m["offset"]) for m in shape["members"] if m["name"] in said}
    assert offsets == {name: said[name] for name in offsets}
    assert {"wide", "many", "split", "words", "aligned", "tail"} <= offsets.keys()


@pytest.mark.long
def test_variables_that_only_debug_information_names(
    dwarf_redis: RedisCore, tmp_path: Path
) -> None:
    """The program without its symbol table, but with its debug information."""
    twin = tmp_path / "redis-server"
    keep = ["objcopy", "--strip-all", "--keep-section=.debug_*"]
    subprocess.run([*keep, str(falkordb_redis()), str(twin)], check=True, capture_output=True)
    full = sweep_json(dwarf_redis.core, "--by", "slab")
    bare = sweep_json(dwarf_redis.core, "--by", "slab", "--exe", twin, env=USE_LLDB)
    assert bare["allocator"]["layout_source"] == "dwarf"
    assert without_finding(bare) == {
        **without_finding(full),
        "process": {**without_finding(bare)["process"]},
    }


def test_a_program_given_is_the_one_used(each_lldb: str, tmp_path: Path) -> None:
    """Though another with the same build-id lies where the core says."""
    twin = tmp_path / "twin"
    # A core keeps 79 characters of the command line.
    with tempfile.TemporaryDirectory() as short:
        binary = Path(short) / "p"
        shutil.copy(program("livelist", *STATIC), binary)
        child = Program([str(binary), str(tmp_path / "lists")])
        try:
            core = gcore(child.pid, tmp_path / "core")
        finally:
            child.stop()
        strip(binary, twin)
        env = {"DRAIN_GDB_LLDB": each_lldb}
        assert sweep_json(core, env=env)["allocator"]["layout_source"] == "symbols"
        bare = sweep_json(core, "--exe", twin, env=env)
    assert bare["process"]["executable"] == str(twin)
    assert bare["allocator"]["layout_source"] == "discovered"


@pytest.fixture
def moved(tmp_path: Path) -> Tuple[Path, Path, Path]:
    """A core, the folder that its files were moved below, and its library there."""
    binary, library = tmp_path / "bin" / "livelist", tmp_path / "lib" / "libjemalloc.so.2"
    (debian,) = Path("/usr/lib").glob("*/libjemalloc.so.2")
    for original, copy in ((_livelist_program(), binary), (debian, library)):
        copy.parent.mkdir()
        shutil.copy(original, copy)
    command = [str(binary), str(tmp_path / "lists")]
    child = Program(command, {"LD_LIBRARY_PATH": str(library.parent)})
    try:
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    root = tmp_path / "a root"
    below = root.joinpath(*tmp_path.parts[1:])
    below.mkdir(parents=True)
    for folder in (binary.parent, library.parent):
        folder.rename(below / folder.name)
    return core, root, below / "lib" / library.name


def test_a_sysroot_holds_the_files(
    each_lldb: str, moved: Tuple[Path, Path, Path], livelist: Livelist
) -> None:
    """The program and its libraries are below a folder, and nowhere else."""
    core, root, library = moved
    use = {"DRAIN_GDB_LLDB": each_lldb}
    assert shell("sweep", core, env=use).status == 2
    report = sweep_json(core, "--sysroot", root, env=use)
    assert report["verification"]["status"] == "exact"
    assert report["allocator"]["module"] == str(library)
    live = shell("sweep", "--pid", livelist.pid, "--sysroot", root, env=use)
    assert (live.status, live.out) == (1, "")
    assert "read it with --debugger gdb" in live.err


def test_a_replaced_library_is_named(each_lldb: str, moved: Tuple[Path, Path, Path]) -> None:
    """lldb 19 opens it all the same; lldb 23 makes a module of what is in memory."""
    core, _, library = moved
    changed = bytearray(library.read_bytes())
    note = changed.index(b"\x03\0\0\0GNU\0")
    changed[note + 8] ^= 0xFF
    library.write_bytes(changed)
    for folder in library.parents[1].iterdir():
        folder.rename(core.parent / folder.name)
    ran = shell("sweep", core, env={"DRAIN_GDB_LLDB": each_lldb})
    assert (ran.status, ran.out) == (2, "")
    assert re.search("not the (file|ones) this process ran", ran.err), ran.err
    assert "libjemalloc.so.2" in ran.err


def _script(folder: Path, name: str, *lines: str) -> Path:
    file = folder / name
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(0o755)
    return file


BROKEN = (
    "ModuleNotFoundError: No module named 'lldb.embedded_interpreter'",
    "error: there is no embedded script interpreter in this mode.",
)


@pytest.mark.parametrize("said", BROKEN, ids=["lldb-14", "no-python"])
def test_an_lldb_with_a_broken_python_is_explained(
    said: str, livelist: Livelist, tmp_path: Path
) -> None:
    """As Debian's lldb-14 says it, once for each thing it tries."""
    broken = _script(tmp_path, "lldb", f'echo "Traceback: \n{said}" >&2', "echo noise")
    ran = shell("sweep", livelist.core, env={"DRAIN_GDB_LLDB": str(broken)})
    assert (ran.status, ran.out) == (2, "")
    assert f"{broken}: the Python of this lldb is broken" in ran.err
    assert "use gdb, or apt-get install lldb-19" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("spoilt", "line"),
    [
        ("sys.modules['lldb'] = type(sys)('lldb')", "drain_gdb: the Python of this lldb is broken"),
        ("sys.modules['lldb'] = None", "drain_gdb: the Python of this lldb is broken"),
        ("del lldb.SBType.GetByteAlign", "drain_gdb: lldb version 19.1.7 is too old; lldb 19 or"),
        ("sys.version_info = (3, 8, 0)", "drain_gdb needs Python 3.9, this lldb has 3."),
    ],
    ids=["empty-module", "no-module", "old-lldb", "old-python"],
)
def test_what_stands_against_loading_is_one_line(spoilt: str, line: str) -> None:
    ran = lldb(before=[f"script import sys; {spoilt}"])
    (said,) = ran.err.splitlines()
    assert said.startswith(line)


def test_missing_libraries_are_one_line_and_none_in_the_shell(
    livelist: Livelist, tmp_path: Path
) -> None:
    """The package alone, with no environment beside it: the same reports, in plain text."""
    subprocess.run(["cp", "-r", str(ROOT / "drain_gdb"), str(tmp_path)], check=True)
    init = tmp_path / "drain_gdb" / "lldbinit.py"
    (line,) = lldb(init=init, env={"PYTHONPATH": ""}).err.splitlines()
    assert line.startswith("drain_gdb: plain text: this Python (3.")
    assert "cannot import tabulate; run: python3 -m venv" in line
    wrapped = _script(tmp_path, "lldb", f'exec {LLDB} --batch -o "command script import {init}"')
    reports = []
    for started in (LLDB, str(wrapped)):
        env = {"DRAIN_GDB_LLDB": started, "PYTHONPATH": "", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            [sys.executable, "-m", "drain_gdb", "sweep", str(livelist.core), "--debugger", "lldb"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        assert done.stderr == ""
        reports.append(done.stdout)
    assert reports[0] == reports[1]


def test_none_installed_is_said(livelist: Livelist, tmp_path: Path) -> None:
    ran = shell("sweep", livelist.core, "--debugger", "lldb", env={"PATH": str(tmp_path)})
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "drain-gdb: lldb is not installed; run: apt-get install lldb-19\n"
    named = shell("sweep", livelist.core, env={"DRAIN_GDB_LLDB": "no-such-lldb"})
    assert named.err == "drain-gdb: no-such-lldb is not installed; run: apt-get install lldb-19\n"


def test_the_newest_with_a_version_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DRAIN_GDB_LLDB", raising=False)
    found = launch.DEBUGGERS["lldb"].find
    assert found() is None
    for name, expected in (
        ("lldb-server-19", None),
        ("lldb-9", "lldb-9"),
        ("lldb-18", "lldb-18"),
        ("lldb", "lldb"),
    ):
        _script(tmp_path, name)
        assert found() == expected
    monkeypatch.setenv("DRAIN_GDB_LLDB", "lldb-9")
    assert found() == "lldb-9"
    assert launch.default() is launch.DEBUGGERS["lldb"]
