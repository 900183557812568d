"""One file of a fleet, read by a worker: whatever it is, what it gives to the tables."""

from __future__ import annotations

import faulthandler
import json
import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence

import drain_gdb
from drain_gdb.analysis.fleet import PINS, Cells, cells_of, error_cells, with_groups
from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.debuggee.files import is_text
from drain_gdb.errors import ReportError
from drain_gdb.jemalloc.statistics import Statistics
from drain_gdb.loaders.api import open_file
from drain_gdb.render import machine, pins
from drain_gdb.render.style import printable

REPORT_MAX = 256 << 20
"""Bytes of the largest report that is read: one with a row a slab, of a million slabs."""
MARK = b'"schema"'
LOOK = 4096


@dataclass(frozen=True)
class Place:
    """A file of a fleet.

    Attributes:
        path: as its file system knows it, ``name``: as the tables do.
        size: bytes.
        mark: changes with the file.

    """

    path: str
    name: str
    size: int
    mark: str


@dataclass(frozen=True)
class Asked:
    """What is to be done with each.

    Attributes:
        pins: whether who pins what is asked for, too.
        sysroot: where the files are that cores have mapped.
        limit: seconds that a file may take; the process that reads it ``ends`` then.

    """

    pins: bool = False
    sysroot: Optional[str] = None
    limit: float = 600.0
    ends: bool = False


def version() -> str:
    """Of the program that a worker has."""
    return drain_gdb.__version__


def read_all(files: Any, places: Sequence[Place], asked: Asked) -> List[Cells]:
    """What each of ``places`` gives; ``files`` is their file system, None where it is this one."""
    found = []
    for place in places:
        with _limited(asked):
            found.append(read(files, place, asked))
    return found


@contextmanager
def _limited(asked: Asked) -> Iterator[None]:
    """End this process, whatever it is at, if what is done meanwhile takes too long."""
    if not asked.ends:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        faulthandler.dump_traceback_later(asked.limit, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def read(files: Any, place: Place, asked: Asked) -> Cells:
    """What ``place`` gives; an error, named or not, is what it gives, too."""
    try:
        with ExitStack() as stack:
            path = place.path
            if files is not None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="drain-gdb-"))
                path = os.path.join(folder, os.path.basename(place.path))
                files.get_file(place.path, path)
            return _read(path, asked)
    except Exception as error:  # noqa: BLE001 - it costs this file alone
        return error_cells(type(error).__name__, printable(str(error)))


def _read(path: str, asked: Asked) -> Cells:
    report = _report(path)
    if report is not None:
        return cells_of(report, "pins" if report["schema"] == PINS else "report")
    with open_file(path, lambda _: None, sysroot=asked.sysroot) as found:
        if isinstance(found, Statistics):
            sweeps, kind = [sweep_statistics(found, Selection())], "statistics"
        else:
            sweeps, kind = found.sweeps(), found.process.source
        first, *others = map(machine.as_dict, sweeps)
        left_out = 0 if isinstance(found, Statistics) else len(found.refused)
        cells = cells_of({**first, "other_allocators": others}, kind, left_out)
        if asked.pins and not isinstance(found, Statistics):
            cells = with_groups(cells, pins.as_dict(found.pins()))
    return cells


def _report(path: str) -> Optional[Dict[str, Any]]:
    """The report of this program that the file is, None where it is something else."""
    if not is_text(path):
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(LOOK)
            if not head.lstrip().startswith(b"{") or MARK not in head:
                return None
            if os.path.getsize(path) > REPORT_MAX:
                raise ReportError(f"it is larger than {REPORT_MAX} bytes")
            content = json.loads(head + file.read())
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ReportError(f"it is cut off or damaged: {error}") from None
    return content if isinstance(content, dict) and "schema" in content else None
