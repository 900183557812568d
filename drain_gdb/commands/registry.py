"""All commands, in the order the help lists them."""

from __future__ import annotations

import argparse
from typing import Sequence

from drain_gdb.commands.base import Command, Context
from drain_gdb.commands.declared.count import CountWords
from drain_gdb.commands.declared.diff import DiffWords
from drain_gdb.commands.declared.find import FindWords
from drain_gdb.commands.declared.pins import PinsWords
from drain_gdb.commands.declared.plan import PlanWords
from drain_gdb.commands.declared.record import RecordWords
from drain_gdb.commands.declared.report import ReportWords
from drain_gdb.commands.declared.slab import SlabWords
from drain_gdb.commands.declared.sweep import SweepWords
from drain_gdb.commands.declared.watch import WatchWords


class HelpCommand(Command):
    """What there is, with examples."""

    name = "drainhelp"
    shell = "help"
    summary = "All commands of drain_gdb, with examples."
    description = "Each command explains itself with --help."
    examples = ("drainhelp", "drainsweep --help")

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """List the commands."""
        lines = [
            "drain_gdb: this process on jemalloc freed its memory; why does it not come back,",
            "who holds it, and what would help?",
            "",
        ]
        for command in COMMANDS:
            lines.append(f"{command.name:<12}{command.summary}")
            lines += [f"{'':<12}  {example}" for example in command.examples]
        context.write("\n".join([*lines, "", "COMMAND --help explains each option.", ""]))
        return 0


COMMANDS: Sequence[Command] = (
    SweepWords(),
    FindWords(),
    SlabWords(),
    PinsWords(),
    PlanWords(),
    RecordWords(),
    DiffWords(),
    WatchWords(),
    ReportWords(),
    CountWords(),
    HelpCommand(),
)
