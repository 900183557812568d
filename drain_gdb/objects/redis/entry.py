"""The entries of hash tables, one region each.

Sources: dict.c of Redis 6.0 to 8.2 and of Valkey 7.2 to 8.1, t_hash.c of Valkey 8.1.
"""

from __future__ import annotations

from typing import Optional, Sequence

from drain_gdb.memory import WORD
from drain_gdb.objects.recogniser import Region
from drain_gdb.objects.redis import packed
from drain_gdb.objects.redis.objects import Objects
from drain_gdb.objects.redis.places import fits
from drain_gdb.objects.redis.structures import Structures
from drain_gdb.objects.redis.values import SIZE, embedded_at, embedded_key

TAGS = 7
"""The bits of a pointer in a table of a dict, or to what comes next, that tell what it is."""
ODD_KEY = 1
NORMAL = 24
"""Bytes of an entry of a dict: key, value, next."""
NORMAL_OF_CLUSTER = 40
"""With the neighbours in the same slot, in 7.0 and 7.2 where ``cluster-enabled`` is set."""
POINTS_AT_VALUE = 8
"""The bit of the header of a field that says that it does not have the value behind it."""
PAIR = 16
"""Bytes of an entry without a value: key, next; from 7.2 on."""


class Entries:
    """Says of a region which form of an entry it is."""

    def __init__(self, look: Structures, objects: Objects) -> None:
        self._look = look
        self._objects = objects

    def recognise(self, region: Region) -> Optional[str]:
        """Key, value, next; or key, next."""
        words = region.words
        if self._look.is_string(words[0]) or self._is_object(words[0]):
            if region.size == PAIR:
                return "dictEntry without value" if self._is_next(words[1], PAIR) else None
            return "dictEntry" if self._is_normal(region.size, words) else None
        return None

    def with_key(self, region: Region) -> bool:
        """Value, next, and the key itself: in Valkey 8.0."""
        words = region.words
        if not self._is_next(words[1], 0) or not words[0] or not self._is_value(words[0]):
            return False
        at = embedded_at(region.data, PAIR)
        if at is None:
            return False
        end = packed.text_end(region.data, at[0])
        return end < region.size and not region.data[end] and fits(region.size, end + 1)

    def _is_normal(self, size: int, words: Sequence[int]) -> bool:
        if not self._look.nothing_or(words[2], size):
            return False
        if fits(size, NORMAL):
            return True
        neighbours = all(self._look.nothing_or(each, size) for each in words[3:5])
        return (
            fits(size, NORMAL_OF_CLUSTER) and neighbours and self._look.start(words[1]) is not None
        )

    def _is_object(self, address: int) -> bool:
        """Whether a string object, or one with its key, begins there."""
        region = self._look.start(address, SIZE)
        value = None if region is None else self._objects.value(region)
        if region is None or value is None:
            return False
        return value.type == "string" or embedded_key(region.data) is not None

    def _is_value(self, address: int) -> bool:
        return not address or self._look.start(address) is not None

    def _is_next(self, pointer: int, size: int) -> bool:
        """Whether it is what may come next in a chain: nothing, a key, or an entry."""
        if not pointer or (pointer & ODD_KEY and self._look.is_string(pointer)):
            return True
        region = self._look.start(pointer & ~TAGS)
        return region is not None and (
            not size or region.size == size or embedded_key(region.data) is not None
        )

    def hash_entry(self, region: Region) -> Optional[str]:
        """Field and value behind each other, or where the value is, then the field."""
        data, size = region.data, region.size
        if packed.two_strings(data, size):
            return "hash entry"
        if not self._look.is_string(region.words[0]):
            return None
        field = packed.sds(data[WORD:], size - WORD, POINTS_AT_VALUE)
        return None if field is None else "hash entry"
