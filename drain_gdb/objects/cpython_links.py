"""Pointers of Python objects that keep nothing alive.

The garbage collector chains the objects it knows: the two words before each point at its
neighbours in the list (PyGC_Head, Include/internal/pycore_gc.h).  A weak reference points at
its object, and at other references to the same one (PyWeakReference,
Include/internal/pycore_weakref.h).  Who followed these would find that each owns the next.
"""

from __future__ import annotations

from typing import Sequence

from drain_gdb.objects.cpython_types import GC_WORDS, PythonTypes
from drain_gdb.objects.recogniser import Contents

COLLECTOR, WEAK = range(-GC_WORDS, 0), (2, 5, 6)
"""By words from the object's first: the collector's, and wr_object, wr_prev and wr_next."""


class CPythonLinks:
    """:class:`~drain_gdb.objects.recogniser.Sideways` of a CPython."""

    keys: Sequence[int] = (3, 5)
    """Where the type stands behind the collector's words, and behind those of a dict."""

    def __init__(self, contents: Contents) -> None:
        self._types = PythonTypes(contents)

    def applies(self) -> bool:
        """Whether it is a CPython."""
        return self._types.root is not None

    def words(self, index: int, word: int) -> Sequence[int]:
        """The words that own nothing of what has its type, ``word``, at ``index``."""
        found = self._types.at(word)
        if found is None or found.before != index - 1:
            return ()
        weak = WEAK if (found.family or "").startswith("weak") else ()
        return [found.before + number for number in (*COLLECTOR, *weak)]
