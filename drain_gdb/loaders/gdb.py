"""The commands inside gdb: typed by a person, or run for the shell form."""

from __future__ import annotations

import locale
import os
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple, Union

import gdb

from drain_gdb.commands.base import Command, Context, terminal
from drain_gdb.commands.completion import FILE, complete
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.commands.session import Session
from drain_gdb.errors import EXIT_DONE, TargetError, UsageError
from drain_gdb.loaders import gdb_settings
from drain_gdb.loaders import serve as serving
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.opening import open_file
from drain_gdb.loaders.serve import Debuggee
from drain_gdb.render.style import Style

if TYPE_CHECKING:
    from drain_gdb.debuggee.protocol import Target
    from drain_gdb.hooks.session import Counting
    from drain_gdb.objects.address import Address
    from drain_gdb.snapshot import Lookup


SESSION = Session()
"""What this gdb remembers from one command to the next."""


def _target(directly: bool = False) -> Target:
    target = import_module("drain_gdb.debuggee.gdb").GdbTarget()
    if directly:
        target = import_module("drain_gdb.loaders.beside").open_beside(target.place())
    found: Target = target
    return found


def _evaluate(text: str) -> int:
    value: int = import_module("drain_gdb.debuggee.gdb").evaluate(text)
    return value


@cache
def _counting() -> Counting:
    """The counts of this gdb, from the first time that somebody asks for them."""
    debugger = import_module("drain_gdb.hooks.gdb").GdbDebugger
    counting: Counting = import_module("drain_gdb.hooks.session").Counting(debugger)
    return counting


def _style(chosen: Optional[bool]) -> Style:
    encoding = locale.getpreferredencoding(False).lower().replace("-", "")
    colour = (
        sys.__stdout__ is not None
        and sys.__stdout__.isatty()
        and bool(gdb.parameter("style enabled"))
        and not os.environ.get("NO_COLOR")
    )
    return Style(colour=colour if chosen is None else chosen, unicode=encoding == "utf8")


class _GdbCommand(gdb.Command):
    """A command of ours as gdb knows it; its docstring is gdb's help."""

    def __init__(self, command: Command) -> None:
        self.__doc__ = command.parser(command.name).format_help()
        super().__init__(command.name, gdb.COMMAND_DATA)
        self._command = command

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Run it; gdb prints the one line of a failure."""
        self.dont_repeat()
        preferences = gdb_settings.preferences()
        context = Context(
            open_target=lambda: _target(self._command.readable and preferences.directly),
            write=gdb.write,
            note=lambda line: gdb.write(line + "\n", gdb.STDERR),
            style=_style(preferences.colour),
            progress=terminal(),
            counting=_counting,
            evaluate=_evaluate,
            open_file=open_file,
            session=SESSION,
            defaults=preferences.options,
        )
        arguments = gdb.string_to_argv(argument)
        status, line = guarded(self._command.name, lambda: self._command.invoke(arguments, context))
        gdb.set_convenience_variable("_drain_status", status)
        if line:
            raise gdb.GdbError(line)

    def complete(self, text: str, word: Optional[str]) -> Union[int, List[str]]:
        """What ``word``, the last of ``text`` by gdb's own rules, can become.

        gdb ends a word at a hyphen too, and asks without a word how it is to be ended.
        """
        before = text.split()
        typed = "" if not text or text[-1].isspace() else before.pop()
        found = complete(self._command, before, typed, SESSION)
        if found.kind:
            return gdb.COMPLETE_FILENAME if found.kind == FILE else gdb.COMPLETE_EXPRESSION
        there = len(typed) - len(word or "")
        return [each[there:] for each in found.words]


class _Function(gdb.Function):
    """A convenience function about one pointer; its docstring is gdb's help."""

    def __init__(
        self, name: str, help_text: str, answer: Callable[[Address], Union[int, str]]
    ) -> None:
        self.__doc__ = help_text
        super().__init__(name)
        self._name = name
        self._answer = answer

    def invoke(self, *arguments: gdb.Value) -> Union[int, str]:
        """What it says of the pointer."""
        found: List[Union[int, str]] = []

        def ask() -> int:
            if len(arguments) != 1:
                raise UsageError(f"${self._name} takes one pointer")
            address = int(arguments[0].cast(gdb.lookup_type("unsigned long")))
            found.append(self._answer(_lookup().find(address)))
            return EXIT_DONE

        _, line = guarded(f"${self._name}", ask)
        if line:
            raise gdb.GdbError(line)
        return found[0]


@cache
def _lookup() -> Lookup:
    """What looks pointers up; what it has learnt of the process is forgotten with it."""
    made: Lookup = import_module("drain_gdb.snapshot").Lookup(_target)
    for event in ("exited", "new_objfile", "clear_objfiles", "inferior_deleted"):
        if hasattr(gdb.events, event):
            getattr(gdb.events, event).connect(lambda _: made.forget())
    return made


def _size(found: Address) -> int:
    if found.size is None:
        raise TargetError(f"{found.address:#x} is no allocation of jemalloc's, but {found.kind}")
    return found.size


def _state(found: Address) -> str:
    return found.state or found.kind


def _slab(found: Address) -> int:
    if found.slab is None:
        raise TargetError(f"{found.address:#x} lies in no slab, but is {found.kind}")
    return found.slab.address


FUNCTIONS: Tuple[Tuple[str, str, Callable[[Address], Union[int, str]]], ...] = (
    ("drain_size", "$drain_size(POINTER): bytes of the jemalloc allocation that holds it.", _size),
    (
        "drain_state",
        "$drain_state(POINTER): live, cached or free; else what it is: dirty, stack, ...",
        _state,
    ),
    ("drain_slab", "$drain_slab(POINTER): the address of the jemalloc slab it lies in.", _slab),
)


def register() -> None:
    """Make the commands and the convenience functions known to gdb."""
    for command in COMMANDS:
        _GdbCommand(command)
    for function in FUNCTIONS:
        _Function(*function)
    gdb_settings.register(SESSION)


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
