"""Objects of CPython 3.9 to 3.14, by their type.

An object begins with a count of references and its type.  Before that lie two words for the
garbage collector if it looks at such objects, and two more where the object keeps a dict or
weak references of its own (3.11 and later).  A type tells which of these its objects have:
only where all of it agrees it is one.

Tables of dicts, arrays of lists and the like have no type: they are named by their holder.
"""

from __future__ import annotations

from functools import cached_property
from struct import Struct
from typing import Dict, Iterable, Iterator, Optional, Sequence, Set, Tuple

from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.cpython_types import PythonType, PythonTypes
from drain_gdb.objects.recogniser import EXACT, STRUCTURE, Contents, Kind, Region, WholeRegions

HEADS = Struct("<6Q")
"""The words in which a count of references and a type can stand: in the first two, behind the
collector's two, behind two more."""
ENTRY = Struct("<4Q")
HELD = "held by "
PARTS: Dict[str, Sequence[Tuple[int, str]]] = {
    "dict": ((32, "table of "), (40, "values of ")),
    "list": ((24, "items of "),),
    "set": ((40, "table of "),),
    "frozenset": ((40, "table of "),),
    "bytearray": ((32, "bytes of "),),
    "collections.deque": ((24, "blocks of "), (32, "blocks of ")),
}
"""Where built-in types point at what has no type: PyDictObject.ma_keys and ma_values,
PyListObject.ob_item, PySetObject.table, PyByteArrayObject.ob_bytes, dequeobject.leftblock and
rightblock."""
LENGTH, UTF8_BEFORE_DATA = 16, {72: 16, 56: 8}
"""PyASCIIObject.length; how far PyCompactUnicodeObject.utf8 is before PyUnicodeObject.data, until
3.11 and since."""
PAGE = 1 << 12
INTERPRETER_MIN, RUNTIME_LOOK = 1 << 15, 1 << 11
"""Bytes of a PyInterpreterState at least; bytes of _PyRuntime among which its list begins."""
MANAGED = 4
"""Words before an object that has a dict of its own."""
FOLLOWED = (HELD, "blocks of ")
"""Of what is held: what may point at more of the kind."""


class CPython(WholeRegions):
    """Objects, exactly, and by them what they hold."""

    name = "CPython"

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        self._types = PythonTypes(contents)
        self._kinds: Dict[int, Kind] = {}

    @cached_property
    def _interpreters(self) -> Set[int]:
        """The pages that the beginning of the runtime's state points at, interpreters among them.

        Large allocations begin anywhere in their first page.
        """
        state = self._contents.symbol("_PyRuntime")
        if state is None:
            return set()
        state &= -WORD
        # It may end with the last page that is there.
        sizes = (RUNTIME_LOOK, -state % PAGE)
        data = next(filter(None, (self._contents.read(state, size) for size in sizes)), None)
        return set() if data is None else {word & -PAGE for word in words_of(data)}

    def applies(self) -> bool:
        """Whether there is a ``type`` of the form known."""
        return self._types.root is not None

    def recognise(self, region: Region) -> Optional[Kind]:
        """The type of the object in a region."""
        found = self.type_of(region)
        if found is None:
            return self._form(region)
        kind = self._kinds.get(found.address)
        if kind is None:
            kind = self._kinds[found.address] = Kind(f"Python {found.name}", self.name, EXACT)
        return kind

    def _form(self, region: Region) -> Optional[Kind]:
        """What has no type, but a form."""
        if len(region.data) < ENTRY.size:
            return None
        if region.size >= INTERPRETER_MIN and region.address in self._interpreters:
            return Kind("Python interpreter", self.name, STRUCTURE)
        first, second, third, fourth = ENTRY.unpack_from(region.data)
        if fourth == region.address + ENTRY.size and second <= first <= region.size:
            # Python/pyarena.c: size, offset, next, and memory that begins behind.
            return Kind("Python syntax tree", self.name, STRUCTURE)
        if third == fourth and region.size == ENTRY.size and second:
            # _Py_hashtable_entry_t of interned strings since 3.12: next, hash, and twice the str.
            meta = self._contents.word(third + WORD)
            if meta is not None and self._types.is_text(meta):
                return Kind("Python interned str", self.name, STRUCTURE)
        return None

    def type_of(self, region: Region) -> Optional[PythonType]:
        """The same, as it is."""
        data, size, known = region.data, region.size, self._types.known
        count, first, collected, second, own, third = HEADS.unpack_from(
            data if size >= HEADS.size else data.ljust(HEADS.size, b"\0")
        )
        heads = ((0, count, first), (2, collected, second), (4, own, third))
        # Types that are known first: most words in their places are the collector's links.
        if first in known or second in known or third in known:
            for before, number, word in heads:
                found = known.get(word)
                if found is not None and _agrees(found, before, number, size):
                    return found
        for before, number, word in heads:
            found = self._types.at(word) if counts(number) else None
            if found is not None and _agrees(found, before, number, size):
                return found
        return None

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """What has no type and hangs on an object that has one."""
        if kind.evidence == EXACT:
            found = self.type_of(region)
            return () if found is None else self._parts(region, found, kind.what)
        if kind.what.startswith(FOLLOWED):
            return ((word, kind) for word in region.words if word >> 12)
        return ()

    def _parts(self, region: Region, found: PythonType, what: str) -> Iterator[Tuple[int, Kind]]:
        begin = found.before * WORD
        for offset, part in PARTS.get(found.family or "", ()):
            word = _word(region, begin + offset)
            # A small set keeps its table within itself.
            if not region.address <= word < region.address + region.size:
                yield word, Kind(f"{part}{what}", self.name, STRUCTURE)
        if found.family == "str":
            for word in self._letters(region, begin):
                yield word, Kind(f"text of {what}", self.name, STRUCTURE)
        if found.before == MANAGED:
            values, own = words_of(region.data[: 2 * WORD])
            yield values, Kind(f"values of {what}", self.name, STRUCTURE)
            # 3.12 keeps values or a dict in one word: values with the last bit, less one.
            yield own + (own & 1), Kind(f"values of {what}", self.name, STRUCTURE)
        held = Kind(f"{HELD}{what}", self.name, STRUCTURE)
        end = min(begin + found.own, len(region.data))
        for word in words_of(region.data[begin : end & -WORD]):
            if word >> 12 and not word & 7:
                yield word, held

    def _letters(self, region: Region, begin: int) -> Iterator[int]:
        """Where a str has its letters, or another form of them, that are not behind it.

        There most have their own letters: what points is told by the length of what is there.
        """
        data = self._types.text_data
        utf8 = data - UTF8_BEFORE_DATA.get(data, 0)
        length = _word(region, begin + LENGTH)
        if 0 < length <= _word(region, begin + utf8 - WORD) <= 4 * length:
            yield _word(region, begin + utf8)
        if not self._types.is_text(_word(region, begin + WORD)):
            # Of a class of the program's own: they do not have them behind them.
            yield _word(region, begin + data)


def _word(region: Region, at: int) -> int:
    """The word at an offset; 0 where there is none."""
    return int.from_bytes(region.data[at : at + WORD], "little")


def _agrees(found: PythonType, before: int, number: int, size: int) -> bool:
    """Whether an object of a type, with ``before`` words before it, fills a region."""
    return found.before == before and found.fits(size) and counts(number)


def counts(word: int) -> bool:
    """Whether a word can be a count of references.

    Include/object.h: 32 bits since 3.12, and 3.14 keeps flags in the upper 16.
    """
    return word & 0xFFFFFFFF != 0 and word >> 32 & 0xFFFF <= 1 and word >> 48 < 1 << 8
