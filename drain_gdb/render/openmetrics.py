"""A sweep as OpenMetrics 1.0 text: what a collector of metrics scrapes, or finds in a file.

Labels are size classes, parts, causes and allocators: their values are few and do not grow.
What is not known has no sample.  The types are those that Prometheus' older text form has too,
so that collectors of files (node_exporter) take it.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union

from drain_gdb.analysis.report import BinRow, Part, Sweep
from drain_gdb.render.style import printable

Number = Union[int, float]
STATUSES = ("exact", "mismatch", "unavailable")
EXTENTS = ("large", "dirty", "muzzy", "retained", "metadata")


class Sample(NamedTuple):
    """A value under its labels; None where it is not known."""

    labels: Mapping[str, object]
    value: Optional[Number]


class Family(NamedTuple):
    """A metric family: samples that differ in their labels alone.

    ``suffix`` is what samples of its type have behind the name.
    """

    name: str
    type: str
    help: str
    samples: Sequence[Sample]
    unit: str = ""
    suffix: str = ""


def as_openmetrics(reports: Sequence[Sweep]) -> str:
    """The exposition of all allocators of a process, ``# EOF`` at its end."""
    lines: List[str] = []
    for family in _families(reports):
        samples = [sample for sample in family.samples if sample.value is not None]
        if not samples:
            continue
        lines.append(f"# TYPE {family.name} {family.type}")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}")
        lines.append(f"# HELP {family.name} {family.help}")
        lines += [_line(family.name + family.suffix, sample) for sample in samples]
    return "\n".join([*lines, "# EOF", ""])


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    return f"{name}{{{labels}}} {sample.value}" if labels else f"{name} {sample.value}"


def _escaped(value: object) -> str:
    # Without control characters, whatever a process calls itself.
    return printable(str(value)).replace("\\", "\\\\").replace('"', '\\"')


def _families(reports: Sequence[Sweep]) -> Iterator[Family]:
    yield from _of_process(reports[0])
    yield from _of_bins(reports)
    yield from _of_heaps(reports)


def _named(reports: Sequence[Sweep]) -> Iterator[Dict[str, object]]:
    """The label of each allocator: its number, as the account has it."""
    for number, _ in enumerate(reports):
        yield {"allocator": number}


def _of_process(report: Sweep) -> Iterator[Family]:
    account = report.account
    if account is not None:
        yield Family(
            "drain_resident_bytes",
            "gauge",
            "Resident memory of the process, by what it is; the parts add up to RSS.",
            [
                Sample(
                    {
                        "part": part.part,
                        "allocator": "" if part.allocator is None else part.allocator,
                    },
                    part.resident_bytes,
                )
                for part in account.parts
            ],
            "bytes",
        )
    yield Family(
        "drain_cause_bytes",
        "gauge",
        "Resident memory that need not be there, by cause and whether it goes by itself.",
        list(_causes(report)),
        "bytes",
    )


def _number(part: Part) -> object:
    return "" if part.allocator is None else part.allocator


def _causes(report: Sweep) -> Iterator[Sample]:
    sums: Dict[Sequence[str], int] = {}
    for cause in report.causes:
        key = cause.cause, cause.goes_by_itself
        sums[key] = sums.get(key, 0) + cause.bytes
    for (name, goes), value in sums.items():
        yield Sample({"cause": name, "goes_by_itself": goes}, value)


def _of_bins(reports: Sequence[Sweep]) -> Iterator[Family]:
    def by_state(states: Sequence[str]) -> List[Sample]:
        return [
            Sample({**_bin(label, row), "state": state}, getattr(row.state, state))
            for label, report in zip(_named(reports), reports)
            for row in report.bins
            for state in states
        ]

    def plain(name: str) -> List[Sample]:
        rows = zip(_named(reports), reports)
        return [
            Sample(_bin(label, row), getattr(row.state, name))
            for label, report in rows
            for row in report.bins
        ]

    slabs = ("empty", "cache_held", "pinned")
    yield Family("drain_slabs", "gauge", "Slabs by size class and state.", by_state(slabs))
    regions = ("live", "cached", "free")
    yield Family("drain_regions", "gauge", "Regions by size class and state.", by_state(regions))
    yield Family("drain_slab_bytes", "gauge", "Bytes of slabs.", plain("slab_bytes"), "bytes")
    yield Family(
        "drain_live_bytes", "gauge", "Bytes of live regions.", plain("live_bytes"), "bytes"
    )
    yield Family(
        "drain_waste_bytes",
        "gauge",
        "Bytes of slabs that hold no live region.",
        plain("waste_bytes"),
        "bytes",
    )


def _bin(label: Mapping[str, object], row: BinRow) -> Dict[str, object]:
    labels = {**label, "size": row.size}
    if row.arena is not None:
        labels["arena"] = row.arena
    return labels


def _of_heaps(reports: Sequence[Sweep]) -> Iterator[Family]:
    labels = list(_named(reports))

    def each(values: Iterable[Optional[Number]], **more: object) -> List[Sample]:
        return [Sample({**label, **more}, value) for label, value in zip(labels, values)]

    yield Family(
        "drain_drainability_ratio",
        "gauge",
        "Drainable slabs of all slabs (DSR): live, and by bitmaps alone.",
        [
            *each([report.totals.dsr for report in reports], view="live"),
            *each([report.totals.dsr_bitmap for report in reports], view="bitmap"),
        ],
        "ratio",
    )
    yield Family(
        "drain_occupancy_ratio",
        "gauge",
        "Live regions of all regions.",
        each([report.totals.occupancy for report in reports]),
        "ratio",
    )
    yield Family(
        "drain_retention_ratio",
        "gauge",
        "Slabs for each slab that would be needed.",
        each([report.totals.retention_ratio for report in reports]),
        "ratio",
    )
    yield Family(
        "drain_extent_bytes",
        "gauge",
        "Bytes outside slabs, by what they are.",
        [
            Sample({**label, "kind": kind}, getattr(report.extents, f"{kind}_bytes"))
            for label, report in zip(labels, reports)
            for kind in EXTENTS
        ],
        "bytes",
    )
    for name, what in (("allocs", "Allocations"), ("deallocs", "Deallocations")):
        yield Family(
            f"drain_{name}",
            "counter",
            f"{what} requested since the start, by jemalloc's own counters.",
            each([getattr(report.requests, name) for report in reports]),
            suffix="_total",
        )
    yield Family(
        "drain_verification",
        "gauge",
        "1 for what the walk is against jemalloc's own statistics.",
        [
            Sample({**label, "status": status}, int(report.verification.status == status))
            for label, report in zip(labels, reports)
            for status in STATUSES
        ],
    )
    yield Family(
        "drain_partial",
        "gauge",
        "1 where part of the metadata could not be read.",
        each([int(report.coverage.partial) for report in reports]),
    )
    yield Family(
        "drain_allocator_info",
        "gauge",
        "What was swept.",
        [
            Sample(
                {
                    **label,
                    "version": report.allocator.version or "",
                    "module": report.allocator.module or "",
                    "program": report.process.name or "",
                },
                1,
            )
            for label, report in zip(labels, reports)
        ],
    )
