"""The gdb adapter: a live process, a core, or one behind gdbserver.

Only memory reads and gdb's own queries are used; no function of the debuggee is
called and nothing is written.  Tested with gdb 13.1.
"""

from __future__ import annotations

import json
import os
import re
import signal
from bisect import bisect_right
from contextlib import closing, suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Dict, Iterator, List, Optional, Sequence, Tuple
from typing import Mapping as MappingOf

import gdb

from drain_gdb.debuggee import smaps
from drain_gdb.debuggee.corefile import machine_of
from drain_gdb.debuggee.coremap import of_core_at
from drain_gdb.debuggee.corenotes import AT_PHDR, read_notes
from drain_gdb.debuggee.elf import READ_ARE, SHT_SYMTAB
from drain_gdb.debuggee.elffile import bias_of, mapped_segments, open_elf, segment_sections
from drain_gdb.debuggee.files import inside
from drain_gdb.debuggee.identity import process_name
from drain_gdb.debuggee.loaded import LoadedFiles, open_module
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
from drain_gdb.debuggee.vfile import Send, read_file
from drain_gdb.errors import TargetError, UnreadableMemory, UsageError

MACHINE_OF = {"i386": "i386", "i386:x86-64": "x86-64", "aarch64": "aarch64"}
"""gdb's names of architectures to those of :mod:`drain_gdb.debuggee.corefile`."""

THREAD_POINTER = {"i386:x86-64": "fs_base", "aarch64": "tpidr"}
"""The register that holds the thread pointer, by gdb's names of both."""

NO_FILE = "system-supplied DSO"
"""What gdb calls the kernel's page of code, which is of no file."""

DEBUG_INFORMATION = (".debug_info", ".zdebug_info")
"""The sections that DWARF names things in; the second as binutils compressed it once."""

_CORE_FILE = re.compile(r"^Local core dump file:\n\s*`(.*)', file type ", re.M)

_SECTION = re.compile(r"^\s*(0x[0-9a-f]+) - (0x[0-9a-f]+) is (\S+)(?: in (.+))?$")
_MAPPING = re.compile(
    r"^\s*(0x[0-9a-f]+)\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+(?:[-rwxps]+\s+)?(/.*\S)\s*$"
)
_RANGE = re.compile(r"^\s*(0x[0-9a-f]+)\s+(0x[0-9a-f]+)\s+0x[0-9a-f]+\s")
_ENTRY = re.compile(r"^(\d+)\s+AT_\w+\s.*?\s(0x[0-9a-f]+|\d+)$", re.M)
"""A line of ``info auxv``: the type of an entry, what it is, its value."""
ADDRESS_END = 1 << 64
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLAIN_SYMBOL = re.compile(rf"^(0x[0-9a-f]+)\s+({_IDENTIFIER.pattern})$", re.ASCII)
"""Only names of C: a file may call its symbols anything, and gdb computes what it is given."""
_TYPED_SYMBOL = re.compile(r"([A-Za-z_]\w*)(?:\[[^;]*\])*;$")


def _program() -> Optional[str]:
    """The path of the loaded program."""
    space = gdb.current_progspace()
    return None if space is None else space.filename


def _process_name(program: Optional[str]) -> Optional[str]:
    """By the command line (live), or by the core's NT_PRPSINFO note."""
    for command in ("info proc cmdline", "info proc exe"):
        match = re.search(r"^(?:cmdline|exe) = '([^']+)'", _query(command), re.M)
        if match is not None:
            return process_name(match[1], program)
    return None


def _local(path: str) -> str:
    """The path of a file without the mark that it is gdb's target's."""
    return path.replace("target:", "", 1)


def _query(command: str) -> str:
    """What ``command`` prints; empty where this target does not answer it."""
    try:
        return gdb.execute(command, to_string=True) or ""
    except gdb.error:
        return ""


def _mappings() -> List[Mapping]:
    found = []
    for line in _query("info proc mappings").splitlines():
        match = _MAPPING.match(line)
        if match is not None:
            start, end, offset = (int(match[group], 16) for group in (1, 2, 3))
            found.append(Mapping(match[4], start, end, offset))
    return found


def _ranges() -> List[Tuple[int, int]]:
    """``(start, end)`` of all mappings of a live process, adjacent ones joined."""
    found: List[Tuple[int, int]] = []
    for line in _query("info proc mappings").splitlines():
        match = _RANGE.match(line)
        if match is not None:
            start, end = int(match[1], 16), int(match[2], 16)
            if found and found[-1][1] == start:
                start = found.pop()[0]
            found.append((start, end))
    return found


