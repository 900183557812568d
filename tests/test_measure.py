"""Groups counted with NumPy against groups counted block by block."""

from __future__ import annotations

from array import array
from dataclasses import replace
from random import Random
from typing import List, Set, Tuple

import pytest

from drain_gdb.analysis import pins
from drain_gdb.analysis.pins import Measured
from drain_gdb.jemalloc.live import Block, LiveRegions
from drain_gdb.objects.fast import numpy

NREGS = (3, 64, 256)


def _heap(chance: Random) -> Tuple[LiveRegions, array[int], Set[int]]:
    """Slabs and large allocations, the group of each region, and slabs with cached regions."""
    blocks, groups, cached, at = [], array("I"), set(), 1 << 20
    for number in range(3000):
        slab = bool(number % 9)
        nregs = chance.choice(NREGS) if slab else 1
        live = chance.getrandbits(nregs) & chance.getrandbits(nregs) if slab else 1
        size = 16 * chance.randint(1, 9) if slab else 1 << 16
        length = -(-nregs * size // 4096) * 4096
        blocks.append(Block(at, at + length, size, nregs, live, 0, 0, 0, slab, 0))
        few = chance.sample(range(1, 40), chance.randint(1, 8))
        groups.extend(chance.choice(few) * (live >> bit & 1) for bit in range(nregs))
        if chance.random() < 0.1:
            cached.add(at)
        at += length
    return LiveRegions.of(blocks), groups, cached


def _said(found: Measured) -> List[object]:
    """All of it, in its order."""
    tallies = [
        (group, {**vars(tally), "chance": tally.chance.getstate()})
        for group, tally in found.tallies.items()
    ]
    return [tallies, list(found.signatures.items()), replace(found, tallies={}, signatures={})]


@pytest.mark.skipif(numpy() is None, reason="there is no NumPy")
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_counted_at_once_is_counted_alike(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    heap = _heap(Random(3))
    pins_numpy = pytest.importorskip("drain_gdb.analysis.pins_numpy")
    monkeypatch.setattr(pins_numpy, "AT_ONCE", 1 << 14)
    found = pins_numpy.measure_at_once(*heap, whole, 0.25)
    monkeypatch.setattr(pins, "numpy", lambda: None)
    expected = pins.measure(*heap, whole, 0.25)
    assert expected.signatures
    assert any(len(tally.rows) > 100 for tally in expected.tallies.values())
    assert _said(found) == _said(expected)
