"""The shell form without a debugger: cores and processes read directly.

This needs packages that no debugger has; it is imported only where it is used.
"""

from __future__ import annotations

import argparse

from drain_gdb.target.elfcore import CoreTarget
from drain_gdb.target.files import File
from drain_gdb.target.procfs import ProcessTarget
from drain_gdb.target.protocol import Target


def target(args: argparse.Namespace) -> Target:
    """The core or process that ``args`` name."""
    if args.pid is not None:
        return ProcessTarget(args.pid)
    return CoreTarget(File(args.target), args.exe)
