"""The radix tree from pages to extents (rtree.h)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import Coverage
from drain_gdb.layout.records import RtreeLayout
from drain_gdb.layout.sparse import element_size, used_parts
from drain_gdb.memory import WORD, Memory, Range, words_of

Stretch = Tuple[int, memoryview]
"""The address of a page, and the words of the elements of it and of those after it in a leaf."""


PIECE = 256
"""Leaf elements that are looked at together where single ones are asked for."""
NOTHING = (0,) * PIECE
LEAVES_MAX = 16
"""Leaves whose elements are remembered, some ten megabytes each at most."""
BACK_MAX = 1 << 40
"""Bytes: no single allocation is larger."""


class Rtree:
    """Reads of the tree at ``layout.root``."""

    def __init__(self, memory: Memory, layout: RtreeLayout, coverage: Coverage) -> None:
        self._memory = memory
        self._layout = layout
        self._coverage = coverage
        self._taken: List[Range] = []
        self._leaves: Dict[int, Tuple[List[int], List[int]]] = {}

    def leaves(self) -> Iterator[Tuple[int, List[Stretch]]]:
        """``(base, stretches)`` of each leaf: its first address, what it holds in order.

        Most empty elements are left out; so are unreadable parts, which are counted in
        the coverage.
        """
        layout = self._layout
        self._taken.clear()
        self._take(layout.root, 0)
        for base, leaf in self._nodes(layout.root, 0, 0):
            element = layout.leaf_words * WORD
            yield (
                base,
                [
                    (base + ((at - leaf) // element << layout.lg_page), words)
                    for at, words in self.stretches(leaf, len(layout.bits) - 1, base)
                ],
            )

    def elements(self, pages: Iterable[int]) -> Iterator[int]:
        """The leaf element's first word of each of ``pages``, ascending addresses.

        0 where there is none, or none that can be read.
        """
        layout = self._layout
        start = end = 0
        words: Sequence[int] = ()
        for page in pages:
            if not start <= page < end:
                start = page & -(PIECE << layout.lg_page)
                words = self._piece(start)
                end = start + (PIECE << layout.lg_page)
            yield words[page - start >> layout.lg_page]

    def last_before(self, address: int) -> int:
        """The first word of the last element at or before ``address`` that names an extent.

        Of large extents only the first page and the last one are in the tree.  0 where there
        is none within ``BACK_MAX`` bytes.
        """
        lg_page, mask, span = (
            self._layout.lg_page,
            self._layout.pointer_mask,
            self._layout.leaf_span,
        )
        (element,) = self.elements([address & -1 << lg_page])
        if element & mask:
            return element
        base = address & -span
        while base >= max(0, address - BACK_MAX):
            pages, words = self._named(base)
            row = bisect_right(pages, address >> lg_page) - 1
            if row >= 0:
                return words[row]
            base -= span
        return 0

    def _named(self, base: int) -> Tuple[List[int], List[int]]:
        """The pages, ascending, for which the leaf from ``base`` on names extents, and how."""
        if base not in self._leaves:
            if len(self._leaves) >= LEAVES_MAX:
                self._leaves.clear()
            self._leaves[base] = self._read_leaf(base)
        return self._leaves[base]

    def _read_leaf(self, base: int) -> Tuple[List[int], List[int]]:
        layout, mask = self._layout, self._layout.pointer_mask
        try:
            leaf = self._leaf(base)
        except UnreadableMemory:
            leaf = 0
        pages: List[int] = []
        words: List[int] = []
        if leaf:
            size = layout.leaf_words * WORD
            for at, found in self.stretches(leaf, len(layout.bits) - 1, base):
                first = (base >> layout.lg_page) + (at - leaf) // size
                for number, word in enumerate(found[:: layout.leaf_words]):
                    if word & mask:
                        pages.append(first + number)
                        words.append(word)
        return pages, words

    def _piece(self, address: int) -> Sequence[int]:
        """The first words of the ``PIECE`` leaf elements from that of ``address`` on."""
        layout = self._layout
        try:
            node = self._leaf(address)
            if not node:
                return NOTHING
            key = address >> layout.lg_page & (1 << layout.bits[-1]) - 1
            at = node + WORD * layout.leaf_words * key
            # The leaf is read whole by leaves(), and counted there.
            ((_, piece),) = self._memory.rows(at, PIECE * layout.leaf_words * WORD, 1, ())
            return words_of(piece)[:: layout.leaf_words]
        except UnreadableMemory:
            return NOTHING

    def _leaf(self, address: int) -> int:
        """The leaf for ``address``, 0 where there is none; :class:`UnreadableMemory`."""
        layout = self._layout
        node, shift = layout.root, layout.lg_page + sum(layout.bits)
        if address >> shift:
            return 0
        for bits in layout.bits[:-1]:
            shift -= bits
            node = self._memory.u64(node + WORD * (address >> shift & (1 << bits) - 1))
            if not node:
                return 0
        return node

    def stretches(self, node: int, level: int, base: int) -> Iterator[Stretch]:
        """The elements of ``node``, which covers the addresses from ``base`` on.

        Those for addresses where nothing is mapped are null and, where that is known,
        not read (layout/sparse.py).
        """
        memory, layout = self._memory, self._layout
        size = element_size(layout, level) << layout.bits[level]
        if memory.mapped is None:
            yield from memory.block(node, size).stretches()
            return
        at = 0
        for start, end in used_parts(layout, level, memory.mapped, base):
            memory.suppose_zero(node + at, node + start)
            yield from memory.block(node + start, end - start).stretches()
            at = end
        memory.suppose_zero(node + at, node + size)

    def _nodes(self, node: int, level: int, base: int) -> Iterator[Tuple[int, int]]:
        """``(base, address)`` of each leaf below ``node``."""
        bits = self._layout.bits
        if level == len(bits) - 1:
            yield base, node
            return
        shift = self._layout.lg_page + sum(bits[level + 1 :])
        for address, child in self._children(node, level, base):
            start = base + ((address - node) // WORD << shift)
            if not self._memory.readable(child):
                self._coverage.anomaly(
                    f"rtree node {child:#x} (for addresses from {start:#x}) cannot be read"
                )
                self._memory.bytes_unreadable += WORD << bits[-1]
                continue
            if not self._take(child, level + 1):
                self._coverage.anomaly(
                    f"rtree node {child:#x} (for addresses from {start:#x}) lies in another"
                )
                continue
            yield from self._nodes(child, level + 1, start)

    def _children(self, node: int, level: int, base: int) -> Iterator[Tuple[int, int]]:
        """``(address, word)`` of each element of ``node`` that is not null."""
        for start, words in self.stretches(node, level, base):
            for index, word in enumerate(words):
                if word:
                    yield start + index * WORD, word

    def _take(self, node: int, level: int) -> bool:
        """Note the place of a node; False where another one has part of it.

        So that a damaged tree, which may lead anywhere, has no more nodes than there is
        room for.
        """
        width = self._layout.leaf_words if level == len(self._layout.bits) - 1 else 1
        end = node + (width * WORD << self._layout.bits[level])
        row = bisect_left(self._taken, (node, end))
        before, after = self._taken[max(row - 1, 0) : row], self._taken[row : row + 1]
        if any(start < end and node < stop for start, stop in before + after):
            return False
        self._taken.insert(row, (node, end))
        return True


def require_root(memory: Memory, layout: RtreeLayout) -> None:
    """Raise :class:`UnreadableMemory` where not even the root can be read."""
    before, size = memory.bytes_unreadable, WORD << layout.bits[0]
    for _ in Rtree(memory, layout, Coverage()).stretches(layout.root, 0, 0):
        pass
    if memory.bytes_unreadable - before == size:
        raise UnreadableMemory(layout.root, size, "the rtree's root")
