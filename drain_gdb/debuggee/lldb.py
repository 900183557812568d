"""The lldb adapter: a live process, a core, or one behind a gdb-remote server.

Only memory reads and lldb's own queries are used; no function of the debuggee is
called and nothing is written.  What lldb does not hand on of a core (its NT_FILE note,
its command line) is read from the core's file.  Tested with lldb 19.1 and 23.1.
"""

from __future__ import annotations

import os
import re
import struct
from contextlib import closing, suppress
from datetime import datetime, timezone
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple
from typing import Mapping as MappingOf

import lldb

from drain_gdb.debuggee import smaps
from drain_gdb.debuggee.corefile import machine_of
from drain_gdb.debuggee.coremap import of_core_at
from drain_gdb.debuggee.corenotes import Notes, read_notes, vector_of
from drain_gdb.debuggee.elf import READ_ARE
from drain_gdb.debuggee.elffile import open_elf
from drain_gdb.debuggee.files import inside
from drain_gdb.debuggee.identity import process_name
from drain_gdb.debuggee.place import Place
from drain_gdb.debuggee.protocol import (
    Mapping,
    Member,
    Module,
    Process,
    Section,
    Struct,
    Symbol,
    Thread,
)
from drain_gdb.debuggee.residence import Residence
from drain_gdb.errors import TargetError, UnreadableMemory, UsageError

CORE_PLUGINS = ("elf-core", "minidump")
RUNNING = (lldb.eStateRunning, lldb.eStateStepping, lldb.eStateLaunching)
THREAD_POINTERS = ("fs_base", "tpidr")
"""The register that holds the thread pointer, on x86-64 and on aarch64."""
CRC_SIZE = 8
"""Hexadecimal digits of the checksum that stands in for a build-id that is not there."""
STRING_TABLES = (".strtab", ".dynstr", ".debug_str")
NAME_MAX = 4096
VARIABLES_MAX = 64
"""Variables with debug information that are asked for under one name."""

_RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ", re.M)
_MAPS_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+\s+(/.*\S)\s*$", re.M)


