"""Redis' objects, each checked against what it points at."""

from __future__ import annotations

from typing import Optional

from drain_gdb.objects.recogniser import Region
from drain_gdb.objects.redis import packed
from drain_gdb.objects.redis.places import fits
from drain_gdb.objects.redis.structures import Structures
from drain_gdb.objects.redis.values import (
    EMBSTR,
    HT,
    INTSET,
    LISTPACK_EX,
    QUICKLIST,
    RAW,
    SHARED,
    SIZE,
    SKIPLIST,
    STREAM,
    Value,
    embedded_key,
    head,
)

LISTPACK_EX_WORD = 2
"""Of a listpackEx: where it has its listpack, behind its expiry."""
EMBEDDED = 1
"""The number of the header of a string that lies in its object."""


class Objects:
    """Says of a region which object it is: ``zset object, skiplist``."""

    def __init__(self, look: Structures) -> None:
        self._look = look

    def recognise(self, region: Region) -> Optional[str]:
        """Its type and encoding, if what it points at is of that kind."""
        value = self.value(region)
        return None if value is None else f"{value.type} object, {value.encoding}"

    def value(self, region: Region) -> Optional[Value]:
        """The value whose head the region begins with."""
        words = region.words
        found = head(words[0], words[1])
        if found is None or self._is_field(region) or not self._points(region, found):
            return None
        if found.encoded == EMBSTR or embedded_key(region.data) is not None:
            return found
        return found if region.size == SIZE else None

    def _is_field(self, region: Region) -> bool:
        """Whether it is a field of a hash: an expiry may look like a head."""
        if not self._look.has_fields:
            return False
        field = packed.hash_field(region.data, region.size)
        return field is not None and field.head > packed.EXPIRING

    def _points(self, region: Region, value: Value) -> bool:
        """Whether what it points at is what it says."""
        look, pointer = self._look, value.pointer
        if value.type == "string":
            if value.encoded == EMBSTR:
                return _is_embedded(region, pointer - region.address)
            if value.encoded == RAW:
                return look.is_string(pointer)
            first = region.words[0]
            return bool(first >> 8 & 0xFFFFFF) or first >> 32 in SHARED
        if value.encoded == HT:
            return look.dict_at(pointer)
        other = look.start(pointer, 7)
        if other is None:
            return False
        if value.type == "module":
            return fits(other.size, SIZE) and look.start(other.words[0]) is not None
        if value.encoded == INTSET:
            return packed.intset(other.data, other.size) is not None
        if value.encoded == QUICKLIST:
            return look.is_quicklist(other)
        if value.encoded == SKIPLIST:
            return look.is_zset(other)
        if value.encoded == STREAM:
            return look.is_stream(other)
        if value.encoded == LISTPACK_EX:
            inner = look.start(other.words[LISTPACK_EX_WORD], 7) if other.size >= 24 else None
            return inner is not None and look.packed_list(inner) is not None
        return look.packed_list(other) is not None


def _is_embedded(region: Region, at: int) -> bool:
    """Whether the text of a string of the object begins there, in itself."""
    data = region.data
    if not SIZE + 3 <= at < region.size or data[at - 1] & packed.SDS_TYPE != EMBEDDED:
        return False
    length, room = data[at - 3], data[at - 2]
    return length <= room and at + room < region.size and data[at + length] == 0
