"""What a command is, and what it is given."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ContextManager,
    Iterable,
    Iterator,
    Mapping,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    TextIO,
    Union,
)

from drain_gdb.commands.session import Session
from drain_gdb.errors import DrainError, OutputError, UsageError
from drain_gdb.render.style import Style, printable
from drain_gdb.words import listed

if TYPE_CHECKING:
    from drain_gdb.debuggee.procfs import ProcessTarget
    from drain_gdb.debuggee.protocol import Target
    from drain_gdb.hooks.session import Counting
    from drain_gdb.jemalloc.statistics import Statistics
    from drain_gdb.snapshot import Snapshot


class HelpRequested(Exception):
    """``--help`` was given; ``str()`` is the help."""


class _Help(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show this help")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise HelpRequested(parser.format_help())


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of leaving the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.add_argument("-h", "--help", action=_Help)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(message, f"see: {self.prog} --help")


def _nothing_stopped() -> Optional[float]:
    return None


def no_file(path: str, _: Progress) -> NoReturn:
    """Where no other file is to be opened."""
    raise UsageError(f"cannot open {path} here")


def number(text: str) -> int:
    """The address that ``text`` is; UsageError where it is no number."""
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(
            f"{text!r} is no address",
            "give a number such as 0x7f0012345678; an expression needs a debugger",
        ) from None


class Operands(NamedTuple):
    """What a command is given besides options: a word for it, its help, whether several.

    ``earlier``: it is an earlier moment, and need not be given; before TARGET if it is.
    """

    metavar: str
    help: str
    several: bool
    earlier: bool = False


@dataclass
class Context:
    """Where a command runs.

    Attributes:
        open_target: the process to look at; raises a named error without one.
        write: prints to where reports go.
        note: prints a line beside the report (standard error), escaped.
        style: what ``write`` can show.
        progress: the terminal to show progress on, if there is one.
        release: lets a process run on that was stopped for this command alone; the
            seconds it was stopped, None for any other.
        counting: gives the counts of this debugger, None where there can be none.
        evaluate: the value of an expression that stands for an address; a named error.
        statistics: what the target is where it is no process but what jemalloc has printed.
        open_file: opens another core, recording or file of statistics, for a while.
        live: gives the process as the system shows it while it runs; None in a debugger,
            which has stopped it.
        session: what is kept from one command to the next.
        defaults: values of options that are not given, by their names.
        typed: the command as it was typed.

    """

    open_target: Callable[[], Target]
    write: Callable[[str], None]
    note: Callable[[str], None]
    style: Style
    progress: Optional[TextIO] = None
    release: Callable[[], Optional[float]] = _nothing_stopped
    counting: Optional[Callable[[], Counting]] = None
    evaluate: Callable[[str], int] = number
    statistics: Optional[Statistics] = None
    open_file: Callable[[str, Progress], ContextManager[Union[Snapshot, Statistics]]] = no_file
    live: Optional[Callable[[], ProcessTarget]] = None
    session: Session = field(default_factory=Session)
    defaults: Mapping[str, object] = field(default_factory=dict)
    typed: str = ""

    def __post_init__(self) -> None:
        show = self.note
        self.note = lambda line: show(printable(line))

    def emit(self, text: str, output: Optional[str]) -> None:
        """Write a report to the file ``output``, or where reports go."""
        if output is None:
            self.write(text)
            self.session.keep(self.typed, text)
            return
        try:
            with open(output, "w", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"cannot write {output}: {error.strerror}") from None


class Command:
    """A command: its names, its help, its arguments, what it does.

    One that reads a process does it in a class of its own, which is loaded when it is run.
    """

    name: str
    """As typed in a debugger."""
    shell: str
    """As typed after ``drain-gdb``; empty where it needs a debugger's prompt."""
    summary: str
    description: str
    examples: Sequence[str]
    takes_statistics = False
    """Whether it can work on what malloc_stats_print() has printed."""
    stands = False
    """Whether a process is to stand still as long as this looks at it: it reads contents."""
    file: Optional[str] = None
    """Help of the FILE it makes, which the shell form has as -o; None if it makes none."""
    compares = False
    """Whether it is given several files, of which TARGET is but the first."""
    watches = False
    """Whether it looks at a process again and again, which it never stops."""
    operands: Optional[Operands] = None
    """What it is asked about, None if about all of the target; ``args.operands``."""
    done_by: str
    """The class that does it: this command with a ``run`` of its own."""

    @property
    def readable(self) -> bool:
        """Whether it only reads, so that anything can do that for it; else the debugger must."""
        return bool(self.shell)

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""

    def has_to_stand(self, args: argparse.Namespace) -> bool:
        """Whether a process is to stand still, as it is called with ``args``."""
        del args
        return self.stands

    def check(self, args: argparse.Namespace) -> None:
        """Refuse what cannot work, before a process is looked at."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it; returns the exit status of the shell form."""
        module, name = self.done_by.rsplit(".", 1)
        with nullcontext() if self.watches else _uncollected():
            doer: Command = getattr(import_module(module), name)()
            return doer.run(args, context)

    def parser(self, prog: str, shell: bool = False) -> Parser:
        """The parser of this command as called by ``prog``, from the ``shell`` or a debugger."""
        parser = Parser(
            prog=prog,
            description=f"{self.summary}\n\n{self.description}",
            epilog="examples:\n" + "\n".join(f"  {line}" for line in self.examples),
        )
        if self.file is not None and shell:
            output = ("-o", "--output")
            parser.add_argument(*output, dest="file", metavar="FILE", required=True, help=self.file)
        elif self.file is not None:
            parser.add_argument("file", metavar="FILE", help=self.file)
        if self.operands is not None and not shell:
            several = "?" if self.operands.earlier else "+" if self.operands.several else 1
            self._add_operands(parser, several)
        self.configure(parser)
        return parser

    def add_shell_operands(self, parser: argparse.ArgumentParser) -> None:
        """Add them behind TARGET, which may not be there."""
        self._add_operands(parser, "*")

    def _add_operands(self, parser: argparse.ArgumentParser, several: Union[int, str]) -> None:
        if self.operands is not None:
            metavar, words, *_ = self.operands
            parser.add_argument("operands", metavar=metavar, nargs=several, help=words)

    def note_refused(
        self, refused: Iterable[DrainError], context: Context, where: str = ""
    ) -> None:
        """Say why jemallocs of the process, or of ``where``, are left out."""
        said = f"{self.name}: {where}: " if where else f"{self.name}: "
        for error in refused:
            context.note(f"{said}one allocator is left out: {error}")

    def invoke(self, arguments: Sequence[str], context: Context) -> int:
        """Parse ``arguments`` and run; ``--help`` writes the help."""
        parser = self.parser(self.name)
        known = {action.dest for action in parser._actions}
        parser.set_defaults(**{k: v for k, v in context.defaults.items() if k in known})
        context.typed = " ".join([self.name, *arguments])
        try:
            args = parser.parse_args(list(arguments))
        except HelpRequested as request:
            context.write(str(request))
            return 0
        self.check(args)
        return self.run(args, context)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing is looked through for rings meanwhile: of what a command makes, none are large."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            # What is there now is old: not looked through as soon as something new is made.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def report_options(
    parser: argparse.ArgumentParser, formats: Sequence[str] = ("text", "json")
) -> None:
    """Add the options of every command that makes a report."""
    parser.add_argument("--format", choices=formats, default="text", help="default: text")
    parser.add_argument("--output", metavar="FILE", help="write the report to FILE")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")


