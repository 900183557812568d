"""What the Lua in a Redis keeps: strings, tables and functions of its scripts.

Source: lobject.h of Lua 5.1, which every Redis and Valkey has in it.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Tuple

from drain_gdb.objects.recogniser import Region
from drain_gdb.objects.redis.places import fits
from drain_gdb.objects.redis.structures import Structures

TYPE, MARKED, RESERVED = 8, 9, 10
"""Where every object of Lua has its type, the collector's bits, and one of its own."""
MARKS_MAX = 1 << 7
STRING, TABLE, FUNCTION = 4, 5, 6
STRING_HEAD = 24
STRING_LENGTH = 2
"""The word of a string with its length."""
SLOT, NODE = 16, 40
"""Bytes of an element of the array of a table, and of a node of its hash."""
TABLES = {64: (11, 3, 4, 56), 72: (16, 4, 5, 64)}
"""By the bytes of a table: where the power of two lies that is how many nodes it has, the
words that point at its array and its nodes, and where the length of the array lies.  From
Redis 7.0 on a table may be read only."""
EXPONENT_MAX = 40


class Lua:
    """Says of a region which object of Lua it is."""

    def __init__(self, look: Structures) -> None:
        self._look = look
        self._checks = {STRING: self._is_string, TABLE: self._is_table, FUNCTION: self._is_function}
        self._names: Dict[int, str] = {
            STRING: "Lua string",
            TABLE: "Lua table",
            FUNCTION: "Lua function",
        }

    def recognise(self, region: Region) -> Optional[str]:
        """Its type; the objects are a list, whose next is the first word."""
        data = region.data
        check = self._checks.get(data[TYPE])
        if check is None or data[MARKED] >= MARKS_MAX or not self._is_next(region.words[0]):
            return None
        return self._names[data[TYPE]] if check(region) else None

    def _is_next(self, address: int) -> bool:
        return not address or self._look.start(address) is not None

    def _is_string(self, region: Region) -> bool:
        end = STRING_HEAD + region.words[STRING_LENGTH]
        return fits(region.size, end + 1) and (end >= len(region.data) or not region.data[end])

    def _is_table(self, region: Region) -> bool:
        return bool(self._parts(region))

    def _parts(self, region: Region) -> Optional[List[int]]:
        """Array and nodes of a table, those that it has; None if it is no table."""
        for size, (power, array_at, nodes_at, length) in TABLES.items():
            if not fits(region.size, size) or region.data[power] > EXPONENT_MAX:
                continue
            count = int.from_bytes(region.data[length : length + 4], "little")
            array, nodes = region.words[array_at], region.words[nodes_at]
            needed = {array: SLOT * count, nodes: NODE << region.data[power]}
            if all(self._is_part(place, least) for place, least in needed.items()):
                return [place for place in needed if self._look.start(place)] or [nodes]
        return None

    def _is_part(self, address: int, size: int) -> bool:
        """Whether it is nothing, no region, or one of this size."""
        place = self._look.start(address)
        return place is None or fits(place.size, size)

    def parts(self, region: Region) -> Iterator[Tuple[int, str]]:
        """What a table holds."""
        yield from ((address, "part of a Lua table") for address in self._parts(region) or ())

    def _is_function(self, region: Region) -> bool:
        """C or Lua, how many outer variables, its environment, which is a table."""
        words = region.words
        foreign, outer = region.data[RESERVED], region.data[RESERVED + 1]
        size = 40 + (SLOT if foreign else 8) * outer
        table = self._look.start(words[3], min(TABLES))
        return (
            foreign < 2
            and fits(region.size, size)
            and table is not None
            and (table.data[TYPE] == TABLE)
        )
