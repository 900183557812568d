"""An ELF core file, read directly.

What the core holds comes from it.  What it leaves out (p_filesz below p_memsz, or no
segment at all) comes from the mapped program or library where the mapping is not
writable, so that the process cannot have changed it; anything else is unreadable.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import replace
from operator import itemgetter
from typing import List, Optional, Sequence, Tuple
from typing import Mapping as MappingOf

from drain_gdb.debuggee.coremap import of_core
from drain_gdb.debuggee.corenotes import notes_of
from drain_gdb.debuggee.elf import ET_CORE, PF_W, PT_LOAD, Segment, parse
from drain_gdb.debuggee.elffile import ElfFile
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
from drain_gdb.debuggee.residence import Residence
from drain_gdb.errors import TargetError, UnreadableMemory


class CoreTarget:
    """The core in ``file``, of the program at ``program`` where one is given.

    Of its paths none is followed outside ``sysroot`` where that is given.
    """

    def __init__(
        self, file: File, program: Optional[str] = None, sysroot: Optional[str] = None
    ) -> None:
        self._file = file
        self._sysroot = sysroot
        elf = parse(file.path, file.size, file.read)
        if elf.kind != ET_CORE:
            raise TargetError(f"{file.path} is an ELF file, but not a core")
        self._elf = elf
        loads = (s for s in elf.segments if s.kind == PT_LOAD and s.memory_size)
        self._segments: List[Segment] = sorted(loads, key=lambda segment: segment.address)
        self._starts = [segment.address for segment in self._segments]
        self._notes = notes_of(elf, file)
        self._mappings = sorted(self._notes.mappings, key=lambda mapping: mapping.start)
        self._mapped = [mapping.start for mapping in self._mappings]
        self._finder = Finder(self._here, elf.machine)
        # What is known so far already serves the reads by which more is found.
        self._constants = _Constants([])
        self._program = self._open_program(program, elf.machine)
        if self._program is not None:
            self._constants = _Constants([self._program])
        loaded = find_loaded(
            self.read, self._mappings, self._notes.auxiliary, self._program, self._finder
        )
        self._constants = _Constants(loaded)
        self._files = LoadedFiles([self._shown(each) for each in loaded])

    # -- files --------------------------------------------------------------------

    def _here(self, path: str) -> Optional[str]:
        """Where a file of the process is to be found on this machine."""
        return path if self._sysroot is None else inside(self._sysroot, path)

    def _shown(self, each: Loaded) -> Loaded:
        """A library of a sysroot under its path there, as debuggers show it."""
        if self._sysroot is None or each is self._program:
            return each
        return replace(each, path=os.path.abspath(self._sysroot) + each.path)

    def _open_program(self, given: Optional[str], machine: str) -> Optional[Loaded]:
        path = self._notes.program
        if given is not None:
            file = ElfFile(File(given))
            if file.elf.machine != machine:
                raise TargetError(
                    f"{given} is of the architecture {file.elf.machine}, the core of {machine}"
                )
            if path is not None:
                self._finder.give(path, file)
            return place_program(self.read, os.path.realpath(given), file, self._notes.auxiliary)
        if path is None:
            return None
        found = self._finder.open(path)
        if found is None:
            raise TargetError(
                f"the core's program {path} cannot be loaded: it is not there, or is no"
                f" program for {machine}",
                "give it with --exe PROGRAM, or the files of its machine with --sysroot DIR",
            )
        shown = os.path.realpath(found.file.path)
        return place_program(self.read, shown, found, self._notes.auxiliary)

    # -- the target protocol ------------------------------------------------------

    def process(self) -> Process:
        """Who is being looked at."""
        program = None if self._program is None else self._program.path
        command = self._notes.command
        return Process(
            source="core",
            pid=self._notes.pid,
            name=None if command is None else process_name(command, program),
            executable=program,
            debugger="none",
            taken_at=None,
        )

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``, from the core and the files it leaves out."""
        parts: List[bytes] = []
        at, end = address, address + size
        while at < end:
            piece = self._piece(at, end - at)
            if not piece:
                raise UnreadableMemory(address, size, self._why(at))
            parts.append(piece)
            at += len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _segment(self, address: int) -> Optional[Segment]:
        row = bisect_right(self._starts, address) - 1
        if row >= 0:
            segment = self._segments[row]
            if address - segment.address < segment.memory_size:
                return segment
        return None

    def _piece(self, address: int, size: int) -> bytes:
        """The first of the ``size`` bytes at ``address``; none where it cannot be read."""
        segment = self._segment(address)
        if segment is None:
            row = bisect_right(self._starts, address)
            if row < len(self._starts):
                size = min(size, self._starts[row] - address)
            return self._of_file(address, size)
        at = address - segment.address
        if at < segment.file_size:
            return self._file.read(segment.offset + at, min(size, segment.file_size - at))
        if segment.flags & PF_W:
            return b""
        return self._of_file(address, min(size, segment.memory_size - at))

    def _of_file(self, address: int, size: int) -> bytes:
        """What the file mapped at ``address`` holds there."""
        found = self._constants.read(address, size)
        if found:
            return found
        mapping = self._mapping(address)
        file = None if mapping is None else self._finder.open(mapping.path)
        if mapping is None or file is None:
            return b""
        at = address - mapping.start
        return file.constant(mapping.offset + at, min(size, mapping.end - address))

    def _mapping(self, address: int) -> Optional[Mapping]:
        row = bisect_right(self._mapped, address) - 1
        if row >= 0 and address < self._mappings[row].end:
            return self._mappings[row]
        return None

    def _why(self, address: int) -> str:
        """Why nothing can be read at ``address``."""
        segment = self._segment(address)
        if segment is not None and address - segment.address < segment.file_size:
            return f"the core ends before {address:#x}"
        mapping = self._mapping(address)
        if mapping is not None:
            return f"the core leaves out {address:#x}, of {mapping.path}"
        if segment is not None:
            return f"the core leaves out {address:#x}"
        return f"nothing is mapped at {address:#x}"

    def modules(self) -> Sequence[Module]:
        """The program and its libraries, those whose file could be opened."""
        return self._files.modules

    def mappings(self) -> Sequence[Mapping]:
        """The files of the NT_FILE note."""
        if self._sysroot is None:
            return self._mappings
        here = {path: self._here(path) for path in {each.path for each in self._mappings}}
        return [replace(each, elsewhere=here[each.path]) for each in self._mappings]

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """None: not known."""
        return None

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
        """The thread pointer of each thread, from its registers."""
        return self._notes.thread_pointers

    def threads(self) -> Sequence[Thread]:
        """The threads, from their notes."""
        return self._notes.threads

    def auxiliary(self) -> MappingOf[int, int]:
        """As the core has it (NT_AUXV)."""
        return self._notes.auxiliary

    def residence(self) -> Optional[Residence]:
        """What the core says was resident."""
        return of_core(self._file, self._elf, self._notes, self.read, self.modules())

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what the core holds is to be found."""
        return None


class _Constants:
    """What the files of a process hold that it does not change."""

    def __init__(self, loaded: Sequence[Loaded]) -> None:
        parts = [
            (start + each.bias, end + each.bias, each)
            for each in loaded
            for start, end in each.file.constants
        ]
        self._parts = sorted(parts, key=itemgetter(0, 1))
        self._starts = [start for start, _, _ in self._parts]

    def read(self, address: int, size: int) -> bytes:
        """At most ``size`` bytes at ``address``; none where none of them holds it."""
        row = bisect_right(self._starts, address) - 1
        if row < 0 or address >= self._parts[row][1]:
            return b""
        loaded = self._parts[row][2]
        return loaded.file.read(address - loaded.bias, size)
