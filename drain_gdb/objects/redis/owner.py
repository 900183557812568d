"""The keys of a Redis or Valkey as owners of what they reach."""

from __future__ import annotations

from array import array
from functools import cached_property, partial
from itertools import islice
from typing import Callable, Iterable, Iterator, List, Union

from drain_gdb.objects.fast import numpy
from drain_gdb.objects.recogniser import Beginnings, Contents
from drain_gdb.objects.redis.dictionary import Dict
from drain_gdb.objects.redis.entries import Ascending, Entry, entries, holder
from drain_gdb.objects.redis.hashtable import Hashtable
from drain_gdb.objects.redis.keyspace import Database, databases
from drain_gdb.objects.redis.packed import SDS_TYPE, text_end
from drain_gdb.objects.redis.patterns import LOOKED_AT, Patterns
from drain_gdb.objects.redis.values import embedded_key

HEAD_MAX = 17
"""Bytes of the longest header of a string."""
IN_ENTRY = 16
"""Where an entry that has its key in itself says how long the header of the key is."""
OBJECT_MAX = 24 + 1 + HEAD_MAX
ENTRIES_AT_ONCE = 1 << 20


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

    def roots(self) -> Beginnings:
        """Of each key what tables point at: its entries, or the object that has the key.

        Key and value are one step from there, and no other key's entry refers to them.
        """
        patterns = Patterns()
        places, numbers = array("Q"), array("I")
        for database in self._databases:
            prefix = f"db {database.number} " if database.number else ""
            number = patterns.numberer(prefix)
            for table in (*database.keys, *database.expires):
                found = holder(self._contents, table)
                if found is not None:
                    self._add(found, number, places, numbers)
        patterns.count(numbers)
        return Beginnings(places, numbers, patterns.labels())

    def _add(
        self,
        found: Union[Dict, Hashtable],
        number: Callable[[bytes], int],
        places: array[int],
        numbers: array[int],
    ) -> None:
        """Append the entries of a dict or hashtable, and the numbers of their keys' patterns."""
        if numpy() is None or isinstance(found, Hashtable):
            for some in self._some(found):
                places.extend(entry or key for entry, key, _ in some)
                numbers.extend(map(number, _texts(self._contents, some)))
            return
        # It needs NumPy.
        from drain_gdb.objects.redis import entries_numpy  # noqa: PLC0415

        for table in found.tables:
            at, keys = entries_numpy.entries(self._contents, table)
            told = entries_numpy.patterns(
                self._contents, at, keys, number, partial(_texts, self._contents)
            )
            places.frombytes(entries_numpy.either(at, keys))
            numbers.frombytes(told.tobytes())

    def _some(self, found: Union[Dict, Hashtable]) -> Iterator[List[Entry]]:
        """The entries of a dict or hashtable, many at once, by the addresses of their keys."""
        every = entries(self._contents, found)
        while True:
            some = list(islice(every, ENTRIES_AT_ONCE))
            if not some:
                return
            some.sort(key=_place)
            yield some


def _place(entry: Entry) -> int:
    """Where to look for the key of an entry."""
    return entry[1] or entry[0]


def _texts(contents: Contents, some: Iterable[Entry]) -> Iterator[bytes]:
    """The first bytes of the keys of entries."""
    memory = Ascending(contents)
    for entry, key, _ in some:
        at = memory.offset((key or entry) - HEAD_MAX, HEAD_MAX + LOOKED_AT + OBJECT_MAX)
        data = memory.data
        if at < 0:
            start = (key or entry) - 1
            data, at = _readable(contents, start), 1 - HEAD_MAX
        at += HEAD_MAX
        if not key:
            at += IN_ENTRY
            at += 1 + data[at] if at < len(data) else 0
        elif not key & 1:
            found = embedded_key(data[at : at + OBJECT_MAX])
            at = at + found[0] if found else 0
        if 0 < at <= len(data):
            length = text_end(data, at) - at if data[at - 1] & SDS_TYPE else data[at - 1] >> 3
            yield data[at : at + min(length, LOOKED_AT)]
        else:
            yield b""


def _readable(contents: Contents, start: int) -> bytes:
    """As many bytes from ``start`` on as are looked at and can be read."""
    size = LOOKED_AT
    while size:
        data = contents.read(start, size)
        if data is not None:
            return data
        size >>= 1
    return b""
