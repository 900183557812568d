"""Structs of no version: each is known by its own evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Dict

import pytest

from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout.model import Declarations, at
from tests.support.fakeheap import ACTIVE, DIRTY, FakeHeap

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
    assert heap.layout.forms["extents"] == "5.3.0"
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
