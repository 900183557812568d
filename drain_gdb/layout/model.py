"""C structs computed from a version's declarations and a build's parameters.

``data/*.json`` holds, per jemalloc version, the member lists that one build's
debug information showed, with array lengths written as functions of the build
parameters (``nbins``, ``nsizes``, ...).  :class:`Model` lays them out by the C
rules for any other build of that version, so a stripped build with another
quantum or page size is understood from the same file.

Declarations: a member is ``[name, type]``, ``[name, type, count]`` or, where it is
aligned by more than its type asks for, ``[name, type, count, align]``; a type is
``[size, align]`` for anything opaque, the name of another struct, or
``{"members": [...]}`` / ``{"union": [...]}`` for one without a name; a count is a
number or a name that :meth:`Parameters.dimension` knows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import LayoutError
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.versions import commits_since, release_key, release_of

SCHEMA = "drain_gdb.layout/1"
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Declarations:
    """One layout file: a jemalloc version and its structs.

    Attributes:
        version: as jemalloc reports it, for instance ``5.3.0-0-g54eaed1...``.
        structs: struct name to declaration.
        source: where the facts were read (file, build-id, parameters).

    """

    version: str
    structs: Mapping[str, Any]
    source: Mapping[str, Any]

    @property
    def debug(self) -> bool:
        """Whether it is of a build with --enable-debug, whose mutexes are larger (mutex.h)."""
        return bool(self.source["debug"])

    @property
    def release(self) -> str:
        """The release, and how many commits after it, for instance ``5.3.1+47``."""
        after = commits_since(self.version)
        return release_of(self.version) + (f"+{after}" if after else "")

    @property
    def name(self) -> str:
        """The release and the kind of build."""
        return self.release + (" (debug build)" if self.debug else "")


@cache
def load_all() -> Tuple[Declarations, ...]:
    """Every layout file of the package, newest release first, debug builds after others."""
    found = []
    for path in sorted(DATA.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema") != SCHEMA:
            raise LayoutError(f"{path} is not a layout file", f"expected schema {SCHEMA}")
        found.append(Declarations(content["version"], content["structs"], content["source"]))

    def age(declarations: Declarations) -> Tuple[Tuple[int, ...], int, bool]:
        version = declarations.version
        return release_key(version), commits_since(version), not declarations.debug

    return tuple(sorted(found, key=age, reverse=True))


def known_releases() -> Tuple[str, ...]:
    """The releases that have a layout file, newest first."""
    return tuple(dict.fromkeys(declarations.release for declarations in load_all()))


class Model:
    """The structs of ``declarations`` as a build with ``parameters`` lays them out."""

    def __init__(self, declarations: Declarations, parameters: Parameters) -> None:
        self._structs = declarations.structs
        self._parameters = parameters
        self._done: Dict[str, Struct] = {}

    def struct(self, name: str) -> Optional[Struct]:
        """Struct ``name``; None where this version has none."""
        if name not in self._structs:
            return None
        if name not in self._done:
            self._done[name] = self._layout(name, self._structs[name])
        return self._done[name]

    def _layout(self, name: str, declared: Mapping[str, Any]) -> Struct:
        union = "union" in declared
        entries: Sequence[Any] = declared["union" if union else "members"]
        members: List[Member] = []
        at = size = 0
        align = int(declared.get("align", 1))
        for entry in entries:
            member = self._member(*entry)
            offset = 0 if union else -(-at // member.align) * member.align
            members.append(
                Member(member.name, offset, member.size, member.align, member.count, member.type)
            )
            at = offset + member.size
            size = max(size, at)
            align = max(align, member.align)
        return Struct(name, -(-size // align) * align, align, tuple(members), union)

    def _member(
        self, name: str, declared: Any, count: Union[str, int, None] = None, at_least: int = 1
    ) -> Member:
        length = self._parameters.dimension(count) if isinstance(count, str) else count
        times = 1 if length is None else int(length)
        if isinstance(declared, list):
            size, align = declared
            return Member(name, 0, size * times, max(align, at_least), length)
        if isinstance(declared, str):
            inner = self.struct(declared)
            if inner is None:
                raise LayoutError(f"the layout file names struct {declared} but lacks it")
        else:
            inner = self._layout("", declared)
        return Member(name, 0, inner.size * times, max(inner.align, at_least), length, inner)
