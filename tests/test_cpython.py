"""Objects of CPython against programs that list their own, and against bytes made by hand."""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import pytest

import drain_gdb
from drain_gdb.objects.cpython import CPython, counts
from drain_gdb.objects.cpython_arenas import CPythonArenas
from drain_gdb.objects.cpython_owners import CPythonOwners
from drain_gdb.objects.cpython_types import PythonTypes
from drain_gdb.objects.recogniser import EXACT, Region
from drain_gdb.objects.registry import forms, recognisers, sideways
from drain_gdb.objects.sideways import Blinds
from tests.conftest import Core, RedisCore, once
from tests.support.fakecontents import FakeContents
from tests.support.inputs import PROGRAMS, debian_jemalloc
from tests.support.kinds import contents_of, named
from tests.support.processes import Program, gcore
from tests.support.tiers import tiered

SCRIPT = PROGRAMS / "python_kinds.py"
MANY, FEW = 850, 60
"""Rounds of some forty objects: of the system's Python, of the others."""
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
CUT = 7
"""Every so many slabs is looked at in two parts as well."""
UNKNOWN_MAX = 0.05


def _pythons() -> Dict[str, Path]:
    """The system's Python, and one of each version that pyenv keeps here."""
    found = {"system": Path("/usr/bin/python3")}
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        for python in sorted(folder.glob(f"{version}.*/bin/python{version}")):
            found[version] = python
    return found


class Row(NamedTuple):
    """A line of what the program said."""

    what: str
    address: int
    name: str


class Told(NamedTuple):
    rows: List[Row]
    core: Path

    def of(self, *what: str) -> List[Row]:
        return [row for row in self.rows if row.what in what]


EACH = tiered(_pythons(), lambda name: name in VERSIONS[:-1], str)


@pytest.fixture(scope="module", params=EACH)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    def make(folder: Path) -> Told:
        rounds = MANY if request.param == "system" else FEW
        command = [str(_pythons()[request.param]), str(SCRIPT), str(folder / "list"), str(rounds)]
        env = {"PYTHONMALLOC": "malloc", "LD_PRELOAD": str(debian_jemalloc())}
        child = Program(command, env)
        try:
            core = gcore(child.pid, folder / "core")
        finally:
            child.stop()
        lines = (folder / "list").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        return Told([Row(what, int(address), name) for what, address, name in rows], core)

    return once(tmp_path_factory, f"python-{request.param}", make)


def test_every_object_is_named_and_little_is_unknown(told: Told) -> None:
    contents = contents_of(told.core)
    found = named(contents, recognisers(contents, pytest.fail), forms(contents))
    missing, wrong = 0, Counter[str]()
    for row in told.of("made", "known"):
        region = contents.region_at(row.address)
        if region is None:
            # Small numbers and built-in types are the interpreter's own.
            assert contents.in_module(row.address), row
            missing += 1
            continue
        kind = found[region.address].kind
        said = None if kind is None or kind.evidence != EXACT else kind.what
        if said is None or said.replace("Python ", "").rpartition(".")[2] != row.name:
            wrong[f"{row.name}: {said}"] += 1
    assert not wrong
    rows = len(told.of("made", "known"))
    assert rows > (30_000 if "system" in str(told.core) else 2000)
    assert missing < rows // 100
    # Lists of types among them: their arrays look much like objects.
    for row in told.of("part"):
        region = contents.region_at(row.address)
        assert region is not None
        if found[region.address].what != row.name:
            wrong[f"{row.name}: {found[region.address].what}"] += 1
    assert not wrong
    unknown = sum(each.region.size for each in found.values() if each.kind is None)
    assert unknown < UNKNOWN_MAX * sum(each.region.size for each in found.values())


def test_owning_begins_at_modules_classes_and_variables(told: Told) -> None:
    contents = contents_of(told.core)
    owners = CPythonOwners(contents)
    assert owners.applies()
    roots = {root.address: root.label for root in owners.roots()}
    assert all(contents.region_at(address) is not None for address in roots)
    expected = {row.address: row.name for row in told.of("root")}
    assert {address: roots.get(address) for address in expected} == expected
    modules = [label for label in roots.values() if label.startswith("module ")]
    assert len(modules) > 50


