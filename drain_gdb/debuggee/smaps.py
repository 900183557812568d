"""What the kernel says is resident of a process: smaps and pagemap (proc(5)).

The files may be this machine's or another's, read through a debugger's server.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Module
from drain_gdb.debuggee.residence import (
    ABSENT,
    ANONYMOUS,
    BSS,
    FILE,
    FORKED,
    HEAP,
    OF_FILE,
    PAGEMAP,
    PAGES_MAX,
    PRIVATE,
    RESIDENT,
    SHARED,
    SMAPS,
    STACK,
    SWAPPED,
    Area,
    Named,
    Residence,
    assembled,
)
from drain_gdb.debuggee.threads import robust_lists, stacks
from drain_gdb.errors import UnreadableMemory

ReadText = Callable[[str], bytes]
"""The whole of ``/proc/PID/NAME``; OSError where it cannot be read."""
ReadPages = Callable[[int, int], bytes]
"""``(offset, size)`` to as many bytes of ``/proc/PID/pagemap``; OSError."""
Read = Callable[[int, int], bytes]
"""``(address, size)`` to the bytes of the process there; UnreadableMemory."""

ENTRY = 8
"""Bytes of an entry of pagemap, one a page."""
ENTRIES = 1 << 17
"""Of them that are read at once: a megabyte."""
LOOKED_MAX = 1 << 12
"""Pages of an area that are looked at to tell what they are."""
UNDECIDED = 5
"""Not a state in the end: present, and neither a file's nor this process's alone."""
_FIELDS = re.compile(
    rb"^(?:([0-9a-f]+)-([0-9a-f]+) (\S{4}) [0-9a-f]+ \S+ [0-9]+ *(.*)"
    rb"|(MMUPageSize|Rss|Anonymous|AnonHugePages|Swap): +([0-9]+) kB)$",
    re.M,
)
_RANGE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ", re.M)
_SHARED = ("/dev/zero", "/dev/shm/", "/memfd:", "/SYSV", "/anon_hugepage", "[anon_shmem")
"""What shared memory that is no file on a disk is called (mm/shmem.c, ipc/shm.c)."""
_NAMED = re.compile(r"\[anon:(.*)\]")
"""Anonymous memory that its owner has named (PR_SET_VMA_ANON_NAME, prctl(2))."""
DELETED = " (deleted)"


def _state(flags: int) -> int:
    """The state that the top byte of an entry says (Documentation/admin-guide/mm/pagemap.rst)."""
    present, swapped, of_file, exclusive = (flags & bit for bit in (0x80, 0x40, 0x20, 0x01))
    if not present:
        return SWAPPED if swapped else ABSENT
    if of_file:
        return OF_FILE
    return PRIVATE if exclusive else UNDECIDED


_STATES = bytes(map(_state, range(256)))


@dataclass(frozen=True)
class Entry:
    """A mapping as smaps has it; sizes in bytes."""

    area: Area
    writable: bool
    private: bool
    page: int


def entries(text: bytes) -> Iterator[Entry]:
    """The mappings of ``text``, the whole of smaps, in order."""
    head: Optional[Tuple[bytes, ...]] = None
    sizes: Dict[bytes, int] = {}
    for found in _FIELDS.findall(text):
        if not found[0]:
            sizes[found[4]] = int(found[5]) << 10
            continue
        if head is not None:
            yield _entry(head, sizes)
        head, sizes = found, {}
    if head is not None:
        yield _entry(head, sizes)


def _entry(head: Tuple[bytes, ...], sizes: Dict[bytes, int]) -> Entry:
    kind, name = _what(os.fsdecode(head[3]))
    area = Area(
        start=int(head[0], 16),
        end=int(head[1], 16),
        kind=kind,
        name=name,
        resident=sizes.get(b"Rss"),
        copied=sizes.get(b"Anonymous"),
        swapped=sizes.get(b"Swap"),
        huge=sizes.get(b"AnonHugePages", 0),
    )
    return Entry(area, b"w" in head[2], b"p" in head[2], sizes.get(b"MMUPageSize", 4096))


def is_shared(path: str) -> bool:
    """Whether what is mapped under this name is shared memory, and no file on a disk."""
    return path.startswith(_SHARED)


def _what(name: str) -> Tuple[str, Optional[str]]:
    """Kind and name of a mapping that smaps calls ``name``."""
    named = _NAMED.fullmatch(name)
    if named is not None:
        return ANONYMOUS, named[1]
    if name == "[heap]":
        return HEAP, None
    if name == "[stack]":
        return STACK, None
    if is_shared(name):
        return SHARED, name.removesuffix(DELETED)
    return (FILE, name.removesuffix(DELETED)) if name else (ANONYMOUS, None)


def ranges(maps: bytes) -> List[Tuple[int, int]]:
    """``(start, end)`` of the mappings of ``/proc/PID/maps``, adjacent ones joined."""
    found: List[Tuple[int, int]] = []
    for first, last in _RANGE.findall(maps):
        start, end = int(first, 16), int(last, 16)
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def of_process(pid: int, read: Read, modules: Sequence[Module]) -> Optional[Residence]:
    """What of the process ``pid`` of this machine is resident."""

    def text(name: str) -> bytes:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()

    places = robust_lists(pid)
    try:
        pages = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return residence(text, None, read, modules, places)
    try:
        return residence(text, lambda at, size: os.pread(pages, size, at), read, modules, places)
    finally:
        os.close(pages)


def residence(
    read_text: ReadText,
    read_pages: Optional[ReadPages],
    read: Read,
    modules: Sequence[Module],
    threads: Iterable[int],
) -> Optional[Residence]:
    """What of a process is resident; None where the kernel does not say.

    ``read_pages`` is None where pagemap cannot be had; then only mappings' sums are known.
    ``threads`` are addresses in or beside the block of each thread.
    """
    try:
        found = list(entries(read_text("smaps")))
    except OSError:
        return None
    if not found or any(entry.area.resident is None for entry in found):
        return None
    page = min(entry.page for entry in found)
    areas = [entry.area for entry in found]
    states: Dict[int, bytes] = {}
    try:
        if read_pages is not None:
            states = _states(areas, page, read_pages, read)
    except OSError:
        states = {}
    complete = all(row in states or not area.resident for row, area in enumerate(areas))
    for row, pages in states.items():
        areas[row] = _counted(areas[row], pages, page)
    source = PAGEMAP if complete else SMAPS
    whole = assembled(source, complete, page, areas, states)
    written = [entry.writable and entry.private for entry in found]
    return whole.split(variables(areas, modules, written)).split(stacks(read, threads))


def _counted(area: Area, pages: bytes, page: int) -> Area:
    """``area`` with the sums of its pages: smaps was read at another moment."""
    count = {state: pages.count(state) for state in (*RESIDENT, SWAPPED)}
    return replace(
        area,
        resident=sum(count[state] for state in RESIDENT) * page,
        copied=(count[PRIVATE] + count[FORKED]) * page,
        swapped=count[SWAPPED] * page,
    )


def _states(
    areas: Sequence[Area], page: int, read_pages: ReadPages, read: Read
) -> Dict[int, bytes]:
    """The states of the pages of all areas that have any, by row."""
    states: Dict[int, bytes] = {}
    left = PAGES_MAX
    for row, area in enumerate(areas):
        left -= area.size // page if area.resident or area.swapped else 0
        if left < 0 or not (area.resident or area.swapped):
            continue
        parts = []
        for first in range(area.start // page, area.end // page, ENTRIES):
            count = min(ENTRIES, area.end // page - first)
            data = read_pages(first * ENTRY, count * ENTRY)
            parts.append(data[ENTRY - 1 :: ENTRY].ljust(count, b"\0").translate(_STATES))
        states[row] = _decided(area, b"".join(parts), page, read)
    return states


def _decided(area: Area, pages: bytes, page: int, read: Read) -> bytes:
    """``pages`` with nothing undecided.

    Pages that are present and neither a file's nor this process's alone are shared with a
    fork, or the zero page, which is not in RSS: the area's RSS says how many are.  Where
    there are both, those that hold nothing but zeros are the zero page; of very many the
    last ones are taken for it.
    """
    undecided = pages.count(UNDECIDED)
    if not undecided:
        return pages
    known = pages.count(PRIVATE) + pages.count(OF_FILE)
    wanted = (area.resident or 0) // page - known
    if wanted <= 0 or wanted >= undecided:
        return pages.replace(bytes([UNDECIDED]), bytes([FORKED if wanted > 0 else ABSENT]))
    places = [at for at, state in enumerate(pages) if state == UNDECIDED]
    if undecided <= LOOKED_MAX:
        zeros = bytes(page)
        places.sort(key=lambda at: _holds(read, area.start + at * page, zeros))
    decided = bytearray(pages.replace(bytes([UNDECIDED]), bytes([ABSENT])))
    for at in places[:wanted]:
        decided[at] = FORKED
    return bytes(decided)


def _holds(read: Read, address: int, data: bytes) -> bool:
    """Whether the memory at ``address`` holds ``data``."""
    try:
        return read(address, len(data)) == data
    except UnreadableMemory:
        return True


def variables(
    areas: Sequence[Area], modules: Sequence[Module], written: Sequence[bool]
) -> Iterator[Named]:
    """The anonymous memory right behind a file's that holds its variables (.bss).

    It may have grown together with other memory: it ends where the module's last section
    does, where that is known.  ``written`` says of each area whether it is private and
    writable.
    """
    ends = sorted(section.end for module in modules for section in module.sections)
    for row, (before, area) in enumerate(zip(areas, areas[1:])):
        if before.kind != FILE or area.kind != ANONYMOUS or before.end != area.start:
            continue
        last = bisect_left(ends, area.end + 1) - 1
        if last >= 0 and ends[last] > area.start:
            yield Named(area.start, ends[last], BSS, before.name)
        elif not modules and written[row]:
            yield Named(area.start, area.end, BSS, before.name)
