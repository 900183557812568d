"""Columns of text side by side."""

from __future__ import annotations

from importlib import import_module
from typing import List, Sequence


def aligned(rows: Sequence[Sequence[str]], sides: Sequence[str]) -> List[str]:
    """Lines with the cells of ``rows``, each column to its side, ``left`` or ``right``.

    The heads are a row as well: tabulate pads a head, and a hundred columns are few.
    """
    # It is loaded where there is a table to show: that takes as long as a small sweep.
    table: str = import_module("tabulate").tabulate(
        rows, tablefmt="plain", colalign=sides, disable_numparse=True
    )
    return [line.rstrip() for line in table.splitlines()]
