"""C structs computed from a commit's declarations and a build's parameters.

``data/layouts.json`` holds, for every commit of jemalloc from 5.0.0 on, the member
lists of the structs a walk reaches: each form of a struct once, with array lengths
written as functions of the build parameters (``nbins``, ``nsizes``, ...), and a table of
the commits at which a struct takes another form.  :class:`Model` lays a form out by the
C rules for any build, so a stripped one with another quantum or page size is understood
from the same data.

Declarations: a member is ``[name, type]``, ``[name, type, count]`` or, where it is
aligned by more than its type asks for, ``[name, type, count, align]``; a type is
``[size, align]`` for anything opaque, the name of another struct, or
``{"members": [...]}`` / ``{"union": [...]}`` for one without a name; a count is a
number or a name that :meth:`Parameters.dimension` knows.

The table's rows are ``[version, changes, debug]``: the first commit with that
combination, as ``git describe`` names it; by struct the number of the form it has from
there on, 0 where there is none any more; and the same for builds with --enable-debug,
where 0 means the form of other builds.  ``constants`` stands among the structs.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pkgutil import get_data
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import LayoutError
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.versions import commits_since, release_key, release_of

SCHEMA = "drain_gdb.layout/2"
DATA = "data/layouts.json"
"""Beside this module, which may lie in a zip file."""
CONSTANTS = "constants"

Forms = Mapping[str, int]
Key = Tuple[Tuple[int, ...], int]


@dataclass(frozen=True)
class Declarations:
    """The structs of jemalloc from one commit on, until one of them changes.

    Attributes:
        version: the first such commit, for instance ``5.3.0-182-gf9c0b5f7``.
        debug: whether they are those of a build with --enable-debug.
        structs: struct name to declaration.
        forms: struct name to the number of its form; equal numbers, equal declarations
            (of the struct itself: a struct that it names has a number of its own).
        constants: what is no struct: ``e_bits`` and ``leaf_tags`` (fields and widths, from
            bit 0 on), ``states`` (extent states in order), ``extent_alignment``,
            ``leaf_metadata`` (whether a leaf of two words has its tags in one word),
            and, where there are such, ``leading_junk``, ``trailing_junk``,
            ``tcache_nbins_max``, ``bin_shards_max``, ``arenas_max``, ...; numbers, or
            names that :meth:`Parameters.dimension` knows.
        last: the last commit of the range; None where it is the newest known.

    """

    version: str
    debug: bool
    structs: Mapping[str, Any]
    forms: Forms
    constants: Mapping[str, Any]
    last: Optional[str]

    @property
    def name(self) -> str:
        """The range of commits and the kind of build, in words."""
        first = short(self.version)
        until = " and later" if self.last is None else f" to {self.last}"
        return first + (until if self.last != first else "") + (", debug" if self.debug else "")


def short(version: str) -> str:
    """``5.3.0-182`` of ``5.3.0-182-gf9c0b5f7``, and ``5.3.0`` of ``5.3.0-0-g54eaed1d``."""
    after = commits_since(version)
    return release_of(version) + (f"-{after}" if after else "")


def _key(version: str) -> Key:
    return release_key(version), commits_since(version)


class Table:
    """The content of a layout file."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.releases: Tuple[str, ...] = tuple(content["releases"])
        self.newest: str = content["newest"]
        self._forms: Mapping[str, Sequence[Any]] = content["forms"]
        self._rows: Sequence[Any] = content["rows"]
        self._keys = [_key(version) for version, _, _ in self._rows]

    @cached_property
    def _states(self) -> List[Tuple[Forms, Forms]]:
        """The forms from each row on: of usual builds, and of those for debugging."""
        found: List[Tuple[Forms, Forms]] = []
        usual: Dict[str, int] = {}
        debug: Dict[str, int] = {}
        for _, changed, own in self._rows:
            usual = {name: form for name, form in {**usual, **changed}.items() if form}
            debug = {name: form for name, form in {**debug, **own}.items() if form}
            found.append((usual, {**usual, **debug}))
        return found

    def row(self, row: int, debug: bool) -> Declarations:
        """What holds from a row of the table on."""
        forms = self._states[row][debug]
        structs = {name: self._forms[name][form - 1] for name, form in forms.items()}
        constants = structs.pop(CONSTANTS)
        last: Optional[str] = None
        if row + 1 < len(self._rows):
            version = self._rows[row + 1][0]
            last = short(f"{release_of(version)}-{commits_since(version) - 1}")
        return Declarations(self._rows[row][0], debug, structs, forms, constants, last)

    def at(self, version: str, debug: bool) -> Declarations:
        """What holds at ``version``."""
        return self.row(max(bisect_right(self._keys, _key(version)) - 1, 0), debug)

    def all(self) -> Iterator[Declarations]:
        """What holds from each row on, newest first; debug builds after all others."""
        for debug in (False, True):
            for row in reversed(range(len(self._rows))):
                yield self.row(row, debug)


@cache
def _table() -> Table:
    content = json.loads(get_data("drain_gdb.layout", DATA) or "{}")
    if content.get("schema") != SCHEMA:
        raise LayoutError(f"{DATA} is not a layout file", f"expected schema {SCHEMA}")
    return Table(content)


def at(version: str, debug: bool = False) -> Declarations:
    """The structs of the very commit that ``version`` names, for instance ``5.3.0-196``.

    A version older or newer than all known gives the first or the last.
    """
    return _table().at(version, debug)


@cache
def load_all() -> Tuple[Declarations, ...]:
    """Every combination of structs there was, newest first, debug builds after all others."""
    return tuple(_table().all())


@lru_cache(maxsize=16)
def nearest(version: Optional[str]) -> Tuple[Declarations, ...]:
    """Every combination of structs there was: those of ``version`` first, then the nearest."""

    def number(of: str) -> int:
        major, minor, patch = release_key(of)
        return (major * 100 + minor) * 100 + patch

    def distance(other: Declarations) -> Tuple[int, int]:
        if version is None:
            return 0, 0
        apart = abs(number(version) - number(other.version))
        return apart, abs(commits_since(version) - commits_since(other.version))

    own = [] if version is None else [at(version, debug) for debug in (False, True)]
    return (*own, *(each for each in sorted(load_all(), key=distance) if each not in own))


def known_releases() -> Tuple[str, ...]:
    """What the layout data covers: the newest commit, then the releases, newest first."""
    return tuple(dict.fromkeys((short(_table().newest), *_table().releases)))


class Model:
    """The structs of ``declarations`` as a build with ``parameters`` lays them out.

    Attributes:
        asked: the forms of all that was looked at, 0 where there is none: what is made of
            a model is the same for any declarations that have these, in a build of the kind.
    """

    def __init__(self, declarations: Declarations, parameters: Parameters) -> None:
        self.asked: Dict[str, int] = {}
        self._declared = declarations
        self._structs = declarations.structs
        self._parameters = parameters
        self._done: Dict[str, Struct] = {}

    @property
    def constants(self) -> Mapping[str, Any]:
        """What is no struct, as declared."""
        self.asked[CONSTANTS] = self._declared.forms.get(CONSTANTS, 0)
        return self._declared.constants

    def __call__(self, name: str) -> Optional[Struct]:
        """Struct ``name``; None where this version has none."""
        self.asked[name] = self._declared.forms.get(name, 0)
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
            inner = self(declared)
            if inner is None:
                raise LayoutError(f"the layout file names struct {declared} but lacks it")
        else:
            inner = self._layout("", declared)
        return Member(name, 0, inner.size * times, max(inner.align, at_least), length, inner)
