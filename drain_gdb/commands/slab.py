"""``drainslab``: the map of one slab."""

from __future__ import annotations

import argparse

from drain_gdb.commands.base import Context
from drain_gdb.commands.declared.slab import SlabWords
from drain_gdb.commands.opened import opened
from drain_gdb.errors import EXIT_DONE
from drain_gdb.render import slab
from drain_gdb.render.style import Style


class SlabCommand(SlabWords):
    """Look its regions up."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it."""
        with opened(self, args, context) as snapshot:
            found = snapshot.slab(context.evaluate(args.operands[0]))
        shown = slab.as_json(found)
        if args.format == "text":
            shown = slab.render(found, Style() if args.output else context.style)
        context.emit(shown, args.output)
        return EXIT_DONE
