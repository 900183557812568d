"""The trend of a process as it comes: a table that redraws, or a line a sweep."""

from __future__ import annotations

from collections import deque
from importlib import import_module, util
from types import TracebackType
from typing import Any, Callable, Deque, List, Optional, Protocol, Type

from drain_gdb.analysis.watch import Row
from drain_gdb.render.style import Style, count, percent, printable, size

HEADS = (
    *("time", "RSS", "live", "waste", "slabs", "cohort DSR"),
    *("released", "drainable", "new"),
)
WIDTHS = (8, 9, 9, 9, 7, 12, 13, 9, 6)
"""Columns of a line; ranges may take more."""
REMARKS = {
    "within": "nearly verified",
    "mismatch": "NOT VERIFIED",
    "unavailable": "not verifiable",
}
KEPT = 500
"""Rows that a table remembers: no screen shows more."""
AROUND = 4
"""Lines of a screen that are not rows of it."""
ROOMY, SPARED = 90, "live"
"""Columns of a terminal for all of a table, and the head of what is left out where it has less."""


def cells(row: Row) -> List[str]:
    """A row as it is shown."""
    return [
        row.time[11:19],
        size(row.resident_bytes),
        size(row.live_bytes),
        size(row.waste_bytes),
        count(row.slabs),
        _between(row.cohort_dsr_low, row.cohort_dsr_high, percent),
        _between(row.released, row.released_high, count),
        count(row.drainable),
        count(row.new),
        REMARKS.get(row.status, ""),
    ]


def _between(low: Any, high: Any, show: Callable[[Any], str]) -> str:
    first, last = show(low), show(high)
    return first if first == last else f"{first.removesuffix(' %')}..{last}"


class Screen(Protocol):
    """Shows rows for as long as it is entered."""

    def __enter__(self) -> Screen: ...

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None: ...

    def show(self, row: Row) -> None:
        """The next row."""


class Lines:
    """A line a sweep, below a head."""

    def __init__(self, write: Callable[[str], None], style: Style) -> None:
        self._write = write
        self._style = style
        self._begun = False

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, row: Row) -> None:
        """Print it."""
        if not self._begun:
            self._begun = True
            self._write(self._style.strong(_line(HEADS)) + "\n")
        line = _line(cells(row))
        self._write((line if row.sound else self._style.bad(line)) + "\n")


def _line(columns: Any) -> str:
    """Cells under each other, and what else is to be said."""
    shown = [f"{cell:>{width}}" for cell, width in zip(columns, WIDTHS)]
    return "  ".join([*shown, *columns[len(WIDTHS) :]]).rstrip()


class Table:
    """The last rows, in a table that is drawn anew, by rich."""

    def __init__(self, title: str) -> None:
        # What a process calls itself may hold anything.
        self._title = import_module("rich.text").Text(printable(title))
        self._rows: Deque[Row] = deque(maxlen=KEPT)
        self._console = import_module("rich.console").Console()
        self._live = import_module("rich.live").Live(
            console=self._console, auto_refresh=False, vertical_overflow="crop"
        )
        self._make: Callable[..., Any] = import_module("rich.table").Table
        self._columns = [*HEADS, ""]
        if self._console.width < ROOMY:
            self._columns.remove(SPARED)

    def __enter__(self) -> Table:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def show(self, row: Row) -> None:
        """Add it below the others."""
        self._rows.append(row)
        table = self._make(title=self._title, title_justify="left", box=None, pad_edge=False)
        for head in self._columns:
            table.add_column(head, justify="right", no_wrap=True)
        room = max(1, self._console.height - AROUND)
        for each in list(self._rows)[-room:]:
            shown = dict(zip([*HEADS, ""], cells(each)))
            line = [shown[head] for head in self._columns]
            table.add_row(*line, style=None if each.sound else "red")
        self._live.update(table, refresh=True)


def screen(title: str, write: Callable[[str], None], style: Style, redraws: bool) -> Screen:
    """What shows rows best: a table where it can be drawn anew, else lines."""
    if redraws and util.find_spec("rich") is not None:
        return Table(title)
    return Lines(write, style)
