"""C++ objects against a program that lists its own; names of types against c++filt."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Set, Tuple

import pytest

from drain_gdb.objects.cplusplus import CPlusPlus
from drain_gdb.objects.demangle import demangled, shortened
from tests.conftest import Core, RedisCore, once
from tests.support.inputs import program
from tests.support.kinds import Named, contents_of, named
from tests.support.processes import Program, gcore
from tests.support.real import strip

RESERVE = "C++ exception reserve"
"""In every program that loads libstdc++: the allocator does."""
Told = List[Tuple[str, int]]


@pytest.fixture(scope="module", params=["as built", "stripped"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tuple[Told, Path]:
    def make(folder: Path) -> Tuple[Told, Path]:
        binary = program("cpp_kinds", "-ljemalloc")
        if request.param == "stripped":
            binary = strip(binary, folder / "stripped")
        child = Program([str(binary), str(folder / "list")])
        try:
            core = gcore(child.pid, folder / "core")
        finally:
            child.stop()
        rows = [line.split("\t") for line in (folder / "list").read_text().splitlines()]
        return [(name, int(address, 16)) for name, address in rows], core

    return once(tmp_path_factory, f"cpp-{request.param.replace(' ', '-')}", make)


def test_every_object_is_named_and_none_wrongly(told: Tuple[Told, Path]) -> None:
    contents = contents_of(told[1])
    found = named(contents, [CPlusPlus(contents)])
    expected = {address: name for name, address in told[0] if name != "freed"}
    assert len(expected) > 10_000
    assert {at: found[at].what for at in expected} == expected
    # What else is named there hangs on one of them.
    others = {each.what for at, each in found.items() if at not in expected and each.kind}
    assert others <= {"held by C++ shop::Session", RESERVE}


def test_tables_left_in_freed_regions_tell_nothing(told: Tuple[Told, Path]) -> None:
    contents = contents_of(told[1])
    freed = [address for name, address in told[0] if name == "freed"]
    assert len(freed) == 5000
    assert [contents.region_at(address) for address in freed] == [None] * len(freed)
    # They are still there, cached or free.
    tables = {contents.word(address) for address in freed}
    assert any(table and CPlusPlus(contents).by_word(0, table, 64) for table in tables)


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
