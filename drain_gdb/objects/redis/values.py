"""Redis' objects: the head of a value, and the key that newer ones embed.

Sources: server.h and object.c of Redis 6.0 to 8.2, of Valkey 7.2 to 8.1.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

from drain_gdb.objects.redis.packed import SDS_HEADS, SDS_TYPE

SIZE = 16
"""Bytes of the head: type, encoding and clock, references, what it points at."""
TYPES = ("string", "list", "set", "zset", "hash", "module", "stream")
RAW, INT, HT, INTSET, SKIPLIST, EMBSTR, QUICKLIST, STREAM = 0, 1, 2, 6, 7, 8, 9, 10
ZIPLIST, LISTPACK, LISTPACK_EX = 5, 11, 12
ENCODINGS: Dict[str, Dict[int, str]] = {
    "string": {RAW: "raw", INT: "int", EMBSTR: "embstr"},
    "list": {QUICKLIST: "quicklist", LISTPACK: "listpack"},
    "set": {HT: "hashtable", INTSET: "intset", LISTPACK: "listpack"},
    "zset": {SKIPLIST: "skiplist", ZIPLIST: "ziplist", LISTPACK: "listpack"},
    "hash": {HT: "hashtable", ZIPLIST: "ziplist", LISTPACK: "listpack", LISTPACK_EX: "listpackex"},
    "module": {RAW: "raw"},
    "stream": {STREAM: "stream"},
}
"""Of each type what it may be encoded as, in the words of OBJECT ENCODING."""
REFERENCES_MAX = 0x5000
"""Below what a pointer has in its upper half."""
SHARED = frozenset((0x7FFFFFFF, 0x7FFFFFFE, *range(0xFFFFFFF8, 1 << 32)))
"""The counts of those that are never freed, in the one form and the other."""
EXPIRY = 8


class Value(NamedTuple):
    """A value.

    Attributes:
        type, encoding: in words, as TYPE and OBJECT ENCODING say.
        encoded: the encoding as a number.
        pointer: to what is of the value elsewhere; of ``int`` the integer.

    """

    type: str
    encoding: str
    encoded: int
    pointer: int


def head(first: int, pointer: int) -> Optional[Value]:
    """The value whose head these two words are.

    Up to 7.4 the upper half of the first is the count of references; later on two bits of
    it say whether there is an expiry and a key behind the head.
    """
    references = first >> 32
    if not 0 < references < REFERENCES_MAX and references not in SHARED:
        return None
    if first & 15 >= len(TYPES):
        return None
    kind, encoded = TYPES[first & 15], first >> 4 & 15
    name = ENCODINGS[kind].get(encoded)
    return None if name is None else Value(kind, name, encoded, pointer)


def embedded_key(data: bytes) -> Optional[Tuple[int, int]]:
    """Where in an object the text of its key begins, and the bytes of the key's header.

    Behind the head lies the expiry if both bits are set, then how long the header of the
    key is (of Redis and Valkey the bits mean the two things the other way round).
    """
    flags = data[4] & 3
    if not flags or not (data[4] >> 2 or data[5] or data[6] or data[7]):
        return None
    return embedded_at(data, SIZE + (EXPIRY if flags == 3 else 0))


def embedded_at(data: bytes, at: int) -> Optional[Tuple[int, int]]:
    """The same of a key of which it is said ``at`` how long its header is."""
    if len(data) <= at or data[at] not in SDS_HEADS or len(data) <= at + data[at]:
        return None
    size = data[at]
    return (at + 1 + size, size) if data[at + size] & SDS_TYPE == SDS_HEADS[size] else None
