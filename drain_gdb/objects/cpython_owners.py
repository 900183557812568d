"""Where owning begins in a CPython: its modules, their variables, and classes.

Modules are found in ``sys.modules``: a dict that the interpreter's state points at, in which
``sys`` is a module.  Where in the state that is differs from version to version, so all of it
is looked through.
"""

from __future__ import annotations

from array import array
from functools import cached_property
from struct import Struct
from typing import Dict, Iterator, List, Optional, Tuple

from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.cpython_types import BASE, PythonTypes
from drain_gdb.objects.recogniser import Beginnings, Contents

PAGE, STATE_MAX = 1 << 12, 1 << 20
"""Bytes of _PyRuntime that are read at most: it has 460,000 in 3.12, 700 in 3.10."""
INTERPRETER_MIN = 1 << 12
"""Bytes of a PyInterpreterState at least, which is allocated until 3.10."""
USED, TABLE, VALUES = 2 * WORD, 4 * WORD, 5 * WORD
"""PyDictObject.ma_used, ma_keys, ma_values."""
OLD, NEW = Struct("<5Q"), Struct("<QBBBx4x2Q")
"""PyDictKeysObject (Objects/dict-common.h until 3.10: dk_refcnt, dk_size, dk_lookup, dk_usable,
dk_nentries; pycore_dict.h since: dk_refcnt, dk_log2_size, dk_log2_index_bytes, dk_kind,
dk_version, dk_usable, dk_nentries)."""
ENTRIES_MAX = 1 << 16
"""Names in a module, and modules, at most."""
LENGTH = 2 * WORD
"""PyASCIIObject.length."""
PLAIN = ("str", "weakref", "weakref.ReferenceType")
"""What is no more than a part of its module."""
NAME_MAX = 128
MODULE_DICT = 2 * WORD
"""PyModuleObject.md_dict."""
Item = Tuple[int, int]
"""Addresses of a key and of what is under it."""


class CPythonOwners:
    """Modules, classes, and what variables of modules hold."""

    name = "CPython"

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._types = PythonTypes(contents)

    def applies(self) -> bool:
        """Whether it is a CPython."""
        return self._types.root is not None and self._dict_type is not None

    @cached_property
    def _dict_type(self) -> Optional[int]:
        return self._contents.symbol("PyDict_Type")

    @cached_property
    def _module_type(self) -> Optional[int]:
        return self._contents.symbol("PyModule_Type")

    def roots(self) -> Beginnings:
        """Modules; then what hangs on a name in them, of several modules in the last.

        A module that imports another is in ``sys.modules`` before it, so the last is the one
        that most likely made it.
        """
        found: Dict[int, str] = {}
        for modules in self._tables_of_modules():
            for key, module in self._items(modules):
                if self._is_module(module):
                    name = self._text(key) or "?"
                    found[module] = f"module {name}"
                    found.update(self._variables(module, name))
        return Beginnings(array("Q", found), array("I", range(len(found))), list(found.values()))

    def _variables(self, module: int, name: str) -> Iterator[Tuple[int, str]]:
        for key, value in self._items(self._contents.word(module + MODULE_DICT) or 0):
            kind = self._types.at(self._contents.word(value + WORD) or 0)
            variable = self._text(key)
            if kind is None or variable is None or variable.startswith("__"):
                continue
            if self._is_module(value):
                continue
            own = self._types.at(value)
            if own is not None:
                if own.heap:
                    yield value, f"class {own.name}"
            elif kind.heap or (kind.family or "str") not in PLAIN:
                yield value, f"module {name}: {variable}"

    def _tables_of_modules(self) -> List[int]:
        """``sys.modules`` of each interpreter."""
        state = self._contents.symbol("_PyRuntime")
        words = () if state is None else dict.fromkeys(self._state(state & -WORD))
        return [word for word in words if self._holds_modules(word)]

    def _state(self, address: int) -> Iterator[int]:
        """What the runtime's state points at, and what the interpreters' do."""
        asked = set()
        # It may end with the last page that is there.
        for page in range(address & -PAGE, address + STATE_MAX, PAGE):
            at = max(page, address)
            data = self._contents.read(at, page + PAGE - at)
            if data is None:
                return
            for word in words_of(data):
                if word >> 16 and not word & 7 and word not in asked:
                    asked.add(word)
                    yield word
                    region = self._contents.region_at(word)
                    if region is not None and region.size >= INTERPRETER_MIN:
                        yield from (each for each in region.words if each >> 16)

    def _holds_modules(self, address: int) -> bool:
        if self._contents.word(address + WORD) != self._dict_type:
            return False
        items = list(self._items(address))
        modules = [self._text(key) for key, value in items if self._is_module(value)]
        return "sys" in modules and 2 * len(modules) > len(items)

    def _is_module(self, address: int) -> bool:
        kind = self._contents.word(address + WORD)
        if not kind or self._module_type is None:
            return False
        return self._module_type in (kind, self._contents.word(kind + BASE))

    def _items(self, address: int) -> Iterator[Item]:
        """What is in a dict that has its values beside its keys, as those of modules have."""
        if self._contents.word(address + WORD) != self._dict_type:
            return
        table, values = (self._contents.word(address + at) for at in (TABLE, VALUES))
        if not table or values != 0:
            return
        form = self._form(table)
        if form is None:
            return
        at, count, words = form
        data = self._contents.read(at, count * words * WORD)
        if data is not None:
            entries = words_of(data)
            for key, value in zip(entries[words - 2 :: words], entries[words - 1 :: words]):
                if key and value:
                    yield key, value

    def _form(self, table: int) -> Optional[Tuple[int, int, int]]:
        """Where its entries begin, how many there are, and the words of each."""
        data = self._contents.read(table, OLD.size)
        if data is None:
            return None
        _, size, lookup, _, count = OLD.unpack_from(data)
        if self._contents.in_module(lookup) and size and size & (size - 1) == 0:
            # Numbers of entries, as wide as the table's size needs.
            width = 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4
            at, words = table + OLD.size + size * width, 3
        else:
            _, _, log2_bytes, kind, _, count = NEW.unpack_from(data)
            # Where all keys are str (1), a key's hash is in itself.
            at, words = table + NEW.size + (1 << min(log2_bytes, 40)), 2 if kind else 3
        return (at, count, words) if count <= ENTRIES_MAX else None

    def _text(self, address: int) -> Optional[str]:
        """A name: a str of letters that are ASCII; None for any other."""
        if not self._types.is_text(self._contents.word(address + WORD) or 0):
            return None
        length = self._contents.word(address + LENGTH)
        if not length or length > NAME_MAX:
            return None
        # Behind a PyASCIIObject, which is 48 bytes until 3.11 and 40 since.
        begin = 48 if self._types.text_data == 72 else 40
        data = self._contents.read(address + begin, length)
        if data is None or not data.isascii():
            return None
        said = data.decode("ascii")
        return said if said.isprintable() else None
