"""The shell form: ``drain-gdb sweep TARGET`` and its sisters.

A command that reads a process or a core runs inside a debugger started for it; the
same code is used there as when a person types the command into that debugger.  On a
recording it runs here, with no debugger, and so it does with ``--debugger none``,
where no debugger is installed, and on a core that a debugger died of.
"""

from __future__ import annotations

import argparse
import locale
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence

import drain_gdb
from drain_gdb.commands.base import (
    Command,
    Context,
    HelpRequested,
    Parser,
    Progress,
    terminal,
)
from drain_gdb.debuggee.corefile import CoreFile, compression, examine
from drain_gdb.debuggee.files import File, is_recording, is_text
from drain_gdb.errors import EXIT_DONE, EXIT_USAGE, TargetError, UsageError
from drain_gdb.loaders import launch, parsers
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.dependencies import NEEDED_DIRECTLY, NEEDED_TO_UNPACK, ensure
from drain_gdb.loaders.launch import DEBUGGERS
from drain_gdb.loaders.opening import open_file
from drain_gdb.loaders.parsers import NO_DEBUGGER, OTHERS, PROG
from drain_gdb.render.style import Style

if TYPE_CHECKING:
    from drain_gdb.debuggee.protocol import Target


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
        print(f"{PROG} {drain_gdb.__version__}")
        return EXIT_DONE
    try:
        for command in parsers.reading():
            if command.shell == word:
                return _run(command, rest)
        if word in OTHERS:
            make, module = OTHERS[word]
            status: int = import_module(module).run(make().parse_args(rest))
            return status
    except HelpRequested as request:
        sys.stdout.write(str(request))
        return EXIT_DONE
    known = ", ".join([*(c.shell for c in parsers.reading()), *OTHERS])
    raise UsageError(f"no command {word!r}", f"there are: {known} (see {PROG} --help)")


def _help() -> str:
    lines = [
        f"{PROG}: {parsers.PURPOSE}",
        "",
        f"usage: {PROG} COMMAND TARGET [options]",
        "",
        parsers.TARGET,
        "",
    ]
    lines += [f"  {command.shell:<12}{command.summary}" for command in parsers.reading()]
    lines += [f"  {name:<12}{parsers.summary(make())}" for name, (make, _) in OTHERS.items()]
    lines += [
        "",
        "examples:",
        f"  {PROG} sweep core.1234",
        f"  {PROG} sweep core.1234 --exe /usr/bin/redis-server --format json",
        f"  {PROG} sweep core.1234.zst --debugger none --sysroot /srv/of-that-machine",
        f"  {PROG} sweep --pid 1234 --by arena",
        f"  {PROG} sweep --pid 1234 --debugger none",
        f"  {PROG} record --pid 1234 -o now.drain",
        f"  {PROG} sweep now.drain",
        f"  {PROG} diff before.drain --pid 1234",
        f"  {PROG} watch --pid 1234 --every 5s -o trend.csv",
        f"  redis-cli MEMORY MALLOC-STATS > stats.txt; {PROG} sweep stats.txt",
        f"  {PROG} fleet /srv/moments -o fleet.parquet",
        f"  {PROG} init gdb --write",
        "",
        f"{PROG} COMMAND --help explains each option.",
        f"Exit status: {parsers.EXIT_STATUS}",
        "",
    ]
    return "\n".join(lines)


