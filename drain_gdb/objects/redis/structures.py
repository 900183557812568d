"""The structs of a Redis that point at one another: known by what they point at.

Sources: server.h, adlist.h, quicklist.h, rax.h, stream.h of Redis 6.0 to 8.2, of Valkey 7.2
to 8.1.
"""

from __future__ import annotations

import struct
from functools import cached_property
from itertools import islice
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from drain_gdb.memory import WORD
from drain_gdb.objects.recogniser import Contents, Region
from drain_gdb.objects.redis import dictionary, hashtable, packed
from drain_gdb.objects.redis.dictionary import NEW_SIZE
from drain_gdb.objects.redis.keyspace import Database, databases
from drain_gdb.objects.redis.places import LARGE_MIN, begins, fits

COARSE = 16
"""Bytes that small size classes are apart, or half of that."""
DICT_AT = 24
"""Where a database has a dict in every release."""
EVEN = 6
"""Bits of a pointer in a table of a dict whose least bit is not set."""
REMEMBERED_MAX = 1 << 12
"""Addresses of which it is remembered what is there."""
LEVELS_MAX = 32
"""Of a zskiplist; its header has all of them."""
LEVEL = 16
NODE = 24
"""Bytes of a zskiplistNode before its levels."""
HEADER = NODE + LEVELS_MAX * LEVEL
SKIPLIST = 32
QUICKLIST = 40
QUICKLIST_NODES = {32: "<IHH", 40: "<QHH"}
"""Bytes of a node up to 6.2 and later, and how size, count and bits lie at its fourth word."""
PLAIN, PACKED = 1, 2
RAW, COMPRESSED = 1, 2
LIST, LIST_NODE = 48, 24
RAX = 24
RAX_NODES_MAX = 32
"""Nodes of a tree that are looked at before it is believed."""
STREAMS = ((40, 4), (80, 9), (112, 9))
"""Bytes of a stream of 6.x, of 7.0 and of 8.2, and the word of its groups."""
COUNT_MAX = 1 << 40


class RaxNode(NamedTuple):
    """A node of a radix tree.

    Attributes:
        address: of its region.
        key: whether a key ends there.
        children: the nodes below it.
        value: of that key, 0 if it has none.

    """

    address: int
    key: bool
    children: Tuple[int, ...]
    value: int


def rax_node(region: Region) -> Optional[RaxNode]:
    """The node that a region holds: bits and size, letters, nodes below it, a value."""
    first = int.from_bytes(region.data[:4], "little")
    key, null, compressed, size = first & 1, first >> 1 & 1, first >> 2 & 1, first >> 3
    if size > region.size or (null and not key) or (compressed and size < 2):
        return None
    if not size and not key:
        return None
    children = 1 if compressed else size
    valued = key and not null
    at = 4 + size + -(4 + size) % WORD
    end = at + WORD * (children + valued)
    if not fits(region.size, end) or end > len(region.data):
        return None
    words = struct.unpack_from(f"<{children + valued}Q", region.data, at)
    return RaxNode(region.address, bool(key), words[:children], words[-1] if valued else 0)


