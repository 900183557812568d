"""What the regions of a Redis or Valkey are, release 6 to 8."""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from drain_gdb.memory import WORD
from drain_gdb.objects.recogniser import STRUCTURE, Contents, Kind, Region, WholeRegions
from drain_gdb.objects.redis import packed
from drain_gdb.objects.redis.dictionary import Dict as Dictionary
from drain_gdb.objects.redis.entries import entries as every
from drain_gdb.objects.redis.entries import holder
from drain_gdb.objects.redis.entry import Entries
from drain_gdb.objects.redis.hashtable import BUCKETS, Hashtable
from drain_gdb.objects.redis.holdings import Holdings
from drain_gdb.objects.redis.keyspace import STORE_MAX, store
from drain_gdb.objects.redis.lua import Lua
from drain_gdb.objects.redis.objects import Objects
from drain_gdb.objects.redis.places import beginnings
from drain_gdb.objects.redis.server import Server
from drain_gdb.objects.redis.structures import COUNT_MAX, Structures

NAME = "redis"
CLIENT_MIN = 400
"""Bytes that a client has at least."""
CLIENT_MAX = 1 << 15
ANY = 1 << 62
SOME = 16
CLIENT_WORDS = 32
"""Words of a client among which is the pointer to its database."""
ADDRESS_END = 1 << 47
NUMBERS_END = 1 << 16
"""No address is below."""
INTSET_TOLD = 3
"""Integers of a set from which on it is known by its form alone."""


ZERO, NUMBER, HEAP, STRING, OTHER = "0nhso"
"""What the first word of a region is: nothing, a number or an address elsewhere, an address
in a live region, an odd one such as a string has, what can be no address."""


class Check(NamedTuple):
    """One that tells a structure.

    Attributes:
        least, most: bytes of its regions.
        first: what their first word may be, a letter each.
        what: its name; empty where the check says it.
        check: what it says of a region is false if it is none.

    """

    least: int
    most: int
    first: str
    what: str
    check: Callable[[Region], object]


