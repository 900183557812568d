"""Reports made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Sequence, Tuple

from drain_gdb.analysis.account import OF_AREA
from drain_gdb.analysis.report import (
    Account,
    Allocator,
    BinRow,
    CounterPair,
    CoverageTotals,
    ExtentTotals,
    Occupancy,
    Part,
    Selection,
    SlabRow,
    Sweep,
)
from drain_gdb.debuggee.protocol import Process
from drain_gdb.jemalloc.heap import Mismatch, Verification

MIB = 1 << 20
NOT_JEMALLOC = tuple(OF_AREA.values())


def state(slabs: int, nregs: int, size: int, live: int, cached: int = 0, **other: Any) -> Occupancy:
    """Slabs of one size class, all equally full unless ``other`` says more."""
    values = {
        "slabs": slabs,
        "empty": 0,
        "cache_held": 0,
        "regions": slabs * nregs,
        "allocated": live + cached,
        "cached": cached,
        "slab_bytes": slabs * nregs * size,
        "allocated_bytes": (live + cached) * size,
        "cached_bytes": cached * size,
        "drainable_bytes": 0,
        "ideal_slabs": -(-live // nregs),
        "histogram": (0, 0, 0, 0, 0, slabs, 0, 0, 0, 0),
    }
    return Occupancy(**{**values, **other})


def row(size: int, occupancy: Occupancy, **other: Any) -> BinRow:
    nregs = occupancy.regions // occupancy.slabs
    values = {"arena": None, "shard": None, "index": size // 16, "size": size}
    return BinRow(**{**values, "slab_size": nregs * size, "nregs": nregs, **other}, state=occupancy)


def account_of(*, allocator: int | None = 0, source: str = "pagemap", **parts: int) -> Account:
    """An account of the parts of one jemalloc, all resident, in bytes."""
    known = source != "sizes"
    held = tuple(
        Part(
            name,
            None if name in NOT_JEMALLOC else allocator,
            size,
            size if known else None,
            shared_bytes=0,
            huge_bytes=0,
        )
        for name, size in parts.items()
    )
    total = sum(parts.values()) if known else None
    return Account(total, source if known else None, held, known, 0, 0, 0)


def sweep_of(*rows: BinRow, slabs: Sequence[SlabRow] | None = None, **other: Any) -> Sweep:
    """A verified sweep of ``rows`` with little memory elsewhere."""
    totals = [r.state for r in rows]

    def total(name: str) -> int:
        return sum(getattr(t, name) for t in totals)

    names = ("slabs", "empty", "cache_held", "regions", "allocated", "cached")
    names += ("slab_bytes", "allocated_bytes", "cached_bytes", "drainable_bytes", "ideal_slabs")  # type: ignore[assignment]
    histogram: Tuple[int, ...] = tuple(map(sum, zip(*(t.histogram for t in totals)))) or (0,) * 10
    sums = Occupancy(**{name: total(name) for name in names}, histogram=histogram)
    report = Sweep(
        process=Process("core", 42, "server", "/usr/bin/server", "gdb", None),
        allocator=Allocator(
            "jemalloc", "5.3.0-0-gabc", None, "discovered", 4096, True, 1, 2, "/lib/libj.so", ()
        ),
        selection=Selection("bin" if slabs is None else "slab"),
        totals=sums,
        bins=rows,
        slabs=None if slabs is None else tuple(slabs),
        extents=ExtentTotals(MIB, 3, 0, 0, 0, 0, 0, 0, 0, 0, 2 * MIB),
        requests=CounterPair(1000, 900),
        arena_counters=CounterPair(500, 400),
        verification=Verification("exact", sums.slabs, sums.slabs, 7, 7, ()),
        coverage=CoverageTotals(12345, 0, 0, 0, 0, ()),
    )
    return replace(report, **other)


MISMATCH = Verification("mismatch", 10, 11, 7, 9, (Mismatch(0, 3, "slabs", 10, 11),))
PARTIAL = CoverageTotals(12345, 3 * MIB, 17, 1, 0, ("thread cache 0x7f00 cannot be read",))
