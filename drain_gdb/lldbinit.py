"""Load drain_gdb into lldb: ``command script import PATH/drain_gdb/lldbinit.py``."""

import os
import sys
from typing import Any, Dict

HOME = os.path.dirname(os.path.dirname(os.path.abspath(os.path.expanduser(__file__))))


def _why_not() -> str:
    """What stands against loading, empty if nothing does."""
    if sys.version_info < (3, 9):
        return "drain_gdb needs Python 3.9, this lldb has " + sys.version.split()[0]
    sys.path.insert(0, HOME)
    import drain_gdb  # noqa: F401 - the one beside this file, whatever else there is

    sys.path.remove(HOME)
    from drain_gdb.errors import DrainError
    from drain_gdb.loaders.dependencies import require_lldb

    try:
        require_lldb()
    except DrainError as error:
        return f"drain_gdb: {error}"
    return ""


def __lldb_init_module(debugger: Any, session: Dict[str, Any]) -> None:
    """What lldb calls once it has read this file."""
    refused = _why_not()
    if refused:
        print(refused, file=sys.stderr)
        return
    from drain_gdb.loaders.dependencies import advice

    said = advice()
    from drain_gdb.loaders import lldb as loader
    from drain_gdb.loaders.serve import requested

    if requested():
        loader.serve(debugger)
        return
    loader.register(debugger, session)
    if said:
        print(f"drain_gdb: {said}", file=sys.stderr)
