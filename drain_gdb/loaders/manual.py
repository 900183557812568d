"""The manual page that is installed: ``python3 -m drain_gdb.loaders.manual`` makes it anew."""

from __future__ import annotations

from pathlib import Path

import drain_gdb
from drain_gdb.loaders.parsers import EXIT_STATUS, whole
from drain_gdb.render.manual import manual

PAGE = Path(__file__).resolve().parents[1] / "man" / "drain-gdb.1"
SUMMARY = "why a jemalloc process does not give its freed memory back"
ENDS = {
    "EXIT STATUS": EXIT_STATUS,
    "ENVIRONMENT": """\
DRAIN_GDB_GDB and DRAIN_GDB_LLDB name another gdb or lldb to start. With NO_COLOR, reports have
no colours. Large temporary files go to TMPDIR, else to /var/tmp. With DRAIN_GDB_DEBUG an
internal error shows its traceback.""",
    "IN A DEBUGGER": """\
In gdb and lldb the commands are called drainsweep, drainfind, ...; drainhelp lists them. What
loads them:
  drain-gdb init gdb
  drain-gdb init lldb""",
    "SEE ALSO": "gdb(1), lldb(1), jemalloc(3)",
}


def page() -> str:
    """What it says."""
    return manual(whole(), drain_gdb.__version__, SUMMARY, ENDS)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
