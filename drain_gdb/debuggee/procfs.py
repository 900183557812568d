"""A live process, read through /proc without stopping it (proc(5))."""

from __future__ import annotations

import os
import re
import struct
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Dict, Iterator, List, Optional, Sequence, Tuple
from typing import Mapping as MappingOf

from drain_gdb.debuggee import smaps
from drain_gdb.debuggee.corenotes import Notes, vector_of
from drain_gdb.debuggee.elf import NotElf, parse
from drain_gdb.debuggee.elffile import open_elf
from drain_gdb.debuggee.files import File, inside
from drain_gdb.debuggee.identity import process_name
from drain_gdb.debuggee.loaded import (
    Finder,
    Loaded,
    LoadedFiles,
    find_loaded,
    place_program,
)
from drain_gdb.debuggee.protocol import Mapping, Module, Process, Struct, Symbol, Thread
from drain_gdb.debuggee.ptrace import Stop
from drain_gdb.debuggee.residence import Residence
from drain_gdb.debuggee.stat import state_of
from drain_gdb.debuggee.threads import robust_lists
from drain_gdb.errors import ProcessEnded, TargetError, UnreadableMemory

OFFSET_END = 1 << 63
"""Beyond it pread() takes no offset; no process has memory of its own there."""
_MAPPED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) [0-9a-f]+:[0-9a-f]+ ([0-9]+) +(/.*)$", re.M
)
THREAD_BLOCK_MAX = 4096
DELETED = " (deleted)"
"""What the kernel appends to the name of a file that is gone."""
_RSS = re.compile(rb"^Rss: +([0-9]+) kB$", re.M)
_RANGE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ", re.M)
_CLOSED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) -", re.M)
ALLOWED = (
    "it must exist and be yours to trace (root, or the same user where the system's"
    " kernel.yama.ptrace_scope allows it)"
)


