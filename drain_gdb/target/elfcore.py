"""An ELF core file, read directly.

What the core holds comes from it.  What it leaves out (p_filesz below p_memsz, or no
segment at all) comes from the mapped program or library where the mapping is not
writable, so that the process cannot have changed it; anything else is unreadable.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import TargetError, UnreadableMemory
from drain_gdb.target.elf import ET_CORE, PF_W, PT_LOAD, Note, Segment, parse
from drain_gdb.target.elffile import ElfFile
from drain_gdb.target.files import File, inside
from drain_gdb.target.loaded import (
    Finder,
    Loaded,
    LoadedFiles,
    find_loaded,
    place_program,
    process_name,
    program_path,
)
from drain_gdb.target.protocol import Mapping, Module, Process, Struct, Symbol

NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE = 1, 3, 6, 0x46494C45
KINDS = (NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE)
PRSTATUS_PID = 32
"""pr_pid in struct elf_prstatus of 64-bit Linux (elfcore.h)."""
PRPSINFO_PID, PRPSINFO_ARGUMENTS, PRPSINFO_SIZE = 24, 56, 136
"""pr_pid and pr_psargs in struct elf_prpsinfo of 64-bit Linux."""
NOTE_MAX = 1 << 28
THREAD_POINTER = {"x86-64": (NT_PRSTATUS, 112 + 21 * 8), "aarch64": (0x401, 0)}
"""By architecture the note and the place in it that hold a thread's pointer to its own
data: fs_base in pr_reg (sys/user.h); NT_ARM_TLS (elf.h)."""


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
        loads = (s for s in elf.segments if s.kind == PT_LOAD and s.memory_size)
        self._segments: List[Segment] = sorted(loads, key=lambda segment: segment.address)
        self._starts = [segment.address for segment in self._segments]
        self._notes: Dict[int, bytes] = {}
        self._thread_pointers: List[int] = []
        for note in elf.notes():
            self._take_note(note, elf.machine)
        self._mappings = sorted(self._named(), key=lambda mapping: mapping.start)
        self._mapped = [mapping.start for mapping in self._mappings]
        self._finder = Finder(self._here, elf.machine)
        self._program = self._open_program(program, elf.machine)
        self._loaded: List[Loaded] = [] if self._program is None else [self._program]
        self._loaded = find_loaded(
            self.read, self._mappings, self._auxiliary(), self._program, self._finder
        )
        self._files = LoadedFiles(self._loaded)

    # -- what the notes say -------------------------------------------------------

    def _take_note(self, note: Note, machine: str) -> None:
        """Keep what is needed of a note: the first of its kind, registers of every thread."""
        if note.name == b"CORE\0" and note.kind in KINDS and note.kind not in self._notes:
            self._notes[note.kind] = self._file.read(note.offset, min(note.size, NOTE_MAX))
        kind, offset = THREAD_POINTER.get(machine, (None, 0))
        if note.kind == kind and note.size >= offset + 8:
            register = self._file.read(note.offset + offset, 8)
            self._thread_pointers.append(int.from_bytes(register, "little"))

    def _named(self) -> Iterator[Mapping]:
        """The mapped files: NT_FILE (fill_files_note(), fs/binfmt_elf.c)."""
        note = self._notes.get(NT_FILE, b"")
        if len(note) < 16:
            return
        count, page = struct.unpack_from("<QQ", note)
        if count > (len(note) - 16) // 24:
            return
        rows = struct.iter_unpack("<QQQ", note[16 : 16 + 24 * count])
        paths = note[16 + 24 * count :].split(b"\0")
        for (start, end, offset), path in zip(rows, paths):
            if path.startswith(b"/"):
                yield Mapping(os.fsdecode(path), start, end, offset * page)

    def _auxiliary(self) -> Dict[int, int]:
        """The auxiliary vector."""
        note = self._notes.get(NT_AUXV, b"")
        return dict(struct.iter_unpack("<QQ", note[: len(note) // 16 * 16]))

    def _information(self) -> Tuple[Optional[int], str]:
        """Process id and command line, as far as they are there."""
        note = self._notes.get(NT_PRPSINFO, b"")
        if len(note) >= PRPSINFO_SIZE:
            (pid,) = struct.unpack_from("<I", note, PRPSINFO_PID)
            words = note[PRPSINFO_ARGUMENTS:PRPSINFO_SIZE].split(b"\0")[0]
            return pid or None, words.decode("utf-8", "replace")
        status = self._notes.get(NT_PRSTATUS, b"")
        if len(status) >= PRSTATUS_PID + 4:
            (pid,) = struct.unpack_from("<I", status, PRSTATUS_PID)
            return pid or None, ""
        return None, ""

    # -- files --------------------------------------------------------------------

    def _here(self, path: str) -> Optional[str]:
        """Where a file of the process is to be found on this machine."""
        return path if self._sysroot is None else inside(self._sysroot, path)

    def _open_program(self, given: Optional[str], machine: str) -> Optional[Loaded]:
        path = program_path(self._mappings, self._auxiliary())
        if given is not None:
            file = ElfFile(File(given))
            if file.elf.machine != machine:
                raise TargetError(
                    f"{given} is of the architecture {file.elf.machine}, the core of {machine}"
                )
            if path is not None:
                self._finder.give(path, file)
            return place_program(self.read, os.path.realpath(given), file, self._auxiliary())
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
        return place_program(self.read, shown, found, self._auxiliary())

    # -- the target protocol ------------------------------------------------------

    def process(self) -> Process:
        """Who is being looked at."""
        pid, words = self._information()
        program = None if self._program is None else self._program.path
        return Process(
            source="core",
            pid=pid,
            name=process_name(words, program),
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
        for each in self._loaded:
            found = each.file.read(address - each.bias, size)
            if found:
                return found
        mapping = self._mapping(address)
        file = None if mapping is None else self._finder.open(mapping.path)
        if mapping is None or file is None:
            return b""
        at = address - mapping.start
        return file.file.read(mapping.offset + at, min(size, mapping.end - address))

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
        return self._mappings

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
        return self._thread_pointers

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what the core holds is to be found."""
        return None
