"""What the notes of an ELF core say of the process: its files, its name, its threads.

Note types and structures are those of 64-bit Linux: ``include/uapi/linux/elf.h``,
``include/linux/elfcore.h``, ``fs/binfmt_elf.c``.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Tuple

from drain_gdb.debuggee.elf import PT_LOAD, Elf, parse
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Mapping, Thread
from drain_gdb.errors import TargetError

NT_PRSTATUS = 1
NT_PRPSINFO = 3
NT_AUXV = 6
NT_FILE = 0x46494C45
AT_PHDR, AT_EXECFN = 3, 31
PATH_MAX = 4096
PAGE = 4096
PRSTATUS_PID = 32
"""Offset of pr_pid in struct elf_prstatus."""
PSINFO_PID, PSARGS_AT, PSARGS_SIZE = 24, 56, 80
"""Offsets of pr_pid and pr_psargs in struct elf_prpsinfo, and ELF_PRARGSZ."""
REGISTERS_AT = 112
"""Offset of pr_reg in struct elf_prstatus."""
REGISTERS = {"x86-64": (27, 19), "aarch64": (34, 31), "riscv64": (32, 2), "ppc64": (48, 1)}
"""By architecture how many words pr_reg has, and which of them is the stack pointer
(struct user_regs_struct of each)."""
NOTE_MAX = 1 << 28
"""Bytes of one note that are read; the kernel writes an NT_FILE of 4 MiB by default."""
WANTED = (NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE)
THREAD_POINTER = {"x86-64": (NT_PRSTATUS, 112 + 21 * 8), "aarch64": (0x401, 0)}
"""By architecture the note, and the place in it, of a thread's pointer to its own data:
fs_base in pr_reg (sys/user.h); NT_ARM_TLS."""


@dataclass(frozen=True)
class Notes:
    """What the notes say; what they do not is empty or None.

    Attributes:
        mappings: the mapped files (NT_FILE).
        command: the first 79 characters of the command line (NT_PRPSINFO).
        pid: of the process.
        auxiliary: the auxiliary vector (NT_AUXV).
        thread_pointers: of each thread.
        threads: with their registers.
        executed: the program's path, as it was executed.

    """

    mappings: Tuple[Mapping, ...] = ()
    command: Optional[str] = None
    pid: Optional[int] = None
    auxiliary: Dict[int, int] = field(default_factory=dict)
    thread_pointers: Tuple[int, ...] = ()
    executed: Optional[str] = None
    threads: Tuple[Thread, ...] = ()

    @property
    def program(self) -> Optional[str]:
        """The file that holds the headers the kernel found in the program (AT_PHDR).

        Where the core does not say what was mapped (of qemu, of some crash handlers),
        what was executed, if that is a path that does not depend on where it was.
        """
        headers = self.auxiliary.get(AT_PHDR, -1)
        found = next((m.path for m in self.mappings if m.start <= headers < m.end), None)
        if found is None and not self.mappings and self.executed is not None:
            return self.executed if self.executed.startswith("/") else None
        return found


def vector_of(entries: bytes) -> Dict[int, int]:
    """The auxiliary vector, type to value, of the bytes the kernel has of it (Elf64_auxv_t)."""
    return dict(struct.iter_unpack("<QQ", entries[: len(entries) & -16]))


def notes_of(elf: Elf, file: File) -> Notes:
    """The notes of a core, as far as they can be read."""
    found: Dict[int, bytes] = {}
    pointers = []
    threads: List[Thread] = []
    pointer_kind, pointer_at = THREAD_POINTER.get(elf.machine, (None, 0))
    for note in elf.notes():
        if note.name == b"CORE\0" and note.kind in WANTED and note.kind not in found:
            found[note.kind] = file.read(note.offset, min(note.size, NOTE_MAX))
        if note.kind == pointer_kind and note.size >= pointer_at + 8:
            register = file.read(note.offset + pointer_at, 8)
            pointers.append(int.from_bytes(register, "little"))
        if note.kind == NT_PRSTATUS and elf.machine in REGISTERS:
            threads += _thread(file.read(note.offset, min(note.size, PAGE)), elf.machine)
    information = found.get(NT_PRPSINFO, b"")
    status = found.get(NT_PRSTATUS, b"")
    command = information[PSARGS_AT : PSARGS_AT + PSARGS_SIZE].partition(b"\0")[0]
    pid = information[PSINFO_PID : PSINFO_PID + 4] or status[PRSTATUS_PID : PRSTATUS_PID + 4]
    entries = found.get(NT_AUXV, b"")
    auxiliary = vector_of(entries)
    executed = _string(elf, file, auxiliary.get(AT_EXECFN, 0)) or command.partition(b" ")[0]
    return Notes(
        mappings=tuple(_mappings(found.get(NT_FILE, b""))),
        command=command.decode("utf-8", "replace") or None,
        pid=int.from_bytes(pid, "little") or None,
        auxiliary=auxiliary,
        thread_pointers=tuple(pointers),
        executed=os.fsdecode(executed) or None,
        threads=tuple(threads),
    )


def _thread(status: bytes, machine: str) -> Iterator[Thread]:
    """The thread of a struct elf_prstatus; none where it is cut off."""
    number, stack_pointer = REGISTERS[machine]
    if len(status) >= REGISTERS_AT + 8 * number:
        registers = struct.unpack_from(f"<{number}Q", status, REGISTERS_AT)
        (thread,) = struct.unpack_from("<I", status, PRSTATUS_PID)
        yield Thread(thread or None, registers[stack_pointer], registers)


def _string(elf: Elf, file: File, address: int) -> bytes:
    """The string that the process had at ``address``; empty where the core lacks it."""
    for segment in elf.segments:
        at = address - segment.address
        if segment.kind == PT_LOAD and 0 <= at < segment.file_size:
            data = file.read(segment.offset + at, min(PATH_MAX, segment.file_size - at))
            return data.partition(b"\0")[0]
    return b""


def read_notes(path: str) -> Notes:
    """The notes of the core at ``path``, for a debugger that does not hand them on."""
    try:
        with File(path) as file:
            return notes_of(parse(path, file.size, file.read), file)
    except TargetError:
        return Notes()


def _mappings(note: bytes) -> Iterator[Mapping]:
    """``count, page size, (start, end, offset in pages) x count, names``, each ended by 0."""
    if len(note) < 16:
        return
    count, page = struct.unpack_from("<QQ", note)
    names_at = 16 + 24 * count
    if names_at > len(note):
        return
    names = note[names_at:].split(b"\0")
    for (start, end, offset), name in zip(struct.iter_unpack("<QQQ", note[16:names_at]), names):
        if name.startswith(b"/"):
            yield Mapping(os.fsdecode(name), start, end, offset * page)