def test_links_of_the_collector_and_weak_references_own_nothing(told: Told) -> None:
    """They are hidden, nothing else is, and wherever the memory is cut."""
    contents = contents_of(told.core)
    blinds = Blinds(contents, sideways(contents))
    python, types, live = CPython(contents), PythonTypes(contents), contents.live
    objects = {row.address for row in told.of("known")}
    chained = 0
    for row in range(len(live)):
        start, end = live.start[row], live.end[row]
        data = contents.read(start, end - start)
        assert data is not None
        whole = blinds.over(start, data)
        for cut in range(4096, end - start if row % CUT == 0 and live.slab[row] else 0, 4096):
            parts = blinds.over(start, data[:cut]), blinds.over(start + cut, data[cut:])
            assert b"".join(parts) == whole
        for _, region in contents.regions(row):
            at = region.address - start
            seen = whole[at : at + len(region.data)]
            kind = python.type_of(region)
            before = 0 if kind is None else 8 * kind.before
            if kind is not None and before and region.address + before in objects:
                assert not any(seen[before - 16 : before])
                assert "weak" in f"{kind.family}" or seen[before:] == region.data[before:]
                chained += 1
            elif seen != region.data:
                # What has a type's address where objects have theirs may be an array of types.
                assert any(types.at(region.words[index]) for index in (3, 5))
    assert chained > len(objects) * 0.9


def test_nothing_of_other_programs_is_an_object(
    stripped_redis: RedisCore, two_allocators: Core
) -> None:
    redis = contents_of(stripped_redis.core)
    assert not CPython(redis).applies()
    assert not CPythonOwners(redis).applies()
    # A CPython, but what is its own lies elsewhere.
    columnar = contents_of(two_allocators.core)
    assert CPython(columnar).applies()
    assert not any(each.kind for each in named(columnar, [CPython(columnar)]).values())


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        (1, True),
        (1 << 20, True),
        (0xFFFFFFFF, True),  # of what never goes, 3.12 and 3.13
        (3 << 30, True),  # the same in 3.14
        (3 << 30 | 4 << 48, True),  # with a flag: part of the program
        (0, False),
        (0x00007F5A12345678, False),
        (0x0000557812345678, False),
        (0x6F6D6D6F6E206578, False),
    ],
)
def test_counts_of_references(word: int, is_one: bool) -> None:
    assert counts(word) == is_one


class Memory(FakeContents):
    """A process of a few types, at addresses of its own."""

    ROOT, PLAIN, COLLECTED, MANAGED, NAMES = 0x100000, 0x101000, 0x102000, 0x103000, 0x104000

    def __init__(self, head: int = 1) -> None:
        super().__init__(symbols=[(self.ROOT, self.ROOT + 416, "PyType_Type")])
        self.names = b""
        self.type(self.ROOT, "type", 880, item=40, flags=1 << 14 | 1 << 31, head=head)
        self.type(self.PLAIN, "Plain", 48, flags=0)
        self.type(self.COLLECTED, "shop.Collected", 56, flags=1 << 14)
        self.type(self.MANAGED, "Managed\n\x1b[31m", 16, flags=1 << 14 | 1 << 4 | 1 << 2)

    def type(
        self, address: int, name: str, basic: int, item: int = 0, flags: int = 0, head: int = 1
    ) -> None:
        data = bytearray(416)
        at = self.NAMES + len(self.names)
        self.names += name.encode() + b"\0"
        struct.pack_into("<Q", data, 8 * head, self.ROOT)
        struct.pack_into("<3Q", data, 24, at, basic, item)
        struct.pack_into("<Q", data, 168, flags | 1 << 12)
        self.parts[address] = bytes(data)
        self.parts[self.NAMES] = self.names.ljust(4096, b"\0")


def _said(words: List[int], size: int, memory: Optional[Memory] = None) -> Optional[str]:
    data = struct.pack(f"<{len(words)}Q", *words).ljust(size, b"\0")
    kind = CPython(memory or Memory()).recognise(Region(0x7F0000000000, size, data))
    return None if kind is None else kind.what


