"""Tables of results that the test run prints at its end."""

from __future__ import annotations

from typing import Dict, List, Mapping

from tabulate import tabulate

Table = Dict[str, Dict[str, str]]
"""Rows of cells, both by name."""

_tables: Dict[str, Table] = {}


def note(table: str, row: str, column: str, value: str) -> None:
    """Put ``value`` into a cell."""
    _tables.setdefault(table, {}).setdefault(row, {})[column] = value


def filled() -> Dict[str, Table]:
    """The tables of this process, by title."""
    return _tables


def merge(others: Mapping[str, Table]) -> None:
    """Add the tables that another process has filled."""
    for title, rows in others.items():
        for row, cells in rows.items():
            for column, value in cells.items():
                note(title, row, column, value)


def rendered() -> List[str]:
    """The tables as text, each with its title, columns in the order they came first."""
    shown = []
    for title, rows in _tables.items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        cells = [[row, *(rows[row].get(column, "-") for column in columns)] for row in rows]
        shown.append(f"{title}\n\n{tabulate(cells, headers=['', *columns])}\n")
    return shown
