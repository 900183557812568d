"""C++ objects against a program that lists its own; names of types against c++filt."""

from __future__ import annotations

import re
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Dict, List, Set, Tuple

import pytest

import drain_gdb
from drain_gdb.debuggee import dwarftypes
from drain_gdb.debuggee.elffile import open_elf
from drain_gdb.objects.contents import HeapContents
from drain_gdb.objects.cplusplus import CPlusPlus
from drain_gdb.objects.demangle import demangled, shortened
from tests.conftest import Core, RedisCore, once
from tests.support.inputs import program
from tests.support.kinds import Named, contents_of, named
from tests.support.processes import Program, gcore
from tests.support.real import strip

HELD = "held by C++ shop::Session"
RESERVE = "C++ exception reserve"
"""In every program that loads libstdc++: the allocator does."""
Told = List[Tuple[str, int]]


def _run(name: str, stripped: bool, folder: Path) -> Tuple[Told, Path]:
    """What a program says of its objects, and its core."""
    binary = program(name, "-ljemalloc")
    if stripped:
        binary = strip(binary, folder / "stripped")
    child = Program([str(binary), str(folder / "list")])
    try:
        core = gcore(child.pid, folder / "core")
    finally:
        child.stop()
    rows = [line.split("\t") for line in (folder / "list").read_text().splitlines()]
    return [(name, int(address, 16)) for name, address in rows], core


@pytest.fixture(scope="module", params=["as built", "stripped"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tuple[Told, Path]:
    stripped = request.param == "stripped"
    name = f"cpp-{request.param.replace(' ', '-')}"
    return once(tmp_path_factory, name, partial(_run, "cpp_kinds", stripped))


def _has_types(contents: HeapContents, address: int) -> bool:
    """Whether there is debug information of the object there with virtual functions."""
    table = contents.word(address)
    assert table is not None
    return contents.types_at(table) is not None


@pytest.mark.parametrize("stripped", [False, True])
def test_plain_structs_are_named_by_the_types_of_pointers(tmp_path: Path, stripped: bool) -> None:
    rows, core = _run("cpp_types", stripped, tmp_path)
    with drain_gdb.open(str(core)) as snapshot:
        survey = snapshot.survey
        regions = [survey.live.region_at(address) for _, address in rows]
        found = [None if region is None else survey.known(region) for region in regions]
    right = sum(said == name for said, (name, _) in zip(found, rows))
    wrong = {(name, said) for said, (name, _) in zip(found, rows) if name != said}
    # What is of no type by its pointer is known by who holds it, or by its form.
    unsure = re.compile(r"held by C\+\+ |zeros|pointers, |None")
    assert [each for each in wrong if not unsure.match(f"{each[1]}")] == []
    untold = sum(name == "?" for name, _ in rows)
    objects = sum("Order" in name[-5:] or "Hidden" in name for name, _ in rows)
    assert untold == 800
    assert objects == 400
    if stripped:
        assert right == objects
    else:
        # The last of them is first found on the stack, which has no types.
        assert len(rows) - untold - 3 <= right
    assert len(rows) == 5056


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("INFO_MAX", 1 << 10, "its .debug_info is larger than "),
        ("ENTRIES_MAX", 50, "more than 50 entries of it were to be read"),
    ],
)
def test_types_of_large_debug_information_are_not_all_read(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int, said: str
) -> None:
    monkeypatch.setattr(dwarftypes, limit, value)
    file = open_elf(str(program("cpp_types", "-ljemalloc")))
    assert file is not None
    types = dwarftypes.Types(file, 0)
    assert types.struct_named("shop::Order") is None
    assert types.variable("shop::hall", 0) is None
    assert f"{types.limited}".startswith(said)


def test_every_object_is_named_and_none_wrongly(told: Tuple[Told, Path]) -> None:
    contents = contents_of(told[1])
    found = named(contents, [CPlusPlus(contents)])
    expected = {address: name for name, address in told[0] if name != "freed"}
    assert len(expected) > 10_000
    # Debug information has the type of what nothing else tells.
    plain = "C++ shop::Plain" if _has_types(contents, told[0][0][1]) else HELD
    expected = {at: plain if name == HELD else name for at, name in expected.items()}
    assert {at: found[at].what for at in expected} == expected
    # What else is named there hangs on one of them.
    others = {each.what for at, each in found.items() if at not in expected and each.kind}
    assert others <= {HELD, "C++ shop::Session.name", RESERVE}


