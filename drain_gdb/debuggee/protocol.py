"""What the rest of the program may ask of a debuggee.

An adapter (gdb, a recording, plain bytes, ...) implements :class:`Target`.  Nothing here
knows jemalloc, and nothing beyond the adapters knows a debugger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Mapping as MappingOf
from typing import Optional, Protocol, Sequence, Tuple

from drain_gdb.debuggee.residence import Residence
from drain_gdb.errors import MissingField


@dataclass(frozen=True)
class Motion:
    """How a process was copied that was not stopped.

    Attributes:
        copies: which copy it is, from 1: the first whose accounting held, or the best.
        moved_bytes: of the pages that moved meanwhile, copied last and at once.
        microseconds: that this last copy took.
        settled: nothing else moved around it, so the whole is of these microseconds.

    """

    copies: int
    moved_bytes: int
    microseconds: int
    settled: bool


@dataclass(frozen=True)
class Process:
    """Who is being looked at.

    Attributes:
        source: ``live``, ``core`` or ``recording``.
        pid: process id, where known.
        name: what the process calls itself: the first word of its command line,
            without directories.
        executable: path of the program's file, where known.
        debugger: ``gdb``, ``lldb`` or ``none``.
        taken_at: RFC 3339 time of the state seen; None for a core, which
            does not hold it.
        in_motion: how it was copied if it was live and not stopped, else None.
        damage: what is wrong with the file it is read from, None if nothing.

    """

    source: str
    pid: Optional[int]
    name: Optional[str]
    executable: Optional[str]
    debugger: str
    taken_at: Optional[str]
    in_motion: Optional[Motion] = None
    damage: Optional[str] = None


@dataclass(frozen=True)
class Section:
    """A section ``start .. end`` of a loaded file, or what a segment has instead.

    What it holds follows from the flags of sections and segments, never from names,
    which programs change.

    Attributes:
        writable: the program keeps its variables here (.data and .bss).
        zero_initialized: these are variables that begin as zeros (.bss).
        constant: the program keeps constants here (.rodata), the same as in its file.

    """

    name: str
    start: int
    end: int
    writable: bool = False
    zero_initialized: bool = False
    constant: bool = False


@dataclass(frozen=True)
class Module:
    """A program or library loaded in the process, with its sections.

    Attributes:
        path: as the process names it.
        build_id: of the file that was opened, in hexadecimal; None if it has none.
        elsewhere: where that file is to be found here, if not at ``path``.

    """

    path: str
    sections: Tuple[Section, ...]
    build_id: Optional[str] = None
    elsewhere: Optional[str] = None

    @property
    def here(self) -> str:
        """Where its file is to be found."""
        return self.elsewhere or self.path


@dataclass(frozen=True)
class Placed:
    """A file that a process runs: its build-id, and where its first byte lies."""

    build_id: Optional[str]
    start: Optional[int]


@dataclass(frozen=True)
class Identity:
    """What tells a process from others, and from itself started anew; None where not known.

    Attributes:
        random: SHA-256, in hexadecimal, of the random bytes the kernel gave it (AT_RANDOM):
            their own values protect its stack.
        started: when it was started, in clock ticks since the machine was (field 22 of
            /proc/PID/stat, proc(5)).
        boot: which start of the machine that is since (random/boot_id, proc(5)).
        program: the file it runs.
        allocators: the files that its jemallocs are in.

    """

    random: Optional[str] = None
    started: Optional[int] = None
    boot: Optional[str] = None
    program: Optional[Placed] = None
    allocators: Tuple[Placed, ...] = ()


@dataclass(frozen=True)
class Mapping:
    """A file mapped into the process at ``start .. end``, from ``offset`` on.

    Attributes:
        path: as the process names it.
        elsewhere: where it is to be found here, if not there: below a sysroot, or in
            a container.

    """

    path: str
    start: int
    end: int
    offset: int
    elsewhere: Optional[str] = None

    @property
    def here(self) -> str:
        """Where it is to be found."""
        return self.elsewhere or self.path


@dataclass(frozen=True)
class Symbol:
    """A variable of the target: its name and address."""

    name: str
    address: int


@dataclass(frozen=True)
class Thread:
    """A thread, where it stands.

    Attributes:
        id: its number in the system, where known.
        stack_pointer: what lies below it on the stack is dead.
        registers: the values of its general registers, as many as are known.

    """

    id: Optional[int]
    stack_pointer: int
    registers: Tuple[int, ...]


@dataclass(frozen=True)
class Member:
    """A member of a C struct or union.

    Attributes:
        name: empty for an anonymous struct or union.
        offset: bytes from the start of the enclosing struct.
        size: bytes, all elements of an array together.
        align: bytes.
        count: elements of an array, None for a scalar; 0 for a flexible one.
        type: the struct of the member (of one element), None for a scalar.

    """

    name: str
    offset: int
    size: int
    align: int
    count: Optional[int] = None
    type: Optional[Struct] = None


@dataclass(frozen=True)
class Struct:
    """The layout of a C struct or union, as the target's compiler made it."""

    name: str
    size: int
    align: int
    members: Tuple[Member, ...]
    union: bool = False

    def find(self, path: str) -> Member:
        """The member at dotted ``path``, its offset counted from this struct.

        Anonymous members are looked through.  Raises :class:`MissingField`.
        """
        head, _, rest = path.partition(".")
        member = self._own(head)
        if member is None:
            raise MissingField(self.name, path)
        if not rest:
            return member
        if member.type is None:
            raise MissingField(self.name, path)
        inner = member.type.find(rest)
        return replace(inner, offset=member.offset + inner.offset)

    def offset(self, path: str) -> int:
        """Bytes from the start of this struct to the member at ``path``."""
        return self.find(path).offset

    def _own(self, name: str) -> Optional[Member]:
        for member in self.members:
            if member.name == name:
                return member
            if not member.name and member.type is not None:
                inner = member.type._own(name)
                if inner is not None:
                    return replace(inner, offset=member.offset + inner.offset)
        return None


class Target(Protocol):
    """A process, live or dead, behind reads of its memory."""

    def process(self) -> Process:
        """Who is being looked at."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; :class:`~drain_gdb.errors.UnreadableMemory`."""

    def modules(self) -> Sequence[Module]:
        """The program and its libraries, those whose file could be opened."""

    def mappings(self) -> Sequence[Mapping]:
        """The files mapped into the process, whether or not they can be opened."""

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """``(start, end)`` of all of the address space in use, ascending.

        None where that is not known: a core may leave out what it holds nothing of.
        """

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """Variables whose name ends with one of ``endings``, with debug information or not."""

    def symbol(self, name: str) -> Optional[Symbol]:
        """The variable ``name``, None where there is none."""

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """Struct ``name`` as debug information around ``near`` describes it."""

    def thread_pointers(self) -> Sequence[int]:
        """The thread pointer of each thread (fs_base, tpidr_el0), where it is known.

        Thread-local storage lies around it (the TLS ABI of each architecture).
        """

    def threads(self) -> Sequence[Thread]:
        """The threads whose registers are known."""

    def auxiliary(self) -> MappingOf[int, int]:
        """The auxiliary vector that the kernel gave the program; empty where not known."""

    def residence(self) -> Optional[Residence]:
        """What of it is resident; None where that is not known."""

    def layouts(self) -> Optional[Sequence[object]]:
        """The jemallocs found in it before, as JSON values; None where they are to be found."""
