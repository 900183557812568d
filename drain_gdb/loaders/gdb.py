"""The commands inside gdb: typed by a person, or run for the shell form."""

from __future__ import annotations

import locale
import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import gdb

from drain_gdb.commands.base import Command, Context, terminal
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.loaders import serve as serving
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.serve import Debuggee
from drain_gdb.render.style import Style

if TYPE_CHECKING:
    from drain_gdb.debuggee.gdb import GdbTarget
    from drain_gdb.hooks.session import Counting


def _target() -> GdbTarget:
    target: GdbTarget = import_module("drain_gdb.debuggee.gdb").GdbTarget()
    return target


def _evaluate(text: str) -> int:
    value: int = import_module("drain_gdb.debuggee.gdb").evaluate(text)
    return value


@cache
def _counting() -> Counting:
    """The counts of this gdb, from the first time that somebody asks for them."""
    debugger = import_module("drain_gdb.hooks.gdb").GdbDebugger
    counting: Counting = import_module("drain_gdb.hooks.session").Counting(debugger)
    return counting


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
            open_target=_target,
            write=gdb.write,
            note=lambda line: gdb.write(line + "\n", gdb.STDERR),
            style=_style(),
            progress=terminal(),
            counting=_counting,
            evaluate=_evaluate,
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
    """Do what the shell form asks for, then end this gdb."""
    adapter = import_module("drain_gdb.debuggee.gdb")
    serving.serve(
        Debuggee(
            load=adapter.open_core,
            attach=adapter.attach,
            detach=adapter.detach,
            target=adapter.GdbTarget,
            evaluate=_evaluate,
            use_sysroot=adapter.use_sysroot,
        )
    )
    gdb.execute("quit")
