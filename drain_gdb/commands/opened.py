"""The snapshot that a command looks at."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from typing import Iterator

from drain_gdb.commands.base import Command, Context, Progress
from drain_gdb.snapshot import Snapshot


@contextmanager
def opened(command: Command, args: argparse.Namespace, context: Context) -> Iterator[Snapshot]:
    """The target as a snapshot, with progress meanwhile."""
    target = context.open_target()
    progress = Progress(command.name, None if args.quiet else context.progress)
    try:
        yield Snapshot(target, progress, note=context.note)
    finally:
        progress.close()


def walked(command: Command, args: argparse.Namespace, context: Context) -> Snapshot:
    """The target as a snapshot whose heaps are walked; those that cannot be are noted."""
    with opened(command, args, context) as snapshot:
        refused = snapshot.refused
        context.session.met(snapshot.walked)
    command.note_refused(refused, context)
    return snapshot
