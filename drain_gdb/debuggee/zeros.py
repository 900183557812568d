"""How much of what lies on transparent huge pages was never written to.

The system gives out zeroed memory, two megabytes of it at once where pages are huge.  A
small page of it that still holds nothing but zeros would not be resident without them.
"""

from __future__ import annotations

from typing import Iterator, Optional, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.residence import ANONYMOUS, PRIVATE, Residence
from drain_gdb.errors import UnreadableMemory

PIECE = 1 << 16
READ_MAX = 32 << 20
"""Bytes that are read at most; of more memory pieces are taken at even distances."""


def zero_share(target: Target, residence: Residence) -> Optional[float]:
    """The share of the resident pages in areas with huge pages that hold but zeros.

    None where there are none, or none can be looked at.  Nothing is kept of what is read.
    """
    pieces = list(_pieces(residence))
    step = max(1, len(pieces) * PIECE // READ_MAX)
    zero = bytes(residence.page)
    seen = empty = 0
    for start, states in pieces[::step]:
        try:
            data = target.read(start, len(states) * residence.page)
        except UnreadableMemory:
            continue
        for row, state in enumerate(states):
            if state == PRIVATE:
                seen += 1
                empty += data[row * residence.page : (row + 1) * residence.page] == zero
    return empty / seen if seen else None


def _pieces(residence: Residence) -> Iterator[Tuple[int, bytes]]:
    """``(start, state of each page)`` of pieces of memory that has huge pages in it."""
    pages = PIECE // residence.page
    for area in residence.areas:
        if area.kind != ANONYMOUS or not area.huge or area.first is None:
            continue
        last = area.first + area.size // residence.page
        for first in range(area.first, last, pages):
            states = residence.pages[first : min(first + pages, last)]
            if PRIVATE in states:
                yield area.start + (first - area.first) * residence.page, states
