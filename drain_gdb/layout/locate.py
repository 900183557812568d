"""Find the jemallocs of a process, by the surest way each allows.

The ladder: debug information; a symbol table with the structs of that version;
no symbols, the variables discovered by their shape.  On each rung the structs of
the version come first, then those of the nearest ones.  A candidate is accepted
only once the walk verifies it (jemalloc/find.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple
from typing import Mapping as MappingOf

from drain_gdb.debuggee.identity import SYSROOT, overlaps, require_program, require_same_file
from drain_gdb.debuggee.protocol import Mapping, Module, Section, Struct, Symbol, Target
from drain_gdb.errors import LayoutError, NoJemalloc
from drain_gdb.layout.bins import bin_run
from drain_gdb.layout.build import (
    Roots,
    bin_info_layout,
    build,
    parameters_from,
    rtree_root,
)
from drain_gdb.layout.discover import find_bin_infos
from drain_gdb.layout.identify import CHUNKS_SYMBOL, RTREE_SYMBOLS, Identified, identify
from drain_gdb.layout.model import Declarations, nearest
from drain_gdb.layout.others import other_allocator
from drain_gdb.layout.pieces import USUAL_BUILDS, Pieces, Places, Variables, size_class_shapes
from drain_gdb.layout.records import Layout
from drain_gdb.layout.serialize import from_value
from drain_gdb.layout.threads import find_thread_caches, keeps_statistics
from drain_gdb.memory import Memory

BIN_INFO_SYMBOLS = ("bin_infos", "arena_bin_info")
"""The size classes (bin_info.c from 5.2, bin.c in 5.1; arena.c in 5.0)."""
THREADS_SYMBOL = "tsd_nominal_tsds"
"""The ring of threads (tsd.c); its name has no prefix."""
RTREE_MAX = (8 << 18) + 4096
"""Bytes of a tree's variable: a root of 18 key bits, and what stands before it."""
LIKELY = 2
"""Declarations of the commit that a module says it is of: normal builds and debug builds."""


@dataclass(frozen=True)
class Candidate:
    """A way that one jemalloc might be understood.

    Attributes:
        how: in words, for the notes on what was tried.
        locate: gives its layout; raises :class:`LayoutError` where it does not fit.
    """

    how: str
    locate: Callable[[], Layout]


Finish = Callable[[Layout], Layout]
"""Adds what is found last: the caches of threads."""


@dataclass(frozen=True)
class Allocator:
    """A jemalloc of the process, and how it might be laid out.

    Attributes:
        candidates: whole layouts, surest first: of debug information, and of the
            version that the module says.
        pieces: what each struct may be where none of these is right, to be
            ``finish``-ed; None in a recording, which has what was found.

    """

    module: str
    version: Optional[str]
    candidates: Tuple[Candidate, ...]
    pieces: Optional[Pieces] = None
    finish: Finish = lambda layout: layout


def find_allocators(target: Target, memory: Memory) -> List[Allocator]:
    """Every jemalloc of the process, at least one.

    Raises :class:`NoJemalloc` where there is none, and :class:`LayoutError` where
    all there is is older than any that is understood.  A recording has them from
    when it was made.
    """
    recorded = target.layouts()
    if recorded is not None:
        return [_recorded(from_value(value)) for value in recorded]
    modules, mappings = target.modules(), target.mappings()
    require_program(target.process(), modules, mappings)
    symbols = target.symbols(*RTREE_SYMBOLS, THREADS_SYMBOL, CHUNKS_SYMBOL)
    identified = []
    for module in modules:
        named = [s for s in symbols if _holds(module, s.address)]
        roots = [s for s in named if s.name.endswith((*RTREE_SYMBOLS, CHUNKS_SYMBOL))]
        each = identify(memory, module, roots)
        if each is not None:
            identified.append((each, named))
    if not identified:
        identified = [(each, []) for each in _by_structures(memory, modules)]
    found: List[Allocator] = []
    for each, named in identified:
        require_same_file(memory, each.module, mappings)
        if each.refused is None:
            found += _allocators(target, memory, each, named)
    if found:
        return found
    refused = [each.refused for each, _ in identified if each.refused is not None]
    if refused:
        raise refused[0]
    raise _no_jemalloc(target, memory, modules, mappings)


