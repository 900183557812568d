"""The commands inside lldb: typed by a person, or run for the shell form."""

from __future__ import annotations

import locale
import os
import shlex
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

import lldb

from drain_gdb.commands.base import Command, Context, terminal
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.commands.session import Session
from drain_gdb.errors import UsageError
from drain_gdb.loaders import serve as serving
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.opening import open_file
from drain_gdb.loaders.serve import Debuggee
from drain_gdb.loaders.settings import SettingsCommand
from drain_gdb.render.style import Style

if TYPE_CHECKING:
    from drain_gdb.debuggee.lldb import LldbTarget
    from drain_gdb.debuggee.protocol import Target
    from drain_gdb.hooks.session import Counting

ADAPTER = "drain_gdb.debuggee.lldb"
STATUS = "_drain_status"
"""Variable of lldb's Python session: the exit status of the last command."""
QUIET = (
    "settings set target.preload-symbols false",
    "settings set target.load-script-from-symbol-file false",
    "settings clear plugin.symbol-locator.debuginfod.server-urls",
)
"""What the shell form asks of lldb: to load what is looked at, from this machine alone."""


def _style(debugger: lldb.SBDebugger, chosen: Optional[bool]) -> Style:
    encoding = locale.getpreferredencoding(False).lower().replace("-", "")
    colour = (
        sys.__stdout__ is not None
        and sys.__stdout__.isatty()
        and bool(debugger.GetUseColor())
        and not os.environ.get("NO_COLOR")
    )
    return Style(colour=colour if chosen is None else chosen, unicode=encoding == "utf8")


def _target(target: lldb.SBTarget, directly: bool) -> Target:
    seen = import_module(ADAPTER).LldbTarget(target)
    if directly:
        seen = import_module("drain_gdb.loaders.beside").open_beside(seen.place())
    found: Target = seen
    return found


class _LldbCommand:
    """A command of ours as lldb knows it."""

    command: Command
    counting: Callable[[], Counting]
    session: Session
    settings: SettingsCommand

    def __init__(self, debugger: lldb.SBDebugger, session: Dict[str, Any]) -> None:
        self._session = session

    def __call__(
        self,
        debugger: lldb.SBDebugger,
        argument: str,
        execution: lldb.SBExecutionContext,
        result: lldb.SBCommandReturnObject,
    ) -> None:
        """Run it; lldb prints the one line of a failure."""
        preferences = self.settings.preferences
        directly = self.command.readable and preferences.directly
        context = Context(
            open_target=lambda: _target(execution.GetTarget(), directly),
            write=result.write,
            note=lambda line: print(line, file=sys.stderr, flush=True),
            style=_style(debugger, preferences.colour),
            progress=terminal(),
            counting=self.counting,
            evaluate=lambda text: _evaluate(execution.GetTarget(), text),
            open_file=open_file,
            session=self.session,
            defaults=preferences.options,
        )
        name = self.command.name
        status, line = guarded(name, lambda: self.command.invoke(_words(argument), context))
        self._session[STATUS] = status
        if line:
            result.SetError(line)

    def get_short_help(self) -> str:
        """The line of ``help``."""
        return self.command.summary

    def get_long_help(self) -> str:
        """What ``help COMMAND`` prints."""
        return self.command.parser(self.command.name).format_help()


def _evaluate(target: lldb.SBTarget, text: str) -> int:
    value: int = import_module(ADAPTER).evaluate(target, text)
    return value


def _words(argument: str) -> List[str]:
    try:
        return shlex.split(argument)
    except ValueError as error:
        raise UsageError(f"cannot read {argument!r}: {error}") from None


def register(debugger: lldb.SBDebugger, session: Dict[str, Any]) -> None:
    """Make the commands known to lldb, which looks their classes up in its Python session."""

    @cache
    def counting() -> Counting:
        hooks = import_module("drain_gdb.hooks.lldb")
        made: Counting = import_module("drain_gdb.hooks.session").Counting(
            lambda: hooks.LldbDebugger(debugger.GetSelectedTarget())
        )
        return made

    settings = SettingsCommand()
    shared = {"counting": staticmethod(counting), "session": Session(), "settings": settings}
    for command in (*COMMANDS, settings):
        name = command.name
        session[name] = type(name, (_LldbCommand,), {"command": command, **shared})
        debugger.HandleCommand(
            f"command script add --overwrite --class {name}"
            f" --completion-type {_completes(command)} {name}"
        )


def _completes(command: Command) -> str:
    """What lldb completes the words of ``command`` as: one thing for all of them, never options."""
    addresses = command.operands is not None and not command.compares
    return "variable-path" if addresses else "disk-file"


def serve(debugger: lldb.SBDebugger) -> None:
    """Do what the shell form asks for."""
    debugger.SetAsync(False)
    for setting in QUIET:
        debugger.GetCommandInterpreter().HandleCommand(setting, lldb.SBCommandReturnObject())
    served = _Served(debugger)
    serving.serve(
        Debuggee(
            load=served.load,
            attach=served.attach,
            detach=lambda: served.adapter.detach(debugger),
            target=served.target,
            evaluate=lambda text: _evaluate(debugger.GetSelectedTarget(), text),
            use_sysroot=served.use_sysroot,
        )
    )


class _Served:
    """What the shell form has this lldb look at."""

    def __init__(self, debugger: lldb.SBDebugger) -> None:
        self.adapter = import_module(ADAPTER)
        self._debugger = debugger
        self._program: Optional[str] = None
        self._sysroot: Optional[str] = None

    def use_sysroot(self, folder: str) -> None:
        self._sysroot = folder

    def load(self, core: str, exe: Optional[str]) -> None:
        self._program = self.adapter.open_core(self._debugger, core, exe, self._sysroot)

    def attach(self, pid: int) -> None:
        if self._sysroot is not None:
            raise UsageError(
                "lldb looks for the files of a live process where they lie",
                "read it with --debugger gdb or --debugger none",
            )
        self.adapter.attach(self._debugger, pid)

    def target(self) -> LldbTarget:
        target: LldbTarget = self.adapter.LldbTarget(
            self._debugger.GetSelectedTarget(), self._program
        )
        return target
