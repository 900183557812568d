"""What of a process was resident, by its core.

The kernel leaves out pages that were not there: they are holes of the file.  gdb writes
all of them, and a copy may have lost its holes: then what is not all zeros counts as
resident.  Of mapped files a core holds only what was written to; how much of the rest was
resident it does not say.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import repeat
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.corenotes import AT_PHDR, Notes, notes_of
from drain_gdb.debuggee.elf import PF_W, PF_X, PT_LOAD, PT_NOTE, Elf, Segment, parse
from drain_gdb.debuggee.elffile import PAGE_MAX
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Mapping, Module
from drain_gdb.debuggee.residence import (
    ABSENT,
    ANONYMOUS,
    CORE,
    FILE,
    HEAP,
    PAGES_MAX,
    PRIVATE,
    SHARED,
    STACK,
    Area,
    Residence,
    assembled,
)
from drain_gdb.debuggee.smaps import Read, is_shared, variables
from drain_gdb.debuggee.threads import stacks
from drain_gdb.errors import TargetError

AT_PAGESZ, AT_RANDOM, AT_SYSINFO_EHDR = 6, 25, 33
"""Entries of the auxiliary vector: the page size, bytes on the main stack, the vDSO (elf.h)."""
PAGE = 4096
"""Bytes; there are none smaller where jemalloc runs."""
PIECE = 1 << 18
"""Bytes of a core that are read at once."""
LOOKED_MAX = 1 << 30
"""Bytes that are read to see what is zero; of a larger core every so many pieces are."""
BY_ZEROS = bytes([PRIVATE, ABSENT]).ljust(1 << 8)
"""The state of a page by whether all of it is zeros."""
BRK_MAX = 1 << 30
"""How far behind the program the heap may begin (arch_randomize_brk())."""


def of_core_at(path: str, read: Read, modules: Sequence[Module]) -> Optional[Residence]:
    """What the core at ``path`` says, for debuggers; None where it cannot be read."""
    try:
        with File(path) as file:
            elf = parse(path, file.size, file.read)
            return of_core(file, elf, notes_of(elf, file), read, modules)
    except TargetError:
        return None


def of_core(
    file: File, elf: Elf, notes: Notes, read: Read, modules: Sequence[Module]
) -> Optional[Residence]:
    """What the core in ``file`` says of residence; None where it holds no memory."""
    loads = sorted((s for s in elf.segments if s.kind == PT_LOAD), key=lambda s: s.address)
    page = notes.auxiliary.get(AT_PAGESZ, PAGE)
    if not PAGE <= page <= PAGE_MAX or page & page - 1:
        return None
    segments = [s for s in _apart(loads, page) if s.memory_size]
    if not segments:
        return None
    areas = _areas(segments, notes)
    telling = (
        segment
        for segment, area in zip(segments, areas)
        if _is_held(segment, area, page) and _may_be_written(segment, area, modules)
    )
    held = list(_in_file(file, list(telling)))
    data = _data(file, held)
    exact = _is_by_kernel(elf) and _has_holes(file, held, data)
    pages = _Pages(file, page, data, None if exact else _step(held))
    states: Dict[int, bytes] = {}
    left = PAGES_MAX
    known = set(held)
    for row, (segment, area) in enumerate(zip(segments, areas)):
        left -= area.size // page
        if left >= 0 and segment in known:
            states[row] = found = pages.of(segment)
            resident = found.count(PRIVATE) * page
            areas[row] = Area(area.start, area.end, area.kind, area.name, resident, resident)
    whole = assembled(CORE, exact, page, areas, states)
    written = [bool(segment.flags & PF_W) for segment in segments]
    named = whole.split(variables(areas, modules, written))
    return named.split(stacks(read, notes.thread_pointers))


def _apart(segments: Sequence[Segment], page: int) -> Iterator[Segment]:
    """Those of ``segments``, ascending, that are whole pages and begin where others have ended."""
    end = 0
    for segment in segments:
        if segment.address >= end and not (segment.address | segment.memory_size) % page:
            yield segment
            end = segment.address + segment.memory_size


def _is_held(segment: Segment, area: Area, page: int) -> bool:
    """Whether a core holds all that was resident of ``segment``.

    Of files it may hold the first page alone, or nothing (coredump_filter, core(5)).
    """
    least = page if area.kind == FILE else 0
    return least < segment.file_size == segment.memory_size


def _may_be_written(segment: Segment, area: Area, modules: Sequence[Module]) -> bool:
    """Whether what a core holds of ``segment`` can be more than a file's own pages.

    Some cores have those, too (coredump_filter; a JVM asks for it).  What is mapped read-only
    was written to only where the dynamic linker relocates (RELRO).
    """
    if area.kind != FILE or segment.flags & PF_W:
        return True
    return not segment.flags & PF_X and any(
        section.start < area.end and area.start < section.end and not section.constant
        for module in modules
        for section in module.sections
    )


def _in_file(file: File, segments: Sequence[Segment]) -> Iterator[Segment]:
    """Those of ``segments`` that lie in the file, each behind the one before, by their places."""
    end = 0
    for segment in sorted(segments, key=lambda s: s.offset):
        if segment.offset >= end and segment.offset + segment.file_size <= file.size:
            yield segment
            end = segment.offset + segment.file_size


def _is_by_kernel(elf: Elf) -> bool:
    """Whether the kernel made this core: gdb writes the notes last."""
    first = min(s.offset for s in elf.segments if s.kind == PT_LOAD)
    return any(s.offset < first for s in elf.segments if s.kind == PT_NOTE)


# -- kinds ------------------------------------------------------------------------


def _areas(segments: Sequence[Segment], notes: Notes) -> List[Area]:
    """Of what kind each segment is, as far as the core says."""
    mappings = sorted(notes.mappings, key=lambda mapping: mapping.start)
    starts = [mapping.start for mapping in mappings]
    marks = {
        notes.auxiliary.get(AT_RANDOM, 0): (STACK, None),
        notes.auxiliary.get(AT_SYSINFO_EHDR, 0): (FILE, "[vdso]"),
    }
    ends = [m.end for m in mappings if m.path == notes.program and AT_PHDR in notes.auxiliary]
    program = max(ends, default=None)
    areas: List[Area] = []
    for segment in segments:
        start, end = segment.address, segment.address + segment.memory_size
        row = bisect_right(starts, start) - 1
        kind, name = (
            _what(mappings[row]) if row >= 0 and start < mappings[row].end else (ANONYMOUS, None)
        )
        for mark, of_mark in marks.items():
            if start <= mark < end:
                kind, name = of_mark
        if kind == ANONYMOUS and program is not None and program < start < program + BRK_MAX:
            # Its variables follow right behind the program; the heap does not.
            kind, program = HEAP, None
        areas.append(Area(start, end, kind, name))
    return areas


def _what(mapping: Mapping) -> Tuple[str, str]:
    return (SHARED if is_shared(mapping.path) else FILE), mapping.path


# -- pages ------------------------------------------------------------------------


def _data(file: File, segments: Sequence[Segment]) -> List[Tuple[int, int]]:
    """``(start, end)`` of the stretches of the file that are no holes, ascending."""
    found: List[Tuple[int, int]] = []
    for segment in segments:
        at, end = segment.offset, segment.offset + segment.file_size
        while at < end:
            try:
                start = os.lseek(file.descriptor, at, os.SEEK_DATA)
                stop = os.lseek(file.descriptor, start, os.SEEK_HOLE)
            except OSError:  # a hole up to the end
                break
            if start < end:
                found.append((start, min(stop, end)))
            at = stop
    return found


def _has_holes(file: File, segments: Sequence[Segment], data: Sequence[Tuple[int, int]]) -> bool:
    """Whether holes of ``file`` are those that its writer left.

    Of a compressed core they are what its unpacked copy, which has no name, got.
    """
    there = sum(s.file_size for s in segments)
    return os.fstat(file.descriptor).st_nlink > 0 and sum(e - s for s, e in data) < there


def _step(segments: Sequence[Segment]) -> int:
    """Of how many pieces one is read."""
    return 1 + sum(segment.file_size for segment in segments) // LOOKED_MAX


class _Pages:
    """The states of the pages of one core.

    ``step`` is None where what is no hole was resident, else of how many pieces one is
    looked at.
    """

    def __init__(
        self, file: File, page: int, data: Sequence[Tuple[int, int]], step: Optional[int]
    ) -> None:
        self._file = file
        self._page = page
        self._zeros = bytes(page)
        self._data = data
        self._starts = [start for start, _ in data]
        self._step = step

    def of(self, segment: Segment) -> bytes:
        """The states of the pages of ``segment``, all of which the core holds."""
        states = bytearray(segment.file_size // self._page)
        end = segment.offset + segment.file_size
        for row in range(max(bisect_right(self._starts, segment.offset) - 1, 0), len(self._data)):
            start, stop = self._data[row]
            if start >= end:
                break
            first = (max(start, segment.offset) - segment.offset) // self._page
            last = -(-(min(stop, end) - segment.offset) // self._page)
            if first < last:
                states[first:last] = self._look(segment.offset, first, last)
        return bytes(states)

    def _look(self, offset: int, first: int, last: int) -> bytes:
        """The states of pages ``first .. last`` of a segment that begins at ``offset``."""
        if self._step is None:
            return bytes([PRIVATE]) * (last - first)
        states = bytearray()
        pages = PIECE // self._page
        for at in range(first, last, pages * self._step):
            data = self._file.read(offset + at * self._page, min(pages, last - at) * self._page)
            seen = self._seen(data)
            states += seen * self._step if len(seen) == pages else seen
        return bytes(states[: last - first].ljust(last - first, bytes([ABSENT])))

    def _seen(self, data: bytes) -> bytes:
        """The states of the pages of ``data`` by what is in them."""
        places = range(0, len(data) // self._page * self._page, self._page)
        return bytes(map(data.startswith, repeat(self._zeros), places)).translate(BY_ZEROS)
