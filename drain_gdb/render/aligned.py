"""Columns of text side by side."""

from __future__ import annotations

from typing import List, Sequence

from drain_gdb.render.libraries import table


def aligned(rows: Sequence[Sequence[str]], sides: Sequence[str]) -> List[str]:
    """Lines with the cells of ``rows``, each column to its side, ``left`` or ``right``.

    The heads are a row as well: tabulate pads a head, and a hundred columns are few.
    """
    return [line.rstrip() for line in table(rows, sides).splitlines()]
