"""Structs of no version: each is known by its own evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from operator import add
from typing import Any, Callable, Dict, Sequence

import pytest

from drain_gdb.debuggee import recording
from drain_gdb.debuggee.protocol import Module, Section
from drain_gdb.debuggee.recording import Recording
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout.model import Declarations, at
from drain_gdb.layout.serialize import from_value
from drain_gdb.memory import Memory
from tests.faults.twins import PAGE, FilledTarget
from tests.support.fakeheap import ACTIVE, DIRTY, MESSAGES, FakeHeap
from tests.support.tiers import tiered
from tests.test_permanent_cases import CASES, HERE

STRANGER = ["of_no_version", [8, 8], 7]


def _changed(struct: str, change: Callable[[Dict[str, Any]], Dict[str, Any]]) -> Declarations:
    """The structs of 5.3.0, but for one."""
    known = at("5.3.0")
    return replace(known, structs={**known.structs, struct: change(known.structs[struct])})


def _inserted(row: int) -> Callable[[Dict[str, Any]], Dict[str, Any]]:
    def change(struct: Dict[str, Any]) -> Dict[str, Any]:
        members = list(struct["members"])
        return {**struct, "members": [*members[:row], STRANGER, *members[row:]]}

    return change


def _filled(fake: FakeHeap) -> Heap:
    for szind, most in ((1, 250), (3, 60), (10, 20), (20, 4)):
        for used in range(40):
            fake.slab(szind, range(used % most + 1))
    for _ in range(5):
        fake.extent(8, ACTIVE, fake.parameters.nbins + 3)
    fake.extent(777, DIRTY)
    fake.cache(0, {})
    return fake.read()


@pytest.mark.parametrize("row", [0, 3, 12])
def test_an_arena_of_no_version_is_known_by_what_it_holds(row: int) -> None:
    heap = _filled(FakeHeap(declarations=_changed("arena_s", _inserted(row))))
    assert heap.verification.status == "exact"
    assert (heap.verification.slabs_recorded, len(heap.arenas)) == (160, 1)
    assert heap.layout.forms["arenas"] == "as the data has them"
    assert heap.layout.forms["extents"] == at("5.3.0").name
    assert heap.arenas[0].large == {heap.layout.parameters.nbins + 3: 5}
    assert heap.arenas[0].cached_pages == {"dirty": 777}
    assert len(heap.tcaches.descriptors) == 1


def test_structs_of_two_commits_in_one_build() -> None:
    """All as in 5.3.0, but for bins as 5.2.1 has them, at another size."""
    other, known = at("5.2.1"), at("5.3.0")
    mixed = {
        name: other.structs[name]
        for name in other.structs
        if name in ("bin_s", "bin_stats_s", "malloc_mutex_s")
    }
    heap = _filled(FakeHeap(declarations=replace(known, structs={**known.structs, **mixed})))
    assert heap.verification.status == "exact"
    assert heap.layout.forms["arenas"] == "as the data has them"


class Unknown(FilledTarget):
    """A recorded heap as memory in which jemalloc is to be found anew, without symbols."""

    def __init__(self, found: Recording, version: str) -> None:
        super().__init__(found)
        layout = from_value(found.layouts[0])
        assert layout.bin_info is not None and layout.arena.table is not None
        places = (layout.rtree.root, layout.arena.table, layout.bin_info.address)
        room = (8 << layout.rtree.bits[0], 8 * layout.arena.table_size, 40 << 8)
        start, end = min(places), max(map(add, places, room))
        self._constants = end + PAGE
        self._text = b"\0".join((*MESSAGES, version.encode(), b""))
        told = Section(".rodata", self._constants, self._constants + len(self._text), constant=True)
        variables = Section(".bss", start, end, writable=True, zero_initialized=True)
        self._module = Module("/usr/lib/libjemalloc.so.2", (variables, told))

    def _filler(self, size: int) -> bytes:
        """Zeros: bins are known by the slabs they allocate from, which are not recorded."""
        return bytes(size)

    def layouts(self) -> None:
        """None: it is to be found."""

    def modules(self) -> Sequence[Module]:
        return [self._module]

    def read(self, address: int, size: int) -> bytes:
        at = address - self._constants
        if at >= 0 and at + size <= len(self._text):
            return self._text[at : at + size]
        return super().read(address, size)


NAMES = {True: "its version", False: "no version"}


@pytest.mark.parametrize("told", tiered((True, False), "its version".__eq__, NAMES.__getitem__))
@pytest.mark.parametrize("name", [name for name in CASES if "without" not in name])
def test_any_commit_is_found_in_memory_as_it_was_recorded(name: str, told: bool) -> None:
    """Ten commits were drawn at random; the others are releases."""
    found = recording.read(str(HERE / f"{name}.drain"))
    report = json.loads((HERE / f"{name}.json").read_text())["report"]
    target = Unknown(found, report["allocator"]["version"] if told else "")
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    assert heap.layout.source == "discovered"
    assert heap.verification.status == "exact"
    assert heap.verification.slabs_walked == report["totals"]["slabs"]
    assert sum(heap.slabs.cached.values()) == report["totals"]["cached"]
