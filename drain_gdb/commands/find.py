"""``drainfind``: what an address is."""

from __future__ import annotations

import argparse

from drain_gdb.commands.base import Context
from drain_gdb.commands.declared.find import FindWords
from drain_gdb.commands.opened import opened
from drain_gdb.errors import EXIT_DONE
from drain_gdb.render import address
from drain_gdb.render.style import Style


class FindCommand(FindWords):
    """Look each address up."""

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Do it."""
        with opened(self, args, context) as snapshot:
            addresses = [context.evaluate(text) for text in args.operands]
            found = [snapshot.find(address, args.refs) for address in addresses]
            modules = [index.layout.module for index in snapshot.indices]
        shown = address.as_json(found)
        if args.format == "text":
            style = Style() if args.output else context.style
            shown = "\n".join(address.render(each, modules, style) for each in found)
        context.emit(shown, args.output)
        return EXIT_DONE
