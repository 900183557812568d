"""Tables of results that the test run prints at its end."""

from __future__ import annotations

from typing import Dict, List

from tabulate import tabulate

_tables: Dict[str, Dict[str, Dict[str, str]]] = {}


def note(table: str, row: str, column: str, value: str) -> None:
    """Put ``value`` into a cell."""
    _tables.setdefault(table, {}).setdefault(row, {})[column] = value


def rendered() -> List[str]:
    """The tables as text, each with its title, columns in the order they came first."""
    shown = []
    for title, rows in _tables.items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        cells = [[row, *(rows[row].get(column, "-") for column in columns)] for row in rows]
        shown.append(f"{title}\n\n{tabulate(cells, headers=['', *columns])}\n")
    return shown
