"""Where a Redis keeps its keys, found without a symbol.

Its variables have a pointer to an array of databases.  A database begins with what holds
its keys and what holds their expiries: a dict each up to 7.2, later a store of one or more
dicts, in Valkey 8.1 of hashtables.  Then come more dicts, and its number.
Sources: server.h and kvstore.c of Redis 6.0 to 8.2 and of Valkey 7.2 to 8.1.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.recogniser import Contents, Region
from drain_gdb.objects.redis import dictionary, hashtable
from drain_gdb.objects.redis.places import begins

PIECE = 1 << 20
"""Bytes of variables that are looked at at once."""
VARIABLES_MAX = 1 << 22
"""Bytes of variables that are looked at, those of the program first."""
NUMBERS = (5, 6, 7)
"""The words of a database that may hold its number."""
NUMBER_BEHIND_FIELDS = 7
"""That of one which has a word for the expiries of the fields of hashes."""
NUMBER = 0xFFFFFFFF
"""What a number has of its word."""
MOVED_NEXT = (40, 80)
"""Where a dict says what it moves next, from 7.0 on and before."""
NUMBER_MAX = 1 << 16
STRIDES = (9, 10, 11, 12)
"""How many words a database may have."""
STORE_MIN, STORE_MAX = 88, 4096
"""Bytes of a store of dicts, with what it counts of them."""
STORE_BITS = 14
"""At most so many bits choose the dict of a store: the slots of a cluster."""
DATABASE_MIN = 72


class Database(NamedTuple):
    """A database.

    Attributes:
        number: as SELECT takes it.
        address: of its struct.
        keys: the dicts or hashtables that hold its keys.
        expires: those that hold when keys expire; an entry of them goes with its key.
        fields: whether fields of hashes may expire in it, as from Redis 7.4 on.

    """

    number: int
    address: int
    keys: Tuple[int, ...]
    expires: Tuple[int, ...]
    fields: bool


def databases(contents: Contents) -> List[Database]:
    """The databases of the process; empty if it is no Redis."""
    seen = set()
    for word in _variables(contents):
        if word in seen or word % WORD or not word >> 12 or word >> 47:
            continue
        seen.add(word)
        if contents.in_module(word):
            continue
        if not _may_be(contents, word) and not _may_be(contents, contents.word(word) or 0):
            continue
        region = contents.region_at(word)
        if region is not None and region.address == word:
            found = _array(contents, region) or _pointed_at(contents, region)
            if found:
                return found
    return []


def _may_be(contents: Contents, address: int) -> bool:
    """Whether it looks like the first database: the number 0 behind a dict at rest.

    To find the region of an address may take long, to read there does not.
    """
    data = contents.read(address, (max(NUMBERS) + 1) * WORD) if address >> 12 else None
    if data is None:
        return False
    words = words_of(data)
    for number in NUMBERS:
        if not words[number] & NUMBER and any(
            contents.word(words[at] + word) == dictionary.NOT_MOVING
            for at in (number - 2, number - 1)
            for word in MOVED_NEXT
        ):
            return True
    return False


def _variables(contents: Contents) -> Iterator[int]:
    """What words the variables of the program and its libraries have; some come again."""
    left = VARIABLES_MAX
    for start, end in contents.variables():
        for at in range(start + -start % WORD, end, PIECE):
            data = contents.read(at, min(PIECE, end - at) & -WORD)
            left -= len(data or b"")
            if data is not None and left > 0:
                yield from dict.fromkeys(words_of(data))


def _array(contents: Contents, region: Region) -> List[Database]:
    """The databases of an array, one behind the other."""
    if region.size < DATABASE_MIN:
        return []
    words = region.words
    for number in NUMBERS:
        first = _database(contents, region.address, words, number)
        if first is None or first.number:
            continue
        lists = [_following(contents, region, number, stride) for stride in STRIDES]
        return [first, *max(lists, key=len)]
    return []


def _following(contents: Contents, region: Region, number: int, stride: int) -> List[Database]:
    """The databases behind the first, if each has ``stride`` words."""
    found: List[Database] = []
    words = region.words
    for at in range(stride, len(words) - number, stride):
        each = _database(contents, region.address + at * WORD, words[at:], number)
        if each is None or each.number != len(found) + 1:
            break
        found.append(each)
    return found


def _pointed_at(contents: Contents, region: Region) -> List[Database]:
    """The databases that an array points at."""
    found: List[Database] = []
    for address in region.words:
        other = contents.region_at(address) if address else None
        if other is None or other.address != address or other.size < DATABASE_MIN:
            return found
        each = [_database(contents, address, other.words, number) for number in NUMBERS]
        found += [one for one in each if one is not None and one.number == len(found)]
    return found


def _database(
    contents: Contents, address: int, words: Sequence[int], number: int
) -> Optional[Database]:
    """The database there, whose number is in this word, behind at least two dicts."""
    if len(words) <= number or words[number] & NUMBER > NUMBER_MAX:
        return None
    others = (contents.region_at(words[at]) for at in (number - 2, number - 1))
    if not all(dictionary.parse(contents, region) for region in others):
        return None
    keys, expires = (_tables(contents, words[at]) for at in (0, 1))
    if keys is None or expires is None:
        return None
    fields = number == NUMBER_BEHIND_FIELDS
    return Database(words[number] & NUMBER, address, keys, expires, fields)


def _tables(contents: Contents, address: int) -> Optional[Tuple[int, ...]]:
    """The dicts or hashtables of what holds keys; None if it is no such thing."""
    region = contents.region_at(address)
    if region is None or region.address != address:
        return None
    if is_table(contents, region):
        return (address,)
    return store(contents, region)


def is_table(contents: Contents, region: Region) -> bool:
    """Whether a region is a dict or a hashtable."""
    parsers = (dictionary.parse, hashtable.parse)
    return any(parse(contents, region) is not None for parse in parsers)


def store(contents: Contents, region: Region) -> Optional[Tuple[int, ...]]:
    """The dicts or hashtables of a store that is at ``region``; None if none is.

    Wherever its fields lie: a pointer to an array, how many it has, the bits of that.
    """
    if not STORE_MIN <= region.size <= STORE_MAX:
        return None
    words = region.words
    for at in range(1, len(words) - 2):
        low, high = words[at + 1] & 0xFFFFFFFF, words[at + 1] >> 32
        for number, bits in ((words[at + 1], words[at + 2]), (low, high)):
            if bits <= STORE_BITS and number == 1 << bits:
                found = _listed(contents, words[at], number)
                if found is not None:
                    return found
    return None


def _listed(contents: Contents, address: int, number: int) -> Optional[Tuple[int, ...]]:
    """The dicts or hashtables that an array of ``number`` pointers has."""
    array = contents.region_at(address)
    if array is None or not begins(array, address) or array.size < number * WORD:
        return None
    data = contents.read(address, number * WORD)
    if data is None:
        return None
    found = tuple(word for word in words_of(data) if word)
    for each in found:
        region = contents.region_at(each)
        if region is None or region.address != each or not is_table(contents, region):
            return None
    return found
