"""References and what spreads along them: with NumPy, without, and by a third, slow way."""

from __future__ import annotations

import random
from array import array
from typing import Dict, Iterator, List, Tuple

import pytest

from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.views import memory_of
from drain_gdb.jemalloc.live import Block, LiveRegions
from drain_gdb.objects import fast
from drain_gdb.objects.references import (
    NOWHERE,
    Finder,
    Links,
    References,
    finder,
    only_of_holders,
    only_of_tables,
    only_to_others,
    pieces,
)
from drain_gdb.objects.references_plain import PlainFinder
from drain_gdb.objects.spread import PlainSpreader, Seeds, fresh

PAGE = 4096
START = 0x7EFF_FFF0_0000
"""Near the end of a terabyte, which the heap crosses."""
LOW = 0x12_FFF0_0000
"""Near the end of four gigabytes, where programs lie that are at fixed addresses."""
SIZES = {16: 8, 32: 16, 48: 32, 64: 48, 160: 128, 1024: 896, 3 * PAGE: 2 * PAGE}
STRONG = {*range(8), 9, 17, *range(0, 64, 8)}
numpy = pytest.mark.skipif(fast.numpy() is None, reason="NumPy is not installed")


def _heap(chance: random.Random, at: int = START) -> LiveRegions:
    """Blocks of several sizes, with gaps between some; a few are large allocations."""
    blocks = []
    for _ in range(70):
        size = chance.choice(list(SIZES))
        nregs = 1 if size > PAGE else 3 * PAGE // size
        pages = -(-size * nregs // PAGE)
        live = chance.getrandbits(nregs) if nregs > 1 else 1
        end = at + pages * PAGE
        blocks.append(Block(at, end, size, nregs, live, 0, 0, 0, nregs > 1, SIZES[size]))
        at = end + chance.choice((0, 0, PAGE, 1 << 20, -end % (1 << 24), 1 << 24))
    return LiveRegions.of(blocks)


def _places(live: LiveRegions) -> List[int]:
    """Where all regions begin, live or not."""
    return [
        live.start[row] + number * live.size[row]
        for row in range(len(live))
        for number in range(live.nregs[row])
    ]


def _filled(live: LiveRegions, chance: random.Random) -> Dict[int, bytes]:
    """What is in each block: numbers, pointers of all kinds, ends of allocations."""
    places = _places(live)
    parts = {}
    for start, end in zip(live.start, live.end):
        words = array("Q")
        while len(words) < (end - start) // 8:
            kind = chance.random()
            place = chance.choice(places)
            size = live.size[live.row_at(place) or 0]
            if kind < 0.5:
                words.append(chance.choice((0, 7, chance.getrandbits(64))))
            elif kind < 0.6:
                words.extend((place, chance.choice((place + 8, place + size)), place + size))
            elif kind < 0.65:
                words.extend((place, place + size))
            else:
                words.append(place + chance.choice((0, 0, 1, 3, 8, 10, 17, 24, 56, 60, 64, 900)))
        parts[start] = words[: (end - start) // 8].tobytes()
    return parts


Edges = Tuple[List[Tuple[int, int]], List[Tuple[int, int]], List[Tuple[int, int]]]


def _slowly(live: LiveRegions, parts: Dict[int, bytes]) -> Edges:
    """Strong, slack and weak references, word by word."""
    found: Edges = ([], [], [])
    for start, data in parts.items():
        words = array("Q", data)
        for at, word in enumerate(words):
            source, target = live.region_at(start + at * 8), live.region_at(word)
            if source is None or target is None:
                continue
            offset = word - live.place(target)
            near = offset if live.slab[live.row_of(target)] else offset % 64 + (offset > 4160) * 64
            rest = word % (1 << 24) == 0 and live.slab[live.row_of(target)]
            weak = near not in STRONG or rest or (offset == 0 and _is_end(live, words, at))
            place = start + at * 8 - live.place(source)
            asked = live.asked[live.row_of(source)]
            text = place == asked > 0 and 0 not in data[at * 8 - 8 : at * 8]
            found[2 if weak or text else place > asked].append((source, target))
    return found


def _is_end(live: LiveRegions, words: array[int], at: int) -> bool:
    end = words[at]
    row = live.row_at(end - 1)
    if row is None:
        return False
    size = live.size[row]
    last = live.start[row] + live.nregs[row] * size
    if end > last or (end - live.start[row]) % size:
        return False
    begin = end - size
    before = list(words[max(at - 2, 0) : at])
    third = len(before) == 2 and before[0] == begin and begin <= before[1] <= end
    second = bool(before) and before[-1] == begin and at + 1 < len(words) and words[at + 1] == end
    return third or second


def _pairs(links: Links) -> List[Tuple[int, int]]:
    return [(s, t) for s in range(len(links.begins) - 1) for t in links.of(s)]


def _of(found: References) -> Edges:
    weak = list(zip(found.weak_from, found.weak_to))
    return _pairs(found.strong), _pairs(found.slack), weak


def _fed(make: Finder, live: LiveRegions, parts: Dict[int, bytes]) -> Finder:
    for address, data in pieces(live, memory_of(BytesTarget(parts))):
        make.feed(address, data)
    return make


@pytest.fixture(params=["plain", "numpy"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    fast.numpy.cache_clear()
    if request.param == "plain":
        monkeypatch.setenv(fast.VARIABLE, "1")
    elif fast.numpy() is None:
        pytest.skip("NumPy is not installed")
    yield request.param
    fast.numpy.cache_clear()


@pytest.mark.parametrize("start", [START, LOW])
def test_references(how: str, start: int) -> None:
    chance = random.Random(start)
    live = _heap(chance, start)
    parts = _filled(live, chance)
    found = _fed(finder(live), live, parts)
    strong, slack, weak = _of(found.references)
    expected = _slowly(live, parts)
    assert len(expected[0]) > 1000
    assert any(live.place(target) % (1 << 24) == 0 for _, target in expected[0])
    assert any(live.place(target) % (1 << 24) == 0 for _, target in expected[2])
    assert sorted(strong) == sorted(expected[0])
    assert sorted(slack) == sorted(expected[1])
    assert sorted(weak) == sorted(expected[2])
    places = array("Q", [*_places(live), 0, 1 << 63, start - 1])
    numbers = [NOWHERE if r is None else r for r in map(live.region_at, places)]
    assert list(found.regions(places)) == numbers
    assert bytes(found.alive) == b"".join(map(live.flags, range(len(live))))


def test_memory_of_one_word(how: str) -> None:
    """The second region of a block, and nothing before it."""
    live = LiveRegions.of([Block(START, START + PAGE, 1024, 4, 0xF, 0, 0, 0, True, 896)])
    word = (START + 1024).to_bytes(8, "little")
    assert [each.region for each in finder(live).find(0x1000, word)] == [1]


@numpy
def test_both_ways_and_memory_of_others() -> None:
    """The same references in the same order, and the same in memory that is no region."""
    chance = random.Random(5)
    live = _heap(chance)
    parts = _filled(live, chance)
    by_numpy, plain = finder(live), PlainFinder(live)
    one = _fed(by_numpy, live, parts).references
    other = _fed(plain, live, parts).references
    assert _of(one) == _of(other)
    data = b"".join(parts.values())[:200_000] + b"odd"
    assert by_numpy.find(64, data) == plain.find(64, data)
    assert by_numpy.find(64, b"") == plain.find(64, b"") == []


def test_links_by_what_else_leads_there_or_from_there(how: str) -> None:
    chance = random.Random(6)
    live = _heap(chance)
    found = _fed(finder(live), live, _filled(live, chance)).references
    slack, strong = found.slack, found.strong
    holders, targets = map(set, zip(*_pairs(strong)))
    nobodys = [(s, t) for s, t in _pairs(slack) if t not in targets]
    of_holders = [(s, t) for s, t in _pairs(slack) if s in holders]
    assert 0 < len(nobodys) < len(_pairs(slack)) > len(of_holders) > 0
    assert _pairs(only_to_others(slack, strong)) == nobodys
    assert _pairs(only_of_holders(slack, strong)) == of_holders
    tables = [p for p in _pairs(slack) if live.size[live.row_of(p[0])] in (64, 1024, 3 * PAGE)]
    assert 0 < len(tables) < len(_pairs(slack))
    assert _pairs(only_of_tables(slack, live)) == tables


def test_tables_by_their_size() -> None:
    """A large one may have a page besides."""
    sizes = {32: False, 48: False, 64: True, 80: False, 4096: True, 14336: False}
    large = {16384: True, 20480: True, 24576: False, 1 << 20: True, (1 << 20) + 4096: True}
    for slab, expected in ((True, sizes), (False, large)):
        for size, yes in expected.items():
            live = LiveRegions.of([Block(START, START + size, size, 1, 1, 0, 0, 0, slab, 0)])
            links = Links(array("I", [0, 1]), array("I", [0]))
            assert len(only_of_tables(links, live).targets) == yes, size


def test_no_heap(how: str) -> None:
    live = LiveRegions.of(())
    found = finder(live)
    found.feed(0, b"")
    assert _of(found.references) == ([], [], [])
    assert list(found.regions(array("Q", [1]))) == [NOWHERE]


def _linked(pairs: List[Tuple[int, int]], total: int) -> Links:
    begins, targets = array("I", bytes(4 * (total + 1))), array("I")
    for source, target in sorted(pairs, key=lambda pair: pair[0]):
        begins[source + 1] += 1
        targets.append(target)
    for row in range(total):
        begins[row + 1] += begins[row]
    return Links(begins, targets)


@numpy
@pytest.mark.parametrize("seed", range(2))
def test_labels_spread_alike(seed: int) -> None:
    """Wide ones and lists, labels of a region's own, several seeds for one region."""
    from drain_gdb.objects.spread_numpy import NumpySpreader  # noqa: PLC0415

    chance = random.Random(seed)
    total = 5_000
    pairs = [(chance.randrange(total), chance.randrange(total)) for _ in range(7_000)]
    pairs += [(row, row + 1) for row in range(2_000, 3_000)]
    links, none = _linked(pairs, total), _linked([], total)
    weak = sorted((chance.randrange(total), chance.randrange(total)) for _ in range(100))
    references = References(
        links, none, array("I", [s for s, _ in weak]), array("I", [t for _, t in weak])
    )
    kinds = array("H", (chance.choice((0, 0, 0, 0, 1, 2)) for _ in range(total)))
    seeds = [chance.randrange(total) for _ in range(300)]
    columns = Seeds(seeds, [chance.choice((1, 2, 3)) for _ in seeds], [total + s for s in seeds])
    reached = []
    for make in (PlainSpreader, NumpySpreader):
        reach = fresh(references, kinds, [0, 4, 5], [0, 0, 3, 1, 1, 2])
        spreading = make(reach)
        spreading.spread(spreading.sow(columns), links)
        spreading.spread(spreading.sow(spreading.weak()), links, none)
        spreading.spread(spreading.onward(none), links)
        reached.append((reach.label, reach.parent))
    assert reached[0] == reached[1]
    assert len(set(reached[0][0])) == 6