class Structures:
    """Checks of regions, each against what it points at; what was found is remembered."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._dicts: Dict[int, bool] = {}
        self._regions: Dict[int, Optional[Region]] = {}
        self._strings: Dict[int, bool] = {}

    @cached_property
    def databases(self) -> List[Database]:
        """The databases of the process; none if it is no Redis."""
        return databases(self.contents)

    @cached_property
    def has_fields(self) -> bool:
        """Whether fields of its hashes may be strings of their own form."""
        return any(each.fields for each in self.databases)

    @cached_property
    def quantum(self) -> int:
        """How far small size classes are apart: a dict of 56 bytes tells, else it is not known."""
        words = (self.contents.word(each.address + DICT_AT) for each in self.databases[:1])
        regions = [self.region(word) for word in words if word]
        fine = any(region is not None and region.size == NEW_SIZE for region in regions)
        return COARSE // 2 if fine else COARSE

    def region(self, address: int) -> Optional[Region]:
        """The live region that holds ``address``."""
        try:
            return self._regions[address]
        except KeyError:
            if len(self._regions) >= REMEMBERED_MAX:
                self._regions.clear()
            found = self._regions[address] = self.contents.region_at(address)
            return found

    def start(self, address: int, size: int = 0) -> Optional[Region]:
        """The live region that begins at ``address``, for at least ``size`` bytes."""
        if not address or address % WORD:
            return None
        region = self.region(address)
        if region is None or not begins(region, address) or region.size < size:
            return None
        return region

    def nothing_or(self, address: int, size: int) -> bool:
        """Whether ``address`` is 0 or a live region of exactly ``size`` bytes begins there."""
        if not address:
            return True
        region = self.start(address)
        return region is not None and region.size == size

    def is_string(self, address: int) -> bool:
        """Whether ``address`` is where the text of a string begins, in a region of its own."""
        if not address & 1:
            return False
        known = self._strings.get(address)
        if known is None:
            if len(self._strings) >= REMEMBERED_MAX:
                self._strings.clear()
            region = self.region(address)
            known = region is not None and self._is_string(region, address)
            self._strings[address] = known
        return known

    def _is_string(self, region: Region, address: int) -> bool:
        if region.size >= LARGE_MIN:
            return self._is_large_string(region, address)
        head = address - region.address
        if head == 1:
            return packed.short_sds(region.data, region.size) is not None
        found = packed.sds(region.data, region.size) if head in packed.SDS_HEADS else None
        if found is None and self.has_fields:
            found = packed.hash_field(region.data, region.size)
        return found is not None and found.head == head

    def _is_large_string(self, region: Region, address: int) -> bool:
        """The same for one that may begin at any cache line of the first page."""
        kind = self.contents.read(address - 1, 1)
        for length, number, _ in packed.SDS_FORMS:
            if kind is not None and kind[0] & packed.SDS_TYPE == number:
                start = address - length
                offset = start - region.address
                if offset < 0 or not begins(region, start):
                    return False
                found = packed.sds(region.data[offset:], region.size - offset)
                return found is not None and found.head == length
        return False

    def dict_at(self, address: int) -> bool:
        """Whether a dict or a hashtable begins there."""
        known = self._dicts.get(address)
        if known is None:
            region = self.start(address)
            known = region is not None and self.is_dict(region) is not None
            self._dicts[address] = known
        return known

    def is_dict(self, region: Region) -> Optional[str]:
        """``dict`` or ``hashtable`` if it is one."""
        if dictionary.parse(self.contents, region) is not None:
            return "dict"
        return "hashtable" if hashtable.parse(self.contents, region) is not None else None

    def is_small_table(self, region: Region) -> bool:
        """A table of four slots that are keys themselves, as from 7.4 on.

        Known only where entries, of 24 bytes, have a size class of their own.
        """
        small = self.has_fields and self.quantum < COARSE
        return small and all(map(self._is_slot, region.words))

    def _is_slot(self, word: int) -> bool:
        """Whether a slot of a table may hold this: nothing, a key, or an entry without value."""
        if not word or self.is_string(word):
            return True
        return bool(word & EVEN) and self.start(word & -WORD) is not None

    def is_bucket(self, region: Region) -> bool:
        """A bucket of a hashtable on its own, behind another one."""
        return hashtable.is_bucket(self.contents, region)

    # Sorted sets

    def is_skiplist_node(self, region: Region) -> bool:
        """String, score, the node before, and of each level the next and how far it is.

        One without neighbours tells too little.
        """
        if region.size < NODE + LEVEL or region.size > HEADER + 128:
            return False
        words = region.words
        if not self.is_string(words[0]) or not self._is_score(words[1]):
            return False
        before, after, span = words[2:5]
        if not (before or after) or span >= COUNT_MAX or (after and not span):
            return False
        return all(self._is_other_node(each) for each in (before, after) if each)

    def _is_other_node(self, address: int) -> bool:
        """Whether a node is there, so far as its string tells."""
        region = self.start(address, NODE + LEVEL)
        return region is not None and self.is_string(region.words[0])

    def _is_score(self, word: int) -> bool:
        """Whether a word is no pointer, as a score may look like anything else."""
        return self.region(word) is None

    def is_skiplist_header(self, region: Region) -> bool:
        """A node without a string, of all levels, the lowest of which leads to a node."""
        if region.size < HEADER or not fits(region.size, HEADER):
            return False
        words = region.words
        if any(words[:3]) or not words[3]:
            return False
        levels = words[3 : 3 + 2 * LEVELS_MAX]
        used = [each for each in levels[::2] if each]
        if list(levels[::2])[: len(used)] != used or max(levels[1::2]) >= COUNT_MAX:
            return False
        node = self.start(words[3], NODE + LEVEL)
        return node is not None and self.is_string(node.words[0])

    def is_skiplist(self, region: Region) -> bool:
        """Header, last node, length, levels."""
        if region.size < SKIPLIST or not fits(region.size, SKIPLIST):
            return False
        header, tail, length, level = region.words[:4]
        if not 0 < level & 0xFFFFFFFF <= LEVELS_MAX or not 0 < length < COUNT_MAX:
            return False
        other = self.start(header, HEADER)
        return (
            other is not None
            and self.is_skiplist_header(other)
            and self.start(tail, NODE + LEVEL) is not None
        )

    def is_zset(self, region: Region) -> bool:
        """A dict and a skiplist."""
        if region.size != 16:
            return False
        first, second = region.words
        other = self.start(second)
        return other is not None and self.is_skiplist(other) and self.dict_at(first)

    # Lists

    def quicklist_node(self, region: Region) -> Optional[Tuple[int, str]]:
        """What a node of a quicklist points at and what that is."""
        for size, form in QUICKLIST_NODES.items():
            if not fits(region.size, size) or region.size < size:
                continue
            before, after, entry = region.words[:3]
            total, count, bits = struct.unpack_from(form, region.data, NODE)
            encoding, container = bits & 3, bits >> 2 & 3
            if not count or not total or encoding not in (RAW, COMPRESSED):
                continue
            if container not in (PLAIN, PACKED) or before == after != 0:
                continue
            if not all(self.nothing_or(each, region.size) for each in (before, after)):
                continue
            what = self._quicklist_entry(entry, total, encoding, container)
            if what is not None:
                return entry, what
        return None

    def _quicklist_entry(
        self, address: int, total: int, encoding: int, container: int
    ) -> Optional[str]:
        region = self.region(address)
        if region is None or not begins(region, address):
            return None
        if encoding == COMPRESSED:
            return "compressed listpack" if self._is_compressed(region, address) else None
        if container == PLAIN:
            return "list item" if fits(region.size, total) else None
        data = self.contents.read(address, 4)
        if data is None or int.from_bytes(data, "little") != total or total > region.size:
            return None
        return self.packed_list(region)

    def _is_compressed(self, region: Region, address: int) -> bool:
        """How many bytes there are, up to 6.2 in four bytes, and these."""
        size = self.contents.word(address) or 0
        return any(
            length and fits(region.size, head + length)
            for head, length in ((WORD, size), (WORD // 2, size & 0xFFFFFFFF))
        )

    def packed_list(self, region: Region) -> Optional[str]:
        """``listpack`` or ``ziplist`` if it is one."""
        if packed.listpack(region.data, region.size):
            return "listpack"
        return "ziplist" if packed.ziplist(region.data, region.size) else None

    def is_quicklist(self, region: Region) -> bool:
        """First and last node, how many items and nodes."""
        if region.size < QUICKLIST or not fits(region.size, QUICKLIST):
            return False
        head, tail, count, length = region.words[:4]
        if not 0 < length <= count < COUNT_MAX:
            return False
        first = self.start(head, 32)
        last = self.start(tail, 32)
        if first is None or last is None or first.words[0] or last.words[1]:
            return False
        return self.quicklist_node(first) is not None and (head == tail) == (length == 1)

    def is_list(self, region: Region) -> bool:
        """First and last node, three functions or none, how many."""
        if region.size != LIST:
            return False
        head, tail, *functions, length = region.words
        if any(each and not self.contents.in_module(each) for each in functions):
            return False
        if not head:
            return not tail and not length and any(functions)
        first, last = self.start(head, LIST_NODE), self.start(tail, LIST_NODE)
        if first is None or last is None or not 0 < length < COUNT_MAX:
            return False
        return not first.words[0] and not last.words[1] and (head == tail) == (length == 1)

    def is_list_node(self, region: Region) -> bool:
        """One before, one after, of which at least one is there and points back, a value."""
        if region.size < LIST_NODE or not fits(region.size, LIST_NODE):
            return False
        before, after, value = region.words[:3]
        if not (before or after) or before == after or self.region(value) is None:
            return False
        for address, back in ((before, 1), (after, 0)):
            other = self.start(address, LIST_NODE) if address else None
            if address and (other is None or other.words[back] != region.address):
                return False
            if other is not None and other.size != region.size:
                return False
        return True

    # Radix trees and streams

    def is_rax(self, region: Region) -> bool:
        """First node, how many keys, how many nodes: as many as there are of a small one."""
        if region.size < RAX or region.size > 2 * RAX:
            return False
        head, keys, number = region.words[:3]
        first = self.start(head)
        if first is None or not 0 < number < COUNT_MAX or keys > number:
            return False
        if number == 1 and not keys:
            return not any(first.data[:4]) and fits(first.size, 4)
        nodes = list(islice(self.rax_nodes(head), RAX_NODES_MAX))
        if any(node is None for node in nodes):
            return False
        if len(nodes) == RAX_NODES_MAX:
            return number >= RAX_NODES_MAX
        return number == len(nodes) and keys == sum(node.key for node in nodes if node)

    def is_rax_node(self, region: Region) -> bool:
        """One that has nodes below it, which all are nodes; those at the ends tell nothing."""
        node = rax_node(region)
        if node is None or not node.children:
            return False
        below = (self.start(each) for each in node.children)
        return all(each is not None and rax_node(each) is not None for each in below)

    def rax_nodes(self, head: int) -> Iterator[Optional[RaxNode]]:
        """The nodes of a tree below ``head``; None, and the end, where one is none."""
        left = [head]
        while left:
            address = left.pop()
            region = self.start(address)
            node = rax_node(region) if region is not None else None
            yield node
            if node is None:
                return
            left.extend(node.children)

    def is_stream(self, region: Region) -> bool:
        """The tree of its entries, how many, the last ID, more by release, that of groups."""
        for size, at in STREAMS:
            if region.size >= size and fits(region.size, size):
                words = region.words
                tree = self.is_tree(words[0]) and (not words[at] or self.is_tree(words[at]))
                if tree and words[1] < COUNT_MAX:
                    return True
        return False

    def is_group(self, region: Region) -> bool:
        """A group of a stream: its last ID, from 7.0 on a count, two trees."""
        words = region.words
        return any(
            self.is_tree(first) and self.is_tree(second)
            for first, second in zip(words[2:4], words[3:5])
        )

    def is_tree(self, address: int) -> bool:
        """Whether a tree begins there."""
        region = self.start(address, RAX)
        return region is not None and self.is_rax(region)

    def is_consumer(self, region: Region) -> bool:
        """A consumer of a group: when it was seen, from 7.2 on active, its name, a tree."""
        words = region.words
        return any(
            self.is_string(name) and self.is_tree(tree)
            for name, tree in zip(words[1:3], words[2:4])
        )

    def is_pending(self, region: Region) -> bool:
        """What a consumer got and has not acknowledged: when, how often, the consumer."""
        if not region.words[0] or not 0 < region.words[1] < COUNT_MAX:
            return False
        consumer = self.start(region.words[2], RAX)
        return consumer is not None and self.is_consumer(consumer)