class ProcessTarget:
    """The process ``pid`` and its memory, as it is at the moment of each read.

    Files are opened as the process sees them (/proc/PID/root), or below ``sysroot``.
    Where its threads stand, ``stop`` knows their registers.
    """

    def __init__(
        self, pid: int, sysroot: Optional[str] = None, stop: Optional[Stop] = None
    ) -> None:
        self.pid = pid
        self._stop = stop
        self._root = f"/proc/{pid}/root" if sysroot is None else sysroot
        try:
            self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._memory)
            self._listed = list(_mapped(self._bytes("maps")))
            auxiliary = self._bytes("auxv")
        except OSError as error:
            gone = isinstance(error, (FileNotFoundError, ProcessLookupError))
            why = "No such process" if gone else error.strerror
            raise TargetError(f"cannot attach to process {pid}: {why}", ALLOWED) from None
        self._require_supported()
        self._auxiliary = vector_of(auxiliary)
        self._mappings = [each.mapping for each in self._listed]
        self._first = {each.mapping.path: each for each in reversed(self._listed)}
        self._found: Dict[str, Optional[str]] = {}
        self._program = self._open_program()
        machine = "" if self._program is None else self._program.file.elf.machine
        finder = Finder(self._here, machine)
        if self._program is not None:
            finder.give(self._program.path, self._program.file)
        self._files = LoadedFiles(
            find_loaded(self.read, self._mappings, self._auxiliary, self._program, finder)
        )
        self._taken_at = _now()

    def _require_supported(self) -> None:
        """Refuse a process of another width: what the kernel says of it is laid out otherwise."""
        try:
            file = File(f"/proc/{self.pid}/exe")
        except TargetError:
            return
        with file, suppress(NotElf):
            parse(f"process {self.pid}", file.size, file.read)

    def _bytes(self, name: str) -> bytes:
        with open(f"/proc/{self.pid}/{name}", "rb") as file:
            return file.read()

    def _open_program(self) -> Optional[Loaded]:
        path = Notes(tuple(self._mappings), auxiliary=self._auxiliary).program
        if path is None:
            return None
        # The link leads to the file that runs, even where it has been deleted.
        file = open_elf(f"/proc/{self.pid}/exe")
        return None if file is None else place_program(self.read, path, file, self._auxiliary)

    def _here(self, path: str) -> Optional[str]:
        """Where a file of the process is to be found, replaced ones included."""
        if path not in self._found:
            here = inside(self._root, path)
            first = self._first.get(path)
            if first is not None and not (here and _is(here, first.inode)):
                mapping = first.mapping
                kept = f"/proc/{self.pid}/map_files/{mapping.start:x}-{mapping.end:x}"
                here = kept if os.path.exists(kept) else here
            self._found[path] = here
        return self._found[path]

    # -- looked at again ----------------------------------------------------------

    def refresh(self) -> None:
        """See it as it is now: what is mapped, and the time.

        Raises :class:`ProcessEnded` where it has ended, or runs another program.
        """
        try:
            ended = state_of(self.pid) in "ZXx"
            maps, auxiliary = self._bytes("maps"), vector_of(self._bytes("auxv"))
        except OSError:
            raise ProcessEnded(f"process {self.pid} has ended") from None
        if ended or not auxiliary:
            raise ProcessEnded(f"process {self.pid} has ended")
        if auxiliary != self._auxiliary:
            raise ProcessEnded(f"process {self.pid} runs another program now")
        listed = list(_mapped(maps))
        if listed != self._listed:
            self._listed = listed
            self._mappings = [each.mapping for each in listed]
            self._first = {each.mapping.path: each for each in reversed(listed)}
        self._taken_at = _now()

    def resident_bytes(self) -> int:
        """RSS: as the page tables have it, or, where they are not shown, the kernel's count."""
        with suppress(OSError):
            found = _RSS.search(self._bytes("smaps_rollup"))
            if found is not None:
                return int(found[1]) << 10
        pages = 0
        with suppress(OSError):
            pages = int(self._bytes("statm").split()[1])
        if not pages:
            raise ProcessEnded(f"process {self.pid} has ended")
        return pages * os.sysconf("SC_PAGE_SIZE")

    # -- the target protocol ------------------------------------------------------

    def process(self) -> Process:
        """Who is being looked at."""
        program = None if self._program is None else self._program.path
        try:
            words = self._bytes("cmdline").rstrip(b"\0").replace(b"\0", b" ")
        except OSError:
            words = b""
        return Process(
            source="live",
            pid=self.pid,
            name=process_name(words.decode("utf-8", "replace"), program) or None,
            executable=program,
            debugger="none",
            taken_at=self._taken_at,
        )

    def unwritable(self) -> Sequence[Mapping]:
        """The mapped files that the process may not write to: what is read there stays."""
        return [each.mapping for each in self._listed if not each.writable]

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``."""
        if address + size > OFFSET_END:
            raise UnreadableMemory(address, size, "nothing of the process lies there")
        try:
            data = os.pread(self._memory, size, address)
            while data and len(data) < size:
                more = os.pread(self._memory, size - len(data), address + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise UnreadableMemory(address, size, str(error.strerror)) from None
        if len(data) < size:
            if not data and not os.path.exists(f"/proc/{self.pid}/maps"):
                raise ProcessEnded(f"process {self.pid} has ended meanwhile")
            raise UnreadableMemory(address, size, f"nothing is mapped at {address + len(data):#x}")
        return data

    def fill(self, address: int, block: bytearray) -> bool:
        """Read as many bytes as ``block`` has into it; False where not all can be."""
        view = memoryview(block)
        try:
            while view:
                done = os.preadv(self._memory, [view], address)
                if not done:
                    return False
                address, view = address + done, view[done:]
        except (OSError, OverflowError):
            return False
        return True

    def touched(self, address: int, size: int) -> Optional[List[Tuple[int, int]]]:
        """``(address, size)`` of the pages there, joined, that are in memory or swapped out.

        None where the kernel does not say (/proc/PID/pagemap, a word a page).
        """
        page = os.sysconf("SC_PAGE_SIZE")
        try:
            with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as file:
                words = os.pread(file.fileno(), size // page * 8, address // page * 8)
        except OSError:
            return None
        # The highest byte of each word; in it, the two highest bits.
        runs = re.finditer(rb"[\x40-\xff]+", words[7::8])
        return [(address + run.start() * page, (run.end() - run.start()) * page) for run in runs]

    def modules(self) -> Sequence[Module]:
        """The program and its libraries, those whose file could be opened."""
        return self._files.modules

    def mappings(self) -> Sequence[Mapping]:
        """The files mapped into the process."""
        return [replace(each, elsewhere=self._here(each.path)) for each in self._mappings]

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """All of the address space in use at this moment."""
        try:
            maps = self._bytes("maps")
        except OSError:
            return None
        return [(int(start, 16), int(end, 16)) for start, end in _RANGE.findall(maps)]

    def closed(self) -> Sequence[Tuple[int, int]]:
        """``(start, end)`` of what is mapped and may not be read, ascending."""
        try:
            maps = self._bytes("maps")
        except OSError:
            return []
        return [(int(start, 16), int(end, 16)) for start, end in _CLOSED.findall(maps)]

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """Variables whose name ends with one of ``endings``."""
        return self._files.symbols(endings)

    def symbol(self, name: str) -> Optional[Symbol]:
        """The variable ``name``."""
        return self._files.symbol(name)

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """Struct ``name`` as debug information around ``near`` describes it."""
        return self._files.struct(name, near)

    def thread_pointers(self) -> Sequence[int]:
        """The thread pointer of each thread, where the C library lets it be found.

        A running thread's registers cannot be read.  But the kernel knows its list of
        robust mutexes, which glibc keeps in the thread's own block (struct pthread,
        nptl/descr.h), and on x86-64 that begins with its own address, twice
        (tcbhead_t, sysdeps/x86_64/nptl/tls.h).
        """
        found = map(self._thread_block, robust_lists(self.pid))
        return [block for block in found if block]

    def _thread_block(self, head: int) -> int:
        """The start of the block that ``head`` lies in; 0 where it is not recognized."""
        for start in range(head & -16, head - THREAD_BLOCK_MAX, -16):
            try:
                own, _, again = struct.unpack("<3Q", self.read(start, 24))
            except UnreadableMemory:
                return 0
            if own == again == start:
                return start
        return 0

    def threads(self) -> Sequence[Thread]:
        """Those that stand, or that wait in the kernel (/proc/PID/task/TID/syscall)."""
        if self._stop is not None:
            return self._stop.threads()
        return [thread for number in self._numbers() for thread in self._waiting(number)]

    def _numbers(self) -> List[int]:
        try:
            return sorted(map(int, os.listdir(f"/proc/{self.pid}/task")))
        except OSError:
            return []

    def _waiting(self, number: int) -> Iterator[Thread]:
        """``system call, its six arguments, stack pointer, program counter``, if it waits."""
        try:
            words = self._bytes(f"task/{number}/syscall").split()[1:]
        except OSError:
            return
        if len(words) >= 2:
            registers = tuple(int(word, 16) for word in words)
            yield Thread(number, registers[-2], registers)

    def auxiliary(self) -> MappingOf[int, int]:
        """As the kernel has it (/proc/PID/auxv)."""
        return self._auxiliary

    def residence(self) -> Optional[Residence]:
        """What of it is resident at this moment."""
        return smaps.of_process(self.pid, self.read, self.modules())

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what the process holds is to be found."""
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class _Mapped:
    """A line of /proc/PID/maps that names a file."""

    mapping: Mapping
    writable: bool
    inode: int


def _mapped(maps: bytes) -> Iterator[_Mapped]:
    for start, end, allowed, offset, inode, path in _MAPPED.findall(maps):
        name = os.fsdecode(path).removesuffix(DELETED)
        mapping = Mapping(name, int(start, 16), int(end, 16), int(offset, 16))
        yield _Mapped(mapping, b"w" in allowed, int(inode))


def _is(path: str, inode: int) -> bool:
    """Whether the file at ``path`` is the one that is mapped."""
    try:
        return os.stat(path).st_ino == inode
    except OSError:
        return False
