"""Patterns of keys: what many keys have in common, without what tells them apart."""

from __future__ import annotations

import re
from collections import Counter
from typing import Callable, Dict, Iterable, List

LOOKED_AT = 256
"""Bytes of a key that are looked at."""
LENGTH_MAX = 40
"""Letters of a pattern."""
DISTINCT_MAX = 1000
REMEMBERED_MAX = 100_000
OTHERS = "other keys"
DIGIT, ODD = ord("#"), ord("?")
MASK = bytes(
    DIGIT if 0x30 <= each <= 0x39 else each if 0x20 <= each < 0x7F else ODD for each in range(256)
)
"""Digits are ``#``, and ``?`` is what is no letter or sign of ASCII."""
UUID = re.compile(r"[#a-fA-F]{8}(-[#a-fA-F]{4}){3}-[#a-fA-F]{12}")
HEXADECIMAL = re.compile(r"(?=[a-fA-F]*#)(?=#*[a-fA-F])[#a-fA-F]{8,}")
"""Eight or more, of which some are digits and some are letters."""
RUN = re.compile(r"([#?@])\1+")
SEPARATOR = re.compile(r"[:/|.,;_ -]")


def pattern(text: bytes) -> str:
    """The pattern of a key: numbers are ``#``, longer hexadecimal ones ``@``.

    All is masked before it is cut short: else one pattern becomes several.
    """
    return _shaped(text.translate(MASK))


def _shaped(masked: bytes) -> str:
    text = UUID.sub("@", masked.decode("ascii"))
    text = RUN.sub(r"\1", HEXADECIMAL.sub("@", text))
    return text if len(text) <= LENGTH_MAX else text[: LENGTH_MAX - 1] + "…"


class Patterns:
    """The patterns of all keys of a process, by number."""

    def __init__(self) -> None:
        self._number: Dict[str, int] = {}
        self._masked: Dict[str, Dict[bytes, int]] = {}
        self._keys: Counter[int] = Counter()

    def numberer(self, prefix: str) -> Callable[[bytes], int]:
        """What gives the number of the pattern of a key, with words before it."""
        known = self._masked.setdefault(prefix, {})

        def number(text: bytes) -> int:
            masked = text.translate(MASK)
            try:
                return known[masked]
            except KeyError:
                if len(known) >= REMEMBERED_MAX:
                    known.clear()
                label = prefix + _shaped(masked)
                found = known[masked] = self._number.setdefault(label, len(self._number))
                return found

        return number

    def count(self, numbers: Iterable[int]) -> None:
        """Take note of keys, by the numbers of their patterns."""
        self._keys.update(numbers)

    def labels(self) -> List[str]:
        """The pattern of each number; no more than ``DISTINCT_MAX`` different ones."""
        found = list(self._number)
        known = set(found)
        found = [_with_letters(each, known) for each in found]
        if len(set(found)) > DISTINCT_MAX:
            found = [_coarse(each) for each in found]
        keys: Counter[str] = Counter()
        for number, label in enumerate(found):
            keys[label] += self._keys[number]
        if len(keys) > DISTINCT_MAX:
            kept = {label for label, _ in keys.most_common(DISTINCT_MAX - 1)}
            found = [each if each in kept else OTHERS for each in found]
        return found


def _with_letters(label: str, known: set[str]) -> str:
    """The same with ``@`` for ``#`` where there are such: some hexadecimals have no letter."""
    other = label.replace("#", "@")
    return other if other in known else label


def _coarse(label: str) -> str:
    """What is before the first separator, and the separator."""
    found = SEPARATOR.search(label)
    return label[: found.end()] + "*" if found and found.start() else label
