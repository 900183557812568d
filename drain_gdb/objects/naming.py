"""What regions are, by the recognisers: many at once where a word tells, else one by one."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from itertools import islice
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Protocol, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.contents import HeapContents
from drain_gdb.objects.fast import numpy
from drain_gdb.objects.recogniser import EXACT, SAMPLED, Kind, Recogniser, Region

UNKNOWN = Kind("unknown", "", "")
"""The kind with the number 0."""
KINDS_MAX = (1 << 16) - 1
"""Kinds that are told apart; further ones stay unknown."""
KNOWN_MAX = 1 << 20
"""Words whose meaning is remembered."""
EXACTLY_MAX = 300_000
"""Regions that are looked at one by one; of more, some of each class and owner."""
SAMPLE = 200
"""Regions of a class and owner by which all others of them are called."""
AGREE = 0.9
"""Of a sample so many are to be of one kind."""
HELD_MAX = 1 << 18
"""Regions of which it is remembered what their holders say."""
DEPTH = 4
"""Holders of holders that are asked what a region is."""


class Kinds:
    """By region the number of its kind, and the kinds."""

    def __init__(self, total: int) -> None:
        self.of = array("H", bytes(2 * total))
        self.names: List[Kind] = [UNKNOWN]
        self._numbers: Dict[Kind, int] = {UNKNOWN: 0}

    def number(self, kind: Optional[Kind]) -> int:
        """The number of a kind; 0 for none, or one too many."""
        if kind is None:
            return 0
        number = self._numbers.get(kind)
        if number is None:
            if len(self.names) > KINDS_MAX:
                return 0
            number = self._numbers[kind] = len(self.names)
            self.names.append(kind)
        return number

    @property
    def exact(self) -> List[str]:
        """What each is called if a word of its own says so, else nothing."""
        return [kind.what if kind.evidence == EXACT else "" for kind in self.names]


class Words:
    """What single words say, each asked for once."""

    def __init__(self, recognisers: Sequence[Recogniser], kinds: Kinds) -> None:
        self._kinds = kinds
        self._known: Dict[Tuple[int, int, int], int] = {}
        self._askers: Dict[int, List[Recogniser]] = {}
        for each in recognisers:
            for index in each.keys:
                self._askers.setdefault(index, []).append(each)

    @property
    def indices(self) -> List[int]:
        """The numbers of the words that tell something."""
        return sorted(self._askers)

    def kind(self, index: int, word: int, size: int) -> int:
        """The number of what a region of ``size`` bytes is that has this word there."""
        key = index, word, size
        number = self._known.get(key)
        if number is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            said = (each.by_word(index, word, size) for each in self._askers[index])
            first = next((kind for kind in said if kind is not None), None)
            number = self._known[key] = self._kinds.number(first)
        return number


class WordNamer(Protocol):
    """Names regions by single words, as their memory is read."""

    def feed(self, address: int, data: bytes) -> None:
        """Name the regions of some memory, each piece behind the last."""


def word_namer(
    live: LiveRegions, words: Words, kinds: Kinds, spans: Sequence[Tuple[int, int]]
) -> WordNamer:
    """The fastest one that this Python can have.

    Words tell something that lie in ``spans``, ascending and apart.
    """
    # Each is imported only where it is used.
    if numpy() is None:
        return PlainWordNamer(live, words, kinds, spans)
    from drain_gdb.objects.naming_numpy import NumpyWordNamer  # noqa: PLC0415

    return NumpyWordNamer(live, words, kinds, spans)


class PlainWordNamer:
    """:class:`WordNamer`, a block at a time."""

    def __init__(
        self, live: LiveRegions, words: Words, kinds: Kinds, spans: Sequence[Tuple[int, int]]
    ) -> None:
        self._live = live
        self._words = words
        self._kinds = kinds
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def feed(self, address: int, data: bytes) -> None:
        """Name the regions of some memory."""
        live, words = self._live, words_of(data)
        first = max(bisect_right(live.start, address) - 1, 0)
        last = bisect_right(live.start, address + len(data) - 1)
        for row in range(first, last):
            if live.live[row]:
                for index in self._words.indices:
                    self._name(row, index, live.start[row] + index * WORD - address, words)

    def _name(self, row: int, index: int, begin: int, words: Sequence[int]) -> None:
        """Name the regions of a row by the word that the first has ``begin`` bytes on."""
        live, kinds = self._live, self._kinds.of
        size = live.size[row]
        if index * WORD >= size:
            return
        skipped = max(0, -(-(0 - begin) // size))
        at = (begin + skipped * size) // WORD
        found = words[at :: size // WORD][: live.nregs[row] - skipped]
        telling = {
            word: self._words.kind(index, word, size) for word in set(found) if self._may(word)
        }
        if not any(telling.values()):
            return
        base = live.first[row] + skipped
        flags = live.flags(row)[skipped:]
        for number, (word, held) in enumerate(zip(found, flags)):
            kind = telling.get(word)
            if kind and held and not kinds[base + number]:
                kinds[base + number] = kind

    def _may(self, word: int) -> bool:
        row = bisect_right(self._starts, word) - 1
        return row >= 0 and word < self._ends[row]


class Names:
    """Names regions one by one, where no word has told what they are."""

    def __init__(
        self,
        live: LiveRegions,
        contents: HeapContents,
        recognisers: Sequence[Recogniser],
        forms: Sequence[Recogniser],
        kinds: Kinds,
        parent: Callable[[int], Optional[int]],
        variables: Callable[[int], Iterable[Tuple[int, Kind]]],
    ) -> None:
        self._live = live
        self._contents = contents
        self._recognisers = recognisers
        self._forms = forms
        self._by_name = {each.name: each for each in recognisers}
        self._kinds = kinds
        self._parent = parent
        self._variables = variables
        self._held: Dict[int, Dict[int, Kind]] = {}
        self._room = HELD_MAX

    def kind(self, region: int, depth: int = DEPTH) -> Kind:
        """What a region is: by itself, else by what holds it, else by its mere form."""
        number = self._kinds.of[region] or self._by(self._recognisers, region)
        if not number and depth:
            number = self._kinds.number(self._by_holder(region, depth))
        number = number or self._by(self._forms, region)
        self._kinds.of[region] = number
        return self._kinds.names[number]

    def _region(self, region: int) -> Optional[Region]:
        return self._contents.region_at(self._live.place(region))

    def _by(self, recognisers: Sequence[Recogniser], region: int) -> int:
        found = self._region(region)
        if found is None:
            return 0
        said = (each.recognise(found) for each in recognisers)
        return self._kinds.number(next((kind for kind in said if kind is not None), None))

    def _by_holder(self, region: int, depth: int) -> Optional[Kind]:
        parent = self._parent(region)
        if parent is None:
            return self._first(self._variables(region)).get(region)
        if parent not in self._held:
            if self._room < 0:
                self._held.clear()
                self._room = HELD_MAX
            self._held[parent] = self._first(self._holdings(parent, depth))
            self._room -= len(self._held[parent])
        return self._held[parent].get(region)

    def _holdings(self, parent: int, depth: int) -> Iterable[Tuple[int, Kind]]:
        """What a region points at, as the one that knows it says."""
        kind = self.kind(parent, depth - 1)
        holder = self._by_name.get(kind.recogniser)
        found = self._region(parent) if holder is not None else None
        return () if holder is None or found is None else holder.holds(found, kind)

    def _first(self, holdings: Iterable[Tuple[int, Kind]]) -> Dict[int, Kind]:
        """By region what is said of it first."""
        found: Dict[int, Kind] = {}
        for address, kind in holdings:
            region = self._live.region_at(address)
            if region is not None:
                found.setdefault(region, kind)
        return found

    def name_all(self, scope: Iterable[int], label: Sequence[int]) -> None:
        """Name every live region: those of the ``scope`` first, one by one as far as they go.

        Of the rest those of one size and one label are taken to be alike.
        """
        live = self._live
        left = EXACTLY_MAX
        every: Iterator[int] = (r for row in range(len(live)) for r in live.regions(row))
        if live.number() > EXACTLY_MAX:
            every = iter(scope)
        for region in islice(every, left):
            self.kind(region)
        if live.number() > EXACTLY_MAX:
            self._name_alike(label)

    def _name_alike(self, label: Sequence[int]) -> None:
        """Name the rest by samples of each size and label."""
        kinds, live = self._kinds.of, self._live
        samples: Dict[Tuple[int, int], List[int]] = {}
        said: Dict[Tuple[int, int], int] = {}
        for row in range(len(live)):
            size = live.size[row]
            for region in live.regions(row):
                if kinds[region]:
                    continue
                key = size, label[region]
                sample = samples.setdefault(key, [])
                if len(sample) < SAMPLE:
                    sample.append(self._kinds.number(self.kind(region)))
                    continue
                if key not in said:
                    said[key] = self._alike(Counter(sample))
                kinds[region] = said[key]

    def _alike(self, sample: Counter[int]) -> int:
        """The kind of what looks like a sample; a mixed one is called by its two first kinds."""
        numbers = sample.most_common(2)
        kinds = [self._kinds.names[number] for number, _ in numbers]
        agree = numbers[0][1] >= AGREE * sum(sample.values())
        words = kinds[0].what if agree else " or ".join(kind.what for kind in kinds)
        if agree and not numbers[0][0]:
            return 0
        return self._kinds.number(Kind(words, kinds[0].recogniser, SAMPLED))
