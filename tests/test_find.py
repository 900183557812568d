"""What addresses are, against a program that knows it of each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest

import drain_gdb
from drain_gdb.errors import TargetError, UsageError
from tests.conftest import RedisCore
from tests.support.inputs import program
from tests.support.processes import Program, gcore
from tests.support.readers import OTHERS, REFERENCE, Reader
from tests.support.runs import gdb, shell, sweep_json
from tests.support.tiers import tiered

SMALL_MAX = 14336
THREE = [REFERENCE, *(r for r in OTHERS if r.name in ("lldb", "none"))]
FEWER = tiered(THREE, lambda name: name == "lldb", lambda reader: reader.name)
FREED = ("free", "cached")


class Known(NamedTuple):
    """A line of the program's list."""

    what: str
    address: int
    rest: Tuple[str, ...]

    @property
    def start(self) -> int:
        return int(self.rest[1], 16)

    @property
    def size(self) -> int:
        return int(self.rest[0])


class Place(NamedTuple):
    """The program while it waits, a core of it, and its list."""

    pid: int
    core: Path
    known: List[Known]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("places")
    child = Program([str(program("places", "-ljemalloc", "-lpthread")), str(folder / "list")])
    try:
        lines = [line.split() for line in (folder / "list").read_text().splitlines()]
        known = [Known(what, int(at, 16), tuple(rest)) for what, at, *rest in lines]
        yield Place(child.pid, gcore(child.pid, folder / "core"), known)
    finally:
        child.stop()


def _found(reader: Reader, known: List[Known], *target: object) -> List[Dict[str, Any]]:
    addresses = [hex(each.address) for each in known]
    ran = reader.shell("find", *target, "--format", "json", *addresses)
    assert ran.status == 0, ran.err
    content = json.loads(ran.out)
    assert content["schema"] == "drain_gdb.find/1"
    found: List[Dict[str, Any]] = content["addresses"]
    return found


def _require_right(known: Known, found: Dict[str, Any]) -> None:
    assert int(found["address"], 16) == known.address
    if known.what == "stack":
        assert (found["kind"], found["thread"]) == ("stack", int(known.rest[0]))
    elif known.what == "global":
        assert found["kind"] == "global"
        assert found["symbol"].split("+")[0] == known.rest[0]
    elif known.what == "file":
        assert found["kind"] == "file"
        assert "/places" in found["module"]
    elif known.what == "owned":
        assert (found["kind"], found["state"]) == ("region", "live")
    else:
        assert found["kind"] == ("region" if known.size <= SMALL_MAX else "large"), known
        assert found["state"] == known.what, known
        assert found["size"] == known.size
        region = found["region"]
        assert int(region["address"], 16) == known.start
        assert region["offset"] == known.address - known.start
        assert (found["held_by_cache"] is not None) == (known.what == "cached")


@pytest.mark.parametrize("reader", THREE, ids=lambda reader: reader.name)
def test_each_of_ten_thousand_addresses(places: Place, reader: Reader) -> None:
    found = _found(reader, places.known, places.core)
    assert len(found) == len(places.known) > 10_000
    for known, each in zip(places.known, found):
        _require_right(known, each)


@pytest.mark.parametrize("reader", FEWER)
def test_the_same_of_a_live_process(places: Place, reader: Reader) -> None:
    some = [k for n, k in enumerate(places.known) if n % 20 == 0 or k.what not in ("live", *FREED)]
    for known, each in zip(some, _found(reader, some, "--pid", places.pid)):
        _require_right(known, each)


def test_a_process_read_directly_stands_meanwhile(places: Place) -> None:
    ran = shell("find", "--pid", places.pid, "--debugger", "none", hex(places.known[0].address))
    assert re.search(r"the process was stopped for \d+\.\d{3} s", ran.err)


def test_counts_of_a_slab_are_those_of_a_sweep(places: Place) -> None:
    swept = sweep_json(places.core, "--by", "slab", "--debugger", "none")
    slabs = {slab["address"]: slab for slab in swept["slabs"]}
    with drain_gdb.open(places.core) as snapshot:
        found = [snapshot.find(int(address, 16)).slab for address in slabs]
    assert len(found) > 900
    for each, slab in zip(found, slabs.values()):
        assert each is not None
        assert (each.nregs, each.live, each.cached) == (
            slab["nregs"],
            slab["live"],
            slab["cached"],
        )


