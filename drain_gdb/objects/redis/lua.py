"""What the Lua in a Redis keeps: strings, tables and functions of its scripts.

Source: lobject.h of Lua 5.1, which every Redis and Valkey has in it.
"""

from __future__ import annotations

from typing import Dict, Iterator, Optional, Tuple

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
TABLE_SIZE = 64
SLOT, NODE = 16, 40
"""Bytes of an element of the array of a table, and of a node of its hash."""
EXPONENT = 11
"""The byte of a table that says how many nodes it has, as a power of two."""
ARRAY, NODES = 3, 4
"""The words of a table that point at its array and its nodes."""
COUNT = 56
"""Where a table has the length of its array."""


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
        return fits(region.size, TABLE_SIZE) and all(
            fits(size, needed) for size, needed in self._parts(region).values()
        )

    def _parts(self, region: Region) -> Dict[int, Tuple[int, int]]:
        """Of the array and the nodes of a table that are regions: size, and bytes needed."""
        count = int.from_bytes(region.data[COUNT : COUNT + 4], "little")
        needed = {ARRAY: SLOT * count, NODES: NODE << min(region.data[EXPONENT], 40)}
        found = {}
        for at, size in needed.items():
            place = self._look.start(region.words[at])
            if place is not None:
                found[place.address] = (place.size, size)
        return found

    def parts(self, region: Region) -> Iterator[Tuple[int, str]]:
        """What a table holds."""
        yield from ((address, "part of a Lua table") for address in self._parts(region))

    def _is_function(self, region: Region) -> bool:
        """C or Lua, how many outer variables, its environment, which is a table."""
        words = region.words
        foreign, outer = region.data[RESERVED], region.data[RESERVED + 1]
        size = 40 + (SLOT if foreign else 8) * outer
        table = self._look.start(words[3], TABLE_SIZE)
        return (
            foreign < 2
            and fits(region.size, size)
            and table is not None
            and (table.data[TYPE] == TABLE)
        )
