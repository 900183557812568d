"""What is loaded in a process, found without a debugger.

The program is where the kernel says its program headers are (AT_PHDR); its dynamic
section leads to the dynamic linker's own list of libraries (struct r_debug and
struct link_map, link.h), which has their names and places.  Where that list cannot
be read, every ELF file that is mapped counts as loaded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple
from typing import Mapping as MappingOf

from drain_gdb.debuggee.corenotes import AT_PHDR
from drain_gdb.debuggee.elf import PROGRAM_HEADER, PT_DYNAMIC, PT_LOAD, PT_PHDR, Segment
from drain_gdb.debuggee.elffile import ElfFile, open_elf
from drain_gdb.debuggee.protocol import Mapping, Module, Struct, Symbol
from drain_gdb.errors import UnreadableMemory

if TYPE_CHECKING:
    from drain_gdb.debuggee.dwarf import Dwarf

AT_PHENT, AT_PHNUM = 4, 5
"""Entries of the auxiliary vector (elf.h)."""
DT_NULL, DT_DEBUG = 0, 21
DYNAMIC_MAX = 4096
LIBRARIES_MAX = 1 << 16
NAMESPACES_MAX = 64
NAME_MAX = 4096
PIECE = 64
DEBUG_FILES = "/usr/lib/debug/.build-id"

Read = Callable[[int, int], bytes]
Find = Callable[[str], Optional[str]]
"""From a path of the process to one of this machine; None where there is none."""


@dataclass(frozen=True)
class Loaded:
    """A file that is loaded ``bias`` above its link-time addresses.

    Attributes:
        path: as the process names it.
    """

    path: str
    file: ElfFile
    bias: int

    @property
    def module(self) -> Module:
        """As the rest of the program knows it."""
        sections = self.file.sections(self.bias)
        return Module(self.path, sections, self.file.build_id, self.file.file.path)


def open_module(module: Module) -> Optional[Loaded]:
    """The file of ``module``, open; None where it is not here, or is another one."""
    file = open_elf(module.here)
    if file is None:
        return None
    own = file.sections(0)
    if own and module.sections and file.build_id == module.build_id:
        return Loaded(module.path, file, module.sections[0].start - own[0].start)
    file.file.close()
    return None


class LoadedFiles:
    """The program and libraries of a process, and what their files say."""

    def __init__(self, files: Sequence[Loaded]) -> None:
        self._files = files
        self.modules = [each.module for each in files]
        self._dwarf: Dict[int, Dwarf] = {}

    def symbols(self, endings: Sequence[str]) -> List[Symbol]:
        """Variables whose name ends with one of ``endings``, file by file."""
        return [
            Symbol(name, address + each.bias)
            for each in self._files
            for name, address in each.file.variables(endings).items()
        ]

    def symbol(self, name: str) -> Optional[Symbol]:
        """The variable ``name`` of the first file that has one."""
        return next((s for s in self.symbols([name]) if s.name == name), None)

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """Struct ``name`` as the file that holds ``near`` describes it."""
        for number, module in enumerate(self.modules):
            if any(s.start <= near.address < s.end for s in module.sections):
                debug = self._files[number].file.debug
                if debug.section(".debug_info") is None:
                    return None
                if number not in self._dwarf:
                    reader = import_module("drain_gdb.debuggee.dwarf").Dwarf
                    self._dwarf[number] = reader(debug)
                return self._dwarf[number].struct(name, near.name)
        return None


class Finder:
    """Opens each file of the process once, and its separate debug information.

    ``find`` gives the path here of a path of the process; files of another
    architecture than ``machine`` do not count.
    """

    def __init__(self, find: Find, machine: str) -> None:
        self._find = find
        self._machine = machine
        self._known: Dict[str, Optional[ElfFile]] = {}

    def open(self, path: str) -> Optional[ElfFile]:
        """The program or library at ``path``; None where there is none that can be read."""
        if path not in self._known:
            here = self._find(path)
            file = None if here is None else open_elf(here)
            if file is not None and file.elf.machine != self._machine:
                file = None
            if file is not None and file.section(".debug_info") is None:
                file.debug = self._debug_file(file) or file
            self._known[path] = file
        return self._known[path]

    def give(self, path: str, file: ElfFile) -> None:
        """Take ``file`` for what is at ``path``."""
        self._known[path] = file

    def _debug_file(self, file: ElfFile) -> Optional[ElfFile]:
        """The separate debug information of ``file``, of the same build-id."""
        path = debug_path(file.build_id)
        here = None if path is None else self._find(path)
        found = None if here is None else open_elf(here)
        return found if found is not None and found.build_id == file.build_id else None


def debug_path(build_id: Optional[str]) -> Optional[str]:
    """Where systems keep the separate debug information of a file."""
    if build_id is None or len(build_id) < 4:
        return None
    return f"{DEBUG_FILES}/{build_id[:2]}/{build_id[2:]}.debug"


def find_loaded(
    read: Read,
    mappings: Sequence[Mapping],
    auxiliary: MappingOf[int, int],
    program: Optional[Loaded],
    finder: Finder,
) -> List[Loaded]:
    """The files loaded in a process, the program first, libraries in the linker's order."""
    found = [] if program is None else [program]
    listed = list(_listed(read, mappings, auxiliary, program, finder))
    if listed:
        return found + listed
    paths = dict.fromkeys(m.path for m in mappings)
    for path in paths:
        file = finder.open(path)
        if file is not None and (program is None or file is not program.file):
            bias = _bias(file, path, mappings)
            if bias is not None:
                found.append(Loaded(path, file, bias))
    return found


