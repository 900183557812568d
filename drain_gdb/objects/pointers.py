"""Structs that point at a known function or variable, and regions of nothing but pointers."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Dict, List, Optional

from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.demangle import demangled, shortened
from drain_gdb.objects.recogniser import STRUCTURE, Contents, Kind, Region, WholeRegions
from drain_gdb.words import amount

FIRST = 8
"""Words of a struct that are looked at for a function."""
SAMPLE, FOLLOWED = 64, 16
"""Words that are looked at, and those of them that are looked up."""
LOWEST, HIGHEST = 1 << 16, 1 << 56
"""Where programs keep nothing, and what no machine has as an address of theirs."""
PAGES_MAX = 1 << 18
SHOWN_MAX = 64
NAMES_MAX = 1 << 12
"""Names that are remembered: of a table each pointer is asked about."""
RUST = re.compile(r"[sB][0-9A-Za-z]*_|(\d+)_?|.")
"""Of the newer mangling of rustc (its RFC 2603): what tells crates and blocks of one name apart,
what refers to an earlier part; the length of a name."""
RUST_NAMES = 6
"""Names of a path that are shown."""
RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
RUST_SIGNS = {"$LT$": "<", "$GT$": ">", "$u20$": " ", "$RF$": "&", "$C$": ",", "..": "::"}
"""The old mangling of rustc (compiler/rustc_symbol_mangling/src/legacy.rs)."""


class Pointers(WholeRegions):
    """What tells itself by what it points at."""

    name = "pointers"

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        self._pages: Dict[int, bool] = {}

    def recognise(self, region: Region) -> Optional[Kind]:
        """The first function or variable that it points at; else whether all of it points."""
        words = words_of(region.data[: min(len(region.data) & -WORD, SAMPLE * WORD)])
        for word in words[:FIRST]:
            name = self._begins(word)
            if name is not None:
                return Kind(f"struct with {plain(name)} pointer", self.name, STRUCTURE)
        pointing = [word for word in words if word]
        if not pointing or not all(self._points(word) for word in pointing):
            return None
        return Kind(f"pointers, {self._living(pointing)} to live regions", self.name, STRUCTURE)

    def _begins(self, word: int) -> Optional[str]:
        """The function or variable that begins at an address.

        Within functions point return addresses, which copies of stacks leave in any struct.
        """
        if not LOWEST <= word < HIGHEST or not self._contents.in_module(word):
            return None
        name = self._contents.symbol_at(word)
        return name if name is not None and name != self._contents.symbol_at(word - 1) else None

    def _points(self, word: int) -> bool:
        """Whether there is anything at an address; each page is tried once."""
        if not LOWEST <= word < HIGHEST:
            return False
        page = word >> 12
        if page not in self._pages:
            if len(self._pages) >= PAGES_MAX:
                self._pages.clear()
            self._pages[page] = self._contents.word(word & -WORD) is not None
        return self._pages[page]

    def _living(self, words: List[int]) -> str:
        """How many of some of them point into live regions."""
        some = words[:FOLLOWED]
        live = sum(self._contents.region_at(word) is not None for word in some)
        if live in (0, len(some)):
            return "all" if live else "none"
        return amount(live / len(some))


@lru_cache(NAMES_MAX)
def plain(name: str) -> str:
    """The name of a function or variable as its programmer wrote it, or near to that."""
    said = _rust_path(name[2:]) if name.startswith("_R") else shortened(demangled(name) or name)
    if RUST_HASH.search(said):
        said = RUST_HASH.sub("", said)
        for sign, meant in RUST_SIGNS.items():
            said = said.replace(sign, meant)
    return said if len(said) <= SHOWN_MAX else f"{said[: SHOWN_MAX - 1]}…"


def _rust_path(mangled: str) -> str:
    """The first names in a path of Rust, without how they hang together."""
    names: List[str] = []
    at = 0
    while at < len(mangled) and len(names) < RUST_NAMES:
        found = RUST.match(mangled, at)
        assert found is not None
        at = found.end()
        if found[1]:
            length = int(found[1][:4])
            names.append(mangled[at : at + length])
            at += length
    return "::".join(filter(None, names)) or "a function"
