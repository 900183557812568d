"""What a leaf lists, held against a look at one element after the other."""

from __future__ import annotations

import random
from array import array
from typing import Dict, List, Tuple

import pytest

from drain_gdb.jemalloc.leaves import GAP, LANES, NO_SLAB, RUN_MAX, Leaf
from drain_gdb.jemalloc.rtree import Stretch
from drain_gdb.layout.records import Bits, RtreeLayout

BASE = 7 << 30
PAGE = 4096
COMPACT = RtreeLayout(0, (18, 18), 12, True, (1 << 48) - 128, Bits(0, 1), Bits(48, 16))
OLD = RtreeLayout(0, (18, 18), 12, True, (1 << 48) - 2, Bits(0, 1), Bits(48, 16))
WIDE = RtreeLayout(0, (15, 15, 15), 12, False, (1 << 64) - 128, Bits(0, 1), Bits(5, 8))
OLD_WIDE = RtreeLayout(0, (15, 15, 15), 12, False, (1 << 64) - 2, Bits(32, 1), Bits(0, 32))
LAYOUTS = {"compact": COMPACT, "5.2": OLD, "57-bit": WIDE, "5.2, 57-bit": OLD_WIDE}

Element = Tuple[int, int, int]
"""Pointer, slab bit and size class."""


def packed(elements: List[Element], layout: RtreeLayout) -> memoryview:
    """Elements as they stand in a leaf."""
    assert layout.slab is not None
    assert layout.szind is not None
    words: List[int] = []
    for pointer, slab, szind in elements:
        tags = slab << layout.slab.shift | szind << layout.szind.shift
        words += [pointer | tags] if layout.compact else [pointer, tags]
    return memoryview(array("Q", words))


def some_elements(chance: random.Random, count: int) -> List[Element]:
    elements: List[Element] = []
    while len(elements) < count:
        pointer = chance.choice((0x5555_0000_0000, 0x7F12_3400_0000)) + 128 * chance.randrange(5000)
        pages, szind = chance.choice((1, 1, 2, 5, 40)), chance.randrange(36)
        what = chance.random()
        if what < 0.6:
            elements += [(pointer, 1, szind)] * pages
        elif what < 0.8:
            # Large or unused: its first and its last page, with tags that may be stale.
            ends: List[Element] = [(pointer, chance.randrange(2), chance.randrange(233))] * 2
            elements += [ends[0], *[(0, 0, 0)] * pages, ends[1]]
        else:
            elements += [(0, 0, 0)] * pages
    return elements[:count]


def one_by_one(start: int, elements: List[Element], found: Dict[int, Tuple[int, int]]) -> None:
    for number, (pointer, slab, szind) in enumerate(elements):
        if pointer and pointer not in found:
            found[pointer] = (start + number * PAGE, szind if slab else NO_SLAB)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("seed", range(5))
def test_a_leaf_lists_each_extent_once_with_its_first_page(name: str, seed: int) -> None:
    layout, chance = LAYOUTS[name], random.Random(seed)
    found: Dict[int, Tuple[int, int]] = {}
    stretches: List[Stretch] = []
    last = 1 << layout.bits[-1]
    sizes = (1, LANES - 1, LANES, LANES + 1, 5 * LANES + 17)
    starts = (0, 2 * LANES, 4 * LANES, 7 * LANES, last - sizes[-1])
    for page, size in zip(starts, sizes):
        elements = some_elements(chance, size)
        one_by_one(BASE + page * PAGE, elements, found)
        stretches.append((BASE + page * PAGE, packed(elements, layout)))
    leaf = Leaf(BASE, stretches, layout)
    assert list(leaf.extents) == sorted(found)
    assert list(zip(leaf.pages, leaf.tags)) == [found[edata] for edata in leaf.extents]
    assert leaf.impossible == []


@pytest.mark.parametrize("seed", range(5))
def test_runs_are_all_extents_with_no_far_jump_in_one(seed: int) -> None:
    chance = random.Random(seed)
    places: List[int] = [0x7F00_0000_0000]
    while len(places) < 9000:
        places.append(places[-1] + chance.choice((128, 128, 128, 256, 8192, GAP, GAP + 128)))
    leaf = Leaf(BASE, [(BASE, packed([(at, 1, 3) for at in places], COMPACT))], COMPACT)
    runs = list(leaf.runs())
    assert [at for run in runs for at in leaf.extents[run]] == places
    for run in runs:
        here = list(leaf.extents[run])
        assert here[-1] - here[0] < RUN_MAX
        assert all(after - before <= GAP for before, after in zip(here, here[1:]))


@pytest.mark.parametrize("name", ["5.2", "57-bit", "5.2, 57-bit"])
def test_pointers_to_where_no_extent_can_stand_are_told(name: str) -> None:
    layout = LAYOUTS[name]
    far, odd = 1 << 60, 0x7F00_0000_0104
    wrong = {"5.2": odd, "57-bit": far, "5.2, 57-bit": odd}[name]
    right = 0x7F00_0000_0100
    elements = [(right, 1, 4), (wrong, 1, 4), (wrong, 1, 4), (right + 128, 0, 0)]
    leaf = Leaf(BASE, [(BASE, packed(elements, layout))], layout)
    assert leaf.impossible == [wrong]
    assert list(leaf.extents) == [right, right + 128]
    assert list(leaf.tags) == [4, NO_SLAB]


def test_a_leaf_of_nothing_lists_nothing() -> None:
    nothing = [(BASE, packed([(0, 0, 0)] * 600, COMPACT))]
    for stretches in ([], nothing):
        leaf = Leaf(BASE, stretches, COMPACT)
        assert (list(leaf.extents), list(leaf.runs())) == ([], [])


def test_where_only_an_extents_last_page_is_left_over() -> None:
    """Worked on in pieces, the last piece holds nothing but what the one before has."""
    places = [0x7F00_0000_0000 + 128 * number for number in range(LANES)]
    elements: List[Element] = [(at, 1, 3) for at in places] + [(0, 0, 0), (places[-1], 0, 0)]
    leaf = Leaf(BASE, [(BASE, packed(elements, COMPACT))], COMPACT)
    assert list(leaf.extents) == places
