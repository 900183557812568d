"""A heap profile that jemalloc dumped (prof.dump), joined with the slabs of the same process.

The profile has what stacks allocated, by sample; it does not say where that lies.  Each size
class' pinned waste is given to the stacks that hold objects of it, in proportion: an estimate.
The text form is ``heap_v2``: prof_dump_open() and the following of prof_data.c (5.3.0).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from drain_gdb.errors import TargetError

_HEAD = re.compile(r"heap_v2/(\d+)\s*$", re.M)
_STACK = re.compile(r"^@((?: 0x[0-9a-f]+)*) *\n((?:^ .*\n)+)", re.M)
_ALL_THREADS = re.compile(r"^ +t\*: (\d+): (\d+) \[", re.M)
PROFILE_MAX = 1 << 30
"""Bytes of a profile."""


@dataclass(frozen=True)
class Sampled:
    """What one stack holds, of what was sampled: its return addresses, objects, bytes."""

    addresses: Tuple[int, ...]
    objects: int
    bytes: int


@dataclass(frozen=True)
class HeapProfile:
    """A profile: an object is sampled every so many bytes, its ``rate``, on average."""

    rate: int
    stacks: Tuple[Sampled, ...]


@dataclass(frozen=True)
class StackRow:
    """A stack with the waste that it is estimated to pin.

    Attributes:
        frames: functions where they have a name, else addresses; the innermost first.
        size: the size class of its objects, by their average.
        objects, live_bytes: estimated from the samples.
        waste_bytes: estimated: its part of the waste of pinned slabs of that class.

    """

    frames: Tuple[str, ...]
    size: int
    objects: int
    live_bytes: int
    waste_bytes: int


def read_profile(path: str) -> HeapProfile:
    """The profile in a file; TargetError where it is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(PROFILE_MAX)
    except OSError as error:
        raise TargetError(f"cannot open {path}: {error.strerror}") from None
    return parse_profile(text, path)


def parse_profile(text: str, path: str) -> HeapProfile:
    """The profile that ``text`` is."""
    head = _HEAD.match(text)
    if head is None or not int(head[1]):
        raise TargetError(
            f"{path} is no heap profile of jemalloc's",
            'it begins with heap_v2; dump one with mallctl("prof.dump", ...)',
        )
    stacks = []
    for addresses, counts in _STACK.findall(text):
        total = _ALL_THREADS.search(counts)
        if total is not None and int(total[1]):
            found = tuple(int(address, 16) for address in addresses.split())
            stacks.append(Sampled(found, int(total[1]), int(total[2])))
    return HeapProfile(int(head[1]), tuple(stacks))


def weigh(
    profile: HeapProfile,
    waste: Mapping[int, int],
    name: Callable[[int], Optional[str]],
) -> Tuple[StackRow, ...]:
    """The stacks by the waste they pin, the most first; ``waste`` is by size of region.

    What was sampled stands for more: an object of that size is sampled with a chance of
    ``1 - exp(-size / rate)`` (jeprof's AdjustSamples).
    """
    sizes = sorted(waste)
    found: List[Tuple[Sampled, int, float]] = []
    held: Counter[int] = Counter()
    for stack in profile.stacks:
        average = stack.bytes / stack.objects
        row = bisect_left(sizes, average)
        if row < len(sizes):
            objects = stack.objects / -math.expm1(-average / profile.rate)
            found.append((stack, sizes[row], objects))
            held[sizes[row]] += round(objects)
    known: Dict[int, str] = {}
    rows = [
        StackRow(
            frames=_named(stack.addresses, name, known),
            size=size,
            objects=round(objects),
            live_bytes=round(objects * stack.bytes / stack.objects),
            waste_bytes=round(waste[size] * objects / max(held[size], objects)),
        )
        for stack, size, objects in found
    ]
    return tuple(sorted(rows, key=lambda row: (-row.waste_bytes, -row.live_bytes, row.frames)))


def _named(
    addresses: Sequence[int], name: Callable[[int], Optional[str]], known: Dict[int, str]
) -> Tuple[str, ...]:
    """Each call ends right before the address that it returns to."""
    for address in addresses:
        if address not in known:
            known[address] = name(address - 1) or f"{address:#x}"
    return tuple(known[address] for address in addresses)
