"""What drainpins foretells of programs in C++ and Python against what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, NamedTuple, Sequence, Tuple

import pytest

from tests.conftest import once
from tests.support.inputs import PROGRAMS, debian_jemalloc, program
from tests.support.kinds import contents_of
from tests.support.processes import Program, gcore
from tests.support.real import strip
from tests.support.runs import shell

NEAR = 0.02
"""Of the slabs that come back, those that alone may be off by."""
ROUNDS = 400


class Dropped(NamedTuple):
    """Cores of a program before and after it let go of what its greatest group is."""

    before: Path
    after: Path


def _dropped(folder: Path, command: Sequence[str], env: Dict[str, str]) -> Dropped:
    child = Program(command, env)
    try:
        before = gcore(child.pid, folder / "before")
        assert child.ask("drop") == "dropped"
        return Dropped(before, gcore(child.pid, folder / "after"))
    finally:
        child.stop()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Dropped:
    def make(folder: Path) -> Dropped:
        binary = strip(program("cpp_kinds", "-ljemalloc"), folder / "stripped")
        return _dropped(folder, [str(binary), str(folder / "list")], {})

    return once(tmp_path_factory, "dropped-sessions", make)


@pytest.fixture(scope="module")
def variable(tmp_path_factory: pytest.TempPathFactory) -> Dropped:
    def make(folder: Path) -> Dropped:
        script = str(PROGRAMS / "python_kinds.py")
        command = ["/usr/bin/python3", script, str(folder / "list"), str(ROUNDS)]
        env = {"PYTHONMALLOC": "malloc", "LD_PRELOAD": str(debian_jemalloc())}
        return _dropped(folder, command, env)

    return once(tmp_path_factory, "dropped-variable", make)


def _pinned(core: Path) -> int:
    """Slabs that hold a live region."""
    live = contents_of(core).live
    return sum(1 for slab, held in zip(live.slab, live.live) if slab and held)


def _first(core: Path) -> Tuple[str, int]:
    """The greatest group, and the slabs that come back if only it goes."""
    ran = shell("pins", core, "--all", "--debugger", "none", "--format", "json")
    assert ran.status == 0, ran.err
    first = json.loads(ran.out)["groups"][0]
    return first["what"], first["alone_slabs"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("sessions", "C++ shop::Session"), ("variable", "module __main__: EVERYTHING")],
)
def test_what_comes_back_is_foretold(request: pytest.FixtureRequest, name: str, what: str) -> None:
    dropped: Dropped = request.getfixturevalue(name)
    came = _pinned(dropped.before) - _pinned(dropped.after)
    said, alone = _first(dropped.before)
    assert said == what
    assert came > 30
    assert abs(alone - came) <= max(NEAR * came, 1)
