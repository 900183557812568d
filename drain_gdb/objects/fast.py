"""NumPy, where the Python at hand has it: nothing needs it, but it is many times as fast."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from functools import cache
from importlib import import_module
from itertools import compress
from typing import Any, List, Optional, Sequence, Tuple

VARIABLE = "DRAIN_GDB_PLAIN"
"""Of the environment: where it is set to something, NumPy is left alone."""


@cache
def numpy() -> Optional[Any]:
    """The module; None where there is none, or it is broken."""
    if os.environ.get(VARIABLE):
        return None
    try:
        return import_module("numpy")
    except Exception:  # noqa: BLE001 - one built for another Python fails in ways of its own
        return None


def view(buffer: Any, kind: str) -> Any:
    """The numbers of a buffer, without a copy; of an empty one too, which NumPy refuses."""
    np: Any = numpy()
    if not len(buffer):
        return np.empty(0, kind)
    return np.frombuffer(buffer, kind)


def looked_up(values: Sequence[int], numbers: Sequence[int]) -> array[int]:
    """``values[number]`` of each of ``numbers``, an array."""
    np = numpy()
    if np is None:
        return array("I", map(values.__getitem__, numbers))
    return array("I", np.asarray(values, "u4")[np.asarray(numbers)].tobytes())


def without(
    unwanted: int, values: Sequence[int], numbers: Sequence[int]
) -> Tuple[Sequence[int], Sequence[int]]:
    """``values`` but the unwanted one, and of each what ``numbers`` has beside it."""
    np = numpy()
    if np is None:
        held = [value != unwanted for value in values]
        return array("I", compress(values, held)), array("I", compress(numbers, held))
    wanted = view(values, "u4") != unwanted
    return memoryview(view(values, "u4")[wanted]), memoryview(view(numbers, "u4")[wanted])


def groups_of(alive: bytearray, numbers: array[int]) -> Sequence[int]:
    """By region 0 where it is not live, else one more than its number."""
    np = numpy()
    if np is None:
        return array("I", ((number + 1) * held for number, held in zip(numbers, alive)))
    found = view(numbers, "u4") + np.uint32(1)
    found *= view(alive, "u1")
    return memoryview(found)


def occurrences(numbers: Sequence[int], most: int) -> List[Tuple[int, int]]:
    """How often each number below ``most`` that occurs does, ascending."""
    np = numpy()
    if np is None:
        return sorted(Counter(numbers).items())
    counts = np.bincount(view(numbers, "u2"), minlength=most).tolist()
    return [(number, count) for number, count in enumerate(counts) if count]
