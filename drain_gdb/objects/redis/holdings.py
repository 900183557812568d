"""What of a Redis only its holder tells: tables, arrays, and plain structs."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, Tuple

from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.recogniser import Region
from drain_gdb.objects.redis import dictionary, hashtable
from drain_gdb.objects.redis.entry import NORMAL, ODD_KEY, TAGS
from drain_gdb.objects.redis.hashtable import BUCKETS, bucket_entries, buckets
from drain_gdb.objects.redis.lua import Lua
from drain_gdb.objects.redis.server import Server
from drain_gdb.objects.redis.structures import NODE, Structures, rax_node

Held = Iterator[Tuple[int, str]]
PIECE = 1 << 16


class Holdings:
    """Says of a region of a known kind what is at the ends of its pointers."""

    def __init__(self, look: Structures, server: Server, lua: Lua) -> None:
        self._look = look
        self._kinds: Dict[str, Callable[[Region], Held]] = {
            "dict": self._dict,
            "hashtable": self._hashtable,
            "hash table": self._table,
            BUCKETS: self._strings,
            "dictEntry": self._entry,
            "dictEntry without value": self._entry,
            "zskiplist header": self._header,
            "zskiplistNode": self._string,
            "hash entry": self._string,
            "quicklistNode": self._quicklist_node,
            "list": self._list,
            "listNode": self._list,
            "rax": self._rax,
            "raxNode": self._rax_node,
            "event loop": server.loop_parts,
            "latency histogram": server.counts,
            "client": server.buffers,
            "databases": self._databases,
            "kvstore": server.dicts,
            "Lua table": lua.parts,
        }

    def of(self, region: Region, what: str) -> Held:
        """Addresses, and what begins there, or has its text there."""
        if " object, " in what:
            return self._object(region, what.rpartition(" ")[2])
        kind = self._kinds.get(what)
        return iter(()) if kind is None else kind(region)

    def _object(self, region: Region, encoding: str) -> Held:
        pointer = region.words[1]
        if encoding in ("intset", "listpack", "ziplist"):
            yield pointer, encoding
        elif encoding == "raw":
            yield pointer, "sds" if region.data[0] & 15 == 0 else "module value"
        elif encoding == "listpackex":
            yield pointer, "listpackEx"

    def _databases(self, region: Region) -> Held:
        """Stores that are empty yet."""
        for database in self._look.databases:
            for at in (database.address, database.address + WORD):
                yield self._look.contents.word(at) or 0, "kvstore"

    def _dict(self, region: Region) -> Held:
        found = dictionary.parse(self._look.contents, region)
        for table in found.tables if found else ():
            yield table.address, "hash table"

    def _hashtable(self, region: Region) -> Held:
        found = hashtable.parse(self._look.contents, region)
        for table in found.tables if found else ():
            yield table.address, BUCKETS

    def _table(self, region: Region) -> Held:
        """Keys without an entry, and entries whose keys tell nothing."""
        for at in range(region.address, region.address + region.size, PIECE):
            size = min(PIECE, region.address + region.size - at)
            for word in words_of(self._look.contents.read(at, size) or b""):
                if word:
                    yield self._slot(word)

    def _strings(self, region: Region) -> Held:
        """Members of a set that nothing in themselves tells, and further buckets."""
        for data in buckets(self._look.contents.read(region.address, region.size) or b""):
            pointers, behind = bucket_entries(data)
            yield from ((pointer, "sds") for pointer in pointers if pointer & ODD_KEY)
            if behind:
                yield behind, BUCKETS

    def _slot(self, pointer: int) -> Tuple[int, str]:
        """What a slot of a dict, or the end of an entry in it, points at."""
        if pointer & ODD_KEY:
            return pointer, "sds"
        tag = pointer & TAGS
        return pointer - tag, "dictEntry without value" if tag else "dictEntry"

    def _entry(self, region: Region) -> Held:
        yield from self._string(region)
        following = region.words[2 if region.size >= NORMAL else 1]
        if following:
            yield self._slot(following)

    def _string(self, region: Region) -> Held:
        """Strings whose texts begin at one of the first two words."""
        yield from ((word, "sds") for word in region.words[:2] if word & ODD_KEY)

    def _header(self, region: Region) -> Held:
        """The first node, maybe the only one."""
        yield region.words[NODE // WORD], "zskiplistNode"

    def _quicklist_node(self, region: Region) -> Held:
        found = self._look.quicklist_node(region)
        if found is not None:
            yield found

    def _list(self, region: Region) -> Held:
        """Of a list first and last, of a node the one before and after."""
        yield from ((word, "listNode") for word in region.words[:2])

    def _rax(self, region: Region) -> Held:
        yield region.words[0], "raxNode"

    def _rax_node(self, region: Region) -> Held:
        node = rax_node(region)
        if node is not None:
            yield from ((child, "raxNode") for child in node.children)
