"""``drainfind`` as it is typed and explained."""

from __future__ import annotations

import argparse

from drain_gdb.commands.base import Command, Operands, report_options


class FindWords(Command):
    """Its names, its help, its options."""

    done_by = "drain_gdb.commands.find.FindCommand"
    name = "drainfind"
    shell = "find"
    stands = True
    operands = Operands("ADDR", "an address, or in a debugger an expression", several=True)
    summary = "What an address is: its region, slab and arena, its state, what it holds."
    description = """\
Of each address, which may lie anywhere within an object: the region or large allocation
that holds it, whether that is live, in a thread cache (and which) or free; or unused
pages of jemalloc's, its metadata, the stack of a thread, a variable, a file, or nothing.
With the heap profiler on (prof:true) a sampled allocation has its backtrace.

Only the way from that address through the radix tree is read, not the whole heap. With
--refs all of it is, and who holds the object is said, up to a variable, the stack of a
thread, or the keys of a server."""
    examples = (
        "drainfind 0x7f5a12c0d480",
        "drainfind &server 0x7f5a12c0d480",
        "drainfind --refs 0x7f5a12c0d480",
        "drainfind --format json 0x7f5a12c0d480",
    )

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument("--refs", action="store_true", help="say who holds it, too")
        report_options(parser)
