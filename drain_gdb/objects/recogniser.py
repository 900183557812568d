"""What tells the kind of a region by what is in it, one class a family of kinds.

A recogniser looks at one live region at a time and says what it is, or None.  It may follow
pointers through the :class:`Contents` it was made for.  Where the kind hangs on one word
alone (a pointer to a vtable, to a type), it says so with ``keys``: then each distinct word
is asked for once, however many regions have it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Iterable, Iterator, NamedTuple, Optional, Protocol, Sequence, Tuple

from drain_gdb.debuggee.types import TypeReader
from drain_gdb.memory import words_of

EXACT, STRUCTURE, TEXT, SAMPLED = "exact", "structure", "text", "sampled"
"""How it is known: by a word that nothing else has, by its form, by its letters, from some of
those that look alike."""


class Kind(NamedTuple):
    """What a region is.

    Attributes:
        what: in words, such as ``sds``, ``C++ Session``, ``dict``; never contents, but
            patterns of them.
        recogniser: the name of the one that says it.
        evidence: EXACT, STRUCTURE, TEXT or SAMPLED.

    """

    what: str
    recogniser: str
    evidence: str


@dataclass(frozen=True)
class Region:
    """A live region or large allocation and what is in it.

    Attributes:
        address: its first byte.
        size: bytes, of its size class.
        data: the bytes; of a large allocation the first ``LARGE_LOOK``.

    """

    address: int
    size: int
    data: bytes

    @property
    def words(self) -> Sequence[int]:
        """The same as 64-bit words."""
        return words_of(self.data[: len(self.data) & -8])


LARGE_LOOK = 1 << 16


class Contents(Protocol):
    """What a recogniser may ask of the process."""

    def read(self, address: int, size: int) -> Optional[bytes]:
        """Bytes at any address; None where they cannot all be read."""

    def fetch(self, address: int, size: int) -> Optional[bytes]:
        """The same of what is read but once: nothing beside it is read along."""

    def word(self, address: int) -> Optional[int]:
        """The 64-bit word at any address; None where it cannot be read."""

    def region_at(self, address: int) -> Optional[Region]:
        """The live region that holds ``address``, its first byte or another one."""

    def bounds_at(self, address: int) -> Optional[Tuple[int, int]]:
        """Where the live region begins that holds ``address``, and its size."""

    def in_module(self, address: int) -> bool:
        """Whether a program's or library's file is loaded there."""

    def variables(self) -> Sequence[Tuple[int, int]]:
        """``(start, end)`` of where the program and its libraries keep their variables."""

    def symbol_at(self, address: int) -> Optional[str]:
        """The name of the function or variable that holds ``address``; None if unknown."""

    def symbol(self, name: str) -> Optional[int]:
        """The address of a variable; None where there is none of this name."""

    def types_at(self, address: int) -> Optional[TypeReader]:
        """The types of the file that is loaded at ``address``; None where it describes none."""


class Recogniser(Protocol):
    """Says what regions are.

    Attributes:
        name: what reports call it.
        keys: the numbers of the words of a region that tell alone what it is; empty where
            the whole of it is looked at.

    """

    name: str
    keys: Sequence[int]

    def applies(self) -> bool:
        """Whether this process can have any of its kinds; asked once, first."""

    def by_word(self, index: int, word: int, size: int) -> Optional[Kind]:
        """What a region of ``size`` bytes is whose word ``index``, one of ``keys``, is this."""

    def recognise(self, region: Region) -> Optional[Kind]:
        """What this one is; asked where no word told it."""

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """Pointers of a region of a kind of its own, and what thereby is at their other end.

        For what nothing in itself tells: tables of a hash, arrays of a list, plain structs.
        """


class WholeRegions:
    """What recognisers have in common that look at whole regions, in any program.

    Each has a ``name`` and ``recognise``, and more where it knows more.
    """

    keys: Sequence[int] = ()

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def applies(self) -> bool:
        """In every program."""
        return True

    def by_word(self, index: int, word: int, size: int) -> Optional[Kind]:
        """Nothing: no word alone is enough."""
        del index, word, size
        return None

    def holds(self, region: Region, kind: Kind) -> Iterable[Tuple[int, Kind]]:
        """Nothing."""
        del region, kind
        return ()


class Root(NamedTuple):
    """A live region from which owning begins.

    Attributes:
        address: in the region.
        label: the group that everything belongs to which it reaches first, in words: a
            pattern of keys, a module, a class.

    """

    address: int
    label: str


@dataclass(frozen=True)
class Beginnings:
    """Where owning begins, in columns: there may be millions.

    Attributes:
        addresses: in live regions.
        numbers: of each the number of its label.
        labels: the groups, as in :class:`Root`.

    """

    addresses: array[int]
    numbers: Sequence[int]
    labels: Sequence[str]

    def __iter__(self) -> Iterator[Root]:
        for address, number in zip(self.addresses, self.numbers):
            yield Root(address, self.labels[number])


class Owners(Protocol):
    """Where owning begins in a program of one kind, such as the keys of a Redis."""

    name: str

    def applies(self) -> bool:
        """Whether this is such a program."""

    def roots(self) -> Beginnings:
        """Where owning begins; what one reaches through another is the other's."""


class Elsewhere(Protocol):
    """Memory of a program's own allocator, which can own what is a jemalloc's.

    Attributes:
        memory: what that memory is called, among areas.

    """

    memory: str

    def applies(self) -> bool:
        """Whether this is such a program."""

    def holder(self, address: int) -> Optional[str]:
        """What the pointer at ``address`` is in, in words; None where it owns nothing."""


class Sideways(Protocol):
    """Which pointers in a program's objects own nothing: lists of all there are, weak ones.

    Attributes:
        keys: the numbers of the words that tell which regions have such pointers.

    """

    keys: Sequence[int]

    def applies(self) -> bool:
        """Whether this is such a program."""

    def words(self, index: int, word: int) -> Sequence[int]:
        """The numbers of the words that own nothing in a region whose word ``index`` is this."""
