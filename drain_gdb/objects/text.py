"""Text, by its pattern: never by what it says of one thing.

Numbers are masked, then the text is cut short: in this order, or one pattern becomes as many as
there are lengths of numbers.
"""

from __future__ import annotations

import re
from typing import Optional

from drain_gdb.objects.recogniser import TEXT, Kind, Region, WholeRegions

LEAST, LOOK, SHOWN = 8, 512, 24
"""Bytes of a text at least; bytes that are looked at; characters that are shown."""
WORDS, LOOKED = 4, 64
"""One of so many characters at least is a letter or digit, of so many."""
LETTERS = re.compile(
    rb"(?:[\t\n\r\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*"
)
"""UTF-8 (RFC 3629) without control characters."""
UUID = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
HEXADECIMAL = "(?=[A-Fa-f]*[0-9]+[A-Fa-f])[0-9A-Fa-f]{8,}"
"""With a letter behind a digit: names that end in a number have none."""
MASKED = re.compile(f"{UUID}|{HEXADECIMAL}|([0-9]+)")
SPACES = re.compile(r"\s+")


class Text(WholeRegions):
    """Regions that begin with text."""

    name = "text"

    def recognise(self, region: Region) -> Optional[Kind]:
        """The pattern of a text that ends with the region or with a zero, or fills half of it."""
        data = region.data
        found = LETTERS.match(data, 0, LOOK)
        if found is None or found.end() < LEAST:
            return None
        end = found.end()
        # A letter may be cut at the end of what is looked at.
        ended = end >= min(LOOK - 3, len(data)) or not data[end]
        if not ended and 2 * end < region.size:
            return None
        text = data[:end].decode("utf-8")
        if WORDS * sum(map(str.isalnum, text[:LOOKED])) < len(text[:LOOKED]):
            return None
        said = pattern(text)
        return None if said is None else Kind(f'text "{said}"', self.name, TEXT)


def pattern(text: str) -> Optional[str]:
    """A text with ``#`` for numbers and ``@`` for hexadecimal ones, cut short.

    None where something in it cannot be shown.
    """
    said = MASKED.sub(lambda found: "#" if found[1] else "@", SPACES.sub(" ", text))
    if not said.isprintable():
        return None
    return said if len(said) <= SHOWN else f"{said[: SHOWN - 1]}…"
