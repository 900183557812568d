"""The radix tree from pages to extents (rtree.h)."""

from __future__ import annotations

from typing import Iterator, List, Sequence, Set, Tuple

from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.heap import Coverage
from drain_gdb.layout.records import RtreeLayout
from drain_gdb.memory import CACHE_PAGE, WORD, Block, Memory, Range, words_of


class Rtree:
    """Reads of the tree at ``layout.root``."""

    def __init__(self, memory: Memory, layout: RtreeLayout, coverage: Coverage) -> None:
        self._memory = memory
        self._layout = layout
        self._coverage = coverage

    def leaves(self) -> Iterator[Tuple[int, Sequence[int]]]:
        """``(base, elements)`` of each leaf: its first address, its elements in order.

        An element is its first word, which holds the extent's pointer.

        Stretches of empty elements are left out; so are unreadable parts, which are
        counted in the coverage.
        """
        seen: Set[int] = set()
        for base, leaf in self._nodes(self._layout.root, 0, 0):
            if leaf in seen:
                self._coverage.anomaly(f"rtree leaf {leaf:#x} is linked twice")
                continue
            seen.add(leaf)
            words = words_of(self.array(leaf, len(self._layout.bits) - 1, base).packed())
            yield base, words[:: self._layout.leaf_words]

    def element(self, address: int) -> int:
        """The leaf element's first word for the page at ``address``; 0 where there is none.

        Raises :class:`UnreadableMemory`.
        """
        layout = self._layout
        node = layout.root
        shift = layout.lg_page + sum(layout.bits)
        if address >> shift:
            return 0
        for bits in layout.bits[:-1]:
            shift -= bits
            node = self._memory.u64(node + WORD * (address >> shift & (1 << bits) - 1))
            if not node:
                return 0
        key = address >> layout.lg_page & (1 << layout.bits[-1]) - 1
        return self._memory.u64(node + WORD * layout.leaf_words * key)

    def array(self, node: int, level: int, base: int) -> Block:
        """The elements of ``node``, which covers the addresses from ``base`` on.

        Those for addresses where nothing is mapped are null (an extent leaves the tree
        before its pages are unmapped) and, where that is known, not read.
        """
        layout = self._layout
        stride = WORD * (layout.leaf_words if level == len(layout.bits) - 1 else 1)
        size = stride << layout.bits[level]
        if self._memory.mapped is None:
            return self._memory.block(node, size)
        shift = layout.lg_page + sum(layout.bits[level + 1 :])
        used: List[Range] = []
        for start, end in self._memory.mapped:
            first = max(start - base, 0) >> shift
            last = min(-((base - end) >> shift), 1 << layout.bits[level])
            if first < last:
                begin, finish = node + first * stride, node + last * stride
                if used and begin - used[-1][1] < CACHE_PAGE:
                    begin = used.pop()[0]
                used.append((begin, finish))
        return self._memory.block(node, size, used)

    def _nodes(self, node: int, level: int, base: int) -> Iterator[Tuple[int, int]]:
        """``(base, address)`` of each leaf below ``node``."""
        bits = self._layout.bits
        if level == len(bits) - 1:
            yield base, node
            return
        shift = self._layout.lg_page + sum(bits[level + 1 :])
        block = self.array(node, level, base)
        for address, child in block.nonzero_words():
            start = base + ((address - node) // WORD << shift)
            if not self._memory.readable(child):
                self._coverage.anomaly(
                    f"rtree node {child:#x} (for addresses from {start:#x}) cannot be read"
                )
                self._memory.bytes_unreadable += WORD << bits[-1]
                continue
            yield from self._nodes(child, level + 1, start)


def require_root(memory: Memory, layout: RtreeLayout) -> None:
    """Raise :class:`UnreadableMemory` where not even the root can be read."""
    root = Rtree(memory, layout, Coverage()).array(layout.root, 0, 0)
    if root.missing == len(root.data):
        raise UnreadableMemory(layout.root, len(root.data), "the rtree's root")
