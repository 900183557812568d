"""What the shell form takes: a parser for each of its commands, and one of all."""

from __future__ import annotations

import argparse
from typing import Callable, Dict, List, Tuple

from drain_gdb.commands.base import Command, Parser, natural, positive, seconds
from drain_gdb.commands.registry import COMMANDS
from drain_gdb.loaders.launch import DEBUGGERS

PROG = "drain-gdb"
NO_DEBUGGER = "none"
SHELLS = ("bash", "zsh", "fish")
PURPOSE = """\
this process on jemalloc freed its memory; why does it not come back,
who holds it, and what would help?"""
TARGET = """\
TARGET is a core file, a recording, or --pid PID for a live process; for sweep, plan
and report also what malloc_stats_print() printed (Redis: MEMORY MALLOC-STATS)."""

EXIT_STATUS = """\
0 done; 1 usage; 2 no jemalloc, or the target cannot be read;
3 done, but the accounting does not match or is partial; 130 interrupted."""


def reading() -> List[Command]:
    """The commands that look at a process."""
    return [c for c in COMMANDS if c.name != "drainhelp" and c.shell]


def of_command(command: Command) -> Parser:
    """The parser of ``command`` and of the target it looks at."""
    parser = command.parser(f"{PROG} {command.shell}", shell=True)
    parser.epilog = "examples:\n" + "\n".join(
        f"  {_as_in_shell(line, command)}" for line in command.examples
    )
    where = parser.add_argument_group("target")
    if command.watches:
        where.add_argument(
            "--pid", type=natural, required=True, help="the process; it is not stopped"
        )
        _add_sysroot(where)
        return parser
    where.add_argument(
        "target", nargs="?", metavar="TARGET", help="a core file, a recording or statistics"
    )
    command.add_shell_operands(parser)
    where.add_argument(
        "--pid",
        type=natural,
        help="a live process; it is stopped meanwhile, but not with --debugger none",
    )
    where.add_argument("--exe", metavar="FILE", help="the program of the core")
    _add_sysroot(where)
    where.add_argument(
        "--debugger",
        choices=(*DEBUGGERS, NO_DEBUGGER),
        help="what reads the target; none: this program itself (default: none for a recording,"
        " else a debugger that is installed)",
    )
    where.add_argument(
        "--stop",
        action="store_true",
        help="with --debugger none: stop the process of --pid while its memory is copied",
    )
    return parser


def _add_sysroot(where: argparse._ActionsContainer) -> None:
    where.add_argument(
        "--sysroot",
        metavar="DIR",
        help="where the files of another machine are: its program and libraries are looked"
        " for below DIR",
    )


def _as_in_shell(example: str, command: Command) -> str:
    """An example of a debugger's prompt as one of the shell form."""
    words = example.split()[1:]
    if command.file is not None:
        words.insert(-1, "-o")
    if command.watches:
        words[:0] = ["--pid", "1234"]
    elif not command.compares:
        words.insert(0, "core.1234")
    return " ".join([PROG, command.shell, *words])


def of_init() -> Parser:
    """The parser of ``init``."""
    parser = Parser(
        prog=f"{PROG} init",
        description="Print the line that loads the commands into a debugger, or write it.",
        epilog=f"examples:\n  {PROG} init gdb\n  {PROG} init gdb --write",
    )
    parser.add_argument("debugger", choices=[*DEBUGGERS], help="which one")
    parser.add_argument(
        "--write",
        action="store_true",
        help="add the line to the debugger's own file of the home directory, if it is not there;"
        " asks first",
    )
    parser.add_argument("--yes", action="store_true", help="with --write: do not ask")
    return parser


def of_completion() -> Parser:
    """The parser of ``completion``."""
    parser = Parser(
        prog=f"{PROG} completion",
        description="Print what makes a shell complete commands, options, values and files.",
        epilog="\n".join(
            [
                "examples:",
                f"  {PROG} completion bash > ~/.local/share/bash-completion/completions/{PROG}",
                f"  {PROG} completion zsh > DIR/_{PROG}        (DIR is one of $fpath)",
                f"  {PROG} completion fish > ~/.config/fish/completions/{PROG}.fish",
            ]
        ),
    )
    parser.add_argument("shell", choices=SHELLS, help="which one")
    return parser


def of_fleet() -> Parser:
    """The parser of ``fleet``."""
    parser = Parser(
        prog=f"{PROG} fleet",
        description="""\
Many cores, recordings and reports into tables, in parallel.

A row a process goes into FILE, and beside it one a size class of each process into
FILE-classes, one a cause into FILE-causes, and, with --pins or reports of drainpins, one a
group into FILE-groups: fleet.parquet, fleet-classes.parquet, ... for DuckDB, pandas and
their like; the columns file and host, the name within what SOURCE holds, join them.

Read is what sweep reads, and reports of sweep and pins in JSON. A file that cannot be read
is a row with error_kind and error, also where it takes too long or the worker that reads
it dies. What was read stands in FILE.journal: the same command goes on where it ended, and
reads anew what has changed and what could not be read.""",
        epilog="\n".join(
            [
                "examples:",
                f"  {PROG} fleet /srv/moments -o fleet.parquet",
                f"  {PROG} fleet '/srv/*/core.*' --sysroot /srv/image --pins -o fleet.parquet",
                f"  {PROG} fleet s3://bucket/moments --scheduler tcp://10.0.0.1:8786 -o fleet.csv",
            ]
        ),
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="a folder, with all below it, a file, a pattern, or a URL that fsspec knows",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="where rows go, by its ending: .parquet, .csv or .jsonl",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--workers", type=positive, metavar="N", help="of this machine (default: one a processor)"
    )
    who.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that is there")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=600.0,
        metavar="TIME",
        help="a file that takes longer is given up: 30s, 10m (default: 10m)",
    )
    parser.add_argument(
        "--pins", action="store_true", help="who pins what, too, as drainpins has it: takes longer"
    )
    _add_sysroot(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace FILE if something else stands there"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no line at the end")
    return parser


OTHERS: Dict[str, Tuple[Callable[[], Parser], str]] = {
    "fleet": (of_fleet, "drain_gdb.loaders.fleet.command"),
    "init": (of_init, "drain_gdb.loaders.startup"),
    "completion": (of_completion, "drain_gdb.loaders.shells"),
}
"""The commands that look at no process: their parser, and the module whose ``run`` does it."""


def summary(parser: argparse.ArgumentParser) -> str:
    """What a command does, in a line."""
    return (parser.description or "").splitlines()[0]


def whole() -> argparse.ArgumentParser:
    """One parser of all commands, for what describes them."""
    parser = Parser(prog=PROG, description=f"{PROG}: {PURPOSE}\n\n{TARGET}")
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=argparse.ArgumentParser)
    known = {command.shell: of_command(command) for command in reading()}
    known.update({name: make() for name, (make, _) in OTHERS.items()})
    for name, own in known.items():
        commands.add_parser(
            name,
            prog=own.prog,
            help=summary(own),
            description=own.description,
            epilog=own.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            parents=[own],
        )
    return parser
