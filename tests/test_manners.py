"""How the program behaves beside its neighbours: completion, settings, manual, one file."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pexpect
import pytest
from tabulate import tabulate

import drain_gdb
from drain_gdb.commands.base import Command, Context
from drain_gdb.commands.completion import EXPRESSION, FILE, complete
from drain_gdb.commands.declared import sweep as declared
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.commands.session import KEPT_MAX, Preferences, Session
from drain_gdb.errors import MissingDependency, TargetError
from drain_gdb.loaders import manual, shells
from drain_gdb.loaders import shell as shell_form
from drain_gdb.loaders.startup import MARKS
from drain_gdb.render import aligned as rendered
from drain_gdb.render import libraries
from drain_gdb.render.aligned import plainly
from drain_gdb.render.style import Style
from tests.conftest import Livelist
from tests.pythons import RECORDING, interpreters
from tests.support.inputs import GDB, LLDB, ROOT, program
from tests.support.processes import Program
from tests.support.runs import GDBINIT, comparable, gdb, lldb, shell
from tests.support.tiers import tiered

WAIT = 60
BY_NAME = {command.name: command for command in COMMANDS}


# -- without the libraries --------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_tables_are_the_same_without_tabulate(seed: int) -> None:
    chance = random.Random(seed)
    columns = chance.randrange(1, 6)
    letters = "ab 1.%│█,-é"
    rows = [
        ["".join(chance.choices(letters, k=chance.randrange(9))) for _ in range(columns)]
        for _ in range(chance.randrange(1, 6))
    ]
    heads = ["".join(chance.choices("abc", k=chance.randrange(1, 9))) for _ in range(columns)]
    align = chance.choices(["left", "right"], k=columns)
    for above in (heads, []):
        theirs = tabulate(rows, above, tablefmt="plain", disable_numparse=True, colalign=align)
        assert plainly(rows, align, above) == theirs.split("\n")


def test_no_colours_without_pygments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Style(colour=True).good("x") == "\x1b[32mx\x1b[39;49;00m"
    monkeypatch.setattr(libraries, "library", lambda name: None)
    monkeypatch.setattr(rendered, "library", lambda name: None)
    assert Style(colour=True).good("x") == "x"
    assert libraries.coloured_hexdump("00000000  00") == "00000000  00"
    assert rendered.aligned([["a", "b"]], ["left", "right"]) == ["a  b"]


# -- completion -------------------------------------------------------------------


def _words(line: str, session: Session) -> List[str]:
    name, *before = line.split(" ")
    return list(complete(BY_NAME[name], before[:-1], before[-1], session).words)


def test_what_a_word_can_become() -> None:
    session = Session(arenas=[0, 12], sizes=[16, 1024, 14336])
    assert _words("drainsweep --fo", session) == ["--format"]
    assert _words("drainsweep --format=js", session) == ["--format=json"]
    assert _words("drainsweep --by ", session) == [*declared.VIEWS]
    assert _words("drainsweep --arena ", session) == ["0", "12"]
    assert _words("drainsweep --size 1", session) == ["16", "1024", "14336"]
    assert _words("drainsweep --size 1", Session()) == []
    assert _words("drainsweep --top ", session) == []
    assert "--by" not in _words("drainsweep --by arena --", session)
    assert _words("draincount st", session) == ["start", "stop"]
    assert _words("draincount start --layer ent", session) == ["entry"]
    assert _words("draincount --layer entry s", session) == ["start", "show", "stop"]
    assert "--quiet" in _words("draincount start ", session)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("drainrecord x", FILE),
        ("drainsweep --output x", FILE),
        ("drainfind x", EXPRESSION),
        ("drainfind 1 2 x", EXPRESSION),
        ("drainslab --format json x", EXPRESSION),
        ("drainslab 1 x", ""),
    ],
)
def test_what_a_debugger_completes_itself(line: str, kind: str) -> None:
    name, *before = line.split(" ")
    assert complete(BY_NAME[name], before[:-1], before[-1], Session()).kind == kind


def _pressed(child: pexpect.spawn[str], typed: str, prompt: str) -> str:
    child.send(typed + "\n")
    child.expect_exact(prompt)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x07]", "", child.before or "")


def _terminal(command: List[str], cwd: Path) -> pexpect.spawn[str]:
    clean = {"TERM": "dumb", "PATH": "/usr/bin:/bin", "HOME": str(cwd), "INPUTRC": "/dev/null"}
    return pexpect.spawn(
        *(command[0], command[1:]),
        encoding="utf-8",
        timeout=WAIT,
        env={**clean, "LC_ALL": "C.UTF-8"},
        dimensions=(50, 200),
        cwd=str(cwd),
    )


def test_tab_in_gdb(tmp_path: Path) -> None:
    prompt = "(gdb) "
    child = _terminal([GDB, "-q", "-nx", "-ex", f"source {GDBINIT}"], tmp_path)
    try:
        child.expect_exact(prompt)
        assert "drainsweep --format json" in _pressed(child, "drainsw\t--forma\tjs\t", prompt)
        assert "draincount show " in _pressed(child, "draincount sh\t", prompt)
        _pressed(child, "set drain re\tn\t", prompt)
        assert "reader: none" in _pressed(child, "show drain re\t", prompt)
    finally:
        child.close(force=True)


TYPED = {
    "sw\t": "sweep",
    "sweep --forma\tjs\t": "sweep --format json",
    "sweep co\t": "sweep core",
    "sweep --sort was\t": "sweep --sort waste_bytes",
    "init l\t": "init lldb",
    "record -o co\t": "record -o core",
}
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "PS1='RE''ADY> '; bind 'set bell-style none'; source {script}; cd {here};"
        ' drain-gdb() {{ echo "ARGS:$*"; }}',
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "PS1='RE''ADY> '; mkdir {here}/f; cp {script} {here}/f/_drain-gdb; fpath=({here}/f $fpath);"
        " autoload -Uz compinit; compinit -u -D; unsetopt beep; cd {here};"
        ' drain-gdb() {{ print -r -- "ARGS:$*" }}',
    ),
}


def _script(shell_name: str, tmp_path: Path) -> Path:
    ran = shell("completion", shell_name)
    assert (ran.status, ran.err) == (0, "")
    script = tmp_path / "script"
    script.write_text(ran.out)
    return script


@pytest.mark.parametrize("name", SHELLS)
def test_tab_in_a_shell(name: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "core").touch()
    command, start = SHELLS[name]
    child = _terminal(command, tmp_path)
    try:
        child.sendline(start.format(script=_script(name, tmp_path), here=here))
        child.expect_exact("READY> ")
        for typed, expected in TYPED.items():
            shown = _pressed(child, f"drain-gdb {typed}", "READY> ")
            assert f"ARGS:{expected}" in [line.strip() for line in shown.splitlines()]
    finally:
        child.close(force=True)


def test_completion_in_fish(tmp_path: Path) -> None:
    (tmp_path / "core").touch()
    asked = [typed[:-1] for typed in TYPED if typed.count("\t") == 1]
    lines = [f"source {_script('fish', tmp_path)}", f"cd {tmp_path}"]
    lines += [
        f"complete -C 'drain-gdb {each}' | cut -f1 | string join ' '; or true" for each in asked
    ]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.stderr == ""
    offered = [line.split() for line in done.stdout.splitlines()]
    assert offered[0] == ["sweep"]
    assert [words[-1] for words in offered[1:]] == ["core", "waste_bytes", "lldb", "core"]


def test_completion_needs_shtab_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(MissingDependency, match=r"cannot import shtab; run: .* shtab$"):
        shells.run(shells_arguments("bash"))


def shells_arguments(name: str) -> shells.argparse.Namespace:
    return shell_form.OTHERS["completion"][0]().parse_args([name])


# -- settings and the last report -------------------------------------------------


def test_settings_and_the_last_report_in_gdb(livelist: Livelist, tmp_path: Path) -> None:
    through, beside = tmp_path / "through", tmp_path / "beside"
    ran = gdb(
        "info drain",
        "show drain",
        "set drain top 2",
        "drainsweep --by slab --format csv",
        "echo --again--\\n",
        "info drain",
        "complete drainsweep --size 143",
        "set drain top unlimited",
        f"drainsweep --format json --output {through}",
        "set drain reader none",
        f"drainsweep --format json --output {beside}",
        "set drain colour on",
        "drainsweep",
        "set drain bogus",
        arguments=[str(program("livelist", "-ljemalloc")), str(livelist.core)],
    )
    assert "info drain: there is no report yet in this session; make one: drainsweep" in ran.err
    assert 'Undefined set drain command: "bogus".' in ran.err
    assert "reader: debugger\ntop: unlimited\ncolour: auto\ncontents: off\n" in ran.out
    first, again = ran.out.split("--again--\n")
    rows = [line for line in first.splitlines() if line.startswith("0x")]
    assert len(rows) == 2
    assert re.match(
        r"drainsweep --by slab --format csv, as it was at \d\d:\d\d:\d\d \(nothing is read", again
    )
    assert all(row in again for row in rows)
    assert "drainsweep --size 14336\n" in again
    assert "\x1b[32mverified" in again
    reports = [json.loads(path.read_text()) for path in (through, beside)]
    assert [report["process"]["debugger"] for report in reports] == ["gdb", "none"]
    assert comparable(reports[0]) == comparable(reports[1])


def test_a_process_that_gdb_holds_is_read_beside_it(tmp_path: Path) -> None:
    child = Program([str(program("explicit", "-ljemalloc"))])
    try:
        ran = gdb(
            f"attach {child.pid}",
            "drainsweep --format info",
            "set drain reader none",
            "drainsweep --format info",
            "print $_drain_status",
            "detach",
        )
    finally:
        child.stop()
    lines = [line for line in ran.out.splitlines() if line.startswith("mem_")]
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] != []
    assert "$1 = 0" in ran.out


def test_settings_in_lldb(livelist: Livelist) -> None:
    ran = lldb(
        "drainset",
        "drainset top 2",
        "drainset reader none",
        "drainset colour blue",
        "drainset colour",
        "drainsweep --by slab --format csv",
        "drainsweep --format json",
        arguments=["-c", livelist.core],
    )
    assert "reader: debugger\ntop: unlimited\ncolour: auto\ncontents: off\n" in ran.out
    assert "drainset: colour cannot be 'blue'; it is on, off or auto" in ran.err
    assert sum(line.startswith("0x") for line in ran.out.splitlines()) == 2
    assert '"debugger": "none"' in ran.out


class Shown(Command):
    """Shows what its options are."""

    name = "drainshown"
    shell = ""
    summary = description = ""
    examples = ()

    def configure(self, parser: shells.argparse.ArgumentParser) -> None:
        parser.add_argument("--contents", action="store_true")
        parser.add_argument("--top", type=int, default=12)

    def run(self, args: shells.argparse.Namespace, context: Context) -> int:
        context.emit(f"{args.contents} {args.top}", None)
        return 0


def _context(said: List[str], chosen: Dict[str, object]) -> Context:
    return Context(
        open_target=lambda: pytest.fail("nothing is opened"),
        write=said.append,
        note=said.append,
        style=Style(),
        defaults=chosen,
    )


def test_a_preference_is_a_default_of_options_that_are_there() -> None:
    said: List[str] = []
    for chosen in (Preferences(), Preferences(top=3, contents=True)):
        Shown().invoke([], _context(said, chosen.options))
        Shown().invoke(["--top", "5"], _context(said, chosen.options))
    assert said == ["False 12", "False 5", "True 3", "True 5"]


def test_a_long_report_is_not_kept() -> None:
    session = Session()
    with pytest.raises(TargetError):
        session.again()
    session.keep("drainsweep", "x" * (KEPT_MAX + 1))
    assert session.again().endswith("\n\n(too long to be kept)\n")


# -- manual, start-up file --------------------------------------------------------


def test_the_manual_page_is_up_to_date_and_well_formed() -> None:
    """Where this fails: python3 -m drain_gdb.loaders.manual."""
    assert manual.PAGE.read_text() == manual.page()
    done = subprocess.run(
        ["man", "--warnings=w", "-l", str(manual.PAGE)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MANWIDTH": "90", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    for command in COMMANDS:
        if command.shell and command.name != "drainhelp":
            assert f"drain-gdb {command.shell}" in done.stdout
    assert "--retention" not in done.stdout
    assert "--debugger gdb|lldb|none" in done.stdout


def _init(home: Path, *options: str) -> List[str]:
    ran = shell("init", "gdb", *options, env={"HOME": str(home)})
    return [str(ran.status), ran.out, ran.err]


def test_init_writes_the_line_once(tmp_path: Path) -> None:
    file = tmp_path / ".gdbinit"
    file.write_text("set pagination off")
    assert "there is nobody to ask; add --yes" in _init(tmp_path, "--write")[2]
    assert file.read_text() == "set pagination off"
    for _ in range(2):
        assert _init(tmp_path, "--write", "--yes")[0] == "0"
    assert file.read_text() == f"set pagination off\nsource {GDBINIT}\n"
    done = subprocess.run(
        [GDB, "-q", "-batch", "-ex", "drainhelp"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert "drainsweep" in done.stdout
    file.write_text("# drain_gdb\nsource /elsewhere/drain_gdb/gdbinit.py\n")
    status, _, said = _init(tmp_path, "--write", "--yes")
    assert (status, "in line 2: source /elsewhere" in said) == ("2", True)
    assert "--yes is for --write" in _init(tmp_path, "--yes")[2]


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("", False)])
def test_init_asks_first(answer: str, written: bool, tmp_path: Path) -> None:
    child = _terminal(
        ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "drain_gdb", "init", "lldb", "--write"],
        tmp_path,
    )
    child.expect_exact("? [y/N] ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    file = tmp_path / ".lldbinit"
    assert file.exists() == written
    assert not written or any(mark in file.read_text() for mark in MARKS)


# -- one file ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("zip file") / "drain-gdb.pyz"
    command = [sys.executable, "-m", "drain_gdb.loaders.zipapp", "-o", str(made)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    return made


def _run(archive: Path, *arguments: object, python: object = "/usr/bin/python3") -> str:
    """What it says in a Python without site-packages."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-S", str(archive), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=archive.parent,
        env={**clean, "DRAIN_GDB_LLDB": LLDB},
    )
    return done.stdout


