"""Where owning begins: variables, and the stacks and registers of threads.

What other allocators and runtimes map for themselves can own what is a jemalloc's, too, as strings
of a Ruby: it comes behind variables, for it may hold what was dropped long ago.

Of a stack only what lies above the stack pointer is alive (and the red zone below it, which
a function may use that calls no other: the System V ABI of x86-64).  Memory that a jemalloc
claims is left out wherever it lies: its metadata and unused pages hold old pointers.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from drain_gdb.debuggee.protocol import Module, Section, Target, Thread
from drain_gdb.debuggee.residence import (
    ALLOCATOR,
    ANONYMOUS,
    HEAP,
    RESIDENT,
    STACK,
    THREAD_STACK,
    Area,
    Residence,
)
from drain_gdb.debuggee.symbols import Symbols
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.placed import Column, Free
from drain_gdb.memory import ADDRESS_END, WORD, Memory
from drain_gdb.objects.pointers import plain
from drain_gdb.objects.recogniser import Elsewhere
from drain_gdb.objects.references import PIECE, Finder
from drain_gdb.words import size

RED_ZONE = 128
"""Bytes."""
STACK_MAX = 1 << 20
"""Bytes of a stack whose end is not known."""
BESIDE = 64
"""Bytes between two pointers of what has no name that may be of one variable."""
LOCALS_BEFORE, LOCALS_AFTER = 1 << 16, 1 << 12
"""Bytes around a thread pointer that can be thread-local variables."""
CALL = 8
"""Bytes before a return address in which the call ends."""
FOREIGN_MAX = 1 << 32
"""Bytes of other allocators that are looked at: some seconds."""
STAYING, FOREIGN, PASSING = range(3)
"""In which order roots own: variables; what other allocators hold; what a function that runs
has, which lets go of it when it returns."""


class RootReference(NamedTuple):
    """A pointer that begins an owning.

    Attributes:
        name: the number of what it is in, among :attr:`Roots.names`.
        region: the live region that it points into.
        strong: whether at a place where pointers point.
        order: STAYING, FOREIGN or PASSING.

    """

    name: int
    region: int
    strong: bool
    order: int = STAYING


class Roots:
    """The variables, stacks and registers of a process that stands still.

    Attributes:
        names: what each root is called.
        references: their pointers, those of variables first.
        variables: by the number of a name where its variables begin.

    """

    def __init__(
        self,
        target: Target,
        memory: Memory,
        finder: Finder,
        heaps: Sequence[Heap],
        columns: Sequence[Column],
        residence: Optional[Residence],
        elsewhere: Sequence[Elsewhere],
        note: Callable[[str], None],
    ) -> None:
        self._target = target
        self._memory = memory
        self._finder = finder
        self._free = Free(columns)
        self._symbols = Symbols(target)
        self._own = [place for heap in heaps for place in _own_variables(heap)]
        self._residence = residence
        self._areas = () if residence is None else residence.areas
        self._numbers: Dict[str, int] = {}
        self.references: List[RootReference] = []
        self.variables: Dict[int, Set[int]] = {}
        self._add_variables()
        threads = target.threads()
        for thread in threads:
            self._add_stack(thread)
        self._add_locals()
        for thread in threads:
            # Debuggers may count wider ones among them.
            words = array("Q", (word & ADDRESS_END - 1 for word in thread.registers)).tobytes()
            for found in finder.find(0, words):
                self._add(f"registers of {_called(thread)}", found.region, found.strong, PASSING)
        for each in elsewhere:
            self._add_elsewhere(each)
        self._add_foreign({each.memory for each in elsewhere}, note)

    @property
    def names(self) -> List[str]:
        """What each root is called, by its number."""
        return list(self._numbers)

    def _add(self, name: str, region: int, strong: bool, order: int = STAYING) -> int:
        number = self._numbers.setdefault(name, len(self._numbers))
        self.references.append(RootReference(number, region, strong, order))
        return number

    def _pieces(self, start: int, end: int) -> Iterator[Tuple[int, bytes]]:
        """``(address, bytes)`` of what no jemalloc claims from ``start`` to ``end``."""
        for first, last in self._free.within(start + -start % WORD, end):
            for at in range(first, last, PIECE):
                room = min(PIECE, last - at) & -WORD
                if room:
                    yield at, self._memory.block(at, room).data

    # -- variables ----------------------------------------------------------------

    def _add_variables(self) -> None:
        for module in self._target.modules():
            for section in module.sections:
                if section.writable:
                    self._add_section(module, section)

    def _add_section(self, module: Module, section: Section) -> None:
        begun, last = 0, -BESIDE - 1
        for at, data in self._pieces(section.start, section.end):
            for found in self._finder.find(at, data):
                address = found.address
                if any(start <= address < end for start, end in self._own):
                    continue
                known = self._symbols.with_offset(address)
                if known is not None:
                    name, offset = known
                    number = self._add(plain(name), found.region, found.strong)
                    self.variables.setdefault(number, set()).add(address - offset)
                    continue
                begun = address if address - last > BESIDE else begun
                last = address
                library = os.path.basename(module.path)
                name = f"{library} {section.name}+{begun - section.start:#x}"
                self._add(name, found.region, found.strong)

    def _add_elsewhere(self, elsewhere: Elsewhere) -> None:
        """What objects own that lie in memory of the program's own."""
        for area in self._areas:
            if area.kind in (ANONYMOUS, ALLOCATOR):
                for at, data in self._there(area):
                    for found in self._finder.find(at, data):
                        name = elsewhere.holder(found.address)
                        if name is not None:
                            self._add(name, found.region, found.strong)

    def _add_foreign(self, known: Set[str], note: Callable[[str], None]) -> None:
        """What points from memory of other allocators, each region once.

        Not from that whose objects are ``known``, nor from memory that nobody is known to use:
        stacks of threads that ended lie there.
        """
        seen: Set[Tuple[int, bool]] = set()
        looked = 0
        for area in self._areas:
            if area.kind not in (ALLOCATOR, HEAP) or area.name in known:
                continue
            name = f"memory of {area.name}" if area.kind == ALLOCATOR else "the brk heap"
            for at, data in self._there(area):
                looked += len(data)
                if looked > FOREIGN_MAX:
                    note(
                        "owners are partial: of the memory of other allocators no more than"
                        f" {size(FOREIGN_MAX)} is looked at"
                    )
                    return
                for found in self._finder.find(at, data):
                    key = found.region, found.strong
                    if key not in seen:
                        seen.add(key)
                        self._add(name, found.region, found.strong, FOREIGN)

    def _there(self, area: Area) -> Iterator[Tuple[int, bytes]]:
        """``(address, bytes)`` of what is resident of ``area``, which may be far larger."""
        assert self._residence is not None
        for start in range(area.start, area.end, PIECE):
            end = min(start + PIECE, area.end)
            if area.first is None or any(
                self._residence.count(area, start, end, state) for state in RESIDENT
            ):
                yield from self._pieces(start, end)

    # -- threads ------------------------------------------------------------------

    def _area(self, address: int, *kinds: str) -> Optional[Tuple[int, int]]:
        for area in self._areas:
            if area.start <= address < area.end and area.kind in kinds:
                return area.start, area.end
        return None

    def _add_stack(self, thread: Thread) -> None:
        pointer = thread.stack_pointer & -WORD
        area = self._area(pointer, STACK, THREAD_STACK)
        start, end = (pointer, pointer + STACK_MAX) if area is None else area
        frames = _Frames(self._symbols, self._memory)
        for at, data in self._pieces(max(start, pointer - RED_ZONE), end):
            if area is None and not any(data):
                break
            references = self._finder.find(at, data)
            if references:
                frames.look(at, data)
            for found in references:
                function = frames.of(found.address)
                name = f"stack of {_called(thread)}"
                if function is not None:
                    called = plain(function)
                    name = f"{called if called.endswith(')') else f'{called}()'} on the {name}"
                self._add(name, found.region, found.strong, PASSING)

    def _add_locals(self) -> None:
        """Thread-local variables that lie on no stack: the main thread's."""
        for pointer in self._target.thread_pointers():
            area = self._area(pointer, ANONYMOUS)
            if area is not None:
                start = max(area[0], pointer - LOCALS_BEFORE & -WORD)
                for at, data in self._pieces(start, min(area[1], pointer + LOCALS_AFTER)):
                    for found in self._finder.find(at, data):
                        self._add("thread-local variables", found.region, found.strong)


