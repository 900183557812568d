"""What was read of a fleet so far: a file that grows, so that nothing is read twice.

A line a file, after a line that says what all are made with.  A line that is torn, as when
the machine went down, is as if it were not there.
"""

from __future__ import annotations

import fcntl
import json
from contextlib import suppress
from dataclasses import fields
from typing import Any, Dict, Iterable, Sequence, TextIO

import drain_gdb
from drain_gdb.analysis.fleet import HOSTS, TABLES, Cells, HostRow, rows_of
from drain_gdb.errors import OutputError, UsageError
from drain_gdb.loaders.fleet.reading import Asked, Place


class Journal:
    """The journal at ``path``; use it with ``with``.

    :class:`OutputError` where it cannot be written, :class:`UsageError` where another run
    writes it.
    """

    def __init__(self, path: str, asked: Asked) -> None:
        self.path = path
        self._done: Dict[str, Any] = {}
        self._lines = 0
        head = {
            "made_with": drain_gdb.__version__,
            "asked": {"pins": asked.pins, "sysroot": asked.sysroot},
            "tables": {name: [f.name for f in fields(kind)] for name, kind in TABLES.items()},
        }
        self._head = json.dumps(head)
        try:
            self._file = self._opened()
        except OSError as error:
            raise self._failed(error) from None

    def _opened(self) -> TextIO:
        # It lasts as long as the journal; a line that is half there ends where the next begins.
        file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UsageError(f"another drain-gdb fleet writes {self.path}") from None
        file.seek(0)
        if file.readline().rstrip("\n") == self._head:
            for line in file:
                self._lines += 1
                with suppress(ValueError, TypeError, KeyError, AttributeError):
                    entry = json.loads(line)
                    if host_of(entry["cells"]).error is None:
                        self._done[entry["file"]] = entry["mark"], entry["cells"]
            file.write("\n")
        else:
            file.truncate(0)
            file.write(self._head + "\n")
        file.flush()
        return file

    def known(self, place: Place) -> bool:
        """Whether the file was read as it is now; one that could not be is tried again."""
        return place.name in self._done and self._done[place.name][0] == place.mark

    def keep(self, place: Place, cells: Cells) -> None:
        """What the file at ``place`` gives."""
        self._done[place.name] = place.mark, cells
        self._lines += 1
        try:
            self._put(place.name)
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from None

    def _put(self, name: str) -> None:
        mark, cells = self._done[name]
        entry = {"file": name, "mark": mark, "cells": cells}
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")

    def cells(self, names: Iterable[str]) -> Dict[str, Cells]:
        """What those of the files ``names`` give that were read."""
        return {name: self._done[name][1] for name in names if name in self._done}

    def tidy(self, names: Sequence[str]) -> None:
        """Write it anew for the files ``names`` alone, where more stands in it."""
        if self._lines <= len(names):
            return
        try:
            self._file.truncate(0)
            self._file.write(self._head + "\n")
            for name in self.cells(names):
                self._put(name)
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror}")


def host_of(cells: Cells) -> HostRow:
    """The row of its process that a file gives."""
    (row,) = rows_of(HOSTS, "", "", cells)
    found: HostRow = row
    return found
