"""Valkey's hashtable: buckets of seven entries, from 8.1 on.

Source: hashtable.c of Valkey 8.1.
"""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple, Optional, Tuple

from drain_gdb.memory import words_of
from drain_gdb.objects.recogniser import Contents, Region
from drain_gdb.objects.redis.dictionary import CROWD, EXPONENT_MAX, NOT_MOVING, Table, is_table

BUCKETS = "buckets of a hashtable"
SIZE = 72
"""Bytes of a hashtable; what follows is the type's own."""
METADATA_MAX = 24
BUCKET = 64
ENTRIES = 7
CHAINED = 1
"""The bit of a bucket that says that its last entry is another bucket."""


class Hashtable(NamedTuple):
    """A hashtable and its tables of buckets, ``slots`` the number of buckets."""

    type: int
    tables: Tuple[Table, ...]


def parse(contents: Contents, region: Optional[Region]) -> Optional[Hashtable]:
    """The hashtable that a region holds: type, what is moved next, tables, used, exponents."""
    if region is None or not SIZE <= region.size <= SIZE + METADATA_MAX:
        return None
    words = region.words
    tables = []
    for at, exponent in enumerate(struct.unpack_from("<bb", region.data, 48)):
        if not -1 <= exponent <= EXPONENT_MAX or bool(words[2 + at]) == (exponent < 0):
            return None
        used, slots = words[4 + at], 1 << exponent if exponent >= 0 else 0
        if used > ENTRIES * (slots + words[7 + at]) or used > CROWD * slots:
            return None
        tables.append(Table(words[2 + at], slots, used))
    if bool(tables[1].slots) == (words[1] == NOT_MOVING) or not contents.in_module(words[0]):
        return None
    found = tuple(each for each in tables if each.slots)
    if not all(is_table(contents, each, BUCKET) for each in found):
        return None
    return Hashtable(words[0], found)


def bucket_entries(data: bytes) -> Tuple[Tuple[int, ...], int]:
    """What the entries of a bucket point at, and the bucket behind it, 0 if there is none."""
    words = words_of(data)
    chained, present = data[0] & CHAINED, data[0] >> 1
    number = ENTRIES - 1 if chained else ENTRIES
    entries = tuple(words[1 + at] for at in range(number) if present >> at & 1)
    return entries, words[ENTRIES] if chained else 0


def is_bucket(contents: Contents, region: Region) -> bool:
    """Whether a region is a bucket on its own, behind another one."""
    if region.size != BUCKET or not region.data[0] >> 1:
        return False
    entries, behind = bucket_entries(region.data)
    return bool(entries) and all(
        contents.region_at(each) is not None for each in (*entries, *([behind] if behind else []))
    )


def buckets(data: bytes) -> Iterator[bytes]:
    """The buckets of a piece of a table."""
    return (data[at : at + BUCKET] for at in range(0, len(data) - BUCKET + 1, BUCKET))
