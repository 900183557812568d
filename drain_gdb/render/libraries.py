"""Libraries that reports look best with, and colours, which are pygments'.

A debugger's Python may lack them: reports are then in plain text.  Each is loaded when
something first needs it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Optional


@cache
def library(name: str) -> Optional[Any]:
    """The module ``name``, None where it is not there."""
    try:
        return import_module(name)
    except ImportError:
        return None


def coloured(name: str, text: str) -> str:
    """``text`` in the colour that pygments calls ``name``; as it is without pygments."""
    console = library("pygments.console")
    return text if console is None else str(console.colorize(name, text))


def coloured_hexdump(text: str) -> str:
    """Lines as hexdump -C prints them, in pygments' colours; as they are without pygments."""
    pygments = library("pygments")
    if pygments is None:
        return text
    lexer = import_module("pygments.lexers").HexdumpLexer()
    formatter = import_module("pygments.formatters").TerminalFormatter()
    return str(pygments.highlight(text, lexer, formatter)).rstrip("\n")