def _bias(file: ElfFile, path: str, mappings: Sequence[Mapping]) -> Optional[int]:
    for mapping in mappings:
        if mapping.path == path:
            bias = file.bias_of(mapping.start, mapping.offset)
            if bias is not None:
                return bias
    return None


def place_program(read: Read, path: str, file: ElfFile, auxiliary: MappingOf[int, int]) -> Loaded:
    """Where ``file`` is loaded if it is the program; where it was linked to be if not.

    It is the program if it has the segments that the kernel found in it, or as many
    where the core leaves them out.
    """
    headers = _program_headers(read, auxiliary)
    if not headers and auxiliary.get(AT_PHNUM) == len(file.elf.segments):
        headers = file.elf.segments
    own = [(s.address, s.memory_size) for s in file.loaded]
    if own != [(s.address, s.memory_size) for s in headers if s.kind == PT_LOAD]:
        return Loaded(path, file, 0)
    return Loaded(path, file, _program_bias(headers, auxiliary, file))


def _program_headers(read: Read, auxiliary: MappingOf[int, int]) -> Sequence[Segment]:
    if auxiliary.get(AT_PHENT) != PROGRAM_HEADER.size or AT_PHDR not in auxiliary:
        return []
    count = min(auxiliary.get(AT_PHNUM, 0), DYNAMIC_MAX)
    try:
        table = read(auxiliary[AT_PHDR], count * PROGRAM_HEADER.size)
    except UnreadableMemory:
        return []
    return [Segment(*row[:4], *row[5:7]) for row in PROGRAM_HEADER.iter_unpack(table)]


def _program_bias(
    headers: Sequence[Segment], auxiliary: MappingOf[int, int], file: Optional[ElfFile]
) -> int:
    """How far above its link-time addresses the program is loaded."""
    for header in headers:
        if header.kind == PT_PHDR:
            return auxiliary[AT_PHDR] - header.address
    start = next((s for s in headers if s.kind == PT_LOAD and s.offset == 0), None)
    if file is None or start is None:
        return 0
    return auxiliary[AT_PHDR] - file.elf.program_headers - start.address


def _listed(
    read: Read,
    mappings: Sequence[Mapping],
    auxiliary: MappingOf[int, int],
    program: Optional[Loaded],
    finder: Finder,
) -> Iterator[Loaded]:
    """The libraries on the dynamic linker's list whose files can be opened."""
    headers = _program_headers(read, auxiliary)
    if not headers:
        return
    bias = _program_bias(headers, auxiliary, None if program is None else program.file)
    try:
        for address, name, dynamic in _link_map(read, headers, bias):
            path = name if name.startswith("/") else _mapped_at(mappings, dynamic)
            file = None if path is None else finder.open(path)
            if (
                path is not None
                and file is not None
                and (program is None or file is not program.file)
            ):
                yield Loaded(path, file, address)
    except UnreadableMemory:
        return


def _mapped_at(mappings: Sequence[Mapping], address: int) -> Optional[str]:
    return next((m.path for m in mappings if m.start <= address < m.end), None)


def _link_map(read: Read, headers: Sequence[Segment], bias: int) -> Iterator[Tuple[int, str, int]]:
    """``(l_addr, l_name, l_ld)`` of each entry but the program's, in every namespace.

    Raises :class:`UnreadableMemory`.
    """
    debug = _debug(read, headers, bias)
    for _ in range(NAMESPACES_MAX):
        if not debug:
            return
        version, entry = struct.unpack("<I4xQ", read(debug, 16))
        seen: Set[int] = set()
        while entry and entry not in seen and len(seen) < LIBRARIES_MAX:
            seen.add(entry)
            address, name, dynamic, entry = struct.unpack("<4Q", read(entry, 32))
            text = _string(read, name)
            if text:
                yield address, text, dynamic
        # struct r_debug_extended, from glibc 2.35 on.
        (debug,) = struct.unpack("<Q", read(debug + 40, 8)) if version >= 2 else (0,)


def _debug(read: Read, headers: Sequence[Segment], bias: int) -> int:
    """The address of the program's struct r_debug; 0 where it has none."""
    for header in headers:
        if header.kind == PT_DYNAMIC:
            size = min(header.memory_size, DYNAMIC_MAX * 16)
            words = struct.unpack(
                f"<{size // 16 * 2}Q", read(header.address + bias, size // 16 * 16)
            )
            for tag, value in zip(words[::2], words[1::2]):
                if tag == DT_NULL:
                    break
                if tag == DT_DEBUG:
                    return int(value)
    return 0


def _string(read: Read, address: int) -> str:
    """The string at ``address``; empty where it does not end."""
    found = b""
    while address and len(found) < NAME_MAX:
        # Up to the next multiple: what lies behind it may not be mapped.
        piece = read(address + len(found), PIECE - (address + len(found)) % PIECE)
        found += piece
        if b"\0" in piece:
            return found[: found.index(b"\0")].decode("utf-8", "surrogateescape")
    return ""
