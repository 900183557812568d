"""What of huge pages was never written to, of memory made by hand."""

from __future__ import annotations

from typing import Dict, Optional, Sequence

import pytest

from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.residence import (
    ABSENT,
    ANONYMOUS,
    FORKED,
    PAGEMAP,
    PRIVATE,
    STACK,
    Area,
    Residence,
    assembled,
)
from drain_gdb.debuggee.zeros import PIECE, READ_MAX, zero_share

PAGE = 4096
START = 0x7000_0000_0000
USED, ZERO = b"\1" + bytes(PAGE - 1), bytes(PAGE)


def residence_of(pages: Sequence[int], kind: str = ANONYMOUS, huge: int = 1 << 21) -> Residence:
    area = Area(START, START + len(pages) * PAGE, kind, resident=len(pages) * PAGE, huge=huge)
    return assembled(PAGEMAP, True, PAGE, [area], {0: bytes(pages)})


def share(pages: Sequence[int], data: bytes, **of_area: object) -> Optional[float]:
    target = BytesTarget({START: data})
    return zero_share(target, residence_of(pages, **of_area))  # type: ignore[arg-type]


def test_pages_of_zeros_are_counted() -> None:
    assert share([PRIVATE] * 4, USED + ZERO * 3) == 0.75
    assert share([PRIVATE] * 2, USED * 2) == 0
    assert share([PRIVATE] * 40, ZERO * 30 + USED * 10) == 0.75


def test_a_last_byte_is_enough() -> None:
    assert share([PRIVATE] * 2, ZERO + ZERO[:-1] + b"\1") == 0.5


def test_pages_that_are_not_there_or_shared_do_not_count() -> None:
    assert share([PRIVATE, ABSENT, FORKED, PRIVATE], USED + ZERO * 3) == 0.5
    assert share([ABSENT] * 4, ZERO * 4) is None


@pytest.mark.parametrize("of_area", [{"huge": 0}, {"kind": STACK}])
def test_only_memory_on_huge_pages_is_looked_at(of_area: Dict[str, object]) -> None:
    assert share([PRIVATE] * 4, ZERO * 4, **of_area) is None


def test_what_cannot_be_read_does_not_count() -> None:
    assert zero_share(BytesTarget({}), residence_of([PRIVATE] * 4)) is None
    pages = [PRIVATE] * (2 * PIECE // PAGE)
    assert share(pages, USED + ZERO * (PIECE // PAGE - 1)) == 15 / 16


class Counting(BytesTarget):
    """Zeros wherever they are asked for, and how many."""

    asked = 0

    def read(self, address: int, size: int) -> bytes:
        self.asked += size
        return bytes(size)


def test_of_much_memory_a_part_is_read() -> None:
    target = Counting({})
    assert zero_share(target, residence_of([PRIVATE] * (4 * READ_MAX // PAGE))) == 1
    assert target.asked == READ_MAX
