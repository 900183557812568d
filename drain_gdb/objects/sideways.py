"""Memory as those see it who look for owners: without pointers that own nothing."""

from __future__ import annotations

from bisect import bisect_right
from typing import Dict, Iterator, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.contents import HeapContents
from drain_gdb.objects.recogniser import Sideways

NOTHING = bytes(WORD)
Hidden = Sequence[int]
"""Numbers of words of a region."""


class Blinds:
    """Hides the words that own nothing, by what those say who know them."""

    def __init__(self, contents: HeapContents, links: Sequence[Sideways]) -> None:
        self._contents = contents
        self._live: LiveRegions = contents.live
        self._keys = [(each, index) for each in links for index in each.keys]
        self._known: Dict[Tuple[int, int], Hidden] = {}

    def over(self, address: int, data: bytes) -> bytes:
        """Some memory, whole words, with zeros for what is hidden."""
        if not self._keys:
            return data
        live, seen, words = self._live, bytearray(data), words_of(data)
        first = max(bisect_right(live.start, address) - 1, 0)
        last = bisect_right(live.start, address + len(data) - 1)
        for row in range(first, last):
            if live.live[row]:
                for place, hidden in self._hidden(row, address, words).items():
                    for number in hidden:
                        at = place + number * WORD - address
                        if 0 <= at < len(seen):
                            seen[at : at + WORD] = NOTHING
        return bytes(seen)

    def _hidden(self, row: int, address: int, words: Sequence[int]) -> Dict[int, Hidden]:
        """What the first word that tells anything says, by where its region begins."""
        live = self._live
        start, size, nregs = live.start[row], live.size[row], live.nregs[row]
        end = address + len(words) * WORD
        # Regions that lie in this memory with all of their bytes, and those cut in two.
        first, last = max(0, -((start - address) // size)), min(nregs, (end - start) // size)
        places = range(start + first * size, start + last * size, size)
        found: Dict[int, Hidden] = {}
        for links, index in self._keys:
            if (index + 1) * WORD <= size and places:
                begin, step = (places[0] - address) // WORD + index, size // WORD
                telling = words[begin : begin + len(places) * step : step]
                hidden = {word: self._ask(links, index, word) for word in set(telling)}
                for place, word in zip(places, telling):
                    if hidden[word]:
                        found.setdefault(place, hidden[word])
        for number in {first - 1, last}:
            place = start + number * size
            if 0 <= number < nregs and place < end and place + size > address:
                for hidden_here in self._alone(place, size):
                    found.setdefault(place, hidden_here)
        return found

    def _alone(self, place: int, size: int) -> Iterator[Hidden]:
        """The same of one region."""
        for links, index in self._keys:
            word = self._contents.word(place + index * WORD) if index * WORD < size else None
            hidden = () if word is None else self._ask(links, index, word)
            if hidden:
                yield hidden

    def _ask(self, links: Sideways, index: int, word: int) -> Hidden:
        """What is hidden where a word is this; nothing for one that points nowhere."""
        key = index, word
        if key not in self._known:
            if self._live.row_at(word) is None and not self._contents.in_module(word):
                return ()
            self._known[key] = links.words(index, word)
        return self._known[key]
