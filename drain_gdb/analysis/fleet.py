"""Many processes in tables: what one report gives to them.

Rows are made of reports under their public keys, whether these were made just now or come
from a file that somebody else wrote: nothing of them is believed, all is checked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from drain_gdb.analysis.report import share
from drain_gdb.errors import ReportError

SWEEP, PINS = "drain_gdb.sweep/1", "drain_gdb.pins/1"
HOSTS, CLASSES, CAUSES, GROUPS = "hosts", "classes", "causes", "groups"
"""The tables."""
INTEGER_END = 1 << 63
"""Tables know no larger one."""
GRAVITY = ("exact", "unavailable", "within", "mismatch")
COUNTED = (
    *("slabs", "drainable", "empty", "cache_held", "pinned"),
    *("regions", "live", "cached", "free"),
    *("slab_bytes", "live_bytes", "waste_bytes", "ideal_slabs"),
)
"""Keys of the state of slabs that add up."""


@dataclass(frozen=True)
class HostRow:
    """A process: a core, a recording, a report; what is not known is None.

    Attributes:
        file: where it was found.
        host: the same within what was looked through, without its ending.
        kind: ``core``, ``recording``, ``report``, ``pins`` or ``statistics``.
        error_kind, error: why it could not be read, else None.
        status: ``exact``, ``within`` (the tolerance), ``mismatch`` or ``unavailable``, the worst
            of its jemallocs.
        partial: whether part of the metadata could not be read.
        resident_bytes: RSS.
        allocators, left_out: its jemallocs that were swept, and those that were not.
        slabs and what follows: sums over those that were.
        dsr, occupancy, retention_ratio: None where no layout fits.
        cause, cause_bytes: the largest.

    """

    file: str
    host: str
    kind: Optional[str] = None
    error_kind: Optional[str] = None
    error: Optional[str] = None
    name: Optional[str] = None
    pid: Optional[int] = None
    executable: Optional[str] = None
    taken_at: Optional[str] = None
    version: Optional[str] = None
    allocators: Optional[int] = None
    left_out: Optional[int] = None
    status: Optional[str] = None
    partial: Optional[bool] = None
    resident_bytes: Optional[int] = None
    slabs: Optional[int] = None
    drainable: Optional[int] = None
    empty: Optional[int] = None
    cache_held: Optional[int] = None
    pinned: Optional[int] = None
    regions: Optional[int] = None
    live: Optional[int] = None
    cached: Optional[int] = None
    free: Optional[int] = None
    slab_bytes: Optional[int] = None
    live_bytes: Optional[int] = None
    waste_bytes: Optional[int] = None
    ideal_slabs: Optional[int] = None
    dsr: Optional[float] = None
    occupancy: Optional[float] = None
    retention_ratio: Optional[float] = None
    large_bytes: Optional[int] = None
    dirty_bytes: Optional[int] = None
    muzzy_bytes: Optional[int] = None
    retained_bytes: Optional[int] = None
    metadata_bytes: Optional[int] = None
    cause: Optional[str] = None
    cause_bytes: Optional[int] = None

    @property
    def sound(self) -> bool:
        """Whether it could be read, all of it, and the accounting holds, if there is one."""
        whole = self.error is None and not self.partial and not self.left_out
        return whole and self.status != "mismatch"


@dataclass(frozen=True)
class ClassRow:
    """A size class of a process.

    Attributes:
        allocator: number of its jemalloc in the process.
        size, slab_size: bytes of a region and of a slab, which has ``nregs``.

    """

    file: str
    host: str
    allocator: int
    index: int
    size: int
    slab_size: int
    nregs: int
    slabs: Optional[int]
    drainable: Optional[int]
    empty: Optional[int]
    cache_held: Optional[int]
    pinned: Optional[int]
    regions: Optional[int]
    live: Optional[int]
    cached: Optional[int]
    free: Optional[int]
    slab_bytes: Optional[int]
    live_bytes: Optional[int]
    waste_bytes: Optional[int]
    ideal_slabs: Optional[int]
    dsr: Optional[float]
    occupancy: Optional[float]
    retention_ratio: Optional[float]


@dataclass(frozen=True)
class CauseRow:
    """Why memory of a process is resident, and the first remedy.

    Attributes:
        rank: 1 is the largest.
        share: of the resident memory.

    """

    file: str
    host: str
    rank: int
    cause: str
    bytes: int
    share: Optional[float]
    goes_by_itself: str
    remedy: Optional[str]
    remedy_bytes: Optional[int]
    how: Optional[str]
    evidence: str


@dataclass(frozen=True)
class GroupRow:
    """A group of objects that pins slabs of a process, as drainpins has it."""

    file: str
    host: str
    rank: int
    what: str
    recogniser: Optional[str]
    size: Optional[int]
    regions: int
    live_bytes: int
    share: Optional[float]
    alone_slabs: int
    alone_cached_slabs: int
    alone_bytes: int
    shared_bytes: int
    large_bytes: Optional[int]
    evidence: Optional[str]


TABLES: Mapping[str, Type[Any]] = {
    HOSTS: HostRow,
    CLASSES: ClassRow,
    CAUSES: CauseRow,
    GROUPS: GroupRow,
}
BESIDE = ("file", "host")
"""Columns that say where a row is from, which it is told when it is written."""
Cells = Dict[str, List[Tuple[Any, ...]]]
"""By table the rows of one file, without where they are from."""


def error_cells(kind: str, why: str) -> Cells:
    """What a file gives that cannot be read for an error of that ``kind``."""
    return {HOSTS: [_cells(HostRow, {"error_kind": kind, "error": why})]}


def cells_of(content: Mapping[str, Any], kind: str, left_out: int = 0) -> Cells:
    """What a report of drainsweep or drainpins gives, read from a file of that ``kind``.

    ``left_out`` are the jemallocs of the process that could not be read.
    :class:`~drain_gdb.errors.ReportError` where it is none, or not as such a report is.
    """
    schema = content.get("schema")
    if schema not in (SWEEP, PINS):
        raise ReportError(f"it is no report of drainsweep or drainpins, but {str(schema)[:60]!r}")
    try:
        if schema == PINS:
            return _pinned(content, kind)
        return _swept(content, kind, left_out or len(content["allocator"]["not_swept"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"it is no whole report: {error}") from None


def with_groups(cells: Cells, content: Mapping[str, Any]) -> Cells:
    """``cells`` of a sweep, and the groups of the report of drainpins on the same process."""
    return {**cells, GROUPS: _groups(content)}


def rows_of(table: str, file: str, host: str, cells: Cells) -> Iterator[Any]:
    """The rows that ``file`` gives to a table."""
    for row in cells.get(table, ()):
        yield TABLES[table](file, host, *row)


def names_of(files: Sequence[str]) -> List[str]:
    """Each file within the folder that holds them all, without its endings."""
    folder = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return [_without_endings(os.path.relpath(file, folder or ".")) for file in files]


ENDINGS = (
    *(".drain", ".json", ".txt", ".core"),
    *(".zst", ".lz4", ".gz", ".xz"),
)


def _without_endings(name: str) -> str:
    while True:
        stem, ending = os.path.splitext(name)
        if ending not in ENDINGS or not os.path.basename(stem):
            return name
        name = stem


def _swept(content: Mapping[str, Any], kind: str, left_out: int) -> Cells:
    selection = content.get("selection", {})
    if selection.get("arena") is not None or selection.get("size") is not None:
        raise ReportError(
            "it is the report of a part of the heap", "make it without --arena and --size"
        )
    reports = [content, *content.get("other_allocators", ())]
    process, account = content["process"], content.get("account") or {}
    resident, causes = account.get("resident_bytes"), content.get("causes", ())
    state = _state([report["totals"] for report in reports], all(map(_believed, reports)))
    extents = [report["extents"] for report in reports]
    outside = ("large_bytes", "dirty_bytes", "muzzy_bytes", "retained_bytes", "metadata_bytes")
    host = {
        "kind": kind,
        **{key: process.get(key) for key in ("name", "pid", "executable", "taken_at")},
        "version": content["allocator"]["version"],
        "allocators": len(reports),
        "left_out": left_out,
        "status": max((_status(report) for report in reports), key=GRAVITY.index),
        "partial": any(report["coverage"]["partial"] for report in reports),
        "resident_bytes": resident,
        **state,
        **{key: _sum([each[key] for each in extents]) for key in outside},
        "cause": causes[0]["cause"] if causes else None,
        "cause_bytes": causes[0]["bytes"] if causes else None,
    }
    return {
        HOSTS: [_cells(HostRow, host)],
        CLASSES: [
            _cells(ClassRow, {"allocator": number, **row})
            for number, report in enumerate(reports)
            for row in _classes(report)
        ],
        CAUSES: [_cause(rank, each, resident) for rank, each in enumerate(causes, 1)],
    }


def _believed(report: Mapping[str, Any]) -> bool:
    return bool(report["verification"].get("believed", True))


def _status(report: Mapping[str, Any]) -> str:
    verification = report["verification"]
    status = str(verification["status"])
    if status not in GRAVITY:
        raise ReportError(f"it is no whole report: no status is {status[:60]!r}")
    near = (verification.get("tolerance") or {}).get("within", False)
    return "within" if status == "mismatch" and near else status


def _sum(figures: Sequence[Optional[int]]) -> Optional[int]:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known and len(known) == len(figures) else None


def _state(totals: Sequence[Mapping[str, Any]], believed: bool) -> Dict[str, Any]:
    """The state of all these slabs together."""
    state = {key: _sum([each[key] for each in totals]) for key in COUNTED}
    rates = {
        "dsr": ("drainable", "slabs"),
        "occupancy": ("live", "regions"),
        "retention_ratio": ("slabs", "ideal_slabs"),
    }
    found = {key: share(state[part], state[whole]) for key, (part, whole) in rates.items()}
    return {**state, **(found if believed else dict.fromkeys(rates))}


def _classes(report: Mapping[str, Any]) -> Iterator[Dict[str, Any]]:
    """A row a size class, whatever the rows of the report are."""
    of_class: Dict[int, List[Mapping[str, Any]]] = {}
    for row in report["bins"]:
        of_class.setdefault(row["index"], []).append(row)
    for rows in of_class.values():
        same = {key: rows[0][key] for key in ("index", "size", "slab_size", "nregs")}
        yield {**same, **_state(rows, _believed(report))}


def _cause(rank: int, cause: Mapping[str, Any], resident: Optional[int]) -> Tuple[Any, ...]:
    first: Mapping[str, Any] = next(iter(cause["remedies"]), {})
    return _cells(
        CauseRow,
        {
            **{key: cause[key] for key in ("cause", "bytes", "goes_by_itself", "evidence")},
            "rank": rank,
            "share": share(cause["bytes"], resident),
            "remedy": first.get("remedy"),
            "remedy_bytes": first.get("bytes"),
            "how": first.get("how"),
        },
    )


def _pinned(content: Mapping[str, Any], kind: str) -> Cells:
    process, verification = content["process"], content["verification"]
    host = {
        "kind": kind,
        **{key: process.get(key) for key in ("name", "pid", "executable", "taken_at")},
        "status": _status(content),
        "partial": verification["partial"],
        "slabs": content["slabs"],
        "pinned": content["pinned_slabs"],
        "waste_bytes": content["waste_bytes"] + content["waste_elsewhere_bytes"],
    }
    return {HOSTS: [_cells(HostRow, host)], GROUPS: _groups(content)}


def _groups(content: Mapping[str, Any]) -> List[Tuple[Any, ...]]:
    names = [field.name for field in fields(GroupRow) if field.name not in (*BESIDE, "rank")]
    return [
        _cells(GroupRow, {"rank": rank, **{name: row.get(name) for name in names}})
        for rank, row in enumerate(content["groups"], 1)
    ]


# -- cells --------------------------------------------------------------------------


@cache
def _columns(kind: Any) -> Sequence[Tuple[str, str, bool]]:
    """Of each column that a report fills: its name, its type, and whether it may be unknown."""
    optional = "Optional["
    return [
        (field.name, str(field.type).replace(optional, "").rstrip("]"), optional in str(field.type))
        for field in fields(kind)
        if field.name not in BESIDE
    ]


def _cells(kind: Any, values: Mapping[str, Any]) -> Tuple[Any, ...]:
    """A row of ``kind`` without where it is from; each value is of the type of its column."""
    return tuple(
        None if optional and values.get(name) is None else _cell(name, wanted, values.get(name))
        for name, wanted, optional in _columns(kind)
    )


def _cell(name: str, wanted: str, value: Any) -> Any:
    if wanted == "float" and type(value) in (int, float) and abs(value) < float("inf"):
        return float(value)
    if wanted == "str" and type(value) is str:
        # Names of files and processes may hold bytes that are no text.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if type(value).__name__ == wanted and (wanted != "int" or abs(value) < INTEGER_END):
        return value
    raise ReportError(f"it is no whole report: {name} is {str(value)[:60]!r}")
