"""Who owns what, against a program that knows it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

import pytest

from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.objects import fast, roots
from drain_gdb.objects.naming import UNKNOWN
from drain_gdb.objects.survey import Survey
from drain_gdb.snapshot import Snapshot
from tests.conftest import once
from tests.support.inputs import program
from tests.support.processes import Program, gcore
from tests.support.real import strip


class Told(NamedTuple):
    """A core, and the roots of its regions by their addresses."""

    core: Path
    roots: List[Tuple[str, int]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    def make(folder: Path) -> Told:
        lists = folder / "lists"
        child = Program([str(program("owners", "-ljemalloc")), str(lists)])
        try:
            core = gcore(child.pid, folder / "core")
        finally:
            child.stop()
        lines = (line.split() for line in lists.read_text().splitlines())
        return Told(core, [(root, int(address, 16)) for root, address in lines])

    return once(tmp_path_factory, "owners", make)


@pytest.fixture(params=["plain", "numpy"], scope="module")
def survey(request: pytest.FixtureRequest, told: Told) -> Iterator[Survey]:
    with pytest.MonkeyPatch.context() as patch, File(str(told.core)) as file:
        fast.numpy.cache_clear()
        if request.param == "plain":
            patch.setenv(fast.VARIABLE, "1")
        elif fast.numpy() is None:
            pytest.skip("NumPy is not installed")
        yield Snapshot(CoreTarget(file)).survey
    fast.numpy.cache_clear()


def test_every_root(survey: Survey, told: Told) -> None:
    """Its variable, or the function in whose frame it is held; old pointers own nothing."""
    wrong: Counter[Tuple[str, str]] = Counter()
    seen: Counter[str] = Counter()
    for root, address in told.roots:
        chain = survey.owners_of(address)
        seen[root] += 1
        if root == "freed":
            assert chain is None
            continue
        assert chain is not None, (root, hex(address))
        said = chain[-1] if chain else "none"
        said = "brk" if said == "the brk heap" else said
        if said != root and not said.startswith(f"{root}() on the stack of thread "):
            wrong[root, said] += 1
    assert wrong == {}
    assert seen["none"] == 240
    assert {"table", "serving", "brk", "in_data", "large_table", "long_list", "ring"} <= seen.keys()


def test_a_function_without_a_name_lends_its_frame_to_no_other(tmp_path: Path) -> None:
    """Of a stripped program those of the C library have names, which it calls."""
    binary = strip(program("owners", "-ljemalloc"), tmp_path / "owners")
    child = Program([str(binary), str(tmp_path / "lists")])
    try:
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    lines = (line.split() for line in (tmp_path / "lists").read_text().splitlines())
    held = [int(address, 16) for root, address in lines if root == "serving"]
    with File(str(core)) as file:
        survey = Snapshot(CoreTarget(file)).survey
        said = {owners[-1] for owners in map(survey.owners_of, held) if owners}
    assert len(held) == 4
    assert [name.rpartition(" ")[0] for name in said] == ["stack of thread"]


def test_what_is_not_looked_at_is_said(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "FOREIGN_MAX", 0)
    notes: List[str] = []
    with File(str(told.core)) as file:
        survey = Snapshot(CoreTarget(file), note=notes.append).survey
        held = next(address for root, address in told.roots if root == "brk")
        assert survey.owners_of(held) == ()
    assert [each.partition(":")[0] for each in notes] == ["owners are partial"]


def test_chains_name_what_holds(survey: Survey, told: Told) -> None:
    places: Dict[str, List[int]] = {}
    for root, address in told.roots:
        places.setdefault(root, []).append(address)
    payload = survey.owners_of(places["table"][1])
    assert payload is not None
    assert payload[-1] == "table"
    assert len(payload) == 2, "the nodes of a list are one link"
    held = survey.owners_of(places["large_table"][5])
    assert held is not None
    assert (len(held), held[-1]) == (2, "large_table")
    assert survey.owners_of(0) is None


def test_no_type_is_taken_from_what_is_freed(survey: Survey) -> None:
    """A kind is of live regions only."""
    alive, kinds = survey.finder.alive, survey.kinds
    for region, kind in enumerate(kinds.of):
        assert alive[region] or kinds.names[kind] == UNKNOWN
