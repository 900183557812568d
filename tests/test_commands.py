"""The commands as people load, type and ask about them."""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import venv
from contextlib import nullcontext
from pathlib import Path
from typing import Dict

import pytest

import drain_gdb
from drain_gdb.analysis.sweep import VIEWS
from drain_gdb.commands.base import Command, Context
from drain_gdb.commands.declared import sweep as declared
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.errors import UsageError
from drain_gdb.render import text
from drain_gdb.render.style import Style
from tests.conftest import Livelist
from tests.support.inputs import GDB, ROOT, program
from tests.support.runs import GDBINIT, gdb, shell, sweeps

NONE = ("--debugger", "none")


def test_loading_says_and_changes_nothing(livelist: Livelist) -> None:
    asked = ["info breakpoints", "info display", "show pagination", "info auto-load"]
    loaded = gdb(*asked, arguments=[str(program("livelist", "-ljemalloc"))])
    options = [o for command in asked for o in ("-ex", command)]
    bare = subprocess.run(
        [GDB, "-batch", "-nx", "-q", *options, str(program("livelist", "-ljemalloc"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (loaded.out, loaded.err) == (bare.stdout, bare.stderr)


@pytest.mark.parametrize("init", [str(GDBINIT), os.path.relpath(GDBINIT, ROOT)])
def test_a_file_of_python_may_load_it(init: str, tmp_path: Path) -> None:
    """gdb then gives it the name of that file."""
    script = tmp_path / "init.py"
    script.write_text(f"import gdb\ngdb.execute({f'source {init}'!r})\n")
    done = subprocess.run(
        [GDB, "-batch", "-nx", "-q", "-x", str(script), "-ex", "drainhelp"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert (done.stderr, "drainsweep" in done.stdout) == ("", True)


class _Doer(Command):
    """Notes whether Python looks for rings meanwhile, and fails where it is told to."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        del context
        args.seen = gc.isenabled()
        if args.fails:
            raise UsageError("no")
        return 0


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("watches", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_rings_are_looked_for_as_before(enabled: bool, watches: bool, fails: bool) -> None:
    """Not while a command runs, which makes many objects, but for one that runs for hours."""
    command, args = Command(), argparse.Namespace(fails=fails)
    command.watches = watches
    command.done_by = f"{__name__}.{_Doer.__name__}"
    context = Context(pytest.fail, pytest.fail, pytest.fail, Style())
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(UsageError) if fails else nullcontext():
            command.run(args, context)
        assert (args.seen, gc.isenabled()) == (enabled and watches, enabled)
    finally:
        (gc.enable if was else gc.disable)()


@pytest.fixture(scope="module")
def helps() -> Dict[str, str]:
    """What one gdb answers to each way of asking for help."""
    asked = [words for c in COMMANDS for words in (f"help {c.name}", f"{c.name} --help")]
    ran = gdb(*(line for words in asked for line in (f"echo [{words}]\\n", words)))
    assert ran.err == ""
    parts = re.split(r"^\[([a-z -]+)\]\n", ran.out, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_help_in_gdb_and_shell(command: Command, helps: Dict[str, str]) -> None:
    by_help, by_option = helps[f"help {command.name}"], helps[f"{command.name} --help"]
    assert by_help.split() == by_option.split()
    for word in (command.summary, "examples:", "--help"):
        assert word in by_option
    assert max(len(line) for line in by_option.splitlines()) <= 100


def test_the_words_of_a_sweep_are_those_of_its_tables() -> None:
    """They are said without loading what makes the tables."""
    assert sorted(declared.SORTABLE) == sorted(text.SORTABLE)
    assert declared.VIEWS == VIEWS


def test_drainhelp_lists_every_command() -> None:
    ran = gdb("drainhelp")
    assert ran.err == ""
    for command in COMMANDS:
        assert command.name in ran.out
        assert command.summary in ran.out


def test_shell_help() -> None:
    for arguments in (["--help"], ["help"]):
        ran = shell(*arguments)
        assert ran.status == 0
        assert "Exit status:" in ran.out
        assert "drain-gdb sweep" in ran.out
    ran = shell("sweep", "--help")
    assert ran.status == 0
    for option in ("--pid", "--exe", "--debugger", "--by", "--format", "--output"):
        assert option in ran.out
    assert "drain-gdb sweep core.1234 --by arena" in ran.out


def test_init_prints_the_line_that_loads(livelist: Livelist) -> None:
    ran = shell("init", "gdb")
    assert ran.status == 0
    assert ran.out == f"source {GDBINIT}\n"


def test_formats_go_to_files_whole(livelist: Livelist, tmp_path: Path) -> None:
    forms = ("text", "csv", "info")
    written = sweeps(livelist.core, tmp_path, *(f"--format {form}" for form in forms))
    for form, whole in zip(forms, written):
        assert whole.status == 0
        shown = shell("sweep", livelist.core, "--format", form, "--debugger", "gdb")
        assert shown == (0, whole.out, "")


def test_the_shell_form_writes_files_whole(livelist: Livelist, tmp_path: Path) -> None:
    output = tmp_path / "csv"
    ran = shell("sweep", livelist.core, *NONE, "--format", "csv", "--output", output)
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert output.read_text() == shell("sweep", livelist.core, *NONE, "--format", "csv").out


def test_relative_paths_are_of_the_caller(livelist: Livelist, tmp_path: Path) -> None:
    (tmp_path / "core").symlink_to(livelist.core)
    ran = shell("sweep", "core", "--format", "info", "--output", "here", cwd=tmp_path)
    assert ran.status == 0, ran
    assert (tmp_path / "here").read_text().startswith("mem_drainability_ratio:")


def test_sort_and_top_hold_in_json(livelist: Livelist) -> None:
    ordered = ("--sort", "waste_bytes", "--top", 2)
    ran = shell("sweep", livelist.core, *NONE, "--format", "json", *ordered)
    rows = json.loads(ran.out)["bins"]
    assert len(rows) == 2
    assert rows[0]["waste_bytes"] >= rows[1]["waste_bytes"] > 0


def test_verbose_says_how_it_was_found(livelist: Livelist) -> None:
    ran = shell("sweep", livelist.core, *NONE, "--verbose", "--format", "info")
    assert ran.status == 0
    assert "discovered" in ran.err
    assert "rtree root at 0x" in ran.err


def _on_a_terminal(command: str, env: dict[str, str]) -> str:
    """What ``command`` shows on a terminal, by script(1)."""
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm", **env},
    )
    return done.stdout


def test_colour_and_progress_on_a_terminal_alone(livelist: Livelist) -> None:
    command = f"{sys.executable} -m drain_gdb sweep {livelist.core}"
    shown = _on_a_terminal(command, {})
    assert "\033[" in shown
    assert "of metadata read" in shown
    plain = _on_a_terminal(f"{command} --quiet", {"NO_COLOR": "1"})
    assert "\033[" not in plain
    assert "of metadata read" not in plain
    assert "█" in plain
    assert "\033[" not in shell("sweep", livelist.core, *NONE).out


def test_gdbs_own_style_setting_is_honoured(livelist: Livelist) -> None:
    loaded = f"{GDB} -q -nx -batch -ex 'source {GDBINIT}'"
    exe = program("livelist", "-ljemalloc")
    run = f"-ex 'drainsweep --quiet' {exe} {livelist.core}"
    on = _on_a_terminal(f"{loaded} -ex 'set style enabled on' {run}", {})
    off = _on_a_terminal(f"{loaded} -ex 'set style enabled off' {run}", {})
    verified = "verified: the"
    assert f"\033[32m{verified}" in on
    assert verified in off
    assert f"\033[32m{verified}" not in off


def test_installed_from_a_wheel(tmp_path: Path, livelist: Livelist) -> None:
    """The wheel carries its data; gdb, which is not in that environment, finds all it needs."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    made = [str(path) for path in tmp_path.glob("drain_gdb-*.*")]
    assert len(made) == 2
    twine = [sys.executable, "-m", "twine", "check", "--strict", *made]
    subprocess.run(twine, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("drain_gdb-*.whl")
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    venv.create(tmp_path / "venv")
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv"), "install", "--quiet"]
    pip.append(str(wheel))
    subprocess.run(pip, check=True, capture_output=True, env=clean)

    def said(*arguments: str) -> str:
        return subprocess.run(
            [str(tmp_path / "venv/bin/drain-gdb"), *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=clean,
        ).stdout

    report = json.loads(said("sweep", str(livelist.core), "--format", "json"))
    assert report["verification"]["status"] == "exact"
    for debugger in ("gdb", "lldb"):
        line = said("init", debugger)
        assert str(tmp_path / "venv") in line
        assert Path(line.split()[-1]).is_file()
    assert said("--version") == f"drain-gdb {drain_gdb.__version__}\n"
    assert (tmp_path / "venv/share/man/man1/drain-gdb.1").is_file()


def _copied(tmp_path: Path) -> Path:
    """The package alone, with no environment beside it."""
    subprocess.run(["cp", "-r", str(ROOT / "drain_gdb"), str(tmp_path)], check=True)
    return tmp_path / "drain_gdb" / "gdbinit.py"


def test_missing_libraries_are_one_line_with_the_command(
    tmp_path: Path, livelist: Livelist
) -> None:
    """Reports are plain then; gdb itself has pygments, so that one is taken from it."""
    init = _copied(tmp_path)
    exe = str(program("livelist", "-ljemalloc"))
    loads = [GDB, "-batch", "-nx", "-ex", "python import sys; sys.modules['pygments'] = None"]
    loads += ["-ex", f"source {init}", "-ex", "drainsweep", exe, str(livelist.core)]
    done = subprocess.run(loads, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("drain_gdb: ")]
    assert line.startswith("drain_gdb: plain text: this Python (3.")
    packages = "pygments tabulate"
    assert "cannot import pygments and tabulate" in line
    assert (
        f"python3 -m venv {tmp_path}/.venv && {tmp_path}/.venv/bin/pip install {packages}" in line
    )
    whole = shell("sweep", livelist.core)
    assert whole.out in done.stdout


@pytest.mark.long
def test_the_command_for_missing_libraries_mends_it(tmp_path: Path) -> None:
    init = _copied(tmp_path)
    loads = [GDB, "-batch", "-nx", "-ex", f"source {init}", "-ex", "drainhelp"]
    lines = subprocess.run(loads, capture_output=True, text=True, check=False).stderr
    command = lines.splitlines()[0].split("run: ", 1)[1]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    done = subprocess.run(loads, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "drainsweep" in done.stdout


def test_dependencies_are_appended_never_forced() -> None:
    """What gdb's Python has stays what it has."""
    asked = [
        "python import pygments, sys; print(pygments.__file__)",
        "python print(sys.path[0])",
    ]
    options = [o for command in asked for o in ("-ex", command)]
    own = subprocess.run(
        [GDB, "-batch", "-nx", *options], capture_output=True, text=True, check=True
    )
    assert gdb(*asked).out == own.stdout


def test_an_interrupt_leaves_gdb_usable(livelist: Livelist) -> None:
    """Ctrl-C while memory is read, as gdb's Python reports it."""
    ran = gdb(
        "python import drain_gdb.debuggee.gdb as adapter; kept = adapter.GdbTarget.read",
        "python def read(*_): raise KeyboardInterrupt",
        "python adapter.GdbTarget.read = read",
        "drainsweep",
        "print $_drain_status",
        "python adapter.GdbTarget.read = kept",
        "drainsweep --format info",
        "print $_drain_status",
        arguments=[str(program("livelist", "-ljemalloc")), str(livelist.core)],
    )
    assert ran.err.count("drainsweep: interrupted") == 1
    assert "Traceback" not in ran.err
    assert "$1 = 130" in ran.out
    assert "mem_drainability_ratio:0." in ran.out
    assert "$2 = 0" in ran.out


def test_an_internal_error_is_one_line(livelist: Livelist) -> None:
    spoil = [
        "python import drain_gdb.debuggee.gdb as adapter",
        "python def read(*_): raise ZeroDivisionError('spoilt')",
        "python adapter.GdbTarget.read = read",
        "drainsweep",
    ]
    arguments = [str(program("livelist", "-ljemalloc")), str(livelist.core)]
    ran = gdb(*spoil, arguments=arguments)
    line = "drainsweep: internal error: ZeroDivisionError: spoilt; please report it"
    assert line in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in gdb(*spoil, arguments=arguments, env={"DRAIN_GDB_DEBUG": "1"}).err