def _lies_in(ranges: Sequence[Tuple[int, int]], address: int, size: int) -> bool:
    row = bisect_right(ranges, (address, ADDRESS_END)) - 1
    return row >= 0 and address + size <= ranges[row][1]


def _is_core() -> bool:
    connection = getattr(gdb.selected_inferior(), "connection", None)
    if connection is not None:
        return bool(connection.type == "core")
    return "Local core dump file" in _query("info files")


def _connection() -> Optional[gdb.TargetConnection]:
    """How gdb reaches the process; None where this gdb does not say."""
    return getattr(gdb.selected_inferior(), "connection", None)


def _is_native() -> bool:
    """Whether the process is one of this machine, under gdb's own control."""
    connection = _connection()
    if connection is not None:
        return bool(connection.type == "native")
    return "native process" in _query("info files")


ADDRESS_MASK = (1 << 64) - 1


class GdbTarget:
    """The selected inferior of the running gdb."""

    def __init__(self) -> None:
        self._inferior = gdb.selected_inferior()
        self._core = _is_core()
        self._structs: Dict[str, Optional[Struct]] = {}
        self._scopes: Dict[Symbol, Optional[Tuple[gdb.Block, Dict[str, gdb.Type]]]] = {}
        if not self._core and not self._inferior.threads():
            raise TargetError(
                "there is no process and no core here",
                "attach to one, or load one with: gdb PROGRAM CORE",
            )
        if any(thread.is_running() for thread in self._inferior.threads()):
            raise TargetError(
                "the process is running, its memory moves while it is read",
                "stop every thread first: interrupt -a",
            )
        self._require_known_core()
        width = gdb.lookup_type("void").pointer().sizeof * 8
        endian = _query("show endian")
        if width != 64 or "little endian" not in endian:
            raise TargetError(
                f"architecture {self._architecture()} is not supported",
                READ_ARE,
            )
        self._ranges = None if self._core else _ranges() or None

    def _architecture(self) -> str:
        return self._inferior.architecture().name()

    def _require_known_core(self) -> None:
        """Refuse a core that gdb, not knowing its architecture, reads as another's."""
        match = _CORE_FILE.search(_query("info files"))
        if match is None or not os.path.exists(match[1]):
            return
        machine, architecture = machine_of(match[1]), self._architecture()
        if MACHINE_OF.get(architecture, machine) != machine:
            raise TargetError(
                f"the core is of the architecture {machine}, this gdb reads it as {architecture}",
                "use a gdb built for it, such as gdb-multiarch",
            )

    def process(self) -> Process:
        """Who is being looked at."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        return Process(
            source="core" if self._core else "live",
            pid=self._inferior.pid or None,
            name=_process_name(_program()),
            executable=_program(),
            debugger="gdb",
            taken_at=None if self._core else now,
        )

    def place(self) -> Place:
        """Where it lies."""
        sysroot = str(gdb.parameter("sysroot") or "")
        root = None if not sysroot or sysroot.startswith("target:") else sysroot
        match = _CORE_FILE.search(_query("info files")) if self._core else None
        pid = self._inferior.pid if _is_native() else None
        return Place(None if match is None else match[1], pid, _program(), root)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``.

        Where nothing is mapped nobody is asked: behind gdbserver a refusal costs more
        packets than a read.
        """
        if self._ranges is not None and not _lies_in(self._ranges, address, size):
            raise UnreadableMemory(address, size, "nothing is mapped there")
        try:
            return bytes(self._inferior.read_memory(address, size))
        except gdb.error as error:
            raise UnreadableMemory(address, size, str(error)) from None

    def modules(self) -> Sequence[Module]:
        """The files gdb has opened, with their relocated sections."""
        return self._modules

    @cached_property
    def _modules(self) -> Sequence[Module]:
        """As :meth:`modules`.

        Behind gdbserver gdb lists them all twice.
        """
        program = _program() or "the program"
        build_ids = {
            _local(file.filename): file.build_id
            for file in gdb.objfiles()
            if file.owner is None and file.filename is not None
        }
        found: Dict[str, Dict[Section, None]] = {
            path: {} for path in build_ids if not path.startswith(NO_FILE)
        }
        for line in _query("info files").splitlines():
            match = _SECTION.match(line)
            if match is None or re.fullmatch(r"load\d+[a-z]?", match[3]):
                continue
            path = _local(match[4] or program)
            if path.startswith(NO_FILE):
                continue
            section = Section(match[3], int(match[1], 16), int(match[2], 16))
            found.setdefault(path, {})[section] = None
        mappings = _mappings()
        return [
            Module(path, self._sections(path, build_id, list(listed), mappings), build_id)
            for path, listed in found.items()
            for build_id in [build_ids.get(path)]
        ]

    @cached_property
    def _files(self) -> LoadedFiles:
        """Those of the modules that are surely the files that lie here."""
        opened = map(open_module, (m for m in self.modules() if m.build_id is not None))
        return LoadedFiles([loaded for loaded in opened if loaded is not None])

    def _sections(
        self,
        path: str,
        build_id: Optional[str],
        listed: Sequence[Section],
        mappings: Sequence[Mapping],
    ) -> Tuple[Section, ...]:
        """The sections of a file with their flags, which gdb does not hand on.

        ``listed`` are those that gdb has, of a file without headers of sections none.
        Where the file is not here (it is the server's), its segments stand for them.
        """
        mapped = [m for m in mappings if m.path == path]
        file = open_elf(path)
        if file is not None:
            with closing(file.file):
                if file.build_id == build_id:
                    linked = {s.name: s.start for s in file.sections(0)}
                    biases = [s.start - linked[s.name] for s in listed if s.name in linked]
                    others = (file.bias_of(m.start, m.offset) for m in mapped)
                    bias = next((b for b in (*biases, *others) if b is not None), None)
                    return () if bias is None else file.sections(bias)
        for mapping in mapped:
            segments = mapped_segments(self.read, mapping.start) if not mapping.offset else ()
            bias = bias_of(segments, mapping.start, 0)
            if bias is not None:
                return segment_sections(segments, bias)
        return tuple(listed)

    def mappings(self) -> Sequence[Mapping]:
        """The mapped files of the process, or of the core's NT_FILE note."""
        return [replace(each, elsewhere=_below_sysroot(each.path)) for each in _mappings()]

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """All of the address space in use, of a process that is stopped here."""
        return self._ranges

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """Variables whose name ends with one of ``endings``; one search for all of them.

        gdb's search reads the debug information of every library, so it is asked only where
        a file might have one.
        """
        found: Dict[Symbol, None] = {}
        if not _may_have(endings):
            return []
        pattern = r"\|".join(f"{ending}$" for ending in endings)
        for line in _query(f"info variables -q {pattern}").splitlines():
            plain, typed = _PLAIN_SYMBOL.match(line), _TYPED_SYMBOL.search(line)
            if plain is not None:
                # The same name may stand in several files, each with its own.
                found[Symbol(plain[2], int(plain[1], 16))] = None
            elif typed is not None:
                symbol = self.symbol(typed[1])
                if symbol is not None:
                    found[symbol] = None
        return list(found)

    def symbol(self, name: str) -> Optional[Symbol]:
        """The variable ``name``: by the files' own tables, or by what gdb has besides."""
        found = self._files.symbol(name)
        if found is not None or _IDENTIFIER.fullmatch(name) is None or not _may_have([name]):
            return found
        try:
            return Symbol(name, int(gdb.parse_and_eval(f"(unsigned long) &{name}")))
        except gdb.error:
            return None

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """Struct ``name`` as seen from the file that defines ``near``."""
        if name not in self._structs:
            self._structs[name] = self._lookup(name, near)
        return self._structs[name]

    def thread_pointers(self) -> Sequence[int]:
        """The thread pointers."""
        register = THREAD_POINTER.get(self._architecture())
        if register is None:
            return ()
        return [value for _, frame in self._frames() for value in _registers(frame, [register])]

    def threads(self) -> Sequence[Thread]:
        """The threads, by the registers of their innermost frames."""
        found = []
        for thread, frame in self._frames():
            names = [each.name for each in frame.architecture().registers("general")]
            stack_pointer = list(_registers(frame, ["sp"]))
            if stack_pointer:
                registers = tuple(_registers(frame, names))
                found.append(Thread(thread.ptid[1] or None, stack_pointer[0], registers))
        return found

    def _frames(self) -> Iterator[Tuple[gdb.InferiorThread, gdb.Frame]]:
        """Each thread with its innermost frame, the selected thread staying the same."""
        selected = gdb.selected_thread()
        if selected is None:
            return
        frame = gdb.selected_frame()
        try:
            for thread in self._inferior.threads():
                thread.switch()
                with suppress(gdb.error):
                    yield thread, gdb.newest_frame()
        finally:
            selected.switch()
            frame.select()

    def auxiliary(self) -> MappingOf[int, int]:
        """As gdb has it."""
        return _auxiliary()

    def residence(self) -> Optional[Residence]:
        """What is resident of a process of this machine, or what a core says was."""
        if self._core:
            match = _CORE_FILE.search(_query("info files"))
            return None if match is None else of_core_at(match[1], self.read, self.modules())
        if _is_native():
            return smaps.of_process(self._inferior.pid, self.read, self.modules())
        send = getattr(_connection(), "send_packet", None)
        return None if send is None else self._residence_there(send)

    def _residence_there(self, send: Send) -> Optional[Residence]:
        """What the server's kernel says, if the process is the one that it has by this number.

        A server may say no number of its process, or one of another machine.
        """

        def text(name: str) -> bytes:
            return read_file(send, f"/proc/{self._inferior.pid}/{name}")

        try:
            if smaps.ranges(text("maps")) != self._ranges:
                return None
        except OSError:
            return None
        places = self.thread_pointers()
        return smaps.residence(text, None, self.read, self.modules(), places)

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what the process holds is to be found."""
        return None

    def _lookup(self, name: str, near: Symbol) -> Optional[Struct]:
        if near not in self._scopes:
            symbol = gdb.lookup_static_symbol(near.name) or gdb.lookup_global_symbol(near.name)
            scope = None if symbol is None else symbol.symtab.static_block()
            self._scopes[near] = None if scope is None else (scope, dict(_structs_of(scope)))
        known = self._scopes[near]
        if known is None:
            return None
        scope, structs = known
        try:
            found = structs.get(name) or gdb.lookup_type(f"struct {name}", scope)
        except gdb.error:
            return None
        return describe(found) if found.strip_typedefs().fields() else None


def _may_have(endings: Sequence[str]) -> bool:
    """Whether a file has a variable whose name ends with one of ``endings``, or may have."""
    return any(_file_may_have(file, endings) for file in gdb.objfiles())


def _file_may_have(objfile: gdb.Objfile, endings: Sequence[str]) -> bool:
    """As :func:`_may_have`, of one file.

    Every name of debug information is in the table of symbols too, where there is a table.
    """
    path = _local(objfile.filename or "")
    if path.startswith(NO_FILE):
        return False
    file = open_elf(path)
    if file is None:
        return True
    with closing(file.file):
        if file.build_id is None or file.build_id != objfile.build_id:
            return True
        described = any(header.name in DEBUG_INFORMATION for header in file.headers)
        listed = any(header.kind == SHT_SYMTAB for header in file.headers)
        return (described and not listed) or bool(file.find_variables(endings))


def _registers(frame: gdb.Frame, names: Sequence[str]) -> Iterator[int]:
    """The values of those registers that have one."""
    for name in names:
        with suppress(gdb.error, ValueError):
            yield int(frame.read_register(name)) & ADDRESS_MASK


def _structs_of(scope: gdb.Block) -> Iterator[Tuple[str, gdb.Type]]:
    """The structs with members that a file defines, by their tags.

    gdb's own search for one asks a process behind gdbserver for its libraries each time.
    """
    for symbol in scope:
        found = symbol.type
        if found is None or found.code != gdb.TYPE_CODE_STRUCT:
            continue
        if found.tag and symbol.name == found.tag and found.fields():
            yield found.tag, found


def describe(found: gdb.Type) -> Struct:
    """A gdb struct or union type as a :class:`Struct`, nested ones included."""
    found = found.strip_typedefs()
    members = []
    for field in found.fields():
        if not hasattr(field, "bitpos"):
            continue
        assert field.type is not None and field.bitpos is not None
        element, count = _element(field.type)
        nested = element.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION)
        members.append(
            Member(
                name=field.name or "",
                offset=field.bitpos // 8,
                size=element.sizeof * (1 if count is None else count),
                align=element.alignof,
                count=count,
                type=describe(element) if nested else None,
            )
        )
    return Struct(
        name=found.tag or found.name or "",
        size=found.sizeof,
        align=found.alignof,
        members=tuple(members),
        union=found.code == gdb.TYPE_CODE_UNION,
    )


def _element(found: gdb.Type) -> Tuple[gdb.Type, Optional[int]]:
    """The element type of an array and how many there are; None for a scalar."""
    found = found.strip_typedefs()
    count: Optional[int] = None
    while found.code == gdb.TYPE_CODE_ARRAY:
        low, high = found.range()
        count = (1 if count is None else count) * max(0, high - low + 1)
        found = found.target().strip_typedefs()
    return found, count


PLACES = (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION, gdb.TYPE_CODE_ARRAY)
"""Types of variables that stand for where they are."""
CALLS = "may-call-functions"
_CHANGES = re.compile(r"(?<![=!<>])=(?!=)|<<=|>>=|\+\+|--")
"""What assigns to something."""


def evaluate(text: str) -> int:
    """The value of an expression, as an address; one that calls or assigns is refused.

    Raises :class:`UsageError`.
    """
    if _CHANGES.search(text):
        raise UsageError(f"{text!r} is no address: it would change something")
    allowed = bool(gdb.parameter(CALLS))
    gdb.execute(f"set {CALLS} off", to_string=True)
    try:
        value = gdb.parse_and_eval(text)
        place = value.address
        if value.type.strip_typedefs().code in PLACES and place is not None:
            value = place
        return int(value.cast(gdb.lookup_type("unsigned long")))
    except gdb.error as error:
        raise UsageError(f"{text!r} is no address: {error}") from None
    finally:
        gdb.execute(f"set {CALLS} {'on' if allowed else 'off'}", to_string=True)


def attach(pid: int) -> None:
    """Attach to a process, which stops; :class:`TargetError` where it cannot be traced.

    Meanwhile gdb would hand Ctrl-C on to the process, which it might end: it is held back.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        gdb.execute(f"attach {pid}", to_string=True)
    except gdb.error as error:
        raise TargetError(
            f"cannot attach to process {pid}: {error}",
            "it must exist and be yours to trace (root, or the same user)",
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _below_sysroot(path: str) -> Optional[str]:
    """Where gdb looks for a file of the process; None where that is at its own path."""
    sysroot = str(gdb.parameter("sysroot") or "")
    if not sysroot or sysroot.startswith("target:"):
        return None
    return inside(sysroot, path)


def use_sysroot(folder: str) -> None:
    """Look below ``folder`` for the files of cores and processes."""
    gdb.execute(f"set sysroot {folder}", to_string=True)


def detach() -> None:
    """Let the process that was attached to run on."""
    gdb.execute("detach", to_string=True)


def open_core(core: str, program: Optional[str]) -> None:
    """Load a core and its program, which the core names itself where None is given.

    Raises :class:`TargetError` where gdb takes either for something else.
    """
    try:
        if program is not None:
            gdb.execute(f"file {_quoted(program)}", to_string=True)
        _load_core(core)
    except gdb.error as error:
        raise TargetError(f"gdb cannot load it: {error}") from None
    if program is not None or _program():
        return
    program = _program_of_core(core)
    if program is None:
        return
    program = _below_sysroot(program) or program
    try:
        gdb.execute(f"file {_quoted(program)}", to_string=True)
        _load_core(core)
    except gdb.error as error:
        raise TargetError(
            f"the core's program {program} cannot be loaded: {error}",
            "give it with --exe PROGRAM",
        ) from None


def _load_core(core: str) -> None:
    """``core-file``, which takes its argument as it is, or quoted in later versions."""
    try:
        gdb.execute(f"core-file {core}", to_string=True)
    except gdb.error:
        if _quoted(core) == f'"{core}"' and " " not in core:
            raise
        gdb.execute(f"core-file {_quoted(core)}", to_string=True)


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _auxiliary() -> Dict[int, int]:
    """The auxiliary vector, as far as it holds numbers."""
    return {int(kind): int(value, 0) for kind, value in _ENTRY.findall(_query("info auxv"))}


def _program_of_core(core: str) -> Optional[str]:
    """The file that holds the program headers the kernel told the process of."""
    address = _auxiliary().get(AT_PHDR, -1)
    for mapping in _mappings():
        if mapping.start <= address < mapping.end:
            return mapping.path
    return read_notes(core).program


def print_structs(endings: Sequence[str], names: Sequence[str]) -> None:
    """Print, as one line of JSON, those of the structs ``names`` that the program has.

    They are looked up from the file that defines the variable whose name ends
    with one of ``endings``: what other readers of debug information are held against.
    Needs no process.
    """
    symbol = None
    for ending in endings:
        for line in _query(f"info variables -q {ending}$").splitlines():
            match = _TYPED_SYMBOL.search(line)
            if match is not None:
                symbol = gdb.lookup_static_symbol(match[1]) or gdb.lookup_global_symbol(match[1])
    if symbol is None:
        return
    structs = {}
    for name in names:
        try:
            found = gdb.lookup_type(f"struct {name}", symbol.symtab.static_block())
        except gdb.error:
            continue
        structs[name] = asdict(describe(found))
    build_id = symbol.symtab.objfile.build_id
    print(json.dumps({"build_id": build_id, "structs": structs}))