class RedisStructures(WholeRegions):
    """Every region by its form, and by what it points at."""

    name = NAME

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        look = self._look = Structures(contents)
        objects, server, lua = Objects(look), Server(look), Lua(look)
        entries = Entries(look, objects)
        self._holdings = Holdings(look, server, lua)
        self._fitting: Dict[Tuple[int, str], List[Check]] = {}
        self._checks = (
            Check(16, 512, NUMBER + OTHER, "", objects.recognise),
            Check(16, 16, HEAP, "zset", look.is_zset),
            Check(32, 32, STRING, "hash table", look.is_small_table),
            Check(16, 48, STRING + HEAP, "", entries.recognise),
            Check(32, 48, ZERO + HEAP, "quicklistNode", look.quicklist_node),
            Check(32, ANY, ZERO + HEAP, "", lua.recognise),
            Check(24, 48, HEAP, "rax", look.is_rax),
            Check(16, ANY, NUMBER + OTHER, "raxNode", look.is_rax_node),
            Check(32, 48, ZERO + NUMBER, "streamCG", look.is_group),
            Check(24, 32, NUMBER, "streamConsumer", look.is_consumer),
            Check(24, 32, NUMBER, "streamNACK", look.is_pending),
            Check(24, 32, ZERO + HEAP, "listNode", look.is_list_node),
            Check(32, 32, HEAP, "zskiplist", look.is_skiplist),
            Check(40, 48, HEAP, "quicklist", look.is_quicklist),
            Check(40, 640, STRING, "zskiplistNode", look.is_skiplist_node),
            Check(40, 128, HEAP, "stream", look.is_stream),
            Check(48, 48, ZERO + HEAP, "list", look.is_list),
            Check(56, 1 << 12, NUMBER + HEAP, "", look.is_dict),
            Check(88, STORE_MAX, ZERO + NUMBER, "kvstore", self._is_store),
            Check(72, 512, NUMBER, "event loop", server.is_loop),
            Check(104, 112, NUMBER, "latency histogram", server.is_histogram),
            Check(536, 640, ZERO, "zskiplist header", look.is_skiplist_header),
            Check(CLIENT_MIN, CLIENT_MAX, NUMBER, "client", self._is_client),
            Check(72, ANY, HEAP, "databases", self._is_database),
        )
        self._of_hashtables = (
            Check(64, 64, NUMBER + OTHER, BUCKETS, look.is_bucket),
            Check(16, ANY, NUMBER + STRING + OTHER, "", entries.hash_entry),
        )
        self._of_embedded = (Check(24, 640, HEAP, "dictEntry with its key", entries.with_key),)

    def applies(self) -> bool:
        """Whether it has databases."""
        return bool(self._look.databases)

    def recognise(self, region: Region) -> Optional[Kind]:
        """What it is: first by what its words point at, which text does not look like."""
        for each in beginnings(region):
            what = self._pointing(each) or self._packed(each)
            if what is not None:
                return Kind(what, NAME, STRUCTURE)
        return None

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """Tables, arrays and plain structs at the ends of its pointers."""
        for address, what in self._holdings.of(region, kind.what):
            yield address, Kind(what, NAME, STRUCTURE)

    def _pointing(self, region: Region) -> Optional[str]:
        """What it is by its pointers."""
        if region.size < 2 * WORD:
            return None
        for check in self._checks_of(region.size, self._first(region)):
            said = check.check(region)
            if said:
                return check.what or str(said)
        return None

    def _first(self, region: Region) -> str:
        """What the first word of a region is."""
        word = int.from_bytes(region.data[:WORD], "little")
        if not word:
            return ZERO
        if word >= ADDRESS_END:
            return OTHER
        if word < NUMBERS_END or self._look.region(word) is None:
            return NUMBER
        return STRING if word & 1 else HEAP

    def _checks_of(self, size: int, first: str) -> List[Check]:
        """What a region of ``size`` bytes with such a first word may be."""
        key = size, first
        if key not in self._fitting:
            every = [*self._checks]
            if self._has_hashtables:
                every += self._of_hashtables
            if self._has_embedded:
                every += self._of_embedded
            fitting = (each for each in every if each.least <= size <= each.most)
            self._fitting[key] = [each for each in fitting if first in each.first]
        return self._fitting[key]

    def _packed(self, region: Region) -> Optional[str]:
        """What it is by its bytes alone."""
        data, size = region.data, region.size
        field = packed.hash_field(data, size) if self._look.has_fields else None
        if field is not None and field.head > packed.EXPIRING:
            return "hash field, expiring"
        if packed.sds(data, size) is not None:
            return None if self._is_pointer(data) else "sds"
        found = self._look.packed_list(region)
        if found is not None:
            return found
        numbers = packed.intset(data, size)
        if numbers is not None and numbers >= INTSET_TOLD:
            return "intset"
        short = packed.short_sds(data, size)
        if short is not None and short.length and 0 not in data[1 : 1 + short.length]:
            return None if self._is_pointer(data) else "sds"
        return None if field is None or self._is_pointer(data) else "sds"

    def _is_pointer(self, data: bytes) -> bool:
        """Whether the first word leads somewhere: then it is no text."""
        word = int.from_bytes(data[:WORD], "little")
        return word < ADDRESS_END and (
            self._look.region(word) is not None or self._contents.in_module(word)
        )

    @cached_property
    def _places(self) -> frozenset[int]:
        return frozenset(each.address for each in self._look.databases)

    @cached_property
    def _has_hashtables(self) -> bool:
        """Whether it has the tables of Valkey 8.1 rather than dicts."""
        return any(isinstance(each, Hashtable) for each in self._keys)

    @cached_property
    def _has_embedded(self) -> bool:
        """Whether entries of its dicts have their keys in themselves, as in Valkey 8.0."""
        some = (islice(every(self._contents, each), SOME) for each in self._keys)
        return any(entry and not key for each in some for entry, key, _ in each)

    @cached_property
    def _keys(self) -> List[Union[Dictionary, Hashtable]]:
        """The tables of the keys."""
        places = (each for database in self._look.databases for each in database.keys)
        found = (holder(self._contents, each) for each in places)
        return [each for each in found if each is not None]

    def _is_client(self, region: Region) -> bool:
        """A client has its number first, and soon a pointer to its database."""
        words = region.words[:CLIENT_WORDS]
        return 0 < words[0] < COUNT_MAX and not self._places.isdisjoint(words)

    def _is_store(self, region: Region) -> bool:
        return bool(store(self._contents, region))

    def _is_database(self, region: Region) -> bool:
        return region.address in self._places
