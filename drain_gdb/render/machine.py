"""A sweep for programs: JSON, CSV and the INFO keys of the known instrumentation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Dict, Optional, Sequence, Tuple

from drain_gdb.analysis.report import (
    BinRow,
    ExtentRow,
    LargeRow,
    Occupancy,
    SlabRow,
    Sweep,
    Tolerance,
)
from drain_gdb.render.rows import Table, csv_text

SCHEMA = "drain_gdb.sweep/1"


def as_json(reports: Sequence[Sweep]) -> str:
    """One JSON object and a newline.

    It is the report of the first allocator; those of further ones stand in it under
    ``other_allocators``.
    """
    first, *others = map(as_dict, reports)
    content = {**first, "other_allocators": others} if others else first
    # In ASCII alone: what a process calls itself may hold characters that steer a terminal.
    return json.dumps(content, indent=2) + "\n"


def as_dict(report: Sweep) -> Dict[str, Any]:
    """The report under its public keys."""
    process, allocator, extents = report.process, report.allocator, report.extents
    verification, coverage = report.verification, report.coverage
    content: Dict[str, Any] = {
        "schema": SCHEMA,
        "process": {key: value for key, value in asdict(process).items() if key != "damage"},
        "allocator": {
            "name": allocator.name,
            "version": allocator.version,
            "symbol_prefix": allocator.symbol_prefix,
            "layout_source": allocator.layout_source,
            "page_size": allocator.page_size,
            "statistics": allocator.statistics,
            "arenas": allocator.arenas,
            "thread_caches": allocator.thread_caches,
            "thread_cache_bytes": allocator.thread_cache_bytes,
            "module": allocator.module,
            "not_swept": list(allocator.others),
        },
        "selection": asdict(report.selection),
        "totals": {**_state(report.totals), "partial": coverage.partial},
        "bins": [{**_bin(row), "partial": coverage.partial} for row in report.bins],
    }
    if report.slabs is not None:
        content["slabs"] = [_slab(row) for row in report.slabs]
    if report.extent_rows is not None:
        content["extent_rows"] = [_extent(row) for row in report.extent_rows]
    content["large_bins"] = [asdict(row) for row in report.large]
    content["arenas"] = [asdict(row) for row in report.arenas]
    content["extents"] = asdict(extents)
    content["counters"] = {
        "requests": asdict(report.requests),
        "arena": asdict(report.arena_counters),
    }
    content["verification"] = {
        **asdict(verification),
        "believed": report.believed,
        "tolerance": None if report.tolerance is None else _tolerance(report.tolerance),
    }
    if report.settings is not None:
        content["settings"] = asdict(report.settings)
        del content["settings"]["clock"]
    if report.account is not None:
        content["causes"] = [asdict(cause) for cause in report.causes]
    content["coverage"] = {
        **asdict(coverage),
        "partial": coverage.partial,
        "readable": coverage.readable,
        "anomalies": list(coverage.anomalies),
        "missing": list(coverage.missing),
    }
    content["account"] = None if report.account is None else asdict(report.account)
    return content


def _tolerance(tolerance: Tolerance) -> Dict[str, Any]:
    return {**asdict(tolerance), "within": tolerance.within}


def _state(state: Occupancy) -> Dict[str, Any]:
    names = (
        *("slabs", "drainable", "empty", "cache_held", "pinned", "dsr", "dsr_bitmap"),
        *("regions", "live", "cached", "free"),
        *("slab_bytes", "live_bytes", "waste_bytes", "occupancy"),
        *("ideal_slabs", "retention_ratio"),
        *("allocated", "allocated_bytes", "free_bytes", "utilization"),
    )
    return {name: getattr(state, name) for name in names}


def _bin(row: BinRow) -> Dict[str, Any]:
    return {
        "arena": row.arena,
        "shard": row.shard,
        "index": row.index,
        "size": row.size,
        "slab_size": row.slab_size,
        "nregs": row.nregs,
        **_state(row.state),
        "occupancy_histogram": None if row.state.histogram is None else list(row.state.histogram),
    }


def _slab(row: SlabRow) -> Dict[str, Any]:
    return {
        "address": hex(row.address),
        "arena": row.arena,
        "shard": row.shard,
        "index": row.index,
        "size": row.size,
        "nregs": row.nregs,
        "allocated": row.allocated,
        "cached": row.cached,
        "live": row.live,
    }


def _extent(row: ExtentRow) -> Dict[str, Any]:
    return {**asdict(row), "address": hex(row.address)}


RATES = ("dsr", "dsr_bitmap", "occupancy", "utilization", "retention_ratio")
OTHERS = {"address": "address", "occupancy_histogram": "ints", "state": "str", "partial": "bool"}


def table(report: Sweep) -> Table:
    """A row a bin, slab, size class of large allocations or extent, under the JSON keys.

    Every row says whether the sweep is partial, as JSON does.
    """
    if report.extent_rows is not None:
        names = list(asdict(ExtentRow(0, 0, "", None, 0)))
        rows = [asdict(row) for row in report.extent_rows]
    elif report.selection.by == "large":
        names = list(asdict(LargeRow(0, 0, 0, 0, 0, 0, None)))
        rows = [asdict(row) for row in report.large]
    elif report.slabs is None:
        names = list(_bin(BinRow(None, None, 0, 0, 0, 0, report.totals)))
        rows = [_bin(row) for row in report.bins]
    else:
        names = list(_slab(SlabRow(0, 0, 0, 0, 0, 0, 0, 0)))
        rows = [{**_slab(row), "address": row.address} for row in report.slabs]
    for row in rows:
        row["partial"] = report.coverage.partial
    types = {**dict.fromkeys(RATES, "float"), **OTHERS}
    return Table({name: types.get(name, "int") for name in [*names, "partial"]}, rows)


def as_csv(report: Sweep) -> str:
    """The table with a header; unknown is empty.

    The ten steps of a bin's histogram stand in one cell, spaces between them.
    """
    return csv_text(table(report))


FastCalls = Optional[Tuple[Optional[int], Optional[int]]]
"""Calls through the malloc and the free fast path; None where nothing was hooked."""


def as_info(report: Sweep, fast_calls: FastCalls = None) -> str:
    """``key:value`` lines; an unknown value is left empty.

    A partial sweep says so in a line of its own; where no layout fits nothing is known.
    The last two are there while hooks count, and after that.
    """
    totals, requests = report.totals, report.requests
    lines = [
        ("mem_drainability_ratio", "" if totals.dsr is None else f"{totals.dsr:.4f}"),
        ("mem_drainprof_total_extents", totals.slabs),
        ("mem_drainprof_drainable_extents", "" if totals.drainable is None else totals.drainable),
        ("mem_drainprof_pinned_extents", "" if totals.pinned is None else totals.pinned),
        ("mem_drainprof_total_allocs", "" if requests.allocs is None else requests.allocs),
        ("mem_drainprof_total_deallocs", "" if requests.deallocs is None else requests.deallocs),
    ]
    if not report.believed:
        lines = [(key, "") for key, _ in lines]
    if report.coverage.partial or not report.believed:
        lines.append(("mem_drainprof_partial", 1))
    if fast_calls is not None:
        allocs, frees = ("" if calls is None else calls for calls in fast_calls)
        lines.append(("mem_drainprof_malloc_fastpath_calls", allocs))
        lines.append(("mem_drainprof_free_fastpath_calls", frees))
    return "".join(f"{key}:{value}\n" for key, value in lines)


def as_malloc_stats(tree: Dict[str, Any]) -> str:
    """The tree as jemalloc prints it since 5.3 (option J): one line, in its order."""
    return json.dumps(tree, separators=(",", ":")) + "\n"
