"""What of a Redis only its holder tells: tables, arrays, and plain structs."""

from __future__ import annotations

from itertools import chain, islice
from typing import Callable, Dict, Iterator, Tuple

from drain_gdb.memory import words_of
from drain_gdb.objects.recogniser import Region
from drain_gdb.objects.redis import dictionary, hashtable
from drain_gdb.objects.redis.entries import entries
from drain_gdb.objects.redis.entry import ODD_KEY, Entries
from drain_gdb.objects.redis.lua import Lua
from drain_gdb.objects.redis.server import Server
from drain_gdb.objects.redis.structures import LIST_NODE, RAX, Structures

Held = Iterator[Tuple[int, str]]
TABLE_MAX = 1 << 24
"""Bytes of a table in which keys are looked for."""
LISTED_MAX = 1 << 20
"""Nodes of a list, or of a tree, that are named."""
GROUP = 32
"""Bytes of a group at least: its last ID, from 7.0 on a count, two trees."""


class Holdings:
    """Says of a region of a known kind what is at the ends of its pointers."""

    def __init__(self, look: Structures, forms: Entries, server: Server, lua: Lua) -> None:
        self._look = look
        self._entries = forms
        self._kinds: Dict[str, Callable[[Region], Held]] = {
            "dict": self._dict,
            "hashtable": self._hashtable,
            "hash table": self._table,
            "dictEntry": self._entry,
            "dictEntry without value": self._entry,
            "zskiplistNode": self._entry,
            "quicklistNode": self._quicklist_node,
            "list": self._list,
            "rax": self._rax,
            "stream": self._stream,
            "event loop": server.loop_parts,
            "latency histogram": server.counts,
            "client": server.buffers,
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

    def _dict(self, region: Region) -> Held:
        """Its tables, and its entries where nothing in them tells that they are entries."""
        found = dictionary.parse(self._look.contents, region)
        if found is None:
            return
        for table in found.tables:
            yield table.address, "hash table"
        every = entries(self._look.contents, found)
        first = next(every, None)
        place = self._look.start(first.address) if first is not None else None
        if first is not None and place is not None and self._entries.recognise(place) is None:
            for entry in chain((first,), every):
                yield entry.address, "dictEntry"

    def _hashtable(self, region: Region) -> Held:
        found = hashtable.parse(self._look.contents, region)
        for table in found.tables if found else ():
            yield table.address, "buckets of a hashtable"

    def _table(self, region: Region) -> Held:
        """Keys without an entry: the strings at which a table points itself."""
        size = min(region.size, TABLE_MAX)
        data = self._look.contents.read(region.address, size) or b""
        for word in words_of(data):
            if word & ODD_KEY and self._look.contents.region_at(word) is not None:
                yield word, "sds"

    def _entry(self, region: Region) -> Held:
        """Strings whose texts begin there."""
        for word in region.words[:2]:
            if word & ODD_KEY:
                yield word, "sds"

    def _quicklist_node(self, region: Region) -> Held:
        found = self._look.quicklist_node(region)
        if found is not None:
            yield found

    def _list(self, region: Region) -> Held:
        address = region.words[0]
        for _ in range(LISTED_MAX):
            node = self._look.start(address, LIST_NODE)
            if node is None:
                return
            yield address, "listNode"
            address = node.words[1]

    def _rax(self, region: Region) -> Held:
        for node in islice(self._look.rax_nodes(region.words[0]), LISTED_MAX):
            if node is not None:
                yield node.address, "raxNode"

    def _values(self, tree: int) -> Iterator[int]:
        """The values of a tree that begins there; none if none does."""
        region = self._look.start(tree, RAX)
        if region is not None and self._look.is_rax(region):
            nodes = islice(self._look.rax_nodes(region.words[0]), LISTED_MAX)
            yield from (node.value for node in nodes if node is not None and node.value)

    def _stream(self, region: Region) -> Held:
        """Its groups, what these gave to their consumers, and the consumers."""
        for group in self._values(self._look.stream_groups(region) or 0):
            yield group, "streamCG"
            place = self._look.start(group, GROUP)
            if place is None:
                continue
            words = place.words
            trees = words[2:4] if self._look.start(words[2]) is not None else words[3:5]
            for what, tree in zip(("streamNACK", "streamConsumer"), trees):
                yield from ((value, what) for value in self._values(tree))
