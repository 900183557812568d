"""``drain-gdb init``: the line that loads the commands, into the file a debugger starts with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drain_gdb.errors import EXIT_DONE, OutputError, UsageError
from drain_gdb.loaders.launch import DEBUGGERS

MARKS = ("drain_gdb", "drain-gdb")
"""A line with one of these loads the commands, from wherever."""


def run(args: argparse.Namespace) -> int:
    """Print the line, or write it where it is not yet."""
    line = DEBUGGERS[args.debugger].line
    if not args.write:
        if args.yes:
            raise UsageError("--yes is for --write", "give both")
        print(line)
        return EXIT_DONE
    path = Path.home() / f".{args.debugger}init"
    try:
        there = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
        if line in there.splitlines():
            print(f"{path} has the line already")
            return EXIT_DONE
        _require_no_other(there, path)
        if not args.yes and not _agreed(f"add to {path}: {line}"):
            print(f"{path} is left as it was")
            return EXIT_DONE
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if there and not there.endswith("\n") else "") + line + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    print(f"{path} loads the commands from now on")
    return EXIT_DONE


def _require_no_other(there: str, path: Path) -> None:
    """Refuse to load two copies into one debugger."""
    for number, line in enumerate(there.splitlines(), 1):
        if not line.lstrip().startswith("#") and any(mark in line for mark in MARKS):
            raise OutputError(
                f"{path} loads the commands from elsewhere, in line {number}: {line.strip()}",
                "take that line out first",
            )


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", "add --yes")
    sys.stdout.write(f"{question}? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
