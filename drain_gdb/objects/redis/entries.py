"""The entries of the tables of dicts and hashtables, many at once.

Entries lie anywhere in memory: they are read in the order of their addresses, so that each
piece of memory is read once, the chains behind them step by step.
Sources: dict.c of Redis 6.0 to 8.2 and of Valkey 7.2 to 8.1.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import Iterator, List, Optional, Tuple, Union

from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.recogniser import Contents
from drain_gdb.objects.redis import dictionary, hashtable
from drain_gdb.objects.redis.dictionary import Dict, Table
from drain_gdb.objects.redis.entry import NORMAL, ODD_KEY, PAIR, TAGS
from drain_gdb.objects.redis.hashtable import BUCKET, Hashtable, bucket_entries, buckets
from drain_gdb.objects.redis.values import embedded_key

EVEN_KEY = 2
"""From Redis 8.2 on a key, an object; in 7.2 to 8.0 an entry of key and next."""
LOOKED_AT = 48
UNPACK = struct.Struct("<QQQ").unpack_from
PIECE = 1 << 16
SLOTS_AT_ONCE = 1 << 20


Entry = Tuple[int, int, int]
"""An entry: its address, or 0 where a table points at the key itself; what it points at as
its key, a string or an object that has its key in itself, or 0 where the entry has its key
in itself; and its value, whatever it is, or 0 where it has none."""


class Ascending:
    """Reads at ascending addresses, a piece of memory at a time.

    Attributes:
        data: the piece.
        base: where it begins.

    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.base = 0
        self.data = b""

    def offset(self, address: int, size: int) -> int:
        """Where in the piece ``address`` is, with ``size`` bytes behind; -1 if unreadable."""
        at = address - self.base
        if 0 <= at <= len(self.data) - size:
            return at
        base = address & -PIECE
        data = self._contents.read(base, PIECE) if address + size <= base + PIECE else None
        if data is None:
            base, data = address, self._contents.read(address, size)
        self.base, self.data = base, data or b""
        return -1 if data is None else address - base


def holder(contents: Contents, address: int) -> Union[Dict, Hashtable, None]:
    """The dict or hashtable that begins there."""
    region = contents.region_at(address)
    return dictionary.parse(contents, region) or hashtable.parse(contents, region)


def entries(contents: Contents, found: Union[Dict, Hashtable]) -> Iterator[Entry]:
    """All entries, no more than are said to be in use."""
    for table in found.tables:
        if isinstance(found, Hashtable):
            every = _bucket_entries(contents, table)
        else:
            every = Chains(contents).entries(table)
        yield from islice(every, table.used)


def _bucket_entries(contents: Contents, table: Table) -> Iterator[Entry]:
    """What the entries of the buckets of a table point at, of those behind them last."""
    behind: List[int] = []
    for at in range(0, table.slots * BUCKET, PIECE):
        size = min(PIECE, table.slots * BUCKET - at)
        data = contents.read(table.address + at, size)
        yield from _entries_in(data or b"", behind)
    while behind:
        places, behind = sorted(behind), []
        memory = Ascending(contents)
        for place in places:
            at = memory.offset(place, BUCKET)
            if at >= 0:
                yield from _entries_in(memory.data[at : at + BUCKET], behind)


def _entries_in(data: bytes, behind: List[int]) -> Iterator[Entry]:
    """What the entries of buckets point at; where more buckets are goes to ``behind``."""
    for bucket in buckets(data):
        pointers, following = bucket_entries(bucket)
        yield from ((0, each, 0) for each in pointers)
        if following:
            behind.append(following)


class Chains:
    """Walks the chains that begin in the slots of tables of dicts."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._pairs: Optional[bool] = None

    def entries(self, table: Table) -> Iterator[Entry]:
        """Those of a table, many chains at once."""
        for at in range(0, table.slots, SLOTS_AT_ONCE):
            number = min(SLOTS_AT_ONCE, table.slots - at)
            data = self._contents.read(table.address + at * WORD, number * WORD)
            pointers = [each for each in words_of(data or b"") if each]
            while pointers:
                behind: List[int] = []
                yield from self.step(sorted(pointers), behind)
                pointers = behind

    def step(self, pointers: List[int], behind: List[int]) -> Iterator[Entry]:
        """What ``pointers`` point at; what comes next in the chains goes to ``behind``."""
        memory = Ascending(self._contents)
        for pointer in pointers:
            tag = pointer & TAGS
            if tag & ODD_KEY:
                yield 0, pointer, 0
                continue
            address = pointer - tag
            at = memory.offset(address, NORMAL)
            if at < 0:
                continue
            first, second, third = UNPACK(memory.data, at)
            if not tag:
                yield address, first, second
                following = third
            elif tag == EVEN_KEY and self._is_key(memory, at):
                yield 0, address, 0
                continue
            else:
                pair = tag == EVEN_KEY or self._is_pair(address)
                yield (address, first, 0) if pair else (address, 0, first)
                following = second
            if following:
                behind.append(following)

    def _is_key(self, memory: Ascending, at: int) -> bool:
        """Whether an object that has its key in itself is there, in the piece at hand."""
        data = memory.data[at : at + LOOKED_AT]
        if len(data) < LOOKED_AT:
            data = self._contents.read(memory.base + at, LOOKED_AT) or data
        return embedded_key(data) is not None

    def _is_pair(self, address: int) -> bool:
        """Whether what has no tag of its own is key and next, as in Redis.

        Valkey 8.0 has value, next and the key itself there.
        """
        if self._pairs is None:
            region = self._contents.region_at(address)
            self._pairs = region is not None and region.size == PAIR
        return self._pairs
