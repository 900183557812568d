"""What allocates in a process that has no jemalloc."""

from __future__ import annotations

import os
from typing import Mapping as MappingOf
from typing import Optional, Sequence

from drain_gdb.debuggee.foreign import LIBRARIES
from drain_gdb.debuggee.functions import exports
from drain_gdb.debuggee.protocol import Mapping, Module, Target
from drain_gdb.layout.identify import places_of
from drain_gdb.memory import Memory

FUNCTIONS = {"moz_arena_malloc": "mozjemalloc", "mi_malloc": "mimalloc", "tc_malloc": "tcmalloc"}
"""What each exports under a name of its own (mozmemory.h, mimalloc.h, gperftools' tcmalloc.h)."""
MESSAGES: MappingOf[bytes, str] = {
    b"mimalloc: error": "mimalloc",
    b"tcmalloc: large alloc": "tcmalloc",
    b"Scudo ERROR": "Scudo",
}
"""What each prints (options.c of mimalloc, gperftools' tcmalloc.cc, scudo's report.cpp)."""


def other_allocator(
    target: Target, memory: Memory, modules: Sequence[Module], mappings: Sequence[Mapping]
) -> Optional[str]:
    """Which allocator shows, in words, with the file that it is in; None where none does."""
    for mapping in mappings:
        found = LIBRARIES.match(os.path.basename(mapping.path))
        if found is not None:
            return f"it uses {found[1]} ({mapping.path})"
    for module in modules:
        for name, allocator in FUNCTIONS.items():
            if exports(target, module, name):
                return f"{allocator} is part of {module.path}"
        for text, places in places_of(memory, module, tuple(MESSAGES)).items():
            if places:
                return f"{MESSAGES[text]} is part of {module.path}"
    return None
