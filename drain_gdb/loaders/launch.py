"""Start a debugger for one command of the shell form, wait, hand on what it found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from drain_gdb.commands.base import Command
from drain_gdb.errors import EXIT_INTERRUPTED, TargetError
from drain_gdb.loaders.serve import VARIABLE, Request
from drain_gdb.render.style import Style

PACKAGE = Path(__file__).resolve().parents[1]
STOP_SECONDS = 10


@dataclass(frozen=True)
class Debugger:
    """A debugger that can be started.

    Attributes:
        name: as in ``--debugger``.
        variable: of the environment: the program to start instead of ``programs``.
        programs: what it may be called; the first that is installed is taken.
        package: Debian's, for the hint where none is.
        line: of its own language, that loads the commands.
        options: that make it run ``line`` and end, reading no file of the user's.

    """

    name: str
    variable: str
    programs: Tuple[str, ...]
    package: str
    line: str
    options: Callable[[str], List[str]]

    def find(self) -> Optional[str]:
        """The program to start, None where there is none."""
        wanted = os.environ.get(self.variable)
        return next(filter(shutil.which, (wanted,) if wanted else self.programs), None)

    def require(self) -> str:
        """The program to start; :class:`TargetError` where there is none."""
        found = self.find()
        if found is None:
            wanted = os.environ.get(self.variable, self.programs[0])
            raise TargetError(f"{wanted} is not installed", f"run: apt-get install {self.package}")
        return found


def _gdb_options(line: str) -> List[str]:
    return ["-q", "-nx", "-batch", "-iex", "set auto-load no", "-ex", line]


GDB = Debugger(
    name="gdb",
    variable="DRAIN_GDB_GDB",
    programs=("gdb",),
    package="gdb",
    line=f"source {PACKAGE / 'gdbinit.py'}",
    options=_gdb_options,
)
DEBUGGERS = {debugger.name: debugger for debugger in (GDB,)}


def default() -> Debugger:
    """The debugger that the environment names, else the first that is installed."""
    known = DEBUGGERS.values()
    return next((each for each in known if os.environ.get(each.variable) or each.find()), GDB)


@dataclass(frozen=True)
class Job:
    """A command and the process it is to look at, as :class:`Request` has them."""

    command: Command
    prog: str
    arguments: Sequence[str]
    core: Optional[str]
    exe: Optional[str]
    pid: Optional[int]


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
                pass_fds=passed,
                env={**os.environ, VARIABLE: request.to_json()},
            )
        )
        for descriptor in passed:
            os.close(descriptor)
        result = request.answered()
        if result is None:
            if status == EXIT_INTERRUPTED:
                raise KeyboardInterrupt
            log.seek(0)
            said = [line for line in log.read().splitlines() if line.strip()]
            raise TargetError(f"{program} ended with status {status}", said[-1] if said else None)
        with open(request.out, encoding="utf-8", newline="") as out:
            shutil.copyfileobj(out, sys.stdout)
        sys.stderr.writelines(f"{line}\n" for line in result.lines)
        return result.status


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
