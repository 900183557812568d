"""C++ objects, by the name that their class has at run time.

In the Itanium C++ ABI (2.5.2, 2.9.5) the first word of an object with virtual functions points
into the table of its class: before it lie the offset to the object's beginning and the
``type_info``, which is an object too and holds the class' name.  All of it is data that the
program needs to run, and is there in stripped ones; not where it was compiled with -fno-rtti.

A class without virtual functions says nothing of itself: such objects are named by what holds
them, with debug information by the type of the pointer.  So are those of languages that keep no
types at run time: Rust has its tables beside pointers, not in what they point at.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, Iterator, Optional, Sequence, Tuple

from drain_gdb.debuggee.types import Layout, TypeReader
from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.demangle import demangled, shortened
from drain_gdb.objects.recogniser import EXACT, STRUCTURE, Contents, Kind, Region
from drain_gdb.objects.typed import Types, clipped, held_by

NAME_MAX = 2048
TABLE = "_ZTV"
"""How the symbol of a table begins (5.1.4.1); the rest is the class."""
LOOK = 9
"""Words of a node or array among which the first object of it begins."""
PAGE = 1 << 12
RESERVE, RESERVE_MAX = 72704, 1 << 17
"""Bytes that libstdc++ keeps for exceptions when there is no memory (eh_alloc.cc); in front of them
it writes how many, somewhere in the first page of the region."""
SHARED = re.compile(r"std::_Sp_counted_\w+<(.*), \(__gnu_cxx::_Lock_policy\)\d>")
"""What libstdc++ (bits/shared_ptr_base.h) keeps the counts of a shared pointer in."""
SHARED_OBJECT = 16
"""Bytes of these before an object that is made with them."""


class CPlusPlus:
    """Objects with virtual functions, exactly; what holds one within, by its form."""

    name = "C++"
    keys: Sequence[int] = (0,)

    def __init__(self, contents: Contents, types: Optional[Types] = None) -> None:
        self._contents = contents
        self._types = types or Types(contents)
        self._classes: Dict[int, Optional[str]] = {}
        self._infos: Dict[int, bool] = {}
        self._names: Dict[int, str] = {}
        self._layouts: Dict[Tuple[int, str], Optional[Tuple[TypeReader, Layout]]] = {}

    def applies(self) -> bool:
        """Whichever program it is, one of its libraries may be C++."""
        return True

    def by_word(self, index: int, word: int, size: int) -> Optional[Kind]:
        """The class of an object whose table is there."""
        del index
        said = self._class_of(word)
        if said is None:
            return None
        known = self._layout(word, self._names[word])
        # Where the region is too small for the type, its word is left from another one.
        if known is not None and known[1].size > size:
            return None
        return Kind(f"C++ {said}", self.name, EXACT)

    def recognise(self, region: Region) -> Optional[Kind]:
        """A node of a list or tree, or an array, with an object in it."""
        if RESERVE <= region.size <= RESERVE_MAX:
            words = words_of(region.data[:PAGE])
            if sum(words) == RESERVE and not any(region.data[PAGE:]):
                return Kind("C++ exception reserve", self.name, STRUCTURE)
        words = words_of(region.data[: LOOK * WORD])
        for index in range(1, len(words)):
            word = words[index]
            if word >> 12 and not word & 7:
                said = self._class_of(word)
                if said is not None:
                    return self._holder(words[:index], region.size, said)
        return None

    def _holder(self, before: Sequence[int], size: int, said: str) -> Optional[Kind]:
        """What has ``before`` in front of an object; None where that may be anything."""
        # new T[n] writes n before the objects (2.7).
        if len(before) == 1 and 0 < before[0] < size // WORD:
            return Kind(f"C++ {said}[]", self.name, STRUCTURE)
        # Links come first, and a tree's colour.  A text may have left a table behind it.
        if any(w not in (0, 1) and self._contents.word(w) is None for w in before[:2]):
            return None
        return Kind(f"struct with a C++ {said}", self.name, STRUCTURE)

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """What an object points at is of the type it says, else part of it if nothing is known."""
        yield from self._members(region)
        yield from held_by(region, kind)

    def _members(self, region: Region) -> Iterator[Tuple[int, Kind]]:
        """The typed pointers of the first object in a region, or of all in an array."""
        words = words_of(region.data[: LOOK * WORD])
        index = next((n for n, word in enumerate(words) if self._class_of(word)), None)
        if index is None:
            return
        name = self._names[words[index]]
        shared = SHARED.fullmatch(name)
        at = index * WORD
        if shared is not None:
            if "inplace" not in name:
                return
            name, at = _first_argument(shared[1]), SHARED_OBJECT
        known = self._layout(words[index], name)
        if known is None:
            return
        size = known[1].size
        # As new T[n] writes it.
        count = words[0] if index == 1 and words[0] * size <= region.size - WORD else 1
        for place in range(at, min(at + count * size, len(region.data)) - size + 1, size):
            yield from self._types.members(region.data, place, *known)

    def _layout(self, table: int, name: str) -> Optional[Tuple[TypeReader, Layout]]:
        """What debug information says of the type ``name``, where the table of a class is."""
        key = table, name
        if key not in self._layouts:
            self._layouts[key] = self._types.struct(name, table)
        return self._layouts[key]

    def _class_of(self, table: int) -> Optional[str]:
        """The class whose table, of objects that begin there, this is."""
        if table not in self._classes:
            if table & 7 or not self._contents.in_module(table):
                return None
            self._classes[table] = self._look(table)
        return self._classes[table]

    def _look(self, table: int) -> Optional[str]:
        offset, info = (self._contents.word(table - at) for at in (2 * WORD, WORD))
        if offset != 0 or info is None:
            return None
        text = self._text(info) if self._is_info(info) else None
        if info == 0:
            # Without types at run time (-fno-rtti) the table's own symbol may be left.
            symbol = self._contents.symbol_at(table) or ""
            text = symbol[len(TABLE) :] if symbol.startswith(TABLE) else None
        if not text:
            return None
        self._names[table] = demangled(text) or text
        return _shown(self._names[table])

    def _is_info(self, info: int) -> bool:
        """Whether a ``type_info`` is there: its own class is one of the ABI's (2.9.5)."""
        if not info or info & 7 or not self._contents.in_module(info):
            return False
        table = self._contents.word(info)
        if table is None or table & 7 or not self._contents.in_module(table):
            return False
        if table not in self._infos:
            own = self._contents.word(table - WORD)
            said = None if own is None else self._text(own)
            self._infos[table] = said is not None and bool(
                re.fullmatch(r"N10__cxxabiv1\d\d__(si_|vmi_)?class_type_infoE", said)
            )
        return self._infos[table]

    def _text(self, info: int) -> Optional[str]:
        """The mangled name in a ``type_info``."""
        at = self._contents.word(info + WORD)
        if at is None or not self._contents.in_module(at):
            return None
        for size in (64, NAME_MAX):
            data = self._contents.read(at, size)
            if data is None:
                continue
            name, end, _ = data.partition(b"\0")
            # Where its names are compared by address, libstdc++ has a * before it.
            said = name.lstrip(b"*")
            if end and re.fullmatch(rb"[\w.$]+", said):
                return said.decode("ascii")
        return None


def _first_argument(said: str) -> str:
    """The first of the arguments of a template."""
    return said.partition(", std::allocator<")[0]


def _shown(said: str) -> str:
    text = shortened(said)
    shared = SHARED.fullmatch(text)
    if shared is not None:
        inner = _first_argument(shared[1])
        text = f"{inner.rstrip('*')} (shared)" if "inplace" in text else f"{inner} (count)"
    return clipped(text)
