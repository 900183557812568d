"""Which modules hold a jemalloc, by what every build of one has.

These are its own messages (``<jemalloc>: ...`` in malloc_io.c and wherever it fails), the
mallctl names by which it prints its statistics (stats.c), its symbols, and, where none of
them is left, its size classes among the variables.  The version is a hint alone: some builds
have none, and a program's own version may have the same form.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.contents import constant_pieces
from drain_gdb.debuggee.protocol import Module, Symbol
from drain_gdb.errors import LayoutError
from drain_gdb.layout.versions import OLDEST, UNVERSIONED, VERSION, as_shown, release_key
from drain_gdb.memory import Memory

RTREE_SYMBOLS = ("arena_emap_global", "extents_rtree")
"""The rtree's variable: an emap_t (arena.c, from 5.3), an rtree_t (extent.c, before)."""
CHUNKS_SYMBOL = "chunks_rtree"
"""What jemalloc 4.x and older have instead of an rtree of extents (chunk.c)."""
MESSAGE = b"<jemalloc>: "
MESSAGES_MIN = 8
"""Builds have 30 to 60 of them; a program that mentions one, or parses them, has few."""
NAMES = (
    *(b"opt.dirty_decay_ms", b"opt.muzzy_decay_ms", b"opt.percpu_arena", b"opt.background_thread"),
    *(b"arenas.muzzy_decay_ms", b"stats.background_thread.num_runs"),
)
"""Of the names that malloc_stats_print() asks for, some that all of 5.0.0 to 5.3.1 have."""
NAMES_MIN = 4
"""A program asks for a name or two itself: Redis has ``stats.active`` and its like."""
OLD_NAMES = (b"opt.lg_chunk", b"arenas.nlruns", b"arenas.nhchunks", b"opt.lg_dirty_mult")
"""Names that 3.x and 4.x alone have, for they keep runs in chunks."""
OLDEST_IN_CHUNKS = (3, 0, 0)
OLD_NAMES_MIN = 2
VERSION_MARK = b"-g"
"""What all versions have: searches for it are fast, those for a pattern slow."""
VERSION_BEFORE, VERSION_AFTER = 16, 80
"""More bytes than a version has before its mark, and from there on."""
LIKELY_BELOW = (10, 0, 0)
"""Releases from here on are those of something else."""


@dataclass(frozen=True)
class Identified:
    """A module that holds a jemalloc.

    Attributes:
        versions: all texts that may be its version, the likeliest first.
        evidence: what it was recognised by, in words.
        refused: why it is not to be read, where it is too old.

    """

    module: Module
    versions: Tuple[str, ...]
    evidence: str
    refused: Optional[LayoutError] = None

    @property
    def version(self) -> Optional[str]:
        """The likeliest version; None where none of the texts is likely to be one."""
        return next((each for each in self.versions if is_likely(each)), None)


def identify(memory: Memory, module: Module, symbols: Sequence[Symbol]) -> Optional[Identified]:
    """What ``module`` holds; None where it holds no jemalloc.

    ``symbols`` are the variables of its rtrees and chunks, if there are any.
    """
    trees = sorted(s.name for s in symbols if s.name.endswith(RTREE_SYMBOLS))
    chunks = sorted(s.name for s in symbols if s.name.endswith(CHUNKS_SYMBOL))
    texts = places_of(memory, module, (MESSAGE, NAMES[0]))
    if not symbols and not any(texts.values()):
        return None
    messages = texts[MESSAGE]
    evidence = [f"symbol {name}" for name in (*trees, *chunks)]
    if len(messages) >= MESSAGES_MIN:
        evidence.append(f"{len(messages)} of its messages")
    is_new, is_old = bool(trees or (evidence and texts[NAMES[0]])), bool(chunks)
    if not is_new:
        texts = places_of(memory, module, (*NAMES, *OLD_NAMES))
        new, old = (sum(bool(texts[each]) for each in names) for names in (NAMES, OLD_NAMES))
        is_new, is_old = new >= NAMES_MIN, is_old or old >= OLD_NAMES_MIN
        if is_new:
            evidence.append(f"{new} names of its statistics")
        if old >= OLD_NAMES_MIN:
            evidence.append(f"{old} names of the statistics of 4.x and older")
    if not evidence:
        return None
    versions = _versions(memory, module, messages)
    refused = _too_old(module, versions) if is_old and not is_new else None
    return Identified(module, versions, ", ".join(evidence), refused)


def _too_old(module: Module, versions: Sequence[str]) -> LayoutError:
    old = [each for each in versions if OLDEST_IN_CHUNKS <= release_key(each) < OLDEST]
    return LayoutError(
        f"jemalloc {as_shown(old[0]) if old else '4 or older'} in {module.path} is not supported",
        "jemalloc 5.0 and later is: 4.x and older keep runs in chunks, not slabs",
    )


def places_of(memory: Memory, module: Module, texts: Sequence[bytes]) -> Dict[bytes, List[int]]:
    """Where each of ``texts`` lies among the constants of ``module``, ascending."""
    found: Dict[bytes, List[int]] = {text: [] for text in texts}
    overlap = max(map(len, texts)) - 1
    for start, data in constant_pieces(memory, module, overlap):
        for text, places in found.items():
            at = data.find(text)
            while at >= 0:
                if not places or start + at > places[-1]:
                    places.append(start + at)
                at = data.find(text, at + 1)
    return found


def _versions(memory: Memory, module: Module, messages: Sequence[int]) -> Tuple[str, ...]:
    """All texts of the form of a version, the likeliest first.

    That is a release that is understood, next to a message.
    """
    places: Dict[int, str] = {}
    for start, data in constant_pieces(memory, module, VERSION_BEFORE + VERSION_AFTER):
        at = data.find(VERSION_MARK)
        while at >= 0:
            near = max(0, at - VERSION_BEFORE)
            for match in re.finditer(VERSION, data[near : at + VERSION_AFTER]):
                end = near + match.end()
                # What the end of a piece cuts off, the next one has; what its start does,
                # the one before had.
                if end < len(data):
                    places.setdefault(start + end, match[0].decode("ascii"))
            at = data.find(VERSION_MARK, at + 1)
    nearest: Dict[str, int] = {}
    for address, version in places.items():
        if release_key(version) != UNVERSIONED:
            distance = _distance(messages, address)
            nearest[version] = min(distance, nearest.get(version, distance))
    return tuple(sorted(nearest, key=lambda each: (not is_likely(each), nearest[each])))


def _distance(places: Sequence[int], address: int) -> int:
    """Bytes from ``address`` to the nearest of the ascending ``places``."""
    row = bisect_left(places, address)
    return min((abs(address - place) for place in places[max(0, row - 1) : row + 1]), default=0)


def is_likely(version: str) -> bool:
    """Whether ``version`` is that of a jemalloc rather than of the program around it."""
    return OLDEST <= release_key(version) < LIKELY_BELOW
