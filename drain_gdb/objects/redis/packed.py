"""Redis' data that is packed into one region: strings, listpacks, ziplists, sets of integers.

All of it is known by its form alone, from the bytes of a region and its size.  Sources:
sds.h, listpack.c, ziplist.c and intset.c of Redis 6.0 to 8.2 and Valkey 7.2 to 8.1, in
which these forms are the same.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

from drain_gdb.objects.redis.places import STEP_MIN, fits

SDS_FORMS = ((3, 1, "<BB"), (5, 2, "<HH"), (9, 3, "<II"), (17, 4, "<QQ"))
"""Of each header with a capacity: its bytes, its number, and how length and capacity lie."""
SDS_HEADS = {1: 0, 3: 1, 5: 2, 9: 3, 17: 4}
"""The number of a header, by its bytes."""
SDS_TYPE = 7
"""The bits of the last byte of a header that hold its number."""
FIELD_FORMS = ((1, 0, 1, 0, "<B"), (3, 1, 32, 1, "<B"), (3, 2, 256, 0, "<H"))
"""Of each header of a field of a hash: its bytes, its number, the least length that needs it,
where and how that lies."""
EXPIRING = 18
"""Bytes before the header of a field that expires: when, the next, and a flag."""
HIGH, ATTACHED = b"\0\0", b"\1\0"
"""What the pointer to the next ends in, and that flag."""
EXPIRES = 4
"""The bit of a header that says so."""
LOOKED_AT = 8
"""Entries of a packed list that are followed from its start."""
END = 0xFF
LISTPACK_HEAD = 6
BACKWARDS = (128, 16383, 2097151, 268435455)
"""The least lengths of entries for which another byte is taken behind them."""
MANY = 0xFFFF
"""Stands for so many entries that they are not counted."""
ZIPLIST_HEAD = 10
ZIPLIST_FAR = 0xFE
INTSET_HEAD = 8
INTEGERS = {2: "h", 4: "i", 8: "q"}
LOOKED_INTO = 1 << 12
PADDING = bytes(16)


class Sds(NamedTuple):
    """A string as Redis keeps them.

    Attributes:
        head: bytes of its header; pointers to it point behind that.
        length: bytes of its text.

    """

    head: int
    length: int


def sds(data: bytes, size: int, more: int = 0) -> Optional[Sds]:
    """The string that a region of ``size`` bytes holds, one with a capacity.

    Its header has ``more`` bits set beside its number.
    """
    for head, number, form in SDS_FORMS:
        if len(data) > head and data[head - 1] == number | more:
            length, room = struct.unpack_from(form, data)
            if length <= room and fits(size, head + room + 1) and _ends(data, head + length):
                return Sds(head, length)
    return None


def short_sds(data: bytes, size: int) -> Optional[Sds]:
    """The string of less than 32 bytes, without a capacity, that a region holds."""
    length = data[0] >> 3
    if data[0] & SDS_TYPE or not fits(size, length + 2) or not _ends(data, 1 + length):
        return None
    return Sds(1, length)


def two_strings(data: bytes, size: int) -> bool:
    """Whether a region holds one string, of any header, and another one behind it."""
    for head in (1, *(form[0] for form in SDS_FORMS[:2])):
        if len(data) > head and data[head - 1] & SDS_TYPE == SDS_HEADS[head]:
            end = text_end(data, head)
            rest = data[end + 1 :]
            if head < end < len(data) and not data[end] and sds(rest, size - end - 1) is not None:
                return True
    return False


def hash_field(data: bytes, size: int) -> Optional[Sds]:
    """The field of a hash that a region holds, as of 7.4 on: no capacity, maybe an expiry.

    Source: mstr.h of Redis 7.4 to 8.2.
    """
    for before, flag in ((EXPIRING, EXPIRES), (0, 0)):
        if flag and (
            data[before - 2 : before] != ATTACHED or data[before - 4 : before - 2] != HIGH
        ):
            continue
        for head, number, least, length_at, form in FIELD_FORMS:
            at = before + head
            if head == 1 and not flag:
                continue
            if len(data) > at and data[at - 1] & SDS_TYPE == number | flag:
                length = struct.unpack_from(form, data, before + length_at)[0]
                length = length >> 3 if head == 1 else length
                fitting = least <= length < size and fits(size, at + length + 1)
                if fitting and _ends(data, at + length):
                    return Sds(at, length)
    return None


def text_end(data: bytes, at: int) -> int:
    """Where the string ends whose text begins there, behind its header."""
    kind = data[at - 1] & SDS_TYPE
    for head, number, form in SDS_FORMS:
        if kind == number and at >= head:
            return at + int(struct.unpack_from(form, data, at - head)[0])
    return at + (data[at - 1] >> 3)


def _ends(data: bytes, at: int) -> bool:
    """Whether a string ends there, as far as it was read."""
    return at >= len(data) or data[at] == 0


def listpack(data: bytes, size: int) -> bool:
    """Whether a region holds a listpack."""
    if len(data) <= LISTPACK_HEAD:
        return False
    total, count = struct.unpack_from("<IH", data)
    if not LISTPACK_HEAD < total <= size or not _last(data, total):
        return False
    if not count:
        return bool(total == LISTPACK_HEAD + 1 and size <= STEP_MIN)
    start = data[:LOOKED_INTO] + PADDING
    at, seen, end = LISTPACK_HEAD, 0, min(total - 1, LOOKED_INTO)
    while seen < LOOKED_AT and at < end:
        length = _listpack_entry(start, at)
        if length is None:
            return False
        back = 1 + sum(length >= most for most in BACKWARDS)
        if at + length + back <= LOOKED_INTO and _back(start, at + length, back) != length:
            return False
        at += length + back
        seen += 1
    return _complete(at, seen, total, count)


def _complete(at: int, seen: int, total: int, count: int) -> bool:
    """Whether the entries before ``at`` are all there should be, or there are more to see."""
    if at >= total - 1:
        return at == total - 1 and count in (seen, MANY)
    return count > seen


def _last(data: bytes, total: int) -> bool:
    return total > len(data) or data[total - 1] == END


def _listpack_entry(data: bytes, at: int) -> Optional[int]:
    """Bytes of the entry there, but for what is said of it behind it."""
    first = data[at]
    if first < 0x80:
        return 1
    if first < 0xC0:
        return 1 + (first & 0x3F)
    if first < 0xE0:
        return 2
    if first < 0xF0:
        return 2 + ((first & 0x0F) << 8 | data[at + 1])
    if first == 0xF0:
        return 5 + int(struct.unpack_from("<I", data, at + 1)[0])
    return {0xF1: 3, 0xF2: 4, 0xF3: 5, 0xF4: 9}.get(first)


def _back(data: bytes, at: int, count: int) -> int:
    """What ``count`` bytes there say, seven bits in each, the highest first."""
    value = 0
    for byte in data[at : at + count]:
        value = value << 7 | (byte & 0x7F)
    return value


def ziplist(data: bytes, size: int) -> bool:
    """Whether a region holds a ziplist."""
    if len(data) <= ZIPLIST_HEAD:
        return False
    total, tail, count = struct.unpack_from("<IIH", data)
    if not ZIPLIST_HEAD < total <= size or not ZIPLIST_HEAD <= tail < total:
        return False
    if not _last(data, total):
        return False
    if not count:
        return bool(total == ZIPLIST_HEAD + 1 and size <= STEP_MIN)
    start = data[:LOOKED_INTO] + PADDING
    at, seen, end, before = ZIPLIST_HEAD, 0, min(total - 1, LOOKED_INTO), 0
    while seen < LOOKED_AT and at < end:
        said, head = start[at], 1
        if said == ZIPLIST_FAR:
            said, head = struct.unpack_from("<I", start, at + 1)[0], 5
        length = _ziplist_entry(start, at + head)
        if length is None or said != before:
            return False
        before = head + length
        at += before
        seen += 1
    return _complete(at, seen, total, count) and (at < total - 1 or tail == at - before)


def _ziplist_entry(data: bytes, at: int) -> Optional[int]:
    """Bytes of the entry there, from its encoding on."""
    first = data[at]
    if first < 0x40:
        return 1 + first
    if first < 0x80:
        return 2 + ((first & 0x3F) << 8 | data[at + 1])
    if first == 0x80:
        return 5 + int(struct.unpack_from(">I", data, at + 1)[0])
    if 0xF1 <= first <= 0xFD:
        return 1
    return {0xC0: 3, 0xD0: 5, 0xE0: 9, 0xF0: 4, 0xFE: 2}.get(first)


def intset(data: bytes, size: int) -> Optional[int]:
    """How many integers the set in a region has; None where it holds none."""
    if len(data) <= INTSET_HEAD:
        return None
    width, count = struct.unpack_from("<II", data)
    if width not in INTEGERS or not count or not fits(size, INTSET_HEAD + width * count):
        return None
    seen = min(count, (len(data) - INTSET_HEAD) // width)
    values = struct.unpack_from(f"<{seen}{INTEGERS[width]}", data, INTSET_HEAD)
    return count if all(a < b for a, b in zip(values, values[1:])) else None