class LldbTarget:
    """A target of the running lldb, with its process.

    ``program`` is the path of the program as lldb was given it, where that is known.
    """

    def __init__(self, target: lldb.SBTarget, program: Optional[str] = None) -> None:
        self._target = target
        self._debugger = target.GetDebugger()
        self._process = target.GetProcess()
        self._core = self._process.GetPluginName() in CORE_PLUGINS
        self._structs: Dict[str, Optional[Struct]] = {}
        state = self._process.GetState()
        if state in RUNNING:
            raise TargetError(
                "the process is running, its memory moves while it is read",
                "stop it first: process interrupt",
            )
        if not self._process.IsValid() or state != lldb.eStateStopped:
            raise TargetError(
                "there is no process and no core here",
                "attach to one, or load one with: lldb PROGRAM -c CORE",
            )
        if target.GetAddressByteSize() != 8 or target.GetByteOrder() != lldb.eByteOrderLittle:
            raise TargetError(
                f"architecture {_architecture(target)} is not supported",
                READ_ARE,
            )
        self._program = program or _path(target.GetExecutable())
        self._notes = read_notes(_path(self._process.GetCoreFile())) if self._core else Notes()

    def process(self) -> Process:
        """Who is being looked at."""
        program = os.path.realpath(self._program) if self._program else None
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        command = self._notes.command if self._core else self._command_line()
        return Process(
            source="core" if self._core else "live",
            pid=self._process.GetProcessID() or None,
            name=None if command is None else process_name(command, program),
            executable=program,
            debugger="lldb",
            taken_at=None if self._core else now,
        )

    def place(self) -> Place:
        """Where it lies."""
        if self._core:
            core, program = self._process.GetCoreFile(), self._target.GetExecutable()
            return Place(_path(core), None, _path(program) or None)
        here = bool(self._proc("maps"))
        return Place(None, self._process.GetProcessID() if here else None)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; those a core leaves out come from the files.

        Raises KeyboardInterrupt after Ctrl-C, which lldb keeps from Python.
        """
        if self._debugger.InterruptRequested():
            raise KeyboardInterrupt
        if not size:  # which lldb refuses
            return b""
        error = lldb.SBError()
        data = self._process.ReadMemory(address, size, error) or b""
        while len(data) < size:
            more = self._more(address + len(data), size - len(data))
            if not more:
                raise UnreadableMemory(address, size, error.GetCString() or "")
            data += more
        return bytes(data)

    def _more(self, address: int, size: int) -> bytes:
        """The bytes at ``address`` that can be had at once, from a file or the process.

        What no file holds is not taken for zeros, as lldb would.
        """
        error = lldb.SBError()
        place = self._target.ResolveLoadAddress(address)
        section = place.GetSection()
        left = section.GetFileByteSize() - place.GetOffset() if section.IsValid() else 0
        if left > 0:
            data = self._target.ReadMemory(place, min(size, left), error)
            if data:
                return bytes(data)
        return self._process.ReadMemory(address, size, error) or b""

    def modules(self) -> Sequence[Module]:
        """The files lldb has opened, with their relocated sections."""
        return [self._module(module) for module in self._files()]

    def _files(self) -> Iterator[lldb.SBModule]:
        """The modules that are files.

        Where a file is missing or another one, lldb makes a module of what is in
        memory, which has no sections in its segments.
        """
        for module in self._target.module_iter():
            path = _path(module.GetFileSpec())
            whole = any(len(segment) for segment in module.section_iter())
            if os.path.isfile(path) and (whole or _without_sections(path, module)):
                yield module

    def _module(self, module: lldb.SBModule) -> Module:
        """With the sections' flags and the build-id of the file, which lldb may not have."""
        path = _path(module.GetFileSpec())
        sections: Tuple[Section, ...] = ()
        build_id = _build_id(module)
        first = module.GetObjectFileHeaderAddress()
        start = first.GetLoadAddress(self._target)
        file = None if start == lldb.LLDB_INVALID_ADDRESS else open_elf(path)
        if file is not None:
            with closing(file.file):
                sections = file.sections(start - first.GetFileAddress())
                build_id = build_id or file.build_id
        if path == self._program:
            return Module(os.path.realpath(path), sections if self._ran(module) else (), build_id)
        return Module(path, sections, build_id)

    def _ran(self, program: lldb.SBModule) -> bool:
        """Whether the process has the program headers of ``program``.

        lldb takes any program for the one that a core is of; gdb looks at its headers.
        """
        with open(_path(program.GetFileSpec()), "rb") as file:
            (at,) = struct.unpack_from("<Q", header := file.read(64), 32)
            size, count = struct.unpack_from("<HH", header, 54)
            file.seek(at)
            headers = file.read(size * count)
        base = program.GetObjectFileHeaderAddress().GetLoadAddress(self._target)
        loaded = self._process.ReadMemory(base + at, len(headers), lldb.SBError())
        return not loaded or bytes(loaded) == headers

    def _loaded(
        self, sections: Iterable[lldb.SBSection]
    ) -> Iterator[Tuple[lldb.SBSection, int, int]]:
        """Those of ``sections`` that lie in memory, each with its start and end there."""
        for section in sections:
            start = section.GetLoadAddress(self._target)
            if start != lldb.LLDB_INVALID_ADDRESS:
                yield section, start, start + section.GetByteSize()

    def mappings(self) -> Sequence[Mapping]:
        """The mapped files of the process, or of the core's NT_FILE note."""
        return self._notes.mappings if self._core else self._maps()

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """All of the address space in use, of a live process; as lldb-server or the kernel says."""
        if self._core:
            return None
        lines = _RANGE.findall(self._proc("maps"))
        found = [(int(start, 16), int(end, 16)) for start, end in lines] or self._regions()
        return found or None

    def _regions(self) -> List[Tuple[int, int]]:
        regions, region = self._process.GetMemoryRegions(), lldb.SBMemoryRegionInfo()
        found = []
        for index in range(regions.GetSize()):
            regions.GetMemoryRegionAtIndex(index, region)
            if region.IsMapped():
                found.append((region.GetRegionBase(), region.GetRegionEnd()))
        return found

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """Variables whose name ends with one of ``endings``.

        lldb finds whole names only, and goes through all debug information for a
        pattern: the names are taken from the files' tables of strings.
        """
        found: Dict[Symbol, None] = {}
        for module in self._target.module_iter():
            for name in sorted({*_names_ending(module, endings)}):
                found.update(dict.fromkeys(self._variables(module, name)))
        return list(found)

    def symbol(self, name: str) -> Optional[Symbol]:
        """The variable ``name``."""
        for module in self._target.module_iter():
            for symbol in self._variables(module, name):
                return symbol
        return None

    def _variables(self, module: lldb.SBModule, name: str) -> List[Symbol]:
        """By the symbol table of ``module``, else by its debug information."""
        entries = module.FindSymbols(name, lldb.eSymbolTypeData)
        addresses = [
            entry.GetSymbol().GetStartAddress().GetLoadAddress(self._target) for entry in entries
        ] or [
            value.GetLoadAddress()
            for value in module.FindGlobalVariables(self._target, name, VARIABLES_MAX)
        ]
        return [Symbol(name, at) for at in addresses if at != lldb.LLDB_INVALID_ADDRESS]

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """Struct ``name`` as the file that holds ``near`` describes it."""
        if name not in self._structs:
            module = self._target.ResolveLoadAddress(near.address).GetModule()
            found = [t for t in module.FindTypes(name) if _is_struct(t) and t.GetNumberOfFields()]
            self._structs[name] = describe(found[0]) if found else None
        return self._structs[name]

    def thread_pointers(self) -> Sequence[int]:
        """The thread pointers, of the first register that is one."""
        return [
            register.GetValueAsUnsigned()
            for thread in self._process
            for name in THREAD_POINTERS
            for register in [thread.GetFrameAtIndex(0).FindRegister(name)]
            if register.IsValid() and register.GetError().Success()
        ]

    def threads(self) -> Sequence[Thread]:
        """The threads, by the registers of their innermost frames."""
        found = []
        for thread in self._process:
            frame = thread.GetFrameAtIndex(0)
            general = next(iter(frame.GetRegisters()), ())
            registers = tuple(r.GetValueAsUnsigned() for r in general if r.GetError().Success())
            found.append(Thread(thread.GetThreadID() or None, frame.GetSP(), registers))
        return found

    def auxiliary(self) -> MappingOf[int, int]:
        """Of a core what it has, of a process what this machine's kernel says."""
        if self._core:
            return self._notes.auxiliary
        return vector_of(os.fsencode(self._proc("auxv")))

    def residence(self) -> Optional[Residence]:
        """What is resident of a process of this machine, or what a core says was."""
        if self._core:
            return of_core_at(_path(self._process.GetCoreFile()), self.read, self.modules())
        if not self._proc("maps"):
            return None
        return smaps.of_process(self._process.GetProcessID(), self.read, self.modules())

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what the process holds is to be found."""
        return None

    def _proc(self, name: str) -> str:
        """``/proc/PID/name`` if the process is one of this machine, else empty.

        A server may be anywhere: all of the files must be mapped here as they are there.
        """
        folder = f"/proc/{self._process.GetProcessID()}"
        try:
            starts = {m.start for m in _parse_maps(_text(f"{folder}/maps")) if not m.offset}
            here = all(base in starts for base in self._bases())
            return _text(f"{folder}/{name}") if here else ""
        except OSError:
            return ""

    def _bases(self) -> Iterator[int]:
        """Where each file's first byte lies."""
        for module in self._files():
            yield module.GetObjectFileHeaderAddress().GetLoadAddress(self._target)

    def _maps(self) -> List[Mapping]:
        """By the kernel, or, of a process elsewhere, the segments of the files lldb has opened."""
        return _parse_maps(self._proc("maps")) or [
            Mapping(_path(module.GetFileSpec()), start, end, segment.GetFileOffset())
            for module in self._files()
            for segment, start, end in self._loaded(module.section_iter())
        ]

    def _command_line(self) -> Optional[str]:
        """By the kernel, or, of a process elsewhere, by its C library."""
        words = self._proc("cmdline").replace("\0", " ").strip()
        return words or self._invoked_as()

    def _invoked_as(self) -> Optional[str]:
        """``program_invocation_name`` of glibc and musl: argv[0]."""
        variable = self.symbol("program_invocation_name")
        if variable is None:
            return None
        error = lldb.SBError()
        pointer = self._process.ReadPointerFromMemory(variable.address, error)
        name = self._process.ReadCStringFromMemory(pointer, NAME_MAX, error)
        return str(name) if error.Success() else None