class _Frames:
    """Which function's frame an address on a stack lies in, where that can be told.

    Above a return address lies the frame of the function that is returned to.
    """

    def __init__(self, symbols: Symbols, memory: Memory) -> None:
        self._symbols = symbols
        self._memory = memory
        self._starts: List[int] = []
        self._functions: List[Optional[str]] = []

    def look(self, address: int, data: bytes) -> None:
        """Find the return addresses in a piece of a stack; of functions without names, too."""
        for at, word in enumerate(memoryview(data).cast("Q")):
            found = self._symbols.section_at(word) if word >> 12 else None
            if found is None or found[0].writable:
                continue
            name = self._symbols.at(word)
            if (name is not None or not found[0].constant) and self._follows_call(word):
                self._starts.append(address + at * WORD)
                self._functions.append(name)

    def _follows_call(self, address: int) -> bool:
        """Whether what is right before it may be a call instruction of x86-64.

        ``E8 rel32``, or ``FF /2`` with its operand; of other machines all is believed.
        """
        if not self._memory.readable(address - CALL, CALL):
            return False
        code = self._memory.read(address - CALL, CALL)
        if code[-5] == 0xE8:
            return True
        return any(code[-n] == 0xFF and code[1 - n] & 0x38 == 0x10 for n in (2, 3, 4, 6, 7))

    def of(self, address: int) -> Optional[str]:
        """The function in whose frame an address lies."""
        row = bisect_right(self._starts, address) - 1
        return self._functions[row] if row >= 0 else None


def _called(thread: Thread) -> str:
    return "a thread" if thread.id is None else f"thread {thread.id}"


def _own_variables(heap: Heap) -> Iterator[Tuple[int, int]]:
    """Jemalloc's own variables: the root of its tree, its table of arenas."""
    rtree, arena = heap.layout.rtree, heap.layout.arena
    yield rtree.root, rtree.root + (WORD << rtree.bits[0] + 1)
    if arena.table is not None:
        yield arena.table, arena.table + arena.table_size * WORD