def test_the_map_of_a_slab_has_each_region_of_the_list(places: Place) -> None:
    regions = [k for k in places.known if k.what in ("live", *FREED) and k.size <= SMALL_MAX]
    letters = {"live": "L", "cached": "C", "free": "F"}
    slab, seen = None, set()
    with drain_gdb.open(places.core) as snapshot:
        for known in sorted(regions, key=lambda each: each.start):
            if slab is None or known.start >= slab.end:
                slab = snapshot.slab(known.start)
                assert slab.at == (known.start - slab.address) // known.size
            letter = slab.regions[(known.start - slab.address) // known.size]
            assert letter == letters[known.what]
            seen.add(letter)
    assert seen == set("LCF")


@pytest.mark.parametrize("reader", THREE, ids=lambda reader: reader.name)
def test_a_slab_drawn(places: Place, reader: Reader) -> None:
    known = next(k for k in places.known if k.what == "cached" and k.size == 320)
    ran = reader.shell("slab", places.core, hex(known.address))
    assert ran.status == 0
    assert "regions of 320 bytes" in ran.out
    assert re.search(r"cached by thread cache \d+ \(5\)", ran.out)
    assert "before it:" in ran.out
    assert "behind it:" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100
    content = json.loads(
        reader.shell("slab", places.core, hex(known.address), "--format", "json").out
    )
    assert content["schema"] == "drain_gdb.slab/1"
    assert content["slab"]["nregs"] == len(content["regions"]) == 64
    assert content["regions"].count("C") == content["slab"]["cached"] == 5


def test_expressions_in_gdb_and_its_functions(places: Place) -> None:
    live = next(k for k in places.known if k.what == "live" and k.size == 320)
    asked = [
        "drainfind &some_variable $sp",
        f"p $drain_size({live.address:#x})",
        f"p $drain_state({live.address:#x})",
        "p $drain_state($sp)",
        f"p $drain_slab({live.address:#x}) == ({live.address:#x} & ~0xfff)",
        "p $drain_size(&some_variable)",
        "drainfind some_variable[0]=2",
    ]
    binary = str(program("places", "-ljemalloc", "-lpthread"))
    ran = gdb(*asked, arguments=[binary, str(places.core)])
    assert "some_variable in places" in ran.out
    assert "the stack of thread" in ran.out
    assert re.findall(r"^\$\d+ = (.*)$", ran.out, re.M)[:3] == ["320", '"live"', '"stack"']
    assert "is no allocation of jemalloc's, but global" in ran.err
    assert "is no address" in ran.err


def test_what_cannot_be_asked(places: Place) -> None:
    for arguments, status, said in (
        (["find", places.core], 1, "give at least one ADDR"),
        (["slab", places.core, "1", "2"], 1, "give one ADDR"),
        (["find", places.core, "&x", "--debugger", "none"], 1, "is no address"),
        (["slab", places.core, "0x10", "--debugger", "none"], 2, "lies in no slab"),
    ):
        ran = shell(*arguments)
        assert (ran.status, ran.out) == (status, "")
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    "reader", tiered(THREE, lambda name: name != "none", lambda reader: reader.name)
)
def test_who_holds_it(places: Place, reader: Reader) -> None:
    """A table by its symbol, and the stack of a thread."""
    of_table = next(k for k in places.known if k.what == "live" and k.size == 320)
    of_stack = next(k for k in places.known if k.what == "owned")
    freed = next(k for k in places.known if k.what == "free")
    asked = [hex(k.address) for k in (of_table, of_stack, freed)]
    ran = reader.shell("find", places.core, "--refs", "--format", "json", *asked)
    assert ran.status == 0, ran.err
    table, stack, none = json.loads(ran.out)["addresses"]
    assert table["owners"][-1].split(".")[0] == "held"
    assert f"thread {of_stack.rest[0]}" in stack["owners"][-1]
    assert none["owners"] is None


def test_a_recording_says_what_metadata_says(places: Place, tmp_path: Path) -> None:
    made = tmp_path / "now.drain"
    assert shell("record", places.core, "-o", made, "--debugger", "none").status == 0
    with drain_gdb.open(made) as snapshot:
        for known in places.known:
            if known.what in ("live", *FREED):
                found = snapshot.find(known.address)
                assert (found.state, found.size) == (known.what, known.size)


def test_the_snapshot_of_a_redis(stripped_redis: RedisCore) -> None:
    with drain_gdb.open(stripped_redis.core) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.verified
        report = snapshot.sweep()
        slabs = heap.slabs
        assert len(slabs) == report.totals.slabs
        assert sum(slabs.live) == report.totals.live
        assert sum(slabs.cached) == report.totals.cached
        waste = sum(s - n * z for s, n, z in zip(slabs.slab_size, slabs.live, slabs.size))
        assert waste == report.totals.waste_bytes
        assert memoryview(slabs.live).format == "I"
        assert heap.extents.states[1] == "dirty"
        assert sum(p.resident_bytes or 0 for p in snapshot.account().parts) == (
            snapshot.account().resident_bytes
        )


def test_open_and_current_refuse_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one target"):
        drain_gdb.open()
    with pytest.raises(TargetError, match=r"(?i)no such file"):
        drain_gdb.open(tmp_path / "none")
    with pytest.raises(TargetError, match="no debugger around"):
        drain_gdb.current()
    with pytest.raises(AttributeError):
        drain_gdb.nothing  # noqa: B018


def test_current_is_what_gdb_looks_at(stripped_redis: RedisCore) -> None:
    code = "import drain_gdb; s = drain_gdb.current(); print(s.process.debugger, s.sweep().sound)"
    ran = gdb(f"python {code}", arguments=["/usr/bin/redis-server", str(stripped_redis.core)])
    assert ran.out.splitlines()[-1] == "gdb True"


def test_a_sampled_allocation_has_its_backtrace() -> None:
    options = "prof:true,prof_active:true,lg_prof_sample:0"
    preload = {"MALLOC_CONF": options, "LD_PRELOAD": "libjemalloc.so.2"}
    child = Program([str(program("sampled"))], preload)
    try:
        small, large = child.output[-1].split()[1:]
        ran = shell(
            "find", "--pid", child.pid, "--debugger", "none", "--format", "json", small, large
        )
    finally:
        child.stop()
    for found in json.loads(ran.out)["addresses"]:
        assert (found["kind"], found["state"]) == ("large", "live")
        frames = [frame.split("+")[0] for frame in found["backtrace"]]
        at = frames.index("innermost")
        assert frames[at : at + 3] == ["innermost", "outer", "main"]
