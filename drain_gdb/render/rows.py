"""Rows of figures into a file, as they come: CSV, JSON lines, or Parquet."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import asdict, fields
from importlib import import_module
from types import TracebackType
from typing import Any, Dict, List, Optional, Protocol, TextIO, Type

from drain_gdb.errors import MissingDependency, OutputError

GROUP = 1000
"""Rows that are put together in a Parquet file: a row group."""


class Sink(Protocol):
    """Where rows go."""

    def put(self, row: Any) -> None:
        """Keep a row, a dataclass."""

    def close(self) -> None:
        """There are no more."""


class _Csv:
    def __init__(self, file: TextIO, kind: Any) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, [f.name for f in fields(kind)], lineterminator="\n")
        self._writer.writeheader()
        file.flush()

    def put(self, row: Any) -> None:
        self._writer.writerow(asdict(row))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _JsonLines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def put(self, row: Any) -> None:
        self._file.write(json.dumps(asdict(row)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


TYPES = {"int": "int64", "float": "float64", "str": "string"}
"""Types of Python to those of Arrow."""


class _Parquet:
    """Row groups; the file can be read once it is closed."""

    def __init__(self, path: str, kind: Any) -> None:
        try:
            self._arrow = import_module("pyarrow")
            parquet = import_module("pyarrow.parquet")
        except ImportError:
            raise MissingDependency(
                "this Python cannot import pyarrow, which writes Parquet",
                "run: pip install pyarrow, or keep the rows in a .csv or .jsonl",
            ) from None
        names = {f.name: str(f.type).replace("Optional[", "").rstrip("]") for f in fields(kind)}
        self._schema = self._arrow.schema(
            [(name, getattr(self._arrow, TYPES[type_])()) for name, type_ in names.items()]
        )
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: List[Dict[str, Any]] = []

    def put(self, row: Any) -> None:
        self._rows.append(asdict(row))
        if len(self._rows) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = self._arrow.Table.from_pylist(self._rows, schema=self._schema)
            self._writer.write_table(table)
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


class Rows:
    """A file of rows, by the ending of its name; use it with ``with``.

    A file that cannot be written is an :class:`OutputError`, a package that is missing for
    it a :class:`MissingDependency`.
    """

    def __init__(self, path: str, kind: Any) -> None:
        self._path = path
        try:
            self._sink = _sink(path, kind)
        except OSError as error:
            raise self._failed(error) from None

    def put(self, row: Any) -> None:
        """Keep a row."""
        try:
            self._sink.put(row)
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            self._sink.close()
        except OSError as failed:
            if error is None:
                raise self._failed(failed) from None

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self._path}: {error.strerror or error}")


def _sink(path: str, kind: Any) -> Sink:
    ending = os.path.splitext(path)[1].lower()
    if ending == ".parquet":
        return _Parquet(path, kind)
    file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115 - the sink closes it
    return _Csv(file, kind) if ending == ".csv" else _JsonLines(file)