def test_headers_must_be_those_of_the_type() -> None:
    plain, collected, managed = Memory.PLAIN, Memory.COLLECTED, Memory.MANAGED
    assert _said([1, plain], 48) == "Python Plain"
    assert _said([0xFFFFFFFF, plain], 48) == "Python Plain"
    assert _said([0, 0, 1, collected], 80) == "Python shop.Collected"
    assert _said([0, 0, 0, 0, 3 << 30, managed], 48) == "Python Managed??[31m"
    assert _said([1, collected], 80) is None, "no words of the collector"
    assert _said([0, 0, 1, plain], 48) is None, "too many words before it"
    assert _said([0, 0, 1, managed], 48) is None, "no words of its dict"
    assert _said([1, plain], 32) is None, "too small"
    assert _said([1, plain], 128) is None, "too large"
    assert _said([Memory.PLAIN, plain], 48) == "Python Plain", "a small address looks like a count"
    assert _said([0x7F0000000000, plain], 48) is None, "an array of pointers"
    assert _said([0, plain], 48) is None, "in a list of free ones"
    assert _said([], 8) is None


def test_builds_with_other_headers_are_left_alone() -> None:
    assert not CPython(Memory(head=3)).applies(), "without the global lock"
    assert CPython(Memory()).applies()


def test_hostile_types_end_soon() -> None:
    memory = Memory()
    # Types of one another, and of nothing.
    memory.parts[0x200000] = struct.pack("<2Q", 1, 0x201000).ljust(416, b"\xff")
    memory.parts[0x201000] = struct.pack("<2Q", 1, 0x200000).ljust(416, b"\xff")
    memory.parts[0x202000] = struct.pack("<2Q", 1, 0x999000).ljust(416, b"\xff")
    for address in (0x200000, 0x201000, 0x202000, 1 << 63, (1 << 64) - 8):
        assert _said([1, address], 48, memory) is None
    memory.type(0x203000, "Endless", 16)
    # tp_base of itself.
    data = bytearray(memory.parts[0x203000])
    struct.pack_into("<Q", data, 256, 0x203000)
    memory.parts[0x203000] = bytes(data)
    assert _said([1, 0x203000], 16, memory) == "Python Endless"


def test_all_recognisers_take_their_turns(two_allocators: Core) -> None:
    contents = contents_of(two_allocators.core)
    assert [each.name for each in recognisers(contents, pytest.fail)] == ["CPython", "C++", "types"]
    assert [each.name for each in forms(contents)] == ["text", "zeros", "pointers"]


ARENAS = """
import sys
kept, dropped = [], []
for number in range(3000):
    kept.append(list(range(300)))
    dropped.append(list(range(300)))
with open(sys.argv[1], "w") as out:
    print(*map(id, kept), file=out)
    print(*map(id, dropped), file=out)
del dropped[:]
print("ready", flush=True)
sys.stdin.readline()
"""
LISTS_KEPT = 80
"""Lists that CPython keeps for the next ones (PyList_MAXFREELIST)."""
ARRAY = 24
"""Where a list has its array."""


def test_objects_in_arenas_own_what_is_of_jemalloc(tmp_path: Path) -> None:
    command = ["/usr/bin/python3", "-c", ARENAS, str(tmp_path / "list")]
    child = Program(command, {"LD_PRELOAD": str(debian_jemalloc())})
    try:
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    lines = (tmp_path / "list").read_text().splitlines()
    kept, dropped = (list(map(int, line.split())) for line in lines)
    with drain_gdb.open(str(core)) as snapshot:
        survey = snapshot.survey
        arenas = CPythonArenas(survey.contents)
        said = [arenas.holder(address + ARRAY) for address in kept]
        assert said == ["list in an arena of CPython"] * len(kept)
        left = [address for address in dropped if arenas.holder(address + ARRAY) is not None]
        assert len(left) <= LISTS_KEPT
        owners = survey.owners
        held = [survey.live.region_at(survey.contents.word(at + ARRAY) or 0) for at in kept]
        labels = Counter(owners.labels[owners.label[region or 0]] for region in held)
        assert labels == {"list in an arena of CPython": len(kept)}
