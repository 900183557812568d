"""Redis' dict: of either form, with its tables.

Sources: dict.h and dict.c of Redis 6.0 to 8.2 and of Valkey 7.2 to 8.1.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional, Sequence, Tuple

from drain_gdb.memory import WORD
from drain_gdb.objects.recogniser import Contents, Region
from drain_gdb.objects.redis.places import begins, fits

OLD_SIZE = 96
"""Bytes of a dict up to 6.2, which has ``ht[2]``."""
NEW_SIZE = 56
"""From 7.0 on, with ``ht_size_exp[2]``; what follows is the type's own."""
METADATA_MAX = 1 << 12
"""Bytes of that: in 8.2 how large the values of the keys are, of each type."""
EXPONENT_MAX = 40
CROWD = 64
"""Entries a slot, more than which no dict has."""
NOT_MOVING = (1 << 64) - 1


class Table(NamedTuple):
    """A table of a hash: where it is, its slots, and how many entries are in use."""

    address: int
    slots: int
    used: int


class Dict(NamedTuple):
    """A dict and its tables: two while it moves from one to the other, none while it is new."""

    type: int
    tables: Tuple[Table, ...]


def parse(contents: Contents, region: Optional[Region]) -> Optional[Dict]:
    """The dict that a region holds; its tables must be there."""
    if region is None or not NEW_SIZE <= region.size <= OLD_SIZE + METADATA_MAX:
        return None
    words = region.words
    found = _new(region.data, words)
    if found is None and region.size >= OLD_SIZE:
        found = _old(words)
    if found is None or not all(is_table(contents, each, WORD) for each in found.tables):
        return None
    there = contents.region_at(found.type) is not None or contents.in_module(found.type)
    return found if there else None


def is_table(contents: Contents, table: Table, slot: int) -> bool:
    """Whether a live region begins there that is as large as its slots, of ``slot`` bytes."""
    region = contents.region_at(table.address)
    return (
        region is not None
        and begins(region, table.address)
        and fits(region.size, table.slots * slot)
    )


def _old(words: Sequence[int]) -> Optional[Dict]:
    """Up to 6.2: type, privdata, twice table, slots, mask and used, then what is moved next."""
    tables = []
    for at in (2, 6):
        address, slots, mask, used = words[at : at + 4]
        if mask != (slots - 1 if slots else 0) or slots & mask:
            return None
        tables.append(Table(address, slots, used))
    return _joined(words[0], tables, words[10])


def _new(data: bytes, words: Sequence[int]) -> Optional[Dict]:
    """From 7.0 on: type, tables, used, what is moved next, pauses, exponents of slots."""
    tables = []
    for at, exponent in enumerate(struct.unpack_from("<bb", data, 50)):
        if not -1 <= exponent <= EXPONENT_MAX:
            return None
        tables.append(Table(words[1 + at], 1 << exponent if exponent >= 0 else 0, words[3 + at]))
    return _joined(words[0], tables, words[5])


def _joined(kind: int, tables: Sequence[Table], moving: int) -> Optional[Dict]:
    """A dict of two tables, the second in use only while something is moved."""
    first, second = tables
    if any(bool(each.address) != bool(each.slots) for each in tables):
        return None
    if bool(second.slots) == (moving == NOT_MOVING) or (second.slots and moving > first.slots):
        return None
    if not kind or any(each.used > CROWD * each.slots for each in tables):
        return None
    return Dict(kind, tuple(each for each in tables if each.slots))
