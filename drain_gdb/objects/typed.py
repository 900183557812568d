"""What pointers of known type lead to, where there is debug information.

A struct without virtual functions says nothing of itself, but who holds it points at it by a
member of a known type, or a variable does.  What is not a whole object at the beginning of a
region is left alone: a pointer into the middle of something says too little of it.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, Optional, Sequence, Set, Tuple

from drain_gdb.debuggee.types import Layout, Pointer, TypeReader
from drain_gdb.memory import WORD, words_of
from drain_gdb.objects.demangle import demangled, shortened
from drain_gdb.objects.recogniser import STRUCTURE, Contents, Kind, Region

Note = Callable[[str], None]
NAME = "types"
ELEMENTS, PART, MORE, HELD = "elements of ", "part of ", "starts with ", "held by "
"""How kinds begin: what a vector has, what another container has, more than one object or one
that is longer than its pointer says, and what is of no known type."""
SHOWN_MAX = 96
"""Characters of a name that a report shows."""
LARGE, LARGE_STEP = 1 << 14, 1 << 12
"""From this size on what was asked for may begin anywhere in the first page (SC_LARGE_MINCLASS,
cache_oblivious)."""
VARIABLE_MAX = 1 << 16
KNOWN_MAX = 1 << 20
"""Regions of vectors whose ends are remembered."""


class Types:
    """Names regions by the types of the pointers that lead to them."""

    name = NAME
    keys: Sequence[int] = ()

    def __init__(self, contents: Contents, note: Note = lambda line: None) -> None:
        self._contents = contents
        self._note = note
        self._noted: Set[int] = set()
        self._by_kind: Dict[str, Tuple[TypeReader, Layout]] = {}
        self._ends: Dict[int, int] = {}

    def applies(self) -> bool:
        """In every program: whether it has debug information shows where it is asked."""
        return True

    def by_word(self, index: int, word: int, size: int) -> Optional[Kind]:
        """Nothing: no word alone is enough."""
        del index, word, size
        return None

    def recognise(self, region: Region) -> Optional[Kind]:
        """Nothing: only its holder knows."""
        del region
        return None

    def struct(self, name: str, near: int) -> Optional[Tuple[TypeReader, Layout]]:
        """The class or struct of that full name, as the file at address ``near`` has it."""
        types = self._contents.types_at(near)
        if types is None:
            return None
        layout = types.struct_named(name)
        self._say_limit(types)
        return None if layout is None else (types, layout)

    def holds(self, region: Region, kind: Kind) -> Iterator[Tuple[int, Kind]]:
        """The typed pointers of a region that was named by the type of what holds it."""
        known = self._by_kind.get(kind.what)
        if known is None:
            yield from held_by(region, kind)
            return
        types, layout = known
        if not layout.name and not layout.pointers:
            return
        called = "" if layout.name else kind.what.replace(ELEMENTS, PART)
        step = layout.size
        end = self._ends.get(region.address, 0) if kind.what.startswith(ELEMENTS) else step
        if step:
            for at in range(0, min(end, len(region.data)) - step + 1, step):
                yield from self.members(region.data, at, types, layout, called)
        yield from held_by(region, kind)

    def variable(self, address: int) -> Iterator[Tuple[int, Kind]]:
        """The typed pointers of the variable at ``address``."""
        symbol, types = self._contents.symbol_at(address), self._contents.types_at(address)
        if symbol is None or types is None:
            return
        name = demangled(symbol) or symbol
        layout = types.variable(name, address)
        self._say_limit(types)
        if layout is None:
            return
        data = self._contents.read(address, min(layout.size, VARIABLE_MAX))
        if data is not None:
            yield from self.members(data, 0, types, layout, name)

    def members(
        self, data: bytes, at: int, types: TypeReader, layout: Layout, called: str = ""
    ) -> Iterator[Tuple[int, Kind]]:
        """The pointers of an object ``at`` bytes from the start of ``data``, with what they name.

        ``called`` is what a variable is called, which has no type to call it by.
        """
        holder = called or _said(layout)
        for pointer in layout.pointers:
            place = at + pointer.offset
            if place + WORD > len(data):
                continue
            (address,) = words_of(data[place : place + WORD])
            bounds = self._contents.bounds_at(address) if address >> 12 else None
            if bounds is None or not _begins(*bounds, address):
                continue
            begin, size = bounds
            what = self._what(size, types, pointer, holder)
            if what is None:
                continue
            if pointer.end is not None and at + pointer.end + WORD <= len(data):
                (end,) = words_of(data[at + pointer.end : at + pointer.end + WORD])
                if len(self._ends) < KNOWN_MAX:
                    self._ends[begin] = end - begin
            yield address, Kind(what, NAME, STRUCTURE)

    def _what(self, size: int, types: TypeReader, pointer: Pointer, holder: str) -> Optional[str]:
        """What a region of ``size`` bytes is that a pointer leads to; None if it does not fit."""
        layout = types.layout(pointer.to)
        if pointer.container is not None:
            what = f"{ELEMENTS if pointer.end else PART}{_shown(pointer.container)}"
            if pointer.end is None:
                return what
        elif not 0 < layout.size <= size:
            return None
        elif layout.name:
            what = f"{MORE if layout.size <= below(size) else ''}{_said(layout)}"
        elif pointer.member:
            what = f"{holder}.{pointer.member}"
        else:
            what = holder
        self._by_kind.setdefault(what, (types, layout))
        return what

    def _say_limit(self, types: TypeReader) -> None:
        if types.limited is not None and id(types) not in self._noted:
            self._noted.add(id(types))
            self._note(f"types are not all read from debug information: {types.limited}")


def below(size: int) -> int:
    """The size class below one of jemalloc's (SC_LG_NGROUP 2, a quantum of 16 bytes; sc.h).

    A large allocation may have a page more than its class.
    """
    if size <= 128:
        return size - (16 if size > 16 else 8)
    step = 1 << (size - 1).bit_length() - 3
    return -(-size // step) * step - step - (LARGE_STEP if size >= LARGE else 0)


def _begins(begin: int, size: int, address: int) -> bool:
    return address == begin or (size >= LARGE and address - begin < LARGE_STEP)


def _said(layout: Layout) -> str:
    return f"{'C++' if layout.cplusplus else 'struct'} {_shown(layout.name)}"


def _shown(name: str) -> str:
    return clipped(shortened(name))


def clipped(name: str) -> str:
    """The name of a type as far as a report has room for it."""
    return name if len(name) <= SHOWN_MAX else f"{name[: SHOWN_MAX - 1]}…"


def held_by(region: Region, kind: Kind) -> Iterator[Tuple[int, Kind]]:
    """What a region points at is part of it, where nothing else is known of it."""
    spreads = kind.what.startswith((HELD, PART))
    held = kind if spreads else kind._replace(what=f"{HELD}{kind.what}")
    for word in region.words:
        if word >> 12 and not word & 7:
            yield word, held
