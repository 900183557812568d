"""The keys of a Redis or Valkey as owners of what they reach."""

from __future__ import annotations

from array import array
from functools import cached_property
from itertools import islice
from typing import Iterable, Iterator, List

from drain_gdb.objects.recogniser import Contents, Root
from drain_gdb.objects.redis.entries import Ascending, Entry, entries, holder
from drain_gdb.objects.redis.keyspace import Database, databases
from drain_gdb.objects.redis.packed import text_end
from drain_gdb.objects.redis.patterns import LOOKED_AT, Patterns
from drain_gdb.objects.redis.values import embedded_key

HEAD_MAX = 17
"""Bytes of the longest header of a string."""
IN_ENTRY = 16
"""Where an entry that has its key in itself says how long the header of the key is."""
OBJECT_MAX = 24 + 1 + HEAD_MAX
ENTRIES_AT_ONCE = 1 << 20
UNREADABLE = b""


class RedisKeys:
    """Every key owns what it and its value reach; keys of one pattern are one group."""

    name = "redis"

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    @cached_property
    def _databases(self) -> List[Database]:
        return databases(self._contents)

    def applies(self) -> bool:
        """Whether it has databases."""
        return bool(self._databases)

    def roots(self) -> Iterable[Root]:
        """Each key: its entry, its string and its value, where they are regions."""
        patterns = Patterns()
        places, numbers = array("Q"), array("L")
        for database in self._databases:
            prefix = f"db {database.number} " if database.number else ""
            for table in database.keys:
                for entry, text in self._keys(table):
                    number = patterns.number(prefix, text)
                    for place in entry:
                        if place:
                            places.append(place)
                            numbers.append(number)
        labels = patterns.labels()
        return (Root(place, labels[number]) for place, number in zip(places, numbers))

    def _keys(self, table: int) -> Iterator[tuple[Entry, bytes]]:
        """The entries of a dict or hashtable and the first bytes of their keys."""
        found = holder(self._contents, table)
        if found is None:
            return
        every = entries(self._contents, found)
        while True:
            some = list(islice(every, ENTRIES_AT_ONCE))
            if not some:
                return
            some.sort(key=lambda entry: entry.key or entry.address)
            memory = Ascending(self._contents)
            yield from ((entry, _text(memory, entry)) for entry in some)


def _text(memory: Ascending, entry: Entry) -> bytes:
    """The first bytes of the key of an entry."""
    if not entry.key:
        data = memory.up_to(entry.address + IN_ENTRY, 1 + HEAD_MAX + LOOKED_AT)
        return _string(data, 1 + data[0]) if data else UNREADABLE
    if entry.key & 1:
        start = entry.key - HEAD_MAX
        data = memory.up_to(start, HEAD_MAX + LOOKED_AT)
        return _string(data, HEAD_MAX)
    data = memory.up_to(entry.key, OBJECT_MAX + LOOKED_AT)
    found = embedded_key(data) if data else None
    return UNREADABLE if found is None else _string(data, found[0])


def _string(data: bytes, at: int) -> bytes:
    """The first bytes of the string whose text begins there."""
    if not 0 < at <= len(data):
        return UNREADABLE
    return data[at : min(text_end(data, at), at + LOOKED_AT)]
