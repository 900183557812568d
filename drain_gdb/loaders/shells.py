"""``drain-gdb completion``: what makes a shell complete its words, by shtab."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Iterator

from drain_gdb.errors import EXIT_DONE, MissingDependency
from drain_gdb.loaders.dependencies import ensure
from drain_gdb.loaders.parsers import PROG, whole

FILES = ("FILE", "TARGET", "MOMENT", "SOURCE")


def run(args: argparse.Namespace) -> int:
    """Print the script for a shell; MissingDependency without shtab."""
    ensure(("shtab",))
    shtab = import_module("shtab")
    if args.shell not in shtab.SUPPORTED_SHELLS:
        raise MissingDependency(
            f"this shtab ({shtab.__version__}) knows no {args.shell}",
            "run: python3 -m pip install --upgrade shtab",
        )
    parser = whole()
    for action in _actions(parser):
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=args.shell, root_prefix=PROG.replace("-", "_")))
    return EXIT_DONE


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
