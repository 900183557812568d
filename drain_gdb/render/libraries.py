"""tabulate's tables and pygments' colours, and what stands in for them where they are missing.

A debugger's Python may have neither: then the same tables come without a library, and no
colours.  Both are loaded when the first report needs them.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Optional, Sequence

GAP = "  "
HEAD_PADDING = 2
"""tabulate makes a column so much wider than its head (MIN_PADDING of tabulate 0.9)."""


@cache
def _module(name: str) -> Optional[Any]:
    try:
        return import_module(name)
    except ImportError:
        return None


def table(rows: Sequence[Sequence[str]], align: Sequence[str], heads: Sequence[str] = ()) -> str:
    """``rows`` below ``heads`` as text; each column aligned ``left`` or ``right``."""
    library = _module("tabulate")
    if library is None:
        return plain_table(rows, align, heads)
    shown = library.tabulate(
        rows, heads, tablefmt="plain", disable_numparse=True, colalign=tuple(align)
    )
    return str(shown)


def plain_table(
    rows: Sequence[Sequence[str]], align: Sequence[str], heads: Sequence[str] = ()
) -> str:
    """What tabulate makes of the same."""
    rows = [[str(cell).strip() for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    if heads:
        widths = [max(width, len(head) + HEAD_PADDING) for width, head in zip(widths, heads)]
    lines = [*([heads] if heads else []), *rows]
    return "\n".join(
        GAP.join(
            cell.rjust(width) if side == "right" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align)
        ).rstrip()
        for line in lines
    )


def coloured(name: str, text: str) -> str:
    """``text`` in the colour that pygments calls ``name``; as it is without pygments."""
    library = _module("pygments.console")
    return text if library is None else str(library.colorize(name, text))


def coloured_hexdump(text: str) -> str:
    """Lines as hexdump -C prints them, in pygments' colours; as they are without pygments."""
    library = _module("pygments")
    if library is None:
        return text
    lexer = import_module("pygments.lexers").HexdumpLexer()
    formatter = import_module("pygments.formatters").TerminalFormatter()
    return str(library.highlight(text, lexer, formatter)).rstrip("\n")
