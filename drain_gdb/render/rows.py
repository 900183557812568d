"""Rows of figures into a file, as they come: CSV, JSON lines, or Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import fields
from importlib import import_module
from types import TracebackType
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, TextIO, Type

from drain_gdb.errors import MissingDependency, OutputError

PARQUET = ".parquet"
GROUP = 20_000
"""Rows that are put together in a Parquet file: a row group."""


Columns = Mapping[str, str]
"""By their names the types of columns, in the order that they have in the file."""


class Table(NamedTuple):
    """Rows, each under the names of ``columns``."""

    columns: Columns
    rows: List[Dict[str, Any]]


def csv_text(table: Table) -> str:
    """The table as CSV."""
    out = io.StringIO()
    sink = _Csv(out, table.columns)
    for row in table.rows:
        sink.put(row)
    return out.getvalue()


def _cell(value: Any, kind: str) -> Any:
    """How CSV has it: addresses in hexadecimal, lists with spaces, false and true."""
    if value is None:
        return ""
    if kind == "ints":
        return " ".join(map(str, value))
    if kind == "bool":
        return json.dumps(value)
    return hex(value) if kind == "address" else value


class Sink(Protocol):
    """Where rows go."""

    def put(self, row: Dict[str, Any]) -> None:
        """Keep a row."""

    def close(self) -> None:
        """There are no more."""


class _Csv:
    def __init__(self, file: TextIO, columns: Columns) -> None:
        self._file = file
        self._columns = columns
        self._writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        self._writer.writeheader()
        file.flush()

    def put(self, row: Dict[str, Any]) -> None:
        self._writer.writerow({n: _cell(row[n], kind) for n, kind in self._columns.items()})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _JsonLines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def put(self, row: Dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


TYPES = {
    "int": "int64",
    "float": "float64",
    "str": "string",
    "bool": "bool_",
    "address": "uint64",
    "ints": "int64",
}
"""Types of columns to those of Arrow; ``ints`` is a list of them."""


class _Parquet:
    """Row groups; the file can be read once it is closed."""

    def __init__(self, path: str, columns: Columns) -> None:
        try:
            self._arrow = import_module("pyarrow")
            parquet = import_module("pyarrow.parquet")
        except ImportError:
            raise MissingDependency(
                "this Python cannot import pyarrow, which writes Parquet",
                "run: pip install pyarrow, or take CSV",
            ) from None
        self._schema = self._arrow.schema([(name, self._type(of)) for name, of in columns.items()])
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: List[Dict[str, Any]] = []

    def _type(self, name: str) -> Any:
        kind = getattr(self._arrow, TYPES[name])()
        return self._arrow.list_(kind) if name == "ints" else kind

    def put(self, row: Dict[str, Any]) -> None:
        self._rows.append(row)
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


def write_parquet(path: str, table: Table) -> None:
    """A whole Parquet file.

    Raises as :class:`Rows` does.
    """
    try:
        sink = _Parquet(path, table.columns)
        for row in table.rows:
            sink.put(row)
        sink.close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def columns_of(kind: Any) -> Columns:
    """The columns that the members of a dataclass are."""
    return {f.name: str(f.type).replace("Optional[", "").rstrip("]") for f in fields(kind)}


class Rows:
    """A file of rows, by the ending of its name; use it with ``with``.

    A file that cannot be written is an :class:`OutputError`, a package that is missing for
    it a :class:`MissingDependency`.
    """

    def __init__(self, path: str, kind: Any) -> None:
        self._path = path
        self._columns = columns_of(kind)
        try:
            self._sink = _sink(path, self._columns)
        except OSError as error:
            raise self._failed(error) from None

    def put(self, row: Any) -> None:
        """Keep a row, a dataclass of the kind."""
        try:
            self._sink.put({name: getattr(row, name) for name in self._columns})
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


def _sink(path: str, columns: Columns) -> Sink:
    ending = os.path.splitext(path)[1].lower()
    if ending == PARQUET:
        return _Parquet(path, columns)
    file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115 - the sink closes it
    return _Csv(file, columns) if ending == ".csv" else _JsonLines(file)
