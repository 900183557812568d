"""Load drain_gdb into gdb: ``source PATH/drain_gdb/gdbinit.py``."""

import os
import sys

import gdb

HOME = os.path.dirname(os.path.dirname(os.path.abspath(os.path.expanduser(__file__))))


def _load() -> None:
    if sys.version_info < (3, 9):
        raise gdb.GdbError(
            f"drain_gdb needs Python 3.9 or later, this gdb has {sys.version.split()[0]}"
        )
    if HOME not in sys.path:
        sys.path.append(HOME)
    from drain_gdb.errors import DrainError
    from drain_gdb.loaders.dependencies import ensure

    try:
        ensure()
    except DrainError as error:
        raise gdb.GdbError(f"drain_gdb: {error}") from None
    from drain_gdb.loaders import gdb as loader

    if os.environ.get(loader.REQUEST):
        loader.serve()
    else:
        loader.register()


_load()
