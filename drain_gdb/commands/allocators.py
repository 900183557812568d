"""Which of several jemallocs of a process a command is for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, List, Optional, Sequence

from drain_gdb.errors import UsageError

if TYPE_CHECKING:
    from drain_gdb.jemalloc.heap import Heap

OPTION = "--allocator"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses one."""
    parser.add_argument(
        OPTION,
        metavar="PREFIX|N",
        help="of several jemallocs the one with this prefix of symbols, or the Nth from 0",
    )


def numbers(heaps: Sequence[Heap], wanted: Optional[str]) -> Optional[List[int]]:
    """The number of the heap that is wanted, alone; None where all are."""
    return None if wanted is None else [heaps.index(choose(heaps, wanted))]


def choose(heaps: Sequence[Heap], wanted: str) -> Heap:
    """The heap of that number or prefix of symbols."""
    prefixes = [heap.layout.prefix for heap in heaps]
    for number, (heap, prefix) in enumerate(zip(heaps, prefixes)):
        if wanted in (str(number), prefix):
            return heap
    raise UsageError(f"there is no allocator {wanted!r}", f"there are: {_names(prefixes)}")


def require_one(prefixes: Sequence[Optional[str]], what: str) -> None:
    """UsageError where there are several and ``what`` (such as "csv shows") takes one."""
    if len(prefixes) > 1:
        raise UsageError(
            f"this process holds {len(prefixes)} jemallocs, {what} one",
            f"choose it with {OPTION}: {_names(prefixes)}",
        )


def _names(prefixes: Sequence[Optional[str]]) -> str:
    return ", ".join(f"{number} ({_shown(prefix)})" for number, prefix in enumerate(prefixes))


def _shown(prefix: Optional[str]) -> str:
    return "no symbols" if prefix is None else prefix or "no prefix"
