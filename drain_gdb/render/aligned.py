"""Columns of text side by side, by tabulate; where it is missing the same without it."""

from __future__ import annotations

from typing import List, Sequence

from drain_gdb.render.libraries import library

GAP = "  "
HEAD_PADDING = 2
"""tabulate makes a column so much wider than its head (MIN_PADDING of tabulate 0.9)."""


def aligned(
    rows: Sequence[Sequence[str]], sides: Sequence[str], heads: Sequence[str] = ()
) -> List[str]:
    """Lines with the cells of ``rows``, each column to its side, ``left`` or ``right``.

    ``heads`` are padded; where columns are many, the heads are better a row as well.
    """
    tabulate = library("tabulate")
    if tabulate is None:
        return plainly(rows, sides, heads)
    table: str = tabulate.tabulate(
        rows, heads, tablefmt="plain", colalign=sides, disable_numparse=True
    )
    return [line.rstrip() for line in table.split("\n")]


def plainly(
    rows: Sequence[Sequence[str]], sides: Sequence[str], heads: Sequence[str] = ()
) -> List[str]:
    """What tabulate makes of the same."""
    rows = [[cell.strip() for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    if heads:
        widths = [max(width, len(head) + HEAD_PADDING) for width, head in zip(widths, heads)]
    return [
        GAP.join(
            cell.rjust(width) if side == "right" else cell.ljust(width)
            for cell, width, side in zip(line, widths, sides)
        ).rstrip()
        for line in [*([heads] if heads else []), *rows]
    ]
