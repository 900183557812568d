"""Which parts of the radix tree need be read, against each address by itself."""

from __future__ import annotations

from random import Random
from typing import List, Optional, Set, Tuple

import pytest

from drain_gdb.layout.records import RtreeLayout
from drain_gdb.layout.sparse import element_size, used_parts

TREES = (
    RtreeLayout(0, (18, 18), 12, True, (1 << 48) - 128),
    RtreeLayout(0, (15, 15, 15), 12, False, (1 << 64) - 128),
)
PAGE = 4096


def _mapped(random: Random, below: int) -> List[Tuple[int, int]]:
    edges = sorted(random.sample(range(below // PAGE), 16))
    return [(start * PAGE, end * PAGE) for start, end in zip(edges[::2], edges[1::2])]


@pytest.mark.parametrize("tree", TREES, ids=["two levels", "three levels"])
@pytest.mark.parametrize("known", [True, False], ids=["base known", "base unknown"])
def test_each_page_in_use_has_its_element(tree: RtreeLayout, known: bool) -> None:
    random = Random(7)
    level = len(tree.bits) - 1
    count, size = 1 << tree.bits[level], element_size(tree, level)
    span = count << tree.lg_page
    for base in (0, 5 * span, 8191 * span):
        mapped = [(base + s, base + e) for s, e in _mapped(random, 2 * span)]
        given: Optional[int] = base if known else None
        parts = used_parts(tree, level, mapped, given)
        assert all(0 <= start < end <= count * size for start, end in parts)
        assert all(one[1] < other[0] for one, other in zip(parts, parts[1:]))
        held: Set[int] = set()
        for start, end in parts:
            held.update(range(start // size, end // size))
        pages = [page for s, e in mapped for page in range(s, e, PAGE)]
        needed = {page >> tree.lg_page for page in pages if not known or base <= page < base + span}
        assert {key % count for key in needed} <= held


def test_little_in_use_is_little_to_read() -> None:
    tree = TREES[0]
    (part,) = used_parts(tree, 1, [(0x7F0000001000, 0x7F0000003000)])
    assert part == (8, 24)
    root = used_parts(tree, 0, [(0x7F0000001000, 0x7F0000003000)], 0)
    assert root == [(0x7F0000001000 >> 30 << 3, (0x7F0000001000 >> 30 << 3) + 8)]
    assert used_parts(tree, 1, [(0, 1 << 40)]) == [(0, 1 << 21)]
    assert used_parts(tree, 1, []) == []
