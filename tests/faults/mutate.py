"""Damage, of every kind, from a seed: which bytes of a twin change, which are gone."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Sequence, Tuple

from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Target
from drain_gdb.errors import UnreadableMemory
from tests.faults.twins import Spot, Twin, pages_of

PAGE = 4096
WORD = 8
LOST_PAGES, OVERRUN, SEVERAL = "pages missing", "overrun by garbage", "several at once"
STEPS = (1, -1, 8, -8, 16, -16, 64, -64, 128, -128, PAGE, -PAGE, 1 << 21, -(1 << 21))
ABSURD = (0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 47, 1 << 63, (1 << 64) - 1, (1 << 64) - PAGE)


@dataclass
class Damage:
    """What became of a twin.

    Attributes:
        kind: of structure that was hit, or how.
        patches: address to the bytes that stand there now.
        holes: ``(start, end)`` of what cannot be read any more.
        words: what was done, for people.

    """

    kind: str
    patches: Dict[int, bytes] = field(default_factory=dict)
    holes: List[Tuple[int, int]] = field(default_factory=list)
    words: str = ""


class DamagedTarget:
    """A target with some of its bytes changed or gone; all else is as it was."""

    def __init__(self, whole: Target, damage: Damage) -> None:
        self._whole = whole
        self._patches = sorted(damage.patches.items())
        self._holes = damage.holes

    def read(self, address: int, size: int) -> bytes:
        end = address + size
        if any(address < stop and start < end for start, stop in self._holes):
            raise UnreadableMemory(address, size, "that page is missing")
        data = self._whole.read(address, size)
        hit = [(at, new) for at, new in self._patches if at < end and address < at + len(new)]
        if not hit:
            return data
        changed = bytearray(data)
        for at, new in hit:
            start, stop = max(at, address), min(at + len(new), end)
            changed[start - address : stop - address] = new[start - at : stop - at]
        return bytes(changed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._whole, name)


def damage(twin: Twin, turn: int, chance: random.Random) -> Damage:
    """Some damage to ``twin``, of the kind whose ``turn`` it is: by lot a field, what it gets."""
    kinds = _kinds(twin)
    every = [*kinds, LOST_PAGES, OVERRUN, SEVERAL]
    kind = every[turn % len(every)]
    done = Damage(kind)
    if kind == LOST_PAGES:
        _lose(twin, chance, done)
    elif kind == OVERRUN:
        _overrun(twin, chance, done)
    elif kind == SEVERAL:
        for _ in range(chance.randrange(2, 12)):
            _spoil(twin, chance.choice(kinds), chance, done)
    else:
        _spoil(twin, kind, chance, done)
    return done


WORDS = {
    "one word: bin_infos": ("bin infos",),
    "one word: arenas": ("arenas: ",),
    "one word: root and nodes": ("rtree: root and nodes",),
    "one word: leaves": ("rtree: leaf elements",),
}
"""What all else hangs from, and the kinds of fields it has, by how these begin."""


def one_word(twin: Twin, turn: int, chance: random.Random) -> Damage:
    """A single word of what all else hangs from is overwritten."""
    kind = sorted(WORDS)[turn % len(WORDS)]
    kinds = [each for each in _kinds(twin) if each.startswith(WORDS[kind])]
    at = chance.choice(twin.spots[chance.choice(kinds)]).address & -WORD
    absurd = chance.choice(ABSURD).to_bytes(WORD, "little")
    done = Damage(kind)
    _put(twin, done, at, chance.choice((chance.randbytes(WORD), b"A" * WORD, absurd)))
    done.words = f"the word at {at:#x} is overwritten"
    return done


def _kinds(twin: Twin) -> List[str]:
    return sorted(kind for kind, spots in twin.spots.items() if spots)


def _lose(twin: Twin, chance: random.Random, done: Damage) -> None:
    """A page of some structure, or a run of pages from there on."""
    pages = pages_of(twin.spots[chance.choice(_kinds(twin))])
    start = chance.choice(pages)
    count = chance.choice((1, 1, 1, 2, 8, 64, 1 << 12, 1 << 24))
    done.holes.append((start, start + count * PAGE))
    done.words = f"{count} pages from {start:#x} on are gone"


def _overrun(twin: Twin, chance: random.Random, done: Damage) -> None:
    spot = chance.choice(twin.spots[chance.choice(_kinds(twin))])
    size = chance.choice((16, 64, 200, 1000, PAGE))
    fill = chance.choice((chance.randbytes(size), b"A" * size, bytes(size)))
    _put(twin, done, spot.address, fill)
    done.words = f"{size} bytes from {spot.address:#x} on are overwritten"


def _spoil(twin: Twin, kind: str, chance: random.Random, done: Damage) -> None:
    spots = twin.spots[kind]
    spot = chance.choice(spots)
    name = chance.choice(sorted(DEEDS))
    new = DEEDS[name](twin, spot, spots, chance)
    done.words += f"{kind} at {spot.address:#x}: {name}; "
    _put(twin, done, spot.address, new)
    if name == "swapped":
        other = next(s for s in spots if _value(twin, s) == new)
        _put(twin, done, other.address, _value(twin, spot))


def _put(twin: Twin, done: Damage, address: int, new: bytes) -> None:
    """Change bytes, if there are any at that address."""
    try:
        old = twin.target.read(address, len(new))
    except UnreadableMemory:
        return
    if old != new:
        done.patches[address] = new


def _value(twin: Twin, spot: Spot) -> bytes:
    return twin.target.read(spot.address, spot.size)


def _number(twin: Twin, spot: Spot) -> int:
    return int.from_bytes(_value(twin, spot), "little")


def _bytes(value: int, spot: Spot) -> bytes:
    return (value % (1 << 8 * spot.size)).to_bytes(spot.size, "little")


Deed = Callable[[Twin, Spot, Sequence[Spot], random.Random], bytes]


def _flipped(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    value = _number(twin, spot)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        value ^= 1 << chance.randrange(8 * spot.size)
    return _bytes(value, spot)


def _low_flipped(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    return _bytes(_number(twin, spot) ^ 1 << chance.randrange(12), spot)


def _garbage(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    return chance.randbytes(spot.size)


def _stepped(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    return _bytes(_number(twin, spot) + chance.choice(STEPS), spot)


def _absurd(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    return _bytes(chance.choice(ABSURD), spot)


def _sibling(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    """What another field of the kind holds: doubled regions, slabs, list members."""
    same = [s for s in chance.choices(spots, k=8) if s.size == spot.size]
    return _value(twin, same[0]) if same else _value(twin, spot)


def _cyclic(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    """A pointer to its own place, or to that of another."""
    place = chance.choice((spot, chance.choice(spots))).address
    return _bytes(place & chance.choice((-1, -64, -128)), spot)


def _elsewhere(twin: Twin, spot: Spot, spots: Sequence[Spot], chance: random.Random) -> bytes:
    """A pointer to a structure of quite another kind, or into a slab."""
    kind = chance.choice(_kinds(twin))
    place = chance.choice(twin.spots[kind]).address
    if chance.random() < 0.5 and twin.rows:
        place = chance.choice(twin.rows)[0] + chance.choice((0, 16, 48, 1024))
    return _bytes(place, spot)


DEEDS: Dict[str, Deed] = {
    "bits flipped": _flipped,
    "a low bit flipped": _low_flipped,
    "garbage": _garbage,
    "a step off": _stepped,
    "an absurd number": _absurd,
    "that of a sibling": _sibling,
    "swapped": _sibling,
    "its own place": _cyclic,
    "the place of something else": _elsewhere,
}


@dataclass(frozen=True)
class Cut:
    """A file without its end, or with bytes changed, as another file."""

    size: int
    patches: Tuple[Tuple[int, bytes], ...] = ()


class DamagedFile(File):
    """The file at ``path``, but cut or changed; its holes are where they were."""

    def __init__(self, path: str, cut: Cut) -> None:
        super().__init__(path)
        self.size = cut.size
        self._patches = sorted(cut.patches)
        self._starts = [at for at, _ in self._patches]

    def read(self, offset: int, size: int) -> bytes:
        data = bytearray(super().read(offset, size))
        first = max(0, bisect_right(self._starts, offset) - 1)
        for at, new in self._patches[first:]:
            if at >= offset + len(data):
                break
            for index, byte in enumerate(new):
                if offset <= at + index < offset + len(data):
                    data[at + index - offset] = byte
        return bytes(data)


def cut_of(size: int, places: Sequence[Tuple[int, int]], chance: random.Random) -> Cut:
    """A file of ``size`` bytes cut at any byte, or with some of ``places`` changed.

    ``places`` are ``(offset, length)`` of headers and notes.
    """
    if chance.random() < 0.3:
        return Cut(chance.randrange(size))
    patches = []
    for _ in range(chance.choice((1, 1, 1, 2, 6))):
        offset, length = chance.choice(places)
        width = chance.choice((1, 2, 4, 8))
        at = offset + chance.randrange(max(1, length - width + 1))
        new = chance.choice((chance.randbytes(width), b"\0" * width, b"\xff" * width))
        patches.append((at, new))
    whole = size if chance.random() < 0.9 else chance.randrange(size)
    return Cut(whole, tuple(patches))