def _run(command: Command, arguments: List[str]) -> int:
    """Run ``command`` on the target that ``arguments`` name."""
    parser = parsers.of_command(command)
    if command.watches:
        return _watch(command, parser, arguments)
    # Options may stand between TARGET and what it is asked about.
    args = parser.parse_intermixed_args(arguments)
    if command.compares and args.pid is None:
        return _compare(command, args, parser.prog)
    _require_operands(command, args, parser.prog)
    if (args.target is None) == (args.pid is None):
        raise UsageError(
            "give one TARGET: a core file or a recording, or --pid PID",
            f"see: {parser.prog} --help",
        )
    if args.stop and args.pid is None:
        raise UsageError("--stop is for a live process", "give it with --pid PID")
    if args.target is not None and is_recording(args.target):
        _require_no_process(args, "a recording")
        command.check(args)
        recording = import_module("drain_gdb.debuggee.recording")
        return command.run(
            args, _context(lambda: recording.RecordingTarget(recording.read(args.target)), args)
        )
    if args.target is not None and _is_printed(args.target):
        return _printed(command, args)
    if args.exe is not None and not os.path.isfile(args.exe):
        raise TargetError(f"cannot open {args.exe}: no such file")
    if args.pid is not None and not os.path.exists(f"/proc/{args.pid}"):
        raise TargetError(f"cannot attach to process {args.pid}: No such process")
    if args.sysroot is not None and not os.path.isdir(args.sysroot):
        raise TargetError(f"cannot open {args.sysroot}: no such directory")
    with ExitStack() as stack:
        file = None if args.target is None else stack.enter_context(File(args.target))
        packed = None if file is None else compression(file)
        core = None if file is None or packed is not None else examine(file)
        command.check(args)
        if packed is not None:
            file = stack.enter_context(_unpacked(args, packed))
            core = examine(file)
        status = _read(command, args, file, packed is not None)
        if core is not None:
            _remark(core, status)
        return status


def _watch(command: Command, parser: Parser, arguments: List[str]) -> int:
    """Run ``command`` here, on a process that runs."""
    args = parser.parse_args(arguments, argparse.Namespace(exe=None))
    command.check(args)
    ensure(NEEDED_DIRECTLY)
    direct = import_module("drain_gdb.loaders.direct").Direct(
        None, args.pid, None, args.sysroot, stop=False
    )
    return command.run(args, replace(_context(direct.open, args), live=direct.open_live))


def _compare(command: Command, args: argparse.Namespace, prog: str) -> int:
    """Run ``command`` here, on files alone."""
    args.operands[:0] = [] if args.target is None else [args.target]
    if args.now or args.stop:
        raise UsageError("--now and --stop are for a live process", "give it with --pid PID")
    if len(args.operands) < 2:
        raise UsageError("give two moments to compare, or one and --pid PID", f"see: {prog} --help")
    if args.debugger not in (None, NO_DEBUGGER):
        raise UsageError(
            f"{command.shell} reads files itself", f"leave --debugger {args.debugger} out"
        )
    command.check(args)

    def no_process() -> Target:
        raise TargetError("there is no live process", "give it with --pid PID")

    return command.run(args, _context(no_process, args))


def _require_operands(command: Command, args: argparse.Namespace, prog: str) -> None:
    """Check what a command is asked about; with --pid the first word is no TARGET."""
    if command.operands is None:
        return
    if args.pid is not None and args.target is not None:
        args.operands.insert(0, args.target)
        args.target = None
    if command.compares and args.pid is not None:
        # A process is the last moment, read as the files are, and stopped for the copy alone.
        args.now = True
        if args.debugger is None:
            args.debugger, args.stop = NO_DEBUGGER, True
    metavar, _, several, earlier = command.operands
    if earlier and args.operands and args.target is not None:
        args.operands.insert(0, args.target)
        args.target = args.operands.pop()
    if earlier and len(args.operands) < 2:
        return
    if not args.operands or (len(args.operands) > 1 and not several):
        how_many = "at least one" if several else "one"
        raise UsageError(f"give {how_many} {metavar}", f"see: {prog} --help")


def _read(command: Command, args: argparse.Namespace, core: Optional[File], unpacked: bool) -> int:
    """Run ``command`` on a core or a process, in a debugger or here."""
    debugger = launch.default() if args.debugger is None else DEBUGGERS.get(args.debugger)
    if args.debugger is None and debugger is not None and debugger.missing:
        print(f"{PROG}: no debugger is installed, read directly (--debugger none)", file=sys.stderr)
        debugger, args.stop = None, args.pid is not None
    if debugger is None:
        return _directly(command, args, core)
    inherited = (core.descriptor,) if core is not None and unpacked else ()
    job = launch.Job(
        command=command,
        prog=PROG,
        arguments=_own_arguments(command.parser(f"{PROG} {command.shell}"), args),
        core=f"/proc/self/fd/{inherited[0]}" if inherited else args.target,
        exe=args.exe,
        pid=args.pid,
        sysroot=args.sysroot,
        descriptors=inherited,
    )
    try:
        return launch.run(debugger, job, Style(_colour(), _unicode()))
    except launch.DebuggerDied as error:
        if args.debugger is not None or core is None:
            raise
        print(f"{PROG}: {error.message}, read directly (--debugger none)", file=sys.stderr)
        return _directly(command, args, core)


