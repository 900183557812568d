"""``drainreport`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands.base import Command, Operands, require_new


class ReportWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.report.ReportCommand"
    name = "drainreport"
    shell = "report"
    stands = True
    takes_statistics = True
    summary = "Write a page to look at: all of the reports in one HTML file."
    description = """\
Where the memory is and why, what each remedy would give, the size classes, a map of the
address space with a cell a slab, and who pins the sparse slabs: what drainsweep,
drainplan and drainpins say. The page is one file that asks nothing of any network; it
names what drainpins names, patterns, types and symbols, and holds no contents.

With EARLIER, a core, a recording or statistics, what drained since and what is new; in
the shell it stands before TARGET: drain-gdb report before.drain after.drain -o page.html.

Of jemalloc's statistics, which have no addresses and no objects, there is no map, and
nobody is named who pins.

It is made with Jinja2 (pip install 'drain-gdb[report]'). Where the Python of a debugger
has none, a recording is written instead, from which the shell makes the page: all of it
but for who pins what, since a recording holds no contents.

A live process stands still meanwhile. Who pins what takes most of the time: --no-pins
leaves it out, and then nothing is read but jemalloc's metadata."""
    examples = (
        "drainreport page.html",
        "drainreport --no-pins --force page.html",
    )
    operands = Operands("EARLIER", "an earlier moment of it, to compare with", False, True)
    file = "the page to write; a file that is there is kept"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
        parser.add_argument("--no-pins", action="store_true", help="leave out who pins what")
        parser.add_argument("--quiet", action="store_true", help="no progress, no line at the end")

    def check(self, args: argparse.Namespace) -> None:
        """Refuse a file that could not be written, before any process is stopped."""
        require_new(args.file, args.force)
