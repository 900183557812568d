"""Start a debugger for one command of the shell form, wait, hand on what it found."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from drain_gdb.commands.base import Command
from drain_gdb.errors import EXIT_INTERRUPTED, TargetError
from drain_gdb.loaders.dependencies import broken_lldb
from drain_gdb.loaders.serve import VARIABLE, Request
from drain_gdb.render.style import Style

PACKAGE = Path(__file__).resolve().parents[1]
STOP_SECONDS = 10
NO_PYTHON = ("No module named 'lldb", "no embedded script interpreter")
"""What an lldb says whose own Python module is missing, or that was built without Python."""
PROMPT = "(lldb) "
"""With it lldb repeats each of its commands."""


@dataclass(frozen=True)
class Debugger:
    """A debugger that can be started.

    Attributes:
        name: as in ``--debugger``; the program is called so, or so with a version.
        variable: of the environment: the program to start instead.
        package: Debian's, for the hint where none is installed.
        line: of its own language, that loads the commands.
        options: that make it run ``line`` and end, reading no file of the user's.

    """

    name: str
    variable: str
    package: str
    line: str
    options: Callable[[str], List[str]]

    def find(self) -> Optional[str]:
        """The program to start, None where there is none."""
        wanted = os.environ.get(self.variable)
        programs = [wanted] if wanted else [self.name, *_versions(self.name)]
        return next(filter(shutil.which, programs), None)

    @property
    def missing(self) -> bool:
        """Whether it is not installed, and none was asked for in the environment."""
        return self.find() is None and not os.environ.get(self.variable)

    def require(self) -> str:
        """The program to start; :class:`TargetError` where there is none."""
        found = self.find()
        if found is None:
            wanted = os.environ.get(self.variable, self.name)
            raise TargetError(f"{wanted} is not installed", f"run: apt-get install {self.package}")
        return found


def _versions(name: str) -> List[str]:
    """What is installed as ``name-VERSION``, the newest first."""
    folders = os.get_exec_path()
    found = {path.name for folder in folders for path in Path(folder).glob(f"{name}-*")}
    numbers = [each[len(name) + 1 :] for each in found]
    return [f"{name}-{n}" for n in sorted(filter(str.isdigit, numbers), key=int, reverse=True)]


def _line(plain: str, python: str, load: str) -> str:
    """What loads the commands: ``plain``, or of a zip file ``load`` as the command ``python``.

    The zip file is found first then, and last from there on: it has libraries too.
    """
    archive = PACKAGE.parent
    if not archive.is_file():
        return plain
    first, last = f"sys.path.insert(0, {str(archive)!r})", "sys.path.append(sys.path.pop(0))"
    return f"{python} import sys; {first}; {load}; {last}"


def _gdb_options(line: str) -> List[str]:
    return ["-q", "-nx", "-batch", "-iex", "set auto-load no", "-ex", line]


def _lldb_options(line: str) -> List[str]:
    return ["--no-lldbinit", "--batch", "-o", line]


GDB = Debugger(
    name="gdb",
    variable="DRAIN_GDB_GDB",
    package="gdb",
    line=_line(
        f"source {PACKAGE / 'gdbinit.py'}",
        "python",
        "import drain_gdb.gdbinit",
    ),
    options=_gdb_options,
)
LLDB = Debugger(
    name="lldb",
    variable="DRAIN_GDB_LLDB",
    package="lldb-19",
    line=_line(
        f"command script import {shlex.quote(str(PACKAGE / 'lldbinit.py'))}",
        "script",
        "import drain_gdb.lldbinit; "
        "drain_gdb.lldbinit.__lldb_init_module(lldb.debugger, globals())",
    ),
    options=_lldb_options,
)
DEBUGGERS = {debugger.name: debugger for debugger in (GDB, LLDB)}


def default() -> Debugger:
    """The debugger that the environment names, else the first that is installed."""
    known = DEBUGGERS.values()
    named = [each for each in known if os.environ.get(each.variable)]
    return next(iter(named), None) or next(filter(Debugger.find, known), GDB)


@dataclass(frozen=True)
class Job:
    """A command and the process it is to look at, as :class:`Request` has them.

    Attributes:
        descriptors: files that the debugger inherits, for ``core`` to name.

    """

    command: Command
    prog: str
    arguments: Sequence[str]
    core: Optional[str]
    exe: Optional[str]
    pid: Optional[int]
    sysroot: Optional[str] = None
    descriptors: Tuple[int, ...] = ()


def run(debugger: Debugger, job: Job, style: Style) -> int:
    """Do ``job`` in ``debugger``: the report to stdout, notes to stderr; the exit status."""
    program = debugger.require()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="drain-gdb-"))
        terminal = os.dup(sys.stderr.fileno()) if sys.stderr.isatty() else None
        request = Request(
            command=job.command.name,
            prog=job.prog,
            arguments=list(job.arguments),
            core=None if job.core is None else os.path.abspath(job.core),
            exe=None if job.exe is None else os.path.abspath(job.exe),
            pid=job.pid,
            sysroot=None if job.sysroot is None else os.path.abspath(job.sysroot),
            folder=folder,
            terminal=terminal,
            colour=style.colour,
            unicode=style.unicode,
        )
        log = stack.enter_context(
            open(Path(folder) / "log", "w+", encoding="utf-8", errors="replace")
        )
        passed = [] if terminal is None else [terminal]
        status = _wait(
            subprocess.Popen(
                [program, *debugger.options(debugger.line)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[*passed, *job.descriptors],
                env={**os.environ, VARIABLE: request.leave()},
            )
        )
        for descriptor in passed:
            os.close(descriptor)
        result = request.answered()
        if result is None:
            if status == EXIT_INTERRUPTED:
                raise KeyboardInterrupt
            log.seek(0)
            raise _failure(program, status, log.read())
        with open(request.out, encoding="utf-8", newline="") as out:
            shutil.copyfileobj(out, sys.stdout)
        sys.stderr.writelines(f"{line}\n" for line in result.lines)
        return result.status


class DebuggerDied(TargetError):
    """A signal ended the debugger: what it crashed on may well be read without it."""


def _ended_by(status: int) -> Optional[str]:
    """The name of the signal that ended a process, None where it ended by itself.

    A script around a debugger ends by itself, with 128 and the number of the signal.
    """
    number = -status if status < 0 else status - 128
    return next((each.name for each in signal.Signals if each == number), None)


def _failure(program: str, status: int, log: str) -> TargetError:
    """The error of a debugger that ended without an answer, having said ``log``."""
    name = _ended_by(status)
    if name is not None:
        return DebuggerDied(f"{program} was ended by {name}", "read it with --debugger none")
    if any(mark in log for mark in NO_PYTHON):
        return TargetError(f"{program}: {broken_lldb().message}", broken_lldb().hint)
    said = [line for line in log.splitlines() if line.strip() and not line.startswith(PROMPT)]
    for line in said:
        if line.startswith("drain_gdb"):
            return TargetError(f"{program}: {line.replace('drain_gdb: ', '', 1)}")
    return TargetError(f"{program} ended with status {status}", said[-1] if said else None)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the debugger; Ctrl-C reaches it too, and it is given time to detach."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return EXIT_INTERRUPTED
