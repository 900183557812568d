"""``drainrecord`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands.base import Command, require_new


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
        require_new(args.file, args.force)