def open_core(
    debugger: lldb.SBDebugger, core: str, program: Optional[str], sysroot: Optional[str] = None
) -> Optional[str]:
    """Load a core and its program, which the core names itself where None is given.

    That and the libraries are looked for below ``sysroot``.  Returns the program's path
    as lldb has it.  Raises :class:`TargetError` where lldb takes either for something
    else.
    """
    error = lldb.SBError()
    if sysroot is not None:
        platform = lldb.SBPlatform("remote-linux")
        platform.SetSDKRoot(sysroot)
        debugger.SetSelectedPlatform(platform)
    if program is None:
        program = read_notes(core).program or ""
        program = inside(sysroot, program) or program if program and sysroot else program
    target = debugger.CreateTarget(program, None, None, False, error)
    if error.Fail():
        raise TargetError(
            f"the core's program {program} cannot be loaded: {_said(error)}",
            "give it with --exe PROGRAM",
        )
    given = target.GetModuleAtIndex(0)
    target.LoadCore(core, error)
    if error.Fail():
        theirs, ours = machine_of(core), _architecture(target).replace("_", "-")
        if program and theirs != ours:
            raise TargetError(
                f"the core is of the architecture {theirs}, its program {program} is of {ours}",
                "give the program of that machine with --exe PROGRAM",
            )
        raise TargetError(f"lldb cannot load it: {_said(error)}")
    debugger.SetSelectedTarget(target)
    if not given.IsValid():
        return None
    _keep(target, given)
    return _path(given.GetFileSpec())