def _directly(command: Command, args: argparse.Namespace, core: Optional[File]) -> int:
    """Run ``command`` here, on a core or a process; an error is said, as a debugger would."""
    ensure(NEEDED_DIRECTLY)
    direct = import_module("drain_gdb.loaders.direct").Direct(
        core, args.pid, args.exe, args.sysroot, args.stop, command.has_to_stand(args)
    )
    context = _context(direct.open, args, direct.release)
    try:
        status, line = guarded(PROG, lambda: command.run(args, context))
    finally:
        stopped = direct.release()
    if line:
        print(line, file=sys.stderr)
    elif stopped is not None and not args.quiet and command.file is None:
        print(f"{PROG}: the process was stopped for {stopped:.3f} s", file=sys.stderr)
    return status


def _unpacked(args: argparse.Namespace, kind: str) -> File:
    """The core of a compressed file."""
    ensure(NEEDED_TO_UNPACK.get(kind, ()))
    progress = Progress(PROG, None if args.quiet else terminal(), f"unpacked of {args.target}")
    try:
        unpack = import_module("drain_gdb.debuggee.compressed").unpack
        file: File = unpack(args.target, kind, progress)
    finally:
        progress.close()
    return file


def _own_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> List[str]:
    """The arguments that ``parser`` knows, written out again from ``args``."""
    written: List[str] = []
    positional: List[str] = []
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if value is None or value is False:
            continue
        if not action.option_strings:
            positional += map(str, value if isinstance(value, list) else [value])
            continue
        written.append(action.option_strings[-1])
        if value is not True:
            written.append(str(value))
    return [*written, "--", *positional] if positional else written


def _require_no_process(args: argparse.Namespace, what: str) -> None:
    """Refuse what only a process or its core is read with."""
    for option in ("exe", "sysroot"):
        if getattr(args, option) is not None:
            raise UsageError(f"{what} needs no program", f"leave --{option} out")
    if args.debugger not in (None, NO_DEBUGGER):
        raise UsageError(
            f"{args.debugger} cannot read {what}", f"leave --debugger {args.debugger} out"
        )


def _is_printed(path: str) -> bool:
    """Whether it is what malloc_stats_print() has printed; a core is not looked through."""
    if not is_text(path):
        return False
    found: bool = import_module("drain_gdb.jemalloc.printed").is_printed(path)
    return found


def _printed(command: Command, args: argparse.Namespace) -> int:
    """Run ``command`` here, on what malloc_stats_print() has printed."""
    _require_no_process(args, "a file of statistics")
    if not command.takes_statistics:
        able = ", ".join(c.shell for c in parsers.reading() if c.takes_statistics)
        raise TargetError(
            f"{args.target} holds jemalloc's statistics, not its heap",
            f"on statistics these work: {able}",
        )
    command.check(args)
    statistics = import_module("drain_gdb.jemalloc.printed").read_printed(args.target)

    def no_process() -> Target:
        raise TargetError(f"{args.target} holds jemalloc's statistics, not its heap")

    return command.run(args, replace(_context(no_process, args), statistics=statistics))


def _context(
    open_target: Callable[[], Target],
    args: argparse.Namespace,
    release: Callable[[], Optional[float]] = lambda: None,
) -> Context:
    """Where a command runs that runs in this process."""
    return Context(
        open_target=open_target,
        write=lambda text: print(text, end="", flush=True),
        note=lambda line: print(line, file=sys.stderr),
        style=Style(_colour(), _unicode()),
        progress=terminal(),
        release=release,
        open_file=partial(open_file, exe=args.exe, sysroot=args.sysroot),
    )


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