def _allocators(
    target: Target, memory: Memory, identified: Identified, named: Sequence[Symbol]
) -> List[Allocator]:
    """The jemallocs of a module whose symbols are ``named``: one, or one for each rtree."""
    threads = next((s.address for s in named if s.name.endswith(THREADS_SYMBOL)), None)
    roots = [s for s in named if s.name.endswith(RTREE_SYMBOLS)]
    found = [_by_symbols(target, memory, identified, each, threads) for each in roots]
    return found or [_by_discovery(target, memory, identified)]


def _by_structures(memory: Memory, modules: Sequence[Module]) -> Iterator[Identified]:
    """The modules that have nothing of a jemalloc but its size classes."""
    shapes = size_class_shapes()
    for module in modules:
        try:
            infos = find_bin_infos(memory, Variables(memory, module.sections).blocks, shapes)
        except LayoutError:
            continue
        yield Identified(module, (), f"its size classes at {infos.address:#x}")


def _recorded(layout: Layout) -> Allocator:
    candidate = Candidate("as recorded", lambda: layout)
    return Allocator(layout.module, layout.version, (candidate,))


def _by_symbols(
    target: Target,
    memory: Memory,
    identified: Identified,
    symbol: Symbol,
    threads: Optional[int],
) -> Allocator:
    """The jemalloc whose rtree is ``symbol``, its threads at ``threads``."""
    module = identified.module
    ending = next(e for e in RTREE_SYMBOLS if symbol.name.endswith(e))
    prefix = symbol.name[: -len(ending)]

    def address(*names: str) -> Optional[int]:
        for name in names:
            other = target.symbol(prefix + name)
            found = [other] if other is not None else []
            if not any(_holds(module, s.address) for s in found):
                found = [s for s in target.symbols(prefix + name) if s.name == prefix + name]
            for each in found:
                if _holds(module, each.address):
                    return each.address
        return None

    def heads() -> List[int]:
        return [] if threads is None else [memory.u64(threads)]

    places = Places(
        rtree=_variable(module, symbol),
        arenas=address("arenas"),
        bin_infos=address(*BIN_INFO_SYMBOLS),
        prefix=prefix,
        found_by="symbols",
    )
    how = f"symbols with prefix {prefix!r}"
    finish = partial(_with_threads, target, memory, heads=heads)
    first: Tuple[Candidate, ...] = ()
    if target.struct("arena_s", symbol) is not None:
        by_dwarf = partial(_by_dwarf, target, memory, identified, symbol, places, finish)
        first = (Candidate(f"{how}, debug information", by_dwarf),)
    variables = Variables(memory, module.sections)
    return _allocator(memory, identified, variables, places, how, finish, first)


def _variable(module: Module, symbol: Symbol) -> Section:
    """The section of ``symbol`` from it on, as far as a tree's variable can reach."""
    section = next(s for s in module.sections if s.start <= symbol.address < s.end)
    end = min(section.end, symbol.address + RTREE_MAX)
    return replace(section, start=symbol.address, end=end)


def _by_discovery(target: Target, memory: Memory, identified: Identified) -> Allocator:
    """A jemalloc that has no symbols."""
    variables = Variables(memory, identified.module.sections)

    def heads() -> Iterable[int]:
        return (word for _, word in variables.words)

    finish = partial(_with_threads, target, memory, heads=heads)
    return _allocator(memory, identified, variables, Places(), "no symbols", finish, ())


def _allocator(
    memory: Memory,
    identified: Identified,
    variables: Variables,
    places: Places,
    how: str,
    finish: Finish,
    first: Tuple[Candidate, ...],
) -> Allocator:
    """With the candidates ``first``, then those of the versions that the module says."""
    module, version = identified.module, identified.version
    pieces = Pieces(memory, module.path, version, variables, places)

    def telling(layout: Layout) -> Layout:
        return replace(finish(layout), evidence=identified.evidence)

    def assembled(declarations: Declarations) -> Layout:
        return telling(pieces.assemble(declarations))

    likely = [] if version is None else nearest(version)[:LIKELY]
    candidates = [
        Candidate(f"{how}, structs of {each.name}", partial(assembled, each)) for each in likely
    ]
    return Allocator(module.path, version, (*first, *candidates), pieces, telling)


