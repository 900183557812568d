"""Inside a debugger that the shell form started: do the one thing it was started for.

The request comes in a file; the report goes to a file, and so do the notes
and the exit status, for the debugger's own output and status are its own affair.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional

from drain_gdb.commands.base import Context
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.errors import UsageError
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.opening import open_file
from drain_gdb.render.style import Style

if TYPE_CHECKING:
    from drain_gdb.debuggee.protocol import Target

VARIABLE = "DRAIN_GDB_REQUEST"
"""Environment of a debugger that the shell form started: the file with the request."""


@dataclass(frozen=True)
class Request:
    """What a debugger is started for.

    Attributes:
        command: its name in a debugger; ``arguments`` as typed there.
        prog: what errors are said in the name of.
        core: path of a core, or None where ``pid`` is that of a live process.
        exe: path of the core's program, None where it is to be found.
        sysroot: below which the files of the process lie, None for where they lay.
        folder: where the report (``out``) and the result are written.
        terminal: descriptor to show progress on, None without a terminal.
        colour: whether the report may be coloured.
        unicode: whether it may have block characters.

    """

    command: str
    prog: str
    arguments: List[str]
    core: Optional[str]
    exe: Optional[str]
    pid: Optional[int]
    sysroot: Optional[str]
    folder: str
    terminal: Optional[int]
    colour: bool
    unicode: bool

    @property
    def out(self) -> Path:
        """The file of the report."""
        return Path(self.folder) / "out"

    @property
    def _result(self) -> Path:
        return Path(self.folder) / "result"

    def leave(self) -> str:
        """Write it where the debugger is told to look; the value of ``VARIABLE``."""
        path = Path(self.folder) / "request"
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return str(path)

    def answer(self, result: Result) -> None:
        """Leave ``result`` for the process that asked."""
        self._result.write_text(json.dumps(asdict(result)), encoding="utf-8")

    def answered(self) -> Optional[Result]:
        """What was left; None where the debugger ended before."""
        if not self._result.exists():
            return None
        return Result(**json.loads(self._result.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Result:
    """How a request ended: the command's exit status, the lines for standard error."""

    status: int
    lines: List[str]


def _no_sysroot(folder: str) -> None:
    raise UsageError(
        "this debugger is not told of --sysroot", "read it with --debugger gdb or --debugger none"
    )


@dataclass(frozen=True)
class Debuggee:
    """What the debugger around us can be asked for.

    Attributes:
        load: the core at a path, with the program at another or one to be found.
        attach: stop the process of a pid.
        detach: let it run on.
        target: what was loaded or attached to.
        evaluate: the value of an expression.
        use_sysroot: look below a folder for the files of what is loaded then.

    """

    load: Callable[[str, Optional[str]], None]
    attach: Callable[[int], None]
    detach: Callable[[], None]
    target: Callable[[], Target]
    evaluate: Callable[[str], int]
    use_sysroot: Callable[[str], None] = _no_sysroot


def requested() -> bool:
    """Whether this debugger was started by the shell form."""
    return bool(os.environ.get(VARIABLE))


def serve(debuggee: Debuggee) -> None:
    """Do what is asked for."""
    asked = Path(os.environ.pop(VARIABLE)).read_text(encoding="utf-8")
    request = Request(**json.loads(asked))
    command = next(c for c in COMMANDS if c.name == request.command)
    started = time.monotonic()
    notes: List[str] = []

    def release() -> Optional[float]:
        if request.pid is None:
            return None
        debuggee.detach()
        return time.monotonic() - started

    with open(request.out, "w", encoding="utf-8", newline="") as out:
        context = Context(
            open_target=debuggee.target,
            write=lambda text: print(text, end="", file=out),
            note=notes.append,
            style=Style(request.colour, request.unicode),
            progress=None if request.terminal is None else os.fdopen(request.terminal, "w"),
            release=release,
            evaluate=debuggee.evaluate,
            open_file=open_file,
        )

        def action() -> int:
            if request.sysroot is not None:
                debuggee.use_sysroot(request.sysroot)
            if request.pid is not None:
                debuggee.attach(request.pid)
            else:
                assert request.core is not None
                debuggee.load(request.core, request.exe)
            return command.invoke(request.arguments, context)

        status, line = guarded(request.prog, action)
    request.answer(Result(status, [*notes, *([line] if line else [])]))
