"""The recognisers and owners that there are, in the order in which they are asked.

A recogniser is a class whose instances are
:class:`~drain_gdb.objects.recogniser.Recogniser`, made for the
:class:`~drain_gdb.objects.recogniser.Contents` of one process.  Those that know an object by
a word of its own come first, then those that know a structure by its form, then those of
other distributions; what is true of any bytes is for what none of them knows, nor its holder.

Other distributions add theirs by an entry point of the group ``drain_gdb.recognisers``, in
their ``pyproject.toml``::

    [project.entry-points."drain_gdb.recognisers"]
    frames = "my_game.drained:Frames"

and ``my_game/drained.py``::

    from drain_gdb.objects.recogniser import STRUCTURE, Kind

    class Frames:
        name = "my_game"
        keys = (0,)  # the first word alone tells; () to be given whole regions

        def __init__(self, contents):
            self.magic = contents.symbol("frame_magic")

        def applies(self):
            return self.magic is not None

        def by_word(self, index, word, size):
            return Kind("frame", self.name, STRUCTURE) if word == self.magic else None

        def recognise(self, region):
            return None  # nothing but what the first word told

        def holds(self, region, kind):
            yield region.words[2], Kind("pixels of a frame", self.name, STRUCTURE)
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar

from drain_gdb.objects.cplusplus import CPlusPlus
from drain_gdb.objects.cpython import CPython
from drain_gdb.objects.cpython_arenas import CPythonArenas
from drain_gdb.objects.cpython_links import CPythonLinks
from drain_gdb.objects.cpython_owners import CPythonOwners
from drain_gdb.objects.pointers import Pointers
from drain_gdb.objects.recogniser import (
    Contents,
    Elsewhere,
    Kind,
    Owners,
    Recogniser,
    Region,
    Sideways,
)
from drain_gdb.objects.redis.owner import RedisKeys
from drain_gdb.objects.redis.recogniser import RedisStructures
from drain_gdb.objects.text import Text
from drain_gdb.objects.typed import Types
from drain_gdb.objects.zeros import Zeros

GROUP = "drain_gdb.recognisers"
Note = Callable[[str], None]
"""Told what was wrong with a recogniser of another distribution, a line each."""
LAST: Sequence[Callable[[Contents], Recogniser]] = (Text, Zeros, Pointers)
OWNERS: Sequence[Callable[[Contents], Owners]] = (CPythonOwners, RedisKeys)
SIDEWAYS: Sequence[Callable[[Contents], Sideways]] = (CPythonLinks,)
ELSEWHERE: Sequence[Callable[[Contents], Elsewhere]] = (CPythonArenas,)
Answer = TypeVar("Answer")


def recognisers(contents: Contents, note: Note) -> List[Recogniser]:
    """Those that this process can have kinds of, in the order in which they are asked."""
    types = Types(contents, note)
    own: Sequence[Recogniser] = [
        CPython(contents),
        CPlusPlus(contents, types),
        RedisStructures(contents),
        types,
    ]
    return [each for each in (*own, *_others(contents, note)) if each.applies()]


def forms(contents: Contents) -> List[Recogniser]:
    """Those to ask where neither the others nor a region's holder say what it is.

    An array of pointers is one whatever it is for, and so is text.
    """
    return [each for each in (make(contents) for make in LAST) if each.applies()]


def owners(contents: Contents) -> List[Owners]:
    """Where owning begins in this process, by each that knows a program like it."""
    return [each for each in (make(contents) for make in OWNERS) if each.applies()]


def sideways(contents: Contents) -> List[Sideways]:
    """What tells the pointers of this process that own nothing."""
    return [each for each in (make(contents) for make in SIDEWAYS) if each.applies()]


def elsewhere(contents: Contents) -> List[Elsewhere]:
    """What tells the owners of this process that lie in no jemalloc."""
    return [each for each in (make(contents) for make in ELSEWHERE) if each.applies()]


def _others(contents: Contents, note: Note) -> Iterator[Recogniser]:
    """Those of other distributions; of one that cannot be had a note."""
    for name, load in _entry_points():
        try:
            found = load()(contents)
            yield Guarded(name, found, note)
        except Exception as error:  # noqa: BLE001 - code of others
            note(f"recogniser {name}: {type(error).__name__}: {error}")


def _entry_points() -> List[Tuple[str, Callable[[], Any]]]:
    """Name and loader of each entry point of the group, by name; one found twice is one."""
    # Slow to import, and not needed before.
    from importlib import metadata  # noqa: PLC0415

    # Each distribution is asked: what entry_points() takes and gives is not the same in 3.9.
    points = {
        (point.name, point.value): point.load
        for distribution in metadata.distributions()
        for point in distribution.entry_points
        if point.group == GROUP
    }
    return [(name, load) for (name, _), load in sorted(points.items(), key=lambda each: each[0])]


class Guarded:
    """A recogniser of others: from its first error on it knows nothing any more."""

    def __init__(self, name: str, recogniser: Recogniser, note: Note) -> None:
        self._recogniser = recogniser
        self._note = note
        self._broken = False
        self.name = str(getattr(recogniser, "name", name))
        self.keys: Sequence[int] = tuple(recogniser.keys)

    def _ask(self, ask: Callable[[], Answer], otherwise: Answer) -> Answer:
        if self._broken:
            return otherwise
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - code of others
            self._broken = True
            self._note(f"recogniser {self.name}: {type(error).__name__}: {error}; not asked again")
            return otherwise

    def applies(self) -> bool:
        """Whether it says so."""
        return self._ask(lambda: bool(self._recogniser.applies()), False)

    def by_word(self, index: int, word: int, size: int) -> Optional[Kind]:
        """What it says."""
        return self._ask(lambda: self._kind(self._recogniser.by_word(index, word, size)), None)

    def recognise(self, region: Region) -> Optional[Kind]:
        """What it says."""
        return self._ask(lambda: self._kind(self._recogniser.recognise(region)), None)

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """What it says."""
        return self._ask(lambda: self._held(self._recogniser.holds(region, kind)), ())

    def _kind(self, said: Optional[Kind]) -> Optional[Kind]:
        return None if said is None else Kind(str(said.what), self.name, str(said.evidence))

    def _held(self, said: Iterable[Tuple[int, Kind]]) -> Iterable[Tuple[int, Kind]]:
        return [(int(at), Kind(str(k.what), self.name, str(k.evidence))) for at, k in said]