def _by_dwarf(
    target: Target,
    memory: Memory,
    identified: Identified,
    symbol: Symbol,
    places: Places,
    finish: Finish,
) -> Layout:
    """By the structs of the debug information."""
    version = identified.version
    source = _Described(target, symbol, version)
    if places.arenas is None or places.bin_infos is None:
        missing = "arenas" if places.arenas is None else " or ".join(BIN_INFO_SYMBOLS)
        raise LayoutError(f"{symbol.name} is there, {places.prefix}{missing} is not")
    infos = bin_info_layout(source, places.bin_infos)
    root = rtree_root(source)
    run = bin_run(memory, [infos])
    known = [] if run is None else [(run.parameters.lg_page, run.parameters.lg_quantum)]
    builds = [parameters_from(source, *each) for each in known or USUAL_BUILDS]
    for parameters in chain.from_iterable(builds):
        layout = build(
            source,
            Roots(symbol.address + root.offset, places.arenas, places.bin_infos),
            parameters,
            found_by="dwarf",
            module=identified.module.path,
            version=version,
            prefix=places.prefix,
        )
        return replace(finish(layout), evidence=identified.evidence)
    raise LayoutError(
        f"the rtree at {symbol.address:#x} has {root.count} elements: no known width of addresses"
    )


class _Described:
    """The structs that debug information describes, and the constants of the nearest commit.

    Constants are macros, of which it says nothing.
    """

    def __init__(self, target: Target, near: Symbol, version: Optional[str]) -> None:
        self._target = target
        self._near = near
        self._version = version

    def __call__(self, name: str) -> Optional[Struct]:
        return self._target.struct(name, self._near)

    @cached_property
    def constants(self) -> MappingOf[str, Any]:
        """Of the nearest declarations with the same structs for extents and size classes."""
        telling = ("edata_s", "bin_info_s", "tcache_slow_s")
        there = [self(name) is not None for name in telling]
        for declarations in nearest(self._version):
            if [name in declarations.structs for name in telling] == there:
                return declarations.constants
        raise LayoutError("the debug information describes no jemalloc that is known")


def _with_threads(
    target: Target, memory: Memory, layout: Layout, heads: Callable[[], Iterable[int]]
) -> Layout:
    """``layout`` with the caches of threads, where arenas do not list them.

    ``heads`` gives the words that may point at the first thread's data.
    """
    if keeps_statistics(memory, layout.arena):
        return layout
    threads = find_thread_caches(memory, layout.tcache, heads(), target.thread_pointers)
    return replace(layout, threads=threads)


def _holds(module: Module, address: int) -> bool:
    return any(s.start <= address < s.end for s in module.sections)


def _no_jemalloc(
    target: Target, memory: Memory, modules: Sequence[Module], mappings: Sequence[Mapping]
) -> NoJemalloc:
    if not modules:
        return NoJemalloc(
            "no program file is loaded, so jemalloc cannot be looked for",
            "load it with gdb's 'file PROGRAM', lldb's 'target create PROGRAM', or --exe PROGRAM",
        )
    opened = {m.path for m in mappings for module in modules if overlaps(m, module)}
    missing = sorted({m.path for m in mappings if ".so" in m.path} - opened)
    if missing:
        listed = ", ".join(missing[:4]) + (" ..." if len(missing) > 4 else "")
        return NoJemalloc(
            f"no jemalloc in the {len(modules)} files that could be opened; not opened, as they"
            f" are missing or not the ones this process ran: {listed}",
            f"give the directory that holds them with {SYSROOT}",
        )
    return NoJemalloc(
        f"no jemalloc in this process: none of its {len(modules)} files holds"
        " jemalloc's messages, symbols or size classes",
        other_allocator(target, memory, modules, mappings)
        or "it may use another allocator, as glibc's malloc",
    )
