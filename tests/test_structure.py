"""The layout of the code: rooms import leftwards only, debuggers stay in their adapters."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Iterable, Iterator, List, Set, Tuple

import pytest

from drain_gdb.commands.registry import COMMANDS
from tests.support.inputs import ROOT
from tests.support.runs import gdb

PACKAGE = ROOT / "drain_gdb"
ORDER = (
    *("errors", "words", "memory", "debuggee", "layout", "jemalloc", "objects", "analysis"),
    *("snapshot", "hooks", "render", "commands", "loaders"),
)
ENTRANCES = ("gdbinit", "lldbinit", "__main__")
DEBUGGERS = {
    "gdb": (
        *("debuggee/gdb.py", "hooks/gdb.py", "loaders/gdb.py", "loaders/gdb_settings.py"),
        "gdbinit.py",
    ),
    "lldb": ("debuggee/lldb.py", "hooks/lldb.py", "loaders/lldb.py", "lldbinit.py"),
}
DOING = [c.done_by.rpartition(".")[0] for c in COMMANDS if c.name != "drainhelp"]
"""Where commands are done; help is all that the list of them does."""
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@cache
def _imports(module: str) -> List[str]:
    return list(_imported(module))


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str:
    return module.split("/", 1)[0].removesuffix(".py")


def _own(names: Iterable[str]) -> List[str]:
    return [name.split(".")[1] for name in names if re.match(r"drain_gdb\.\w", name)]


def test_every_room_is_known() -> None:
    rooms = {_room(module) for module in MODULES}
    assert rooms == {*ORDER, *ENTRANCES, "__init__"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_leftwards(module: str) -> None:
    room = _room(module)
    if room in ENTRANCES or room == "__init__":
        return
    allowed = ORDER[: ORDER.index(room) + 1]
    assert set(_own(_imports(module))) <= set(allowed)


@pytest.mark.parametrize("module", MODULES)
def test_debuggers_stay_in_their_adapters(module: str) -> None:
    for debugger, homes in DEBUGGERS.items():
        if module not in homes:
            assert debugger not in {name.split(".")[0] for name in _imports(module)}


def test_only_loaders_join_adapters_to_commands() -> None:
    for module in MODULES:
        if _room(module) not in ("debuggee", "loaders") and module not in ENTRANCES:
            imported = set(_imports(module))
            assert not imported & {
                f"drain_gdb.{room}.{debugger}"
                for room in ("debuggee", "hooks")
                for debugger in DEBUGGERS
            }


def _sources() -> List[Tuple[Path, str]]:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    files += [ROOT / "README.md", *(ROOT / "examples").rglob("*.py")]
    return [(path, path.read_text(encoding="utf-8")) for path in files]


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    assert [str(path) for path, text in _sources() if marks.search(text)] == []


def test_the_top_level_is_as_agreed() -> None:
    allowed = {"drain_gdb", "examples", "tests", "pyproject.toml", "README.md", "LICENSE"}
    ignored = {"build", "dist"}
    found = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    found = {name for name in found - ignored if not name.endswith(".egg-info")}
    assert found == allowed


def test_the_commands_need_no_more_than_a_debugger_has() -> None:
    """What only direct reading needs is imported by direct reading alone."""
    absent = ("elftools", "lz4", "zstandard")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r}));"
    code += "import drain_gdb.loaders.shell, " + ", ".join(DOING)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _loaded(said: str) -> Set[str]:
    return {".".join(name.split(".")[:2]) for name in said.split()}


def test_what_a_command_needs_is_loaded_when_it_is_run() -> None:
    """Loading the commands into gdb, and starting a debugger for one, costs next to nothing."""
    tell = "import sys; print(*sys.modules)"
    code = f"import drain_gdb.loaders.shell; {tell}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    heavy = {f"drain_gdb.{room}" for room in ("layout", "jemalloc", "objects", "analysis")}
    heavy |= {"tabulate", "elftools.elf", "lz4.frame", "zstandard", "importlib.metadata"}
    assert not heavy & _loaded(said.stdout.decode())
    assert not {*heavy, "drain_gdb.debuggee"} & _loaded(gdb(f"python {tell}").out)