PARQUET = "parquet"


def settle_format(args: argparse.Namespace) -> None:
    """A FILE that ends with .parquet is one; Parquet goes to a file alone."""
    if args.format == "text" and (args.output or "").lower().endswith(f".{PARQUET}"):
        args.format = PARQUET
    if args.format == PARQUET and args.output is None:
        raise UsageError(f"--format {PARQUET} goes to a file", "add --output FILE")


class Progress:
    """A line on a terminal that says how much has been read; silent without one."""

    STEP = 1 << 20

    def __init__(self, what: str, stream: Optional[TextIO], done: str = "of metadata read") -> None:
        self._what = what
        self._done = done
        self._stream = stream
        self._read = 0
        self._shown = 0

    def __call__(self, size: int) -> None:
        """Note that ``size`` more bytes were read."""
        self._read += size
        if self._stream is not None and self._read - self._shown >= self.STEP:
            self._shown = self._read
            self._stream.write(f"\r{self._what}: {self._read >> 20} MiB {self._done}")
            self._stream.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._stream is not None and self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()


def terminal() -> Optional[TextIO]:
    """Standard error, if it is a terminal."""
    stream = sys.__stderr__
    return stream if stream is not None and stream.isatty() else None


def require_new(path: str, overwrite: bool) -> None:
    """Refuse a file that could not be written, or is there and not to be replaced."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise OutputError(f"cannot write {path}: there is no directory {folder}")
    if os.path.isdir(path):
        raise OutputError(f"cannot write {path}: it is a directory")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} is there already", "add --force to replace it")


ROWS = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")
"""How files of rows end."""


def require_rows(path: str) -> None:
    """Refuse a file that rows cannot be kept in, by its ending."""
    if os.path.splitext(path)[1].lower() not in ROWS:
        raise UsageError(
            f"rows are kept in no file such as {path}", f"its name ends with one of {listed(ROWS)}"
        )


def positive(text: str) -> int:
    """An argparse type: an integer from 1."""
    value = int(text, 0)
    if value < 1:
        raise ValueError
    return value


def natural(text: str) -> int:
    """An argparse type: an integer from 0."""
    value = int(text, 0)
    if value < 0:
        raise ValueError
    return value


UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def seconds(text: str) -> float:
    """An argparse type: a span of time above 0, as 500ms, 5s, 1m or 2h; else in seconds."""
    unit = text.lstrip("0123456789.")
    value = float(text[: len(text) - len(unit)]) * UNITS.get(unit, 0)
    if not 0 < value < float("inf"):
        raise ValueError
    return value
