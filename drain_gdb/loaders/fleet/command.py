"""``drain-gdb fleet``: what it is told, done."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from typing import Dict, List, Optional, Sequence, TextIO

from drain_gdb.analysis.fleet import GROUPS, HOSTS, TABLES, Cells, names_of, rows_of
from drain_gdb.commands.base import require_rows, terminal
from drain_gdb.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_PARTIAL, OutputError
from drain_gdb.loaders.dependencies import NEEDED_BY_FLEET, NEEDED_FOR_PARQUET, ensure
from drain_gdb.loaders.fleet.files import Source, find
from drain_gdb.loaders.fleet.journal import Journal, host_of
from drain_gdb.loaders.fleet.reading import Asked
from drain_gdb.loaders.parsers import PROG
from drain_gdb.render.rows import PARQUET, Rows
from drain_gdb.words import count, many

NAME = f"{PROG} fleet"


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    require_rows(args.output)
    parquet = args.output.lower().endswith(PARQUET)
    ensure([*NEEDED_BY_FLEET, *(NEEDED_FOR_PARQUET if parquet else ())])
    tables, journal_path = tables_of(args.output), f"{args.output}.journal"
    _require_free(args.output, journal_path, args.force)
    sources = find(args.source, [*tables.values(), journal_path])
    sysroot = None if args.sysroot is None else os.path.abspath(args.sysroot)
    asked = Asked(args.pins, sysroot, args.timeout)
    names = [place.name for source in sources for place in source.places]
    with Journal(journal_path, asked) as journal:
        status = EXIT_DONE
        try:
            _read(sources, journal, args, asked)
            journal.tidy(names)
        except KeyboardInterrupt:
            status = EXIT_INTERRUPTED
        cells = journal.cells(names)
        _write(tables, cells, args.pins)
    hosts = [host_of(each) for each in cells.values()]
    bad = sum(host.error is not None for host in hosts)
    if not args.quiet or status:
        done = f"{len(cells):,} of {many(len(names), 'file')}"
        begun = "interrupted, the same command goes on; " if status else ""
        errors = f", {many(bad, 'error')}" if bad else ""
        print(f"{NAME}: {begun}{done}{errors}: {args.output}", file=sys.stderr)
    return status or (EXIT_DONE if all(host.sound for host in hosts) else EXIT_PARTIAL)


def tables_of(output: str) -> Dict[str, str]:
    """By table its file: that of hosts is ``output``, the others stand beside it."""
    stem, ending = os.path.splitext(output)
    return {name: output if name == HOSTS else f"{stem}-{name}{ending}" for name in TABLES}


def _require_free(output: str, journal: str, force: bool) -> None:
    """Refuse to replace what no earlier run has written."""
    if os.path.lexists(output) and not os.path.isfile(journal) and not force:
        raise OutputError(f"{output} is there already, and not of a fleet", "add --force")


def _read(
    sources: Sequence[Source], journal: Journal, args: argparse.Namespace, asked: Asked
) -> None:
    """Read what is not in the journal yet."""
    left = [
        source._replace(places=[each for each in source.places if not journal.known(each)])
        for source in sources
    ]
    number = sum(len(source.places) for source in left)
    if not number:
        return
    # Dask takes a second to load.
    from drain_gdb.loaders.fleet import crew  # noqa: PLC0415

    with ExitStack() as stack:
        progress = Counter(None if args.quiet else terminal(), number)
        stack.callback(progress.close)
        made = crew.local(args.workers) if args.scheduler is None else crew.remote(args.scheduler)
        workers = crew.Crew(stack.enter_context(made), asked)
        for place, cells in workers.read(left):
            journal.keep(place, cells)
            progress.add(host_of(cells).error is not None)


def _write(tables: Dict[str, str], cells: Dict[str, Cells], pins: bool) -> None:
    """Put each table in its place, whole or not at all."""
    files = list(cells)
    hosts = names_of(files)
    folder = os.path.dirname(os.path.abspath(tables[HOSTS]))
    groups = pins or any(GROUPS in each for each in cells.values())
    try:
        with tempfile.TemporaryDirectory(prefix=".drain-gdb-", dir=folder) as temporary:
            made: List[str] = []
            for table, path in tables.items():
                if table == GROUPS and not groups:
                    continue
                made.append(path)
                with Rows(os.path.join(temporary, os.path.basename(path)), TABLES[table]) as rows:
                    for file, host in zip(files, hosts):
                        for row in rows_of(table, file, host, cells[file]):
                            rows.put(row)
            for path in made:
                os.replace(os.path.join(temporary, os.path.basename(path)), path)
    except OSError as error:
        raise OutputError(f"cannot write {tables[HOSTS]}: {error.strerror}") from None


class Counter:
    """A line on a terminal that says how many files are done; silent without one."""

    def __init__(self, stream: Optional[TextIO], number: int) -> None:
        self._stream = stream
        self._number = number
        self._done = self._errors = 0
        self._show()

    def add(self, error: bool) -> None:
        """Note one more."""
        self._done += 1
        self._errors += error
        self._show()

    def _show(self) -> None:
        if self._stream is not None:
            errors = f", {many(self._errors, 'error')}" if self._errors else ""
            done = f"{count(self._done)} of {many(self._number, 'file')}{errors}"
            self._stream.write(f"\r{NAME}: {done}")
            self._stream.flush()

    def close(self) -> None:
        """Take the line away."""
        if self._stream is not None:
            self._stream.write("\r\033[K")
            self._stream.flush()