def _keep(target: lldb.SBTarget, given: lldb.SBModule) -> None:
    """Put the program ``given`` back where lldb took another for it.

    lldb 23 takes the file at the path of the core's command line, if there is one.
    """
    taken = target.FindModule(target.GetExecutable())
    if taken.IsValid() and taken != given:
        base = taken.GetObjectFileHeaderAddress().GetLoadAddress(target)
        target.RemoveModule(taken)
        target.AddModule(given)
        first = given.GetObjectFileHeaderAddress().GetFileAddress()
        target.SetModuleLoadAddress(given, base - first)


def attach(debugger: lldb.SBDebugger, pid: int) -> None:
    """Attach to a process, which stops; :class:`TargetError` where it cannot be traced."""
    error = lldb.SBError()
    target = debugger.CreateTarget("")
    target.AttachToProcessWithID(debugger.GetListener(), pid, error)
    if error.Fail():
        raise TargetError(
            f"cannot attach to process {pid}: {_said(error)}",
            "it must exist and be yours to trace (root, or the same user)",
        )
    debugger.SetSelectedTarget(target)


def detach(debugger: lldb.SBDebugger) -> None:
    """Let the process that was attached to run on."""
    debugger.GetSelectedTarget().GetProcess().Detach()


def evaluate(target: lldb.SBTarget, text: str) -> int:
    """The value of an expression, as an address, with nothing run in the process for it.

    Raises :class:`UsageError`.
    """
    with suppress(ValueError):
        return int(text, 0)
    options = lldb.SBExpressionOptions()
    options.SetAllowJIT(False)
    options.SetIgnoreBreakpoints(True)
    value = target.EvaluateExpression(text, options)
    if value.GetError().Fail():
        said = (value.GetError().GetCString() or "it cannot be evaluated").splitlines()[0]
        raise UsageError(f"{text!r} is no address: {said}")
    if value.GetType().IsPointerType() or not value.MightHaveChildren():
        return int(value.GetValueAsUnsigned())
    return int(value.GetLoadAddress())


