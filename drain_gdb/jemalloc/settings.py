"""What a jemalloc was told to do, as far as the process shows it.

Options come, each over the one before, from the program's variable ``malloc_conf``, the
link /etc/malloc.conf and the environment (malloc_conf_init(), jemalloc.c); what the
allocator made of them is in its own variables, where they have names.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Callable,
    Container,
    Dict,
    Iterator,
    List,
    Mapping,
    Match,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Tuple,
)

from drain_gdb.debuggee.functions import exports
from drain_gdb.debuggee.protocol import Module, Symbol, Target
from drain_gdb.debuggee.serialize import from_json
from drain_gdb.debuggee.surroundings import (
    Surroundings,
    environment,
    string_at,
    surroundings,
)
from drain_gdb.errors import MissingField, UnreadableMemory
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout.serialize import from_value
from drain_gdb.memory import BULK_CHUNK, WORD

if TYPE_CHECKING:
    from drain_gdb.debuggee.recording import RecordingTarget

BACKGROUND_THREAD = "jemalloc_bg_thd"
"""The name of jemalloc's own threads (background_thread.c)."""
CONF = "MALLOC_CONF"
_CONF_NAME = re.compile(rb"\0([A-Z0-9_]*MALLOC_CONF)\0")
_PROFILER = re.compile(rb"heap_v2/")
"""How the heap profiler's dumps begin (prof_data.c); builds without one have no such text."""
_BACKGROUND_THREAD = re.compile(BACKGROUND_THREAD.encode())
"""Builds that cannot name threads have no such text (JEMALLOC_HAVE_PTHREAD_SETNAME_NP)."""
_CONF_VARIABLE = re.compile(r"[A-Z0-9_]*MALLOC_CONF")
CONSTANTS_MAX = 64 << 20
"""Bytes of a module's constants that are looked through for a string."""
OVERLAP = 256
"""Bytes; more than the strings looked for have."""
SERVERS = {"redis": "redis", "valkey": "valkey", "keydb": "redis"}
SERVER_MEMBERS: Mapping[str, Tuple[str, Callable[[int], object]]] = {
    "defragments": ("active_defrag_enabled", bool),
    "defrag_ignore_bytes": ("active_defrag_ignore_bytes", int),
    "defrag_threshold": ("active_defrag_threshold_lower", int),
}
"""Settings of a server by the members of its ``server`` (server.h)."""
PERCPU_ENABLED = 3
"""percpu_arena_mode_enabled_base (arena_types.h)."""
HUGE_PAGES = ("default", "always", "never")
METADATA_HUGE_PAGES = ("disabled", "auto", "always")
"""thp_mode_t (pages.h), metadata_thp_mode_t (base_types.h)."""
_Said = Tuple[str, str]
"""A text and where it was found."""


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _number(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise ValueError(text)
    return value


OPTIONS: Mapping[str, Tuple[str, Callable[[str], object]]] = {
    "background_thread": ("background_thread", _truth),
    "arenas": ("narenas", _number),
    "percpu_arena": ("percpu_arena", lambda text: text != "disabled"),
    "profiling": ("prof", _truth),
    "lg_prof_sample": ("lg_prof_sample", _number),
    "huge_pages": ("thp", str),
    "metadata_huge_pages": ("metadata_thp", str),
    "tcache_max": ("tcache_max", _number),
}
"""Settings by the options that give them (TUNING.md, jemalloc(3))."""
VARIABLES: Mapping[str, Tuple[Sequence[str], int, Callable[[int], object]]] = {
    "background_thread": (("background_thread_enabled_state",), 1, bool),
    "cpus": (("ncpus",), 4, int),
    "arenas": (("narenas_auto",), 4, int),
    "percpu_arena": (("opt_percpu_arena",), 4, lambda mode: mode >= PERCPU_ENABLED),
    "profiling": (("opt_prof",), 1, bool),
    "lg_prof_sample": (("lg_prof_sample", "opt_lg_prof_sample"), 8, int),
    "huge_pages": (("opt_thp",), 4, HUGE_PAGES.__getitem__),
    "metadata_huge_pages": (("opt_metadata_thp",), 4, METADATA_HUGE_PAGES.__getitem__),
    "tcache_max": (("tcache_maxclass",), 8, int),
}
"""Settings by the variables that keep them: names, bytes, what they mean (jemalloc.c,
arena.c, prof.c, tcache.c, background_thread.c)."""


@dataclass(frozen=True)
class Settings:
    """Of one jemalloc and its process; what is not known is None.

    Attributes:
        variable: the environment variable that this jemalloc looks for.
        exported: whether code outside the module that holds it can call its functions by name.
        options: those given, by jemalloc's names; None where no place could be looked at.
        has_profiler: whether it was built with a heap profiler.
        background_thread: whether one purges unused pages.
        threads, cpus: of the process, and that it may run on.
        arenas: how many arenas threads are spread over at most (narenas).
        percpu_arena, profiling: whether they are on.
        lg_prof_sample: of the bytes between two samples, the binary logarithm.
        huge_pages: ``always``, ``never`` or ``default``: what jemalloc asks for.
        metadata_huge_pages: ``disabled``, ``auto`` or ``always``.
        system_huge_pages: ``always``, ``madvise`` or ``never``.
        tcache_max: bytes of the largest class that thread caches hold.
        program: ``redis``, ``valkey``, ``python`` or ``other``.
        port: that a server's command line names.
        active_defragmentation: whether a Redis or Valkey was built with it.
        defragments: whether it does it.
        defrag_ignore_bytes, defrag_threshold: below how many bytes, and per cent of what is
            allocated, it leaves waste alone.
        clock: the time of its machine, on the monotonic clock in nanoseconds.
        sources: name of a setting to where it was seen.

    """

    variable: str = CONF
    exported: Optional[bool] = None
    options: Optional[Mapping[str, str]] = None
    has_profiler: Optional[bool] = None
    background_thread: Optional[bool] = None
    threads: Optional[int] = None
    cpus: Optional[int] = None
    arenas: Optional[int] = None
    percpu_arena: Optional[bool] = None
    profiling: Optional[bool] = None
    lg_prof_sample: Optional[int] = None
    huge_pages: Optional[str] = None
    metadata_huge_pages: Optional[str] = None
    system_huge_pages: Optional[str] = None
    tcache_max: Optional[int] = None
    program: str = "other"
    port: Optional[int] = None
    active_defragmentation: Optional[bool] = None
    defragments: Optional[bool] = None
    defrag_ignore_bytes: Optional[int] = None
    defrag_threshold: Optional[int] = None
    clock: Optional[int] = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What stands before the names of jemalloc's public functions."""
        return prefix_of(self.variable)


def prefix_of(variable: str) -> str:
    """The prefix of the public functions of a jemalloc that looks for ``variable``."""
    return variable[: -len(CONF)].lower()


def program_of(name: Optional[str], executable: Optional[str]) -> str:
    """What kind of program has a command of its own: ``redis``, ``python``, ..."""
    for said in (name, executable):
        base = os.path.basename(said or "")
        for start, server in SERVERS.items():
            if base.startswith(start):
                return server
        if base.startswith("python"):
            return "python"
    return "other"


class _Constants(NamedTuple):
    """The first match of each pattern among the constants of a module.

    ``whole`` is False where not all of them could be looked at.
    """

    found: Mapping[Pattern[bytes], Match[bytes]]
    whole: bool

    def has(self, wanted: Pattern[bytes]) -> Optional[bool]:
        """Whether a pattern is there; None where that is not known.

        Some are in all builds: where none is found, these are not jemalloc's constants.
        """
        return True if wanted in self.found else (False if self.whole and self.found else None)


def _constants(target: Target, module: Module, *wanted: Pattern[bytes]) -> _Constants:
    """What matches the patterns, which are looked for at once."""
    found: Dict[Pattern[bytes], Match[bytes]] = {}
    whole = True
    left = CONSTANTS_MAX
    for section in module.sections:
        if not section.constant:
            continue
        for start in range(section.start, min(section.end, section.start + left), BULK_CHUNK):
            size = min(BULK_CHUNK + OVERLAP, section.end - start)
            try:
                data = target.read(start, size)
            except UnreadableMemory:
                whole = False
                continue
            for each in wanted:
                match = None if each in found else each.search(data)
                if match is not None:
                    found[each] = match
            if len(found) == len(wanted):
                return _Constants(found, whole)
        left -= section.end - section.start
    return _Constants(found, whole and left > 0)


def parse_options(text: str) -> Dict[str, str]:
    """``name:value`` pairs apart by commas, as jemalloc takes them (malloc_conf_next())."""
    pairs = (part.partition(":") for part in text.split(","))
    return {name.strip(): value for name, colon, value in pairs if colon}


def _given(target: Target, variable: str, around: Surroundings) -> Optional[Dict[str, _Said]]:
    """The options given, each with where; None where no place could be looked at."""
    prefix = prefix_of(variable)
    texts: List[_Said] = []
    symbol = target.symbol(f"{prefix}malloc_conf")
    if symbol is not None:
        with suppress(UnreadableMemory):
            pointer = int.from_bytes(target.read(symbol.address, WORD), "little")
            if pointer:
                said = string_at(target, pointer)
                texts.append((said, f"the program's {prefix}malloc_conf"))
    if around.root is not None:
        with suppress(OSError):
            link = f"/etc/{prefix}malloc.conf"
            texts.append((os.readlink(around.root + link), link))
    variables = environment(target, _CONF_VARIABLE)
    if variables is None and not texts:
        return None
    if variables is not None and variable in variables:
        texts.append((variables[variable], f"{variable} of its environment"))
    return {
        name: (value, source)
        for text, source in texts
        for name, value in parse_options(text).items()
    }


def _by_options(options: Mapping[str, _Said]) -> Iterator[Tuple[str, object, str]]:
    """The settings that options give, where they say something that can be understood."""
    for name, (option, convert) in OPTIONS.items():
        if option in options:
            value, source = options[option]
            with suppress(ValueError, OverflowError):
                yield name, convert(value), source


def _by_variables(
    target: Target, heap: Heap, module: Optional[Module], known: Container[str]
) -> Iterator[Tuple[str, object, str]]:
    """The settings as jemalloc's own variables have them, where those have names.

    Those ``known`` are not looked up: a debugger behind a wire asks much for each name.
    """
    prefix = heap.layout.prefix
    if prefix is None or module is None:
        return
    asked = {setting: how for setting, how in VARIABLES.items() if setting not in known}
    wanted = [prefix + name for names, _, _ in asked.values() for name in names]
    # Each search goes through all files.
    found = {
        symbol.name: symbol
        for symbol in target.symbols(*wanted)
        if any(s.start <= symbol.address < s.end for s in module.sections)
    }
    profiling = True
    for setting, (names, size, convert) in asked.items():
        if setting == "lg_prof_sample" and not profiling:
            continue
        for name in names:
            symbol = found.get(prefix + name)
            if symbol is None:
                continue
            with suppress(UnreadableMemory, IndexError):
                value = convert(int.from_bytes(target.read(symbol.address, size), "little"))
                profiling = bool(value) if setting == "profiling" else profiling
                yield setting, value, prefix + name
                break


def _by_system(around: Surroundings, named: Optional[bool]) -> Iterator[Tuple[str, object, str]]:
    """What the machine knows of the process; ``named``: whether its jemalloc names threads."""
    if around.clock is not None:
        yield "clock", around.clock, "the system"
    if around.threads is not None:
        runs = BACKGROUND_THREAD in around.threads
        if runs or named is not False:
            yield "background_thread", runs, "the names of its threads"
        yield "threads", len(around.threads), "the system"
    if around.cpus is not None:
        yield "cpus", around.cpus, "the system"
    if around.huge_pages is not None:
        yield "system_huge_pages", around.huge_pages, "the system"


def _by_symbols(
    target: Target, module: Optional[Module], variable: str
) -> Iterator[Tuple[str, object, str]]:
    """Whether others can call what it exports, under the prefix that ``variable`` has, too."""
    exported = module and exports(target, module, f"{prefix_of(variable)}mallctl")
    if exported is not None:
        yield "exported", exported, "its dynamic symbols"


def _by_core(target: Target) -> Iterator[Tuple[str, object, str]]:
    threads = len(target.thread_pointers())
    if threads:
        yield "threads", threads, "the core"


def _of_server(
    target: Target, heap: Heap, around: Surroundings, executable: Optional[str]
) -> Iterator[Tuple[str, object, str]]:
    """What decides over the commands that a Redis or Valkey understands.

    They can defragment with the jemalloc that comes with them, which is linked in; that of
    a system, in a library of its own, cannot tell them what to move (HAVE_DEFRAG, zmalloc.h).
    """
    if executable is not None:
        own = os.path.basename(heap.layout.module) == os.path.basename(executable)
        yield "active_defragmentation", own, "where jemalloc is linked"
    server = target.symbol("server")
    if server is not None:
        yield from _of_members(target, server)
    port = re.search(r":(\d+)\b", around.command or "")
    if port is not None:
        yield "port", int(port[1]), "the command line"


def _of_members(target: Target, server: Symbol) -> Iterator[Tuple[str, object, str]]:
    """What the variable ``server`` says, where debug information tells how it is laid out."""
    struct = target.struct("redisServer", server) or target.struct("valkeyServer", server)
    if struct is None:
        return
    for setting, (name, convert) in SERVER_MEMBERS.items():
        with suppress(UnreadableMemory, MissingField):
            member = struct.find(name)
            word = target.read(server.address + member.offset, member.size)
            yield setting, convert(int.from_bytes(word, "little")), f"{struct.name}.{name}"


def _recorded(target: RecordingTarget, heap: Heap) -> Optional[Settings]:
    """The settings of ``heap`` when it was recorded; None where they were not."""
    for layout, settings in zip(target.layouts() or (), target.settings()):
        if from_value(layout).rtree.root == heap.layout.rtree.root:
            return from_json(Settings, settings, "settings")
    return None


def settings_of(target: Target, heap: Heap) -> Settings:
    """What can be seen of the settings of ``heap``, jemalloc's and its process'."""
    process = target.process()
    program = program_of(process.name, process.executable)
    if target.layouts() is not None:
        from drain_gdb.debuggee.recording import RecordingTarget

        if isinstance(target, RecordingTarget):
            return _recorded(target, heap) or Settings(program=program)
    module = next((m for m in target.modules() if m.path == heap.layout.module), None)
    around = surroundings(target, heap.layout.rtree.root)
    constants = (
        _Constants({}, whole=False)
        if module is None
        else _constants(target, module, _CONF_NAME, _PROFILER, _BACKGROUND_THREAD)
    )
    name = constants.found.get(_CONF_NAME)
    variable = CONF if name is None else name[1].decode("ascii")
    options = _given(target, variable, around)
    # Of several sources the surest comes first.
    said = list(_by_system(around, constants.has(_BACKGROUND_THREAD)))
    said += _by_variables(target, heap, module, [setting for setting, _, _ in said])
    said += _by_options(options or {})
    said += _by_symbols(target, module, variable)
    if process.source == "core":
        said += _by_core(target)
    if program in ("redis", "valkey"):
        said += _of_server(target, heap, around, process.executable)
    values = {setting: value for setting, value, _ in reversed(said)}
    return Settings(
        variable=variable,
        options=None if options is None else {name: value for name, (value, _) in options.items()},
        has_profiler=constants.has(_PROFILER),
        program=program,
        sources={setting: source for setting, _, source in reversed(said)},
        **values,  # type: ignore[arg-type]
    )
