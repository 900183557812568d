"""The types of a CPython: what a word is that points at one.

Offsets are those of Include/cpython/object.h (PyTypeObject), the same in 3.9 to 3.14, and of
Include/object.h; the words before an object those of Include/internal/pycore_object.h
(_PyType_PreHeaderSize) and pycore_gc.h.  Builds without the global lock (3.13t, 3.14t), those
that trace references, and debug hooks around malloc have other headers: nothing is taken for
an object there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from struct import Struct
from typing import Dict, Optional, Set

from drain_gdb.memory import WORD
from drain_gdb.objects.recogniser import Contents

TYPE = Struct("<2Q8x3Q")
"""ob_refcnt, ob_type, then tp_name, tp_basicsize, tp_itemsize of a PyTypeObject."""
FLAGS, BASE = 168, 256
"""tp_flags, tp_base."""
INLINE_VALUES, MANAGED_WEAKREF, MANAGED_DICT = 1 << 2, 1 << 3, 1 << 4
HEAP_TYPE, READY, HAVE_GC = 1 << 9, 1 << 12, 1 << 14
TYPE_SUBCLASS = 1 << 31
"""Its instances are types."""
UNSHARED = 1 << 24 | 1 << 27 | 1 << 28
"""Py_TPFLAGS_LONG_SUBCLASS, BYTES_SUBCLASS, UNICODE_SUBCLASS: digits and letters."""
GC_WORDS, MANAGED_WORDS = 2, 2
BASICSIZE_MAX, ITEMSIZE_MAX = 1 << 20, 1 << 16
INLINE_MAX = 8 * (30 + 1) + 32
"""Bytes of values in an instance at most (SHARED_KEYS_MAX_SIZE, _PyInlineValuesSize)."""
CHAIN_MAX = 16
NAME_MAX, SHOWN_MAX = 256, 64
ASCII_SIZE = 40
"""A short str is smaller than tp_basicsize of str says: PyASCIIObject, since 3.12."""
FAMILIES = (
    *("dict", "list", "set", "frozenset", "str", "bytearray", "collections.deque"),
    *("weakref", "weakref.ReferenceType", "weakref.ProxyType", "weakref.CallableProxyType"),
    *("weakproxy", "weakcallableproxy"),
)
"""Built-in types whose form is known; their subclasses have it too.  Those of weak references
have had two names."""


@dataclass(frozen=True)
class PythonType:
    """One type.

    Attributes:
        address: of its PyTypeObject.
        name: tp_name.
        before: words before an object of it.
        least, most: bytes of the region that an object of it lies in; no bound where the
            object says how long it is.
        own: bytes from its first word on that may point at what is its alone: without items,
            which are objects or no pointers.
        basic: tp_basicsize.
        family: the one of ``FAMILIES`` that it is or derives from.
        heap: whether it was made by a program in Python or by the limited interface.

    """

    address: int
    name: str
    before: int
    least: int
    most: Optional[int]
    own: int
    basic: int
    family: Optional[str]
    heap: bool

    def fits(self, size: int) -> bool:
        """Whether an object of it can lie in a region of ``size`` bytes."""
        return self.least <= size and (self.most is None or size <= self.most)


class PythonTypes:
    """All types that words were found to point at, each read once.

    Attributes:
        known: by address.

    """

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.root = self._root()
        self._metatypes: Set[int] = set()
        self.known: Dict[int, PythonType] = {}

    @cached_property
    def _text(self) -> Optional[PythonType]:
        found = self._contents.symbol("PyUnicode_Type")
        return None if found is None else self.at(found)

    @property
    def text_data(self) -> int:
        """Where in a str is the pointer to letters that are elsewhere (PyUnicodeObject.data)."""
        return 0 if self._text is None else self._text.basic - WORD

    def is_text(self, address: int) -> bool:
        """Whether this is the type ``str`` itself."""
        return self._text is not None and address == self._text.address

    def _root(self) -> Optional[int]:
        """``type``, which is of the type ``type``; None where this is no CPython like it."""
        found = self._contents.symbol("PyType_Type")
        if found is None or self._contents.word(found + WORD) != found:
            return None
        return found

    def at(self, address: int) -> Optional[PythonType]:
        """The type at an address; None if there is none."""
        found = self.known.get(address)
        if found is None and address >> 12 and not address & 7:
            meta = self._contents.word(address + WORD)
            if meta is not None and self._is_metatype(meta):
                found = self._read(address)
                if found is not None:
                    self.known[address] = found
        return found

    def _is_metatype(self, address: int) -> bool:
        """Whether the instances of what is there are types."""
        if address in self._metatypes:
            return True
        if not address >> 12 or address & 7:
            return False
        at: Optional[int] = address
        for _ in range(CHAIN_MAX):
            if at == self.root:
                break
            at = None if at is None else self._contents.word(at + WORD)
        else:
            return False
        if not (self._contents.word(address + FLAGS) or 0) & TYPE_SUBCLASS:
            return False
        self._metatypes.add(address)
        return True

    def _read(self, address: int) -> Optional[PythonType]:
        data = self._contents.read(address, FLAGS + WORD)
        if data is None:
            return None
        _, _, name_at, basic, item = TYPE.unpack_from(data)
        flags = int.from_bytes(data[FLAGS:], "little")
        name = self._name(name_at)
        if name is None or not flags & READY or item > ITEMSIZE_MAX:
            return None
        if not 2 * WORD <= basic <= BASICSIZE_MAX:
            return None
        family = self._family(address)
        before = GC_WORDS if flags & HAVE_GC else 0
        before += MANAGED_WORDS if flags & (MANAGED_DICT | MANAGED_WEAKREF) else 0
        least = before * WORD + (ASCII_SIZE + 1 if name == "str" else basic)
        # Size classes are a quarter of a power of two apart.
        most = least + (INLINE_MAX if flags & INLINE_VALUES else 0)
        most += most // 4 + 2 * WORD
        fixed = not item and name != "str"
        own = 0 if flags & UNSHARED else basic
        heap = bool(flags & HEAP_TYPE)
        bound = most if fixed else None
        return PythonType(address, name, before, least, bound, own, basic, family, heap)

    def _family(self, address: int) -> Optional[str]:
        at: Optional[int] = address
        for _ in range(CHAIN_MAX):
            if not at:
                return None
            name = self._name(self._contents.word(at + 3 * WORD) or 0)
            if name in FAMILIES:
                return name
            at = self._contents.word(at + BASE)
        return None

    def _name(self, address: int) -> Optional[str]:
        """A type's name, without what could not be shown."""
        if not address:
            return None
        for size in (32, NAME_MAX):
            data = self._contents.read(address, size)
            text, end, _ = (data or b"").partition(b"\0")
            if end and text:
                said = text.decode("utf-8", "replace")
                return "".join(c if c.isprintable() else "?" for c in said)[:SHOWN_MAX]
        return None
