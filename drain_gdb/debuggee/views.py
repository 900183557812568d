"""Views of a target's memory."""

from __future__ import annotations

from typing import Optional

from drain_gdb.debuggee.protocol import Target
from drain_gdb.memory import Memory, Progress, Recorder


def memory_of(
    target: Target, progress: Optional[Progress] = None, recorder: Optional[Recorder] = None
) -> Memory:
    """A fresh view of the target's memory, which nothing was read through yet."""
    return Memory(target.read, progress, recorder, target.mapped())