@pytest.mark.parametrize("debugger", ["gdb", "lldb", "none"])
def test_the_zip_file_needs_nothing_else(archive: Path, debugger: str, small_core: Path) -> None:
    said = _run(archive, "sweep", small_core, "--debugger", debugger, "--format", "json")
    report = json.loads(said)
    assert report["process"]["debugger"] == debugger
    assert report["verification"]["status"] == "exact"


def test_the_zip_file_makes_the_page(archive: Path, tmp_path: Path) -> None:
    page, same = tmp_path / "page.html", tmp_path / "same.html"
    _run(archive, "report", RECORDING, "-o", page)
    assert shell("report", RECORDING, "-o", same).status == 0
    assert page.read_bytes() == same.read_bytes()


PYTHONS = list(interpreters())


@pytest.mark.parametrize("version", tiered(PYTHONS, PYTHONS[1:-1].__contains__, str))
def test_the_zip_file_in_each_python(archive: Path, version: str) -> None:
    text = _run(archive, "sweep", RECORDING, python=interpreters()[version])
    assert text == shell("sweep", RECORDING).out


def test_both_debuggers_load_the_zip_file(archive: Path, small_core: Path) -> None:
    def lines(debugger: str, option: str) -> List[str]:
        loads = _run(archive, "init", debugger).strip()
        return [option, loads, option, "drainsweep --format info"]

    exe = str(program("explicit", "-ljemalloc"))
    in_gdb = subprocess.run(
        [GDB, "-q", "-nx", "-batch", *lines("gdb", "-ex"), exe, str(small_core)],
        capture_output=True,
        text=True,
        check=True,
    )
    in_lldb = subprocess.run(
        [LLDB, "--no-lldbinit", "--batch", *lines("lldb", "-o"), "-c", str(small_core)],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = [
        [line for line in done.stdout.splitlines() if line.startswith("mem_")]
        for done in (in_gdb, in_lldb)
    ]
    assert figures[0] == figures[1] != []
    assert in_gdb.stderr.count("drain_gdb") == 0


def test_the_executable_bit(archive: Path) -> None:
    done = subprocess.run([str(archive), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"drain-gdb {drain_gdb.__version__}\n"
