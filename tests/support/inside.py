"""Run inside gdb or lldb: what its adapter says of the process, as JSON.

``tell(TARGET, STRUCTS, NEAR, ENDINGS, FILE)`` writes it to FILE.  What a debugger may
know more of than the program needs (sections of other kinds) is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Struct, Target


def tell(
    target: Target, structs: Sequence[str], near: str, endings: Sequence[str], file: str
) -> None:
    variable = target.symbol(near)
    assert variable is not None
    modules = [
        (m.path, m.build_id, asdict(s))
        for m in target.modules()
        for s in m.sections
        if s.writable or s.constant
    ]
    found = {
        "process": {**asdict(target.process()), "debugger": None, "taken_at": None},
        "modules": sorted(modules, key=str),
        "mappings": [asdict(mapping) for mapping in target.mappings()],
        "mapped": _joined(target.mapped()),
        "symbols": sorted((s.name, s.address) for s in target.symbols(*endings)),
        "symbol": asdict(variable),
        "absent": target.symbol("no_such_variable"),
        "structs": {name: _struct(target, name, near) for name in structs},
        "thread_pointers": sorted(target.thread_pointers()),
        "bytes": target.read(variable.address, 8).hex(),
    }
    with open(file, "w", encoding="utf-8") as out:
        json.dump(found, out)


def _joined(ranges: Optional[Sequence[Tuple[int, int]]]) -> object:
    """Adjacent ranges as one."""
    if ranges is None:
        return None
    edges = Counter(edge for pair in ranges for edge in pair)
    return [edge for edge in sorted(edges) if edges[edge] == 1]


def _struct(target: Target, name: str, near: str) -> object:
    variable = target.symbol(near)
    assert variable is not None
    struct = target.struct(name, variable)
    return None if struct is None else _plain(struct)


def _plain(struct: Struct) -> object:
    """Without its name: debuggers make up their own for a struct that has none."""
    members = [
        {**asdict(member), "type": None if member.type is None else _plain(member.type)}
        for member in struct.members
    ]
    return {**asdict(struct), "name": None, "members": members}
