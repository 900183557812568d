"""What jemalloc itself says of its heap in malloc_stats_print(), as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional, Tuple, Union

Setting = Union[str, int, bool]


@dataclass(frozen=True)
class BinFigures:
    """A size class with slabs, its shards together; sizes in bytes.

    ``nslabs``, the slabs made so far, is in the text form alone.
    """

    index: int
    size: int
    slab_size: int
    nregs: int
    curregs: int
    curslabs: int
    nmalloc: int
    ndalloc: int
    nrequests: int
    nslabs: Optional[int] = None


@dataclass(frozen=True)
class LargeFigures:
    """A size class of large allocations; extents that are there now."""

    index: int
    size: int
    count: int


@dataclass(frozen=True)
class ArenaFigures:
    """A section of the statistics: an arena, or all of them merged.

    What its section does not hold is None; amounts are in bytes.

    Attributes:
        small, large: bytes of small regions and large allocations, thread caches'
            included.
        dirty_decay_ms, muzzy_decay_ms: -1 for never.
        tcache: of what thread caches hold; ``base``, ``internal``: metadata.
        bins, extents: size classes that are in use or were; None where the options of
            malloc_stats_print() left them out.

    """

    threads: Optional[int]
    dirty_decay_ms: Optional[int]
    muzzy_decay_ms: Optional[int]
    active_pages: Optional[int]
    dirty_pages: Optional[int]
    muzzy_pages: Optional[int]
    small: Optional[int]
    large: Optional[int]
    mapped: Optional[int]
    retained: Optional[int]
    pinned: Optional[int]
    base: Optional[int]
    internal: Optional[int]
    tcache: Optional[int]
    resident: Optional[int]
    bins: Optional[Tuple[BinFigures, ...]]
    extents: Optional[Tuple[LargeFigures, ...]]


@dataclass(frozen=True)
class Statistics:
    """One output of malloc_stats_print(); None where it does not say.

    Attributes:
        length: bytes of the output.
        settings: ``opt.``, as they were when the process began; names without the prefix.
        current: settings that can change, as they are now.
        narenas: of which there may be, not all in use.
        resident: jemalloc's own estimate: all pages that are not retained count in full.
        background_threads: how many run.
        merged: all arenas together, None where jemalloc left it out, as it does where
            there is but one.
        arenas: by index.
        remarks: what is to be known of how it was read.

    """

    version: Optional[str]
    length: int
    settings: Mapping[str, Setting]
    current: Mapping[str, Setting]
    page: int
    quantum: int
    narenas: Optional[int]
    allocated: Optional[int]
    active: Optional[int]
    metadata: Optional[int]
    resident: Optional[int]
    mapped: Optional[int]
    retained: Optional[int]
    background_threads: Optional[int]
    merged: Optional[ArenaFigures]
    arenas: Mapping[int, ArenaFigures]
    remarks: Tuple[str, ...] = ()