def describe(found: lldb.SBType) -> Struct:
    """A struct or union type of lldb's as a :class:`Struct`, nested ones included."""
    members = []
    for field in found.fields:
        element, count = _element(field.GetType())
        members.append(
            Member(
                name=field.GetName() or "",
                offset=field.GetOffsetInBytes(),
                size=element.GetByteSize() * (1 if count is None else count),
                align=element.GetByteAlign(),
                count=count,
                type=describe(element) if _is_struct(element) else None,
            )
        )
    return Struct(
        name=found.GetName() or "",
        size=found.GetByteSize(),
        align=found.GetByteAlign(),
        members=tuple(members),
        union=found.GetTypeClass() == lldb.eTypeClassUnion,
    )


def _is_struct(found: lldb.SBType) -> bool:
    kinds = lldb.eTypeClassStruct | lldb.eTypeClassUnion | lldb.eTypeClassClass
    return bool(found.GetTypeClass() & kinds)


def _element(found: lldb.SBType) -> Tuple[lldb.SBType, Optional[int]]:
    """The element type of an array and how many there are; None for a scalar."""
    found = found.GetCanonicalType()
    count: Optional[int] = None
    while found.GetTypeClass() == lldb.eTypeClassArray:
        element = found.GetArrayElementType().GetCanonicalType()
        count = (1 if count is None else count) * (found.GetByteSize() // element.GetByteSize())
        found = element
    return found, count


def _without_sections(path: str, module: lldb.SBModule) -> bool:
    """Whether the file at ``path`` has no headers of sections, so that lldb has none either."""
    file = None if module.GetNumSections() else open_elf(path)
    if file is None:
        return False
    with closing(file.file):
        return not file.headers


def _sections(module: lldb.SBModule) -> Iterator[lldb.SBSection]:
    """The sections of a file; lldb has those that lie in a segment below it."""
    for outer in module.section_iter():
        yield from [*outer] or [outer]


def _build_id(module: lldb.SBModule) -> Optional[str]:
    build_id = str(module.GetUUIDString() or "").replace("-", "").lower()
    return build_id if len(build_id) > CRC_SIZE else None


def _names_ending(module: lldb.SBModule, endings: Sequence[str]) -> Iterator[str]:
    """What the variables of a file that end so may be called, by its tables of strings.

    A name may be the tail of another one's string, so all tails are given.
    """
    for section in _sections(module):
        if section.GetName() in STRING_TABLES:
            data = section.GetSectionData()
            size = data.GetByteSize()
            strings = data.ReadRawData(lldb.SBError(), 0, size) or b"" if size else b""
            for ending in endings:
                wanted = ending.encode() + b"\0"
                at = strings.find(wanted)
                while at >= 0:
                    first = strings.rfind(b"\0", 0, at) + 1
                    for start in range(first, at + 1):
                        yield strings[start : at + len(ending)].decode("utf-8", "replace")
                    at = strings.find(wanted, at + 1)


def _parse_maps(text: str) -> List[Mapping]:
    """The files of a ``/proc/PID/maps`` (proc(5))."""
    return [
        Mapping(path, int(start, 16), int(end, 16), int(offset, 16))
        for start, end, offset, path in _MAPS_LINE.findall(text)
    ]


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _architecture(target: lldb.SBTarget) -> str:
    return str(target.GetTriple()).partition("-")[0]


def _path(file: lldb.SBFileSpec) -> str:
    """The path of a file; empty for none."""
    return file.fullpath or ""


def _said(error: lldb.SBError) -> str:
    return str(error.GetCString() or "lldb does not say why").strip()
