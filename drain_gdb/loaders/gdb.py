"""The commands inside gdb: typed by a person, or run for the shell form."""

from __future__ import annotations

import json
import locale
import os
import sys
import time
from typing import List, Optional, TextIO

import gdb

from drain_gdb.commands.base import Command, Context, terminal
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.errors import TargetError
from drain_gdb.loaders.boundary import guarded
from drain_gdb.render.style import Style
from drain_gdb.target.gdb import GdbTarget, open_core

REQUEST = "DRAIN_GDB_REQUEST"
"""Environment of a gdb that the shell form started: what to do, as JSON."""


def _style() -> Style:
    encoding = locale.getpreferredencoding(False).lower().replace("-", "")
    colour = (
        sys.__stdout__ is not None
        and sys.__stdout__.isatty()
        and bool(gdb.parameter("style enabled"))
        and not os.environ.get("NO_COLOR")
    )
    return Style(colour=colour, unicode=encoding == "utf8")


class _GdbCommand(gdb.Command):
    """A command of ours as gdb knows it; its docstring is gdb's help."""

    def __init__(self, command: Command) -> None:
        self.__doc__ = command.parser(command.name).format_help()
        super().__init__(command.name, gdb.COMMAND_DATA)
        self._command = command

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run it; gdb prints the one line of a failure."""
        self.dont_repeat()
        context = Context(
            open_target=GdbTarget,
            write=gdb.write,
            note=lambda line: gdb.write(line + "\n", gdb.STDERR),
            style=_style(),
            progress=terminal(),
        )
        arguments = gdb.string_to_argv(argument)
        status, line = guarded(self._command.name, lambda: self._command.invoke(arguments, context))
        gdb.set_convenience_variable("_drain_status", status)
        if line:
            raise gdb.GdbError(line)


def register() -> None:
    """Make the commands known to gdb."""
    for command in COMMANDS:
        _GdbCommand(command)


def serve() -> None:
    """Do what the shell form asks in ``DRAIN_GDB_REQUEST``.

    The report goes to the file ``out``, the line of a failure to ``err``; gdb's
    exit status is the command's.
    """
    request = json.loads(os.environ.pop(REQUEST))
    command = next(c for c in COMMANDS if c.name == request["command"])
    progress = _terminal_of(request["terminal"])
    started = time.monotonic()
    notes: List[str] = []
    with open(request["out"], "w", encoding="utf-8", newline="") as out:
        context = Context(
            open_target=GdbTarget,
            write=lambda text: print(text, end="", file=out),
            note=notes.append,
            style=Style(request["colour"], request["unicode"]),
            progress=progress,
            release=lambda: None if request["pid"] is None else _detach(started),
        )

        def action() -> int:
            _load(request)
            return command.invoke(request["arguments"], context)

        status, line = guarded(request["prog"], action)
    with open(request["err"], "w", encoding="utf-8") as err:
        err.writelines(f"{text}\n" for text in [*notes, *([line] if line else [])])
    gdb.execute(f"quit {status}")


def _detach(started: float) -> Optional[float]:
    """Let the process run on; the seconds since ``started``, before it was attached to."""
    gdb.execute("detach", to_string=True)
    return time.monotonic() - started


def _terminal_of(descriptor: object) -> TextIO | None:
    return None if descriptor is None else os.fdopen(int(str(descriptor)), "w")


def _load(request: dict[str, object]) -> None:
    if request["pid"] is not None:
        try:
            gdb.execute(f"attach {request['pid']}", to_string=True)
        except gdb.error as error:
            raise TargetError(
                f"cannot attach to process {request['pid']}: {error}",
                "it must exist and be yours to trace (root, or the same user)",
            ) from None
    else:
        open_core(str(request["core"]), None if request["exe"] is None else str(request["exe"]))
