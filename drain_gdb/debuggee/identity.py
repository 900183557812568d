"""Whether the files a debugger opened are the ones the process ran.

A core opened with another program, or after a package was upgraded, gives wrong
addresses without a word.  The build-id in the process's own memory (its ELF
headers are part of it, and of every core by default) is compared with the file's.
"""

from __future__ import annotations

import os
import struct
from typing import Optional, Sequence

from drain_gdb.debuggee.elf import PT_NOTE, build_id, notes
from drain_gdb.debuggee.protocol import Mapping, Module, Process
from drain_gdb.errors import TargetError, UnreadableMemory
from drain_gdb.memory import Memory

PHDR_SIZE = 56
NOTES_MAX = 1 << 16
SYSROOT = (
    "--sysroot DIR, in gdb with 'set sysroot DIR',"
    " in lldb with 'platform select --sysroot DIR remote-linux'"
)
PSARGS_MAX = 79
"""ELF_PRARGSZ less its zero: characters of the command line in a core's NT_PRPSINFO."""


def process_name(command: str, program: Optional[str]) -> str:
    """What a process of that command line calls itself: the first word, without directories.

    A core keeps 79 characters; where they end within the word, the file's name of
    ``program`` has to do.
    """
    word, rest, _ = command.partition(" ")
    cut = not rest and len(word) >= PSARGS_MAX and program is not None
    return os.path.basename(program if cut and program else word)


def require_program(
    process: Process, modules: Sequence[Module], mappings: Sequence[Mapping]
) -> None:
    """Raise :class:`TargetError` where the process maps nothing of its supposed program."""
    program = next((m for m in modules if m.path == process.executable), None)
    if program is None or not mappings:
        return
    if not any(overlaps(mapping, program) for mapping in mappings):
        names = list(dict.fromkeys(m.path for m in mappings if ".so" not in m.path))
        really = f"it ran {names[0]}" if names else "it ran another one"
        if names[:1] == [program.path]:
            really = "it ran another file of that name, before it was built or installed anew"
        raise TargetError(
            f"{program.path} is not the program of this process", f"{really}; give that one"
        )


def require_same_file(memory: Memory, module: Module, mappings: Sequence[Mapping]) -> None:
    """Raise :class:`TargetError` where ``module``'s build-id is not the process's."""
    if module.build_id is None:
        return
    start = start_of(module, mappings)
    if start is None:
        return
    ran = build_id_at(memory, start)
    if ran is not None and ran != module.build_id:
        raise TargetError(
            f"{module.path} (build-id {module.build_id}) is not the file this process ran"
            f" (build-id {ran})",
            "it was replaced, perhaps by an upgrade; give the directory that holds the old files"
            f" with {SYSROOT}",
        )


def start_of(module: Module, mappings: Sequence[Mapping]) -> Optional[int]:
    """Where the first byte of the file of ``module`` is mapped; None where that is not known."""
    path = next((m.path for m in mappings if overlaps(m, module)), None)
    return next((m.start for m in mappings if m.path == path and m.offset == 0), None)


def build_id_at(memory: Memory, header: int) -> Optional[str]:
    """The GNU build-id of the ELF image mapped at ``header``, None where there is none."""
    try:
        ident = memory.read(header, 64)
        if ident[:4] != b"\x7fELF":
            return None
        (offset,) = struct.unpack_from("<Q", ident, 32)
        (count,) = struct.unpack_from("<H", ident, 56)
        for index in range(count):
            entry = memory.read(header + offset + index * PHDR_SIZE, PHDR_SIZE)
            kind, _, at, _, _, size = struct.unpack_from("<IIQQQQ", entry)
            if kind == PT_NOTE and size <= NOTES_MAX:
                start = header + at
                found = build_id(notes(memory.read, start, start + size), memory.read)
                if found is not None:
                    return found
    except UnreadableMemory:
        pass
    return None


def overlaps(mapping: Mapping, module: Module) -> bool:
    """Whether ``mapping`` holds the beginning of a section of ``module``."""
    return any(mapping.start <= section.start < mapping.end for section in module.sections)
