"""The shell form: ``drain-gdb sweep TARGET`` and its sisters.

A command that reads a process or a core runs inside a debugger started for it; the
same code is used there as when a person types the command into that debugger.  On a
recording it runs here, with no debugger.
"""

from __future__ import annotations

import argparse
import locale
import os
import sys
from importlib import metadata
from typing import List, Optional, Sequence

from drain_gdb.commands.base import (
    Command,
    Context,
    HelpRequested,
    Parser,
    natural,
    terminal,
)
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.errors import EXIT_DONE, EXIT_USAGE, TargetError, UsageError
from drain_gdb.loaders import launch
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.launch import DEBUGGERS
from drain_gdb.render.style import Style
from drain_gdb.target.corefile import CoreFile, examine
from drain_gdb.target.recording import RecordingTarget, is_recording, read

PROG = "drain-gdb"
NO_DEBUGGER = "none"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the shell form; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    status, line = guarded(PROG, lambda: _dispatch(arguments))
    if line:
        print(line, file=sys.stderr)
    return status


def _dispatch(arguments: List[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return EXIT_DONE if arguments else EXIT_USAGE
    word, rest = arguments[0], arguments[1:]
    if word == "--version":
        print(f"{PROG} {metadata.version('drain-gdb')}")
        return EXIT_DONE
    try:
        if word == "init":
            return _init(rest)
        for command in _reading():
            if command.shell == word:
                return _run(command, rest)
    except HelpRequested as request:
        sys.stdout.write(str(request))
        return EXIT_DONE
    known = ", ".join([*(c.shell for c in _reading()), "init"])
    raise UsageError(f"no command {word!r}", f"there are: {known} (see {PROG} --help)")


def _reading() -> List[Command]:
    """The commands that look at a process."""
    return [c for c in COMMANDS if c.name != "drainhelp" and c.shell]


def _help() -> str:
    lines = [
        "drain-gdb: this process on jemalloc freed its memory; why does it not come back,",
        "who holds it, and what would help?",
        "",
        f"usage: {PROG} COMMAND TARGET [options]",
        "",
        "TARGET is a core file, a recording, or --pid PID for a live process.",
        "",
    ]
    lines += [f"  {command.shell:<10}{command.summary}" for command in _reading()]
    lines += [
        f"  {'init':<10}Print the line that loads the commands into a debugger.",
        "",
        "examples:",
        f"  {PROG} sweep core.1234",
        f"  {PROG} sweep core.1234 --exe /usr/bin/redis-server --format json",
        f"  {PROG} sweep --pid 1234 --by arena",
        f"  {PROG} record --pid 1234 -o now.drain",
        f"  {PROG} sweep now.drain",
        f"  {PROG} init gdb",
        "",
        f"{PROG} COMMAND --help explains each option.",
        "Exit status: 0 done; 1 usage; 2 no jemalloc, or the target cannot be read;",
        "3 done, but the accounting does not match or is partial; 130 interrupted.",
        "",
    ]
    return "\n".join(lines)


def _init(arguments: List[str]) -> int:
    parser = Parser(
        prog=f"{PROG} init",
        description="Print the line that loads the commands into a debugger.",
        epilog=f"examples:\n  {PROG} init gdb >> ~/.gdbinit",
    )
    parser.add_argument("debugger", choices=[*DEBUGGERS])
    args = parser.parse_args(arguments)
    print(DEBUGGERS[args.debugger].line)
    return EXIT_DONE


def _run(command: Command, arguments: List[str]) -> int:
    """Run ``command`` on the target that ``arguments`` name."""
    prog = f"{PROG} {command.shell}"
    parser = command.parser(prog, shell=True)
    parser.epilog = "examples:\n" + "\n".join(
        f"  {_as_in_shell(line, command)}" for line in command.examples
    )
    where = parser.add_argument_group("target")
    where.add_argument("target", nargs="?", metavar="TARGET", help="a core file or a recording")
    where.add_argument("--pid", type=natural, help="a live process; it is stopped meanwhile")
    where.add_argument("--exe", metavar="FILE", help="the program of the core")
    where.add_argument(
        "--debugger",
        choices=(*DEBUGGERS, NO_DEBUGGER),
        help="what reads the target (default: none for a recording, else gdb)",
    )
    args = parser.parse_args(arguments)
    if (args.target is None) == (args.pid is None):
        raise UsageError(
            "give one TARGET: a core file or a recording, or --pid PID", f"see: {prog} --help"
        )
    if args.target is not None and is_recording(args.target):
        return _replayed(command, args)
    if args.debugger == NO_DEBUGGER:
        raise UsageError(
            "without a debugger only a recording can be read", "leave --debugger none out"
        )
    if args.exe is not None and not os.path.isfile(args.exe):
        raise TargetError(f"cannot open {args.exe}: no such file")
    core = None if args.target is None else examine(args.target)
    command.check(args)
    own = _own_arguments(command.parser(prog), args)
    job = launch.Job(command, PROG, own, args.target, args.exe, args.pid)
    debugger = launch.default() if args.debugger is None else DEBUGGERS[args.debugger]
    status = launch.run(debugger, job, Style(_colour(), _unicode()))
    if core is not None:
        _remark(core, status)
    return status


def _as_in_shell(example: str, command: Command) -> str:
    """An example of a debugger's prompt as one of the shell form."""
    words = example.split()[1:]
    if command.file is not None:
        words.insert(-1, "-o")
    return " ".join([PROG, command.shell, "core.1234", *words])


def _own_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> List[str]:
    """The arguments that ``parser`` knows, written out again from ``args``."""
    written: List[str] = []
    positional: List[str] = []
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if value is None or value is False:
            continue
        if not action.option_strings:
            positional.append(str(value))
            continue
        written.append(action.option_strings[-1])
        if value is not True:
            written.append(str(value))
    return [*written, "--", *positional] if positional else written


def _replayed(command: Command, args: argparse.Namespace) -> int:
    """Run ``command`` here, on the recording that is the target."""
    if args.exe is not None:
        raise UsageError("a recording needs no program", "leave --exe out")
    if args.debugger not in (None, NO_DEBUGGER):
        raise UsageError(
            f"{args.debugger} cannot read a recording", f"leave --debugger {args.debugger} out"
        )
    command.check(args)
    context = Context(
        open_target=lambda: RecordingTarget(read(args.target)),
        write=lambda text: print(text, end=""),
        note=lambda line: print(line, file=sys.stderr),
        style=Style(_colour(), _unicode()),
        progress=terminal(),
    )
    return command.run(args, context)


def _remark(core: CoreFile, status: int) -> None:
    """What the core's own header explains of a sweep that did not succeed."""
    if core.missing and status != EXIT_DONE:
        print(
            f"{PROG}: {core.path} is truncated: {core.missing} bytes are missing at its end"
            " (a full disk, or a limit such as ulimit -c)",
            file=sys.stderr,
        )


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _unicode() -> bool:
    encoding = sys.stdout.encoding or locale.getpreferredencoding(False)
    return encoding.lower().replace("-", "") == "utf8"
