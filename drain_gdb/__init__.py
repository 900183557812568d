"""Why a jemalloc process does not give its freed memory back: the Python interface.

    import drain_gdb

    with drain_gdb.open("core.1234") as snapshot:     # a core, a recording, pid=...
        for heap in snapshot.heaps:                   # one a jemalloc
            heap.slabs.address, heap.slabs.live       # columns: arrays that NumPy takes as they are
        snapshot.sweep(), snapshot.account(), snapshot.find(0x7f0012345678)

In the Python of gdb or lldb, ``drain_gdb.current()`` is what the debugger looks at.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drain_gdb.loaders.api import current_snapshot as current
    from drain_gdb.loaders.api import open_snapshot as open
    from drain_gdb.snapshot import Snapshot

__version__ = "0.1.0"
__all__ = ["Snapshot", "current", "open"]
_PLACES = {
    "Snapshot": ("drain_gdb.snapshot", "Snapshot"),
    "current": ("drain_gdb.loaders.api", "current_snapshot"),
    "open": ("drain_gdb.loaders.api", "open_snapshot"),
}


def __getattr__(name: str) -> Any:
    """What is asked for, loaded then: a debugger that starts loads nothing of it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
