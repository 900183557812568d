"""A fixed share of the suite of damaged heaps; ``python3 -m tests.faults`` runs the whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, List
from unittest.mock import patch

import pytest

from drain_gdb.debuggee.protocol import Target
from drain_gdb.jemalloc import walk
from drain_gdb.jemalloc.heap import Verification
from drain_gdb.memory import Memory
from tests.conftest import Livelist
from tests.faults import mutate
from tests.faults.attempt import (
    EXACT,
    FAILED,
    MISMATCH,
    REFUSED,
    UNAVAILABLE,
    UNKNOWABLE,
    WRONG,
    Outcome,
    attempt,
)
from tests.faults.mutate import Damage, DamagedTarget
from tests.faults.suite import FILES, RECORDINGS, REFUSED_MOST, Input, Suite, inputs
from tests.faults.twins import Twin, made, of_recording, stacks
from tests.support.tiers import tiered

VARIANTS = 78
WORDS = 36
CASES = ("5.0.1", "5.2.1", "5.3.0", "47-without-statistics")


@pytest.fixture(scope="module")
def found(livelist: Livelist) -> List[Input]:
    cores = [("fresh", livelist.core)]
    names = ["made by hand", *(f"{case}, all memory" for case in CASES)]
    names += [f"{CASES[-1]}, recording", "fresh"]
    return [each for name in names for each in inputs(name, cores)]


def test_no_damage_is_taken_for_the_truth(found: List[Input]) -> None:
    counts, bad = Suite("ci", found).run(VARIANTS)
    assert bad == []
    outcomes: Counter[str] = Counter()
    for (_, outcome), number in counts.items():
        outcomes[outcome] += number
    assert sum(outcomes.values()) == VARIANTS
    # Every outcome there may be occurs: the variants do not all go the same way.
    assert min(outcomes[kind] for kind in (MISMATCH, EXACT, UNAVAILABLE)) > VARIANTS / 30
    assert outcomes[REFUSED]
    refused = sum(n for (kind, of), n in counts.items() if of == REFUSED and FILES not in kind)
    assert refused < REFUSED_MOST * VARIANTS
    assert outcomes[UNKNOWABLE] < VARIANTS / 50
    assert {kind for kind, _ in counts if kind.startswith(FILES)}
    assert len({kind for kind, _ in counts}) > 20


def test_one_word_leaves_the_rest_to_be_seen(found: List[Input]) -> None:
    suite = Suite("ci", found, words=True)
    outcomes = [suite.one(number) for number in range(WORDS)]
    assert [each for each in outcomes if each[2].kind in (WRONG, FAILED)] == []
    refused = [each for each in outcomes if each[2].kind == REFUSED]
    assert len(refused) < REFUSED_MOST * WORDS, refused
    assert {kind for _, kind, _ in outcomes} == set(mutate.WORDS)
    assert sum(outcome.kind == MISMATCH for _, _, outcome in outcomes) > WORDS / 2


def test_the_same_seed_gives_the_same_variants(found: List[Input]) -> None:
    some = [Suite("same", found).one(number) for number in range(6)]
    assert [Suite("same", found).one(number) for number in range(6)] == some


def test_a_self_check_that_sees_nothing_is_found_out(found: List[Input]) -> None:
    """What the suite is for: a walk that says "exact" of anything."""
    real = walk.verify

    def blind(*arguments: Any) -> Verification:
        return replace(real(*arguments), status="exact", mismatches=())

    with patch.object(walk, "verify", blind):
        _, bad = Suite("blind", found[:3]).run(60)
    assert sum(line.startswith("WRONG") for line in bad) > 10


def test_a_walk_that_does_not_end_is_found_out(found: List[Input]) -> None:
    with patch("tests.faults.attempt.READS", 0), patch("tests.faults.attempt.READS_MORE", 10):
        _, bad = Suite("bounds", found[:1]).run(5)
    assert [line.split(": ")[-1] for line in bad] == ["too many reads"] * 5


def test_every_case_is_damaged_as_a_recording_and_as_memory() -> None:
    names = [each.name for each in inputs("5.3.0, ", [])]
    assert names == ["jemalloc-5.3.0, recording", "jemalloc-5.3.0, all memory"]


# -- what no reader can know ------------------------------------------------------------


def _pushed(twin: Twin, pointer: int) -> Damage:
    """A thread cache of size class 1 with ``pointer`` on top of its stack."""
    memory = Memory(twin.target.read)
    own = twin.layout.tcache
    every = stacks(memory.u64, memory.u16, memory.u32, own, twin.caches[0])
    stack = next(stack for stack in every if stack.szind == 1)
    head = stack.held_from - 8
    patches = {head: pointer.to_bytes(8, "little"), stack.top.address: head.to_bytes(8, "little")}
    return Damage("a region freed, it seems", patches)


def _outcome(twin: Twin, damage: Damage) -> Outcome:
    target: Target = DamagedTarget(twin.target, damage)  # type: ignore[assignment]
    return attempt(twin, damage, lambda: target, 0)


@pytest.mark.parametrize(
    ("region", "expected"),
    [("live", UNKNOWABLE), ("cached", MISMATCH), ("free", MISMATCH), ("between", MISMATCH)],
)
def test_a_region_that_a_thread_might_have_freed(region: str, expected: str) -> None:
    """Only a live one of the size class: then the bytes are as free() leaves them."""
    twin = made("usual")
    layout, memory = twin.layout.extent, Memory(twin.target.read)
    places = {memory.u64(spot.address): spot.address for spot in twin.spots["extents: address"]}
    address, *_, cached = next(row for row in twin.rows if row[2] == 1 and row[5] == 1)
    assert cached == 1
    bitmap = memory.u64(places[address] - layout.address + layout.bitmap)
    allocated = [number for number in range(1, 64) if not bitmap >> number & 1]
    numbers = {
        "live": allocated[0],
        "cached": 0,
        "free": next(number for number in range(64) if bitmap >> number & 1),
        "between": allocated[0] + 0.5,
    }
    pointer = address + int(numbers[region] * twin.bins[1].reg_size)
    assert _outcome(twin, _pushed(twin, pointer)).kind == expected


def test_rings_that_are_both_empty_are_those_of_threads_without_caches() -> None:
    twin = made("usual")
    heads = [spot.address for spot in twin.spots["rings: heads"]]
    pair = dict.fromkeys(heads[:2], bytes(8))
    assert _outcome(twin, Damage("both rings", pair)).kind == UNKNOWABLE
    crossed = dict.fromkeys((heads[0], heads[2]), bytes(8))
    assert _outcome(twin, Damage("one ring of each of two arenas", crossed)).kind == MISMATCH


def test_an_extent_at_an_odd_place_is_none() -> None:
    """Leaf elements of 5.0 to 5.2 have room for any even address."""
    twin = of_recording(RECORDINGS / "jemalloc-5.1.0.drain", filled=True)
    spot = twin.spots["rtree: leaf elements"][-1]
    word = int.from_bytes(twin.target.read(spot.address, 8), "little")
    odd = Damage("a leaf element", {spot.address: (word + 4).to_bytes(8, "little")})
    assert _outcome(twin, odd).kind == MISMATCH


@pytest.mark.parametrize("moved", [8, 256, 1 << 21, 1 << 40])
@pytest.mark.parametrize("version", tiered(("5.0.1", "5.1.0", "5.2.1"), "5.2.1".__ne__, str))
def test_a_stack_of_a_cache_bin_that_is_not_where_it_belongs(version: str, moved: int) -> None:
    """It is empty, it says, and ends elsewhere: what it held would count as live."""
    twin = of_recording(RECORDINGS / f"jemalloc-{version}.drain", filled=True)
    memory = Memory(twin.target.read)
    tops, bounds = (twin.spots[f"caches: {which} of stacks"] for which in ("tops", "bounds"))
    top = next(spot for spot in tops if memory.u32(spot.address))
    water, avail = (
        min(
            (spot for spot in bounds if spot.size == size),
            key=lambda spot: abs(spot.address - top.address),
        )
        for size in (4, 8)
    )
    emptied = {top.address: bytes(4), water.address: bytes(4)}
    assert _outcome(twin, Damage("an empty stack", emptied)).kind == UNKNOWABLE
    end = (memory.u64(avail.address) ^ moved).to_bytes(8, "little")
    away = Damage("another stack", {**emptied, avail.address: end})
    assert _outcome(twin, away).kind == MISMATCH
