"""What of a process is resident: its mappings, and the state of each of their pages.

Areas are mappings, or parts of them of one kind.  Where pages could be looked at, there is
a byte for each page of an area; where only sums are known, the area has those alone.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.debuggee.serialize import from_json
from drain_gdb.errors import RecordingError

FILE = "file"
"""A mapped file, or what the kernel maps as one (``[vdso]``)."""
BSS = "bss"
"""Zero-initialised variables of a program or library."""
HEAP, STACK, THREAD_STACK = "heap", "stack", "thread_stack"
SHARED = "shared"
"""Shared memory that is no file on a disk."""
ANONYMOUS = "anonymous"
ALLOCATOR = "allocator"
"""Memory that an allocator that is no jemalloc keeps."""
KINDS = (FILE, BSS, HEAP, STACK, THREAD_STACK, SHARED, ANONYMOUS, ALLOCATOR)

PAGEMAP, SMAPS, CORE = "pagemap", "smaps", "core"
SOURCES = (PAGEMAP, SMAPS, CORE)

ABSENT, PRIVATE, OF_FILE, FORKED, SWAPPED = range(5)
"""States of a page.  PRIVATE: anonymous memory of this process alone; OF_FILE: of a file or
of shared memory; FORKED: anonymous, and shared with a fork until one of both writes to it.
These three make up RSS."""
RESIDENT = (PRIVATE, OF_FILE, FORKED)
PAGES_MAX = 1 << 28
"""Of one process: a terabyte of 4 KiB pages."""


@dataclass(frozen=True)
class Area:
    """Addresses ``start .. end`` of one kind, whole pages.

    Attributes:
        name: the file, or what the memory is called or looks like.
        resident: bytes in RSS; None where that is not known.
        copied: of these, anonymous ones; of a file, pages that were written to.
        swapped, huge: bytes that are swapped out, that lie on transparent huge pages.
        first: which of the residence's pages is the area's first; None where its pages
            were not looked at, or none is there.

    """

    start: int
    end: int
    kind: str
    name: Optional[str] = None
    resident: Optional[int] = None
    copied: Optional[int] = None
    swapped: Optional[int] = None
    huge: Optional[int] = None
    first: Optional[int] = None

    @property
    def size(self) -> int:
        """Bytes of address space."""
        return self.end - self.start


class Named(NamedTuple):
    """Memory that turned out to be of a kind, in an area of another."""

    start: int
    end: int
    kind: str
    name: Optional[str]


@dataclass(frozen=True)
class Residence:
    """What is resident of a process at one moment.

    Attributes:
        source: ``pagemap`` (each page is known), ``smaps`` (sums of mappings are), or
            ``core`` (what the file holds).
        exact: False where pages were judged by their content, or only in part.
        page: bytes of a page.
        areas: ascending and apart.
        pages: a state each.

    """

    source: str
    exact: bool
    page: int
    areas: Tuple[Area, ...]
    pages: bytes

    def count(self, area: Area, start: int, end: int, state: int) -> int:
        """Pages of ``area`` from address ``start`` to ``end`` that are in ``state``."""
        assert area.first is not None
        first = area.first + (start - area.start) // self.page
        last = area.first + (end - area.start) // self.page
        return self.pages.count(state, first, last)

    def split(self, found: Iterable[Named]) -> Residence:
        """The same with what is ``found``, ascending and apart, as areas of their own.

        It is cut to whole pages; an area whose pages are not known is all of it or none.
        """
        named = list(found)
        starts = [each.start for each in named]
        areas: List[Area] = []
        for area in self.areas:
            first = max(bisect_right(starts, area.start) - 1, 0)
            last = bisect_left(starts, area.end)
            at = area.start
            if area.first is None:
                whole = [
                    n for n in named[first:last] if n.start <= area.start and n.end >= area.end
                ]
                areas += [replace(area, kind=n.kind, name=n.name) for n in whole] or [area]
                continue
            for each in named[first:last]:
                start = max(each.start & -self.page, at)
                end = min(-(-each.end // self.page) * self.page, area.end)
                if start < end:
                    areas += self._part(area, at, start, area.kind, area.name)
                    areas += self._part(area, start, end, each.kind, each.name)
                    at = end
            areas += (
                [area] if at == area.start else self._part(area, at, area.end, area.kind, area.name)
            )
        return replace(self, areas=tuple(areas))

    def _part(
        self, area: Area, start: int, end: int, kind: str, name: Optional[str]
    ) -> Iterator[Area]:
        """``start .. end`` of ``area``, if there is any, as an area of its own."""
        if start >= end:
            return
        assert area.first is not None
        count = {state: self.count(area, start, end, state) for state in range(SWAPPED + 1)}
        copied = (count[PRIVATE] + count[FORKED]) * self.page
        yield Area(
            start=start,
            end=end,
            kind=kind,
            name=name,
            resident=sum(count[state] for state in RESIDENT) * self.page,
            copied=copied,
            swapped=count[SWAPPED] * self.page,
            huge=area.huge and area.huge * copied // (area.copied or 1),
            first=area.first + (start - area.start) // self.page,
        )


def assembled(
    source: str, exact: bool, page: int, areas: Sequence[Area], states: Mapping[int, bytes]
) -> Residence:
    """The residence of ``areas``; ``states`` holds, by row, a byte for each of their pages."""
    lengths = accumulate((len(states.get(row, b"")) for row in range(len(areas))), initial=0)
    placed = tuple(
        replace(area, first=first) if row in states else area
        for row, (area, first) in enumerate(zip(areas, lengths))
    )
    pages = b"".join(states[row] for row in sorted(states))
    return Residence(source, exact, page, placed, pages)


# -- in recordings ----------------------------------------------------------------


@dataclass(frozen=True)
class _Stored:
    source: str
    exact: bool
    page: int
    areas: Tuple[Area, ...]
    pages: str


def to_value(residence: Residence) -> Dict[str, object]:
    """``residence`` as a JSON object; its pages compressed, in base64."""
    packed = base64.b64encode(zlib.compress(residence.pages)).decode("ascii")
    areas = [asdict(area) for area in residence.areas]
    return {**vars(residence), "areas": areas, "pages": packed}


def from_value(value: object) -> Residence:
    """The residence that :func:`to_value` made ``value`` of.

    Raises :class:`RecordingError` where it is none, or no possible one.
    """
    stored = from_json(_Stored, value, "residence")
    inflater = zlib.decompressobj()
    try:
        packed = base64.b64decode(stored.pages, validate=True)
        pages = inflater.decompress(packed, PAGES_MAX)
    except (binascii.Error, zlib.error) as error:
        raise RecordingError(f"the recording is not understood: residence.pages: {error}") from None
    found = Residence(stored.source, stored.exact, stored.page, stored.areas, pages)
    if not inflater.eof or not _possible(found):
        raise RecordingError("the recording is not understood: impossible residence")
    return found


def _possible(found: Residence) -> bool:
    if found.source not in SOURCES or found.page < 1 or found.page & found.page - 1:
        return False
    end = 0
    for area in found.areas:
        if area.kind not in KINDS or not end <= area.start < area.end:
            return False
        if area.start % found.page or area.end % found.page:
            return False
        if area.first is not None and area.first + area.size // found.page > len(found.pages):
            return False
        end = area.end
    return not found.pages or max(found.pages) <= SWAPPED
