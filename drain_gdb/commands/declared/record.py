"""``drainrecord`` as it is typed and explained."""

from __future__ import annotations

import argparse
import os

from drain_gdb.commands.base import Command
from drain_gdb.errors import OutputError


class RecordWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.record.RecordCommand"
    name = "drainrecord"
    shell = "record"
    summary = "Write a recording: jemalloc's metadata, to be looked at anywhere, later."
    description = """\
A recording is what drainsweep reads of a process, in one compressed file: the same
reports come from it with no core, no program files and no debugger, by giving it as
TARGET to drain-gdb. It holds jemalloc's own structures, the process's name, pid and
paths, its mappings and which of their pages were resident, and nothing of what the
program stores: no object, variable or stack.

A live process is stopped for the copy only. In the shell it runs on before the file
is compressed and written, and the line printed says for how long it was stopped.
The file is readable by you alone and appears only when it is whole."""
    examples = (
        "drainrecord before.drain",
        "drainrecord --force before.drain",
    )
    file = "the recording to write; one that is there is kept"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of a recording."""
        parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
        parser.add_argument("--quiet", action="store_true", help="no progress, no line at the end")

    def check(self, args: argparse.Namespace) -> None:
        """Refuse a file that could not be written, before any process is stopped."""
        folder = os.path.dirname(os.path.abspath(args.file))
        if not os.path.isdir(folder):
            raise OutputError(f"cannot write {args.file}: there is no directory {folder}")
        if os.path.isdir(args.file):
            raise OutputError(f"cannot write {args.file}: it is a directory")
        if os.path.lexists(args.file) and not args.force:
            raise OutputError(f"{args.file} is there already", "add --force to replace it")