def test_tables_left_in_freed_regions_tell_nothing(told: Tuple[Told, Path]) -> None:
    contents = contents_of(told[1])
    freed = [address for name, address in told[0] if name == "freed"]
    assert len(freed) == 5000
    assert [contents.region_at(address) for address in freed] == [None] * len(freed)
    # They are still there, cached or free.
    tables = {contents.word(address) for address in freed}
    assert any(table and CPlusPlus(contents).by_word(0, table, 1024) for table in tables)


def _said(found: Dict[int, Named]) -> Set[str]:
    return {f"{each.what}" for each in found.values() if each.kind is not None}


@pytest.mark.long
def test_no_object_of_c_or_rust_is_one(stripped_redis: RedisCore, two_allocators: Core) -> None:
    for core in (stripped_redis.core, two_allocators.core):
        contents = contents_of(core)
        assert _said(named(contents, [CPlusPlus(contents)])) <= {RESERVE}


def _libstdcxx() -> str:
    said = subprocess.run(
        ["g++", "-print-file-name=libstdc++.so.6"], capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def _filtered(names: List[str]) -> List[str]:
    said = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return said.stdout.splitlines()


def test_names_are_as_cxxfilt_says_them() -> None:
    said = subprocess.run(
        ["nm", "-D", "--defined-only", _libstdcxx()], capture_output=True, text=True, check=True
    )
    rows = [line.split()[-1].partition("@")[0] for line in said.stdout.splitlines()]
    names = sorted({name for name in rows if name.startswith("_ZTS")})
    assert len(names) > 200
    different = {}
    for name, text in zip(names, _filtered(names)):
        ours = demangled(name[4:])
        theirs = text.replace("typeinfo name for ", "").replace(" >", ">")
        if ours != theirs:
            different[name] = ours
    # c++filt knows what the library itself abbreviates, by more than its name.
    assert different == {
        "_ZTSSd": "std::iostream",
        "_ZTSSi": "std::istream",
        "_ZTSSo": "std::ostream",
    }


@pytest.mark.parametrize(
    ("mangled", "said"),
    [
        ("7Session", "Session"),
        ("*N12_GLOBAL__N_16HiddenE", None),
        ("N12_GLOBAL__N_16HiddenE", "(anonymous namespace)::Hidden"),
        ("Z4mainE5Local", "main::Local"),
        ("ZZ4mainENKUliE_clEiE5Local", "main::{lambda(int)#1}::operator()(int) const::Local"),
        ("PFivE", "int (*)()"),
        ("A3_PKc", "char const* [3]"),
        ("M3FooKFvvE", "void (Foo::*)() const"),
        ("3BoxILi5ELb1ELm7EE", "Box<5, true, 7ul>"),
        ("4PackIJifEE", "Pack<int, float>"),
        ("St6vectorIiSaIiEE", "std::vector<int, std::allocator<int>>"),
        ("_ZN7Session4openEv", "Session::open"),
        ("_ZN7SessionD2Ev", "Session::~Session"),
        ("N", None),
        ("3Fo", None),
        ("S_", None),
        ("", None),
    ],
)
def test_names_of_types(mangled: str, said: str) -> None:
    assert demangled(mangled) == said


def test_what_nobody_wrote_is_left_out() -> None:
    mangled = "St3mapIiNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESt4lessIiESaIiEE"
    assert shortened(f"{demangled(mangled)}") == "std::map<int, std::string>"


def test_hostile_names_end_soon() -> None:
    texts = ["_ZN1aI" + "J" * 4000, "P" * 4000 + "i", "N1a" + "IN1a" * 900]
    texts += ["N" + "1aIS_S_S_S_E" * 300 + "E", "St4pairI" * 70, "1aI" + "S_" * 2000 + "E"]
    begun = time.monotonic()
    for text in texts:
        said = demangled(text)
        assert said is None or re.fullmatch(r"[\w:<>, ]+", said)
    assert time.monotonic() - begun < 5
