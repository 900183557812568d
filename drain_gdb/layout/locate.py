"""Find the jemallocs of a process, by the surest way each allows.

The ladder: debug information; a symbol table with the structs of that version;
no symbols, the variables discovered by their shape.  On each rung the structs of
the version come first, then those of the nearest ones.  A candidate is accepted
only once the walk verifies it (jemalloc/find.py).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice, product
from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.identity import SYSROOT, overlaps, require_program, require_same_file
from drain_gdb.debuggee.protocol import Mapping, Module, Struct, Symbol, Target
from drain_gdb.errors import LayoutError, NoJemalloc, UnreadableMemory
from drain_gdb.layout.bins import LG_PAGES, bins_of, read_bin_infos
from drain_gdb.layout.build import (
    Roots,
    StructSource,
    bin_info_layout,
    build,
    extent_layout,
    parameters_from,
    rtree_layout,
    rtree_root,
)
from drain_gdb.layout.discover import (
    find_arenas,
    find_bin_infos,
    find_rtree,
    rtree_agrees,
)
from drain_gdb.layout.model import Declarations, Model, load_all
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import BinInfoLayout, Layout, RtreeLayout
from drain_gdb.layout.serialize import from_value
from drain_gdb.layout.sparse import element_size
from drain_gdb.layout.threads import find_thread_caches, keeps_statistics
from drain_gdb.layout.versions import UNVERSIONED, VERSION, commits_since, release_key, release_of
from drain_gdb.memory import BULK_CHUNK, WORD, Block, Memory

RTREE_SYMBOLS = ("arena_emap_global", "extents_rtree")
"""The rtree's variable: an emap_t (arena.c, from 5.3), an rtree_t (extent.c, before)."""
BIN_INFO_SYMBOLS = ("bin_infos", "arena_bin_info")
"""The size classes (bin_info.c from 5.2, bin.c in 5.1; arena.c in 5.0)."""
CHUNKS_SYMBOL = "chunks_rtree"
"""What jemalloc 4.x and older have instead of an rtree of extents (chunk.c)."""
THREADS_SYMBOL = "tsd_nominal_tsds"
"""The ring of threads (tsd.c); its name has no prefix."""
VERSION_OVERLAP = 64
OLDEST = (5, 0, 0)
OTHERS = re.compile("tcmalloc|mimalloc|hoard|snmalloc|scudo")
"""Allocators that a process may use instead, by the names of their libraries."""
UNUSED = "it may not have been used yet, or differ from the build this version usually is"

NODES_LOOK = 64
"""Nodes below the root that are looked at to say why the tree is none; heaps have few."""


@dataclass(frozen=True)
class Candidate:
    """A way that one jemalloc might be understood.

    Attributes:
        how: in words, for the notes on what was tried.
        locate: gives its layout; raises :class:`LayoutError` where it does not fit.
    """

    how: str
    locate: Callable[[], Layout]


@dataclass(frozen=True)
class Allocator:
    """A jemalloc of the process, and the candidates for its layout, surest first."""

    module: str
    version: Optional[str]
    candidates: Tuple[Candidate, ...]


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
    found: List[Allocator] = []
    refused: List[LayoutError] = []
    symbols = target.symbols(*RTREE_SYMBOLS, THREADS_SYMBOL, CHUNKS_SYMBOL)
    for module in modules:
        said = find_version(memory, module)
        named = [s for s in symbols if _holds(module, s.address)]
        own = [s for s in named if s.name.endswith(RTREE_SYMBOLS)]
        threads = next((s.address for s in named if s.name.endswith(THREADS_SYMBOL)), None)
        chunks = any(s.name.endswith(CHUNKS_SYMBOL) for s in named)
        if said is None and not own and not chunks:
            continue
        require_same_file(memory, module, mappings)
        version = None if said is None or release_key(said) == UNVERSIONED else said
        if chunks or (version is not None and release_key(version) < OLDEST):
            release = "4 or older" if version is None else release_of(version)
            refused.append(
                LayoutError(
                    f"jemalloc {release} in {module.path} is not supported",
                    "jemalloc 5.0 and later is: 4.x and older keep runs in chunks, not slabs",
                )
            )
            continue
        for symbol in own:
            candidates = _by_symbols(target, memory, module, version, symbol, threads)
            found.append(Allocator(module.path, version, tuple(candidates)))
        if not own:
            candidates = _by_discovery(target, memory, module, version)
            found.append(Allocator(module.path, version, tuple(candidates)))
    if found:
        return found
    if refused:
        raise refused[0]
    raise _no_jemalloc(modules, mappings)


def _recorded(layout: Layout) -> Allocator:
    candidate = Candidate("as recorded", lambda: layout)
    return Allocator(layout.module, layout.version, (candidate,))


def nearest(version: Optional[str]) -> List[Declarations]:
    """Every layout file, those of ``version`` first, then those of nearby releases."""

    def number(of: str) -> int:
        major, minor, patch = release_key(of)
        return (major * 100 + minor) * 100 + patch

    def distance(declarations: Declarations) -> Tuple[int, int]:
        theirs = declarations.version
        if version is None:
            return 0, 0
        apart = abs(number(version) - number(theirs))
        return apart, abs(commits_since(version) - commits_since(theirs))

    return sorted(load_all(), key=distance)


def find_version(memory: Memory, module: Module) -> Optional[str]:
    """Jemalloc's version string among the module's constants, None without one."""
    for section in module.sections:
        if not section.constant:
            continue
        for start in range(section.start, section.end, BULK_CHUNK):
            size = min(BULK_CHUNK + VERSION_OVERLAP, section.end - start)
            try:
                match = re.search(VERSION, memory.read(start, size))
            except UnreadableMemory:
                continue
            if match is not None:
                return match[0].decode("ascii")
    return None


def _by_symbols(
    target: Target,
    memory: Memory,
    module: Module,
    version: Optional[str],
    symbol: Symbol,
    threads: Optional[int],
) -> Iterator[Candidate]:
    """The candidates for the jemalloc whose rtree is ``symbol``, its threads at ``threads``."""
    ending = next(e for e in RTREE_SYMBOLS if symbol.name.endswith(e))
    prefix = symbol.name[: -len(ending)]
    named = f"symbols with prefix {prefix!r}"

    def from_symbols(declarations: Optional[Declarations]) -> Layout:
        return _from_symbols(target, memory, module, version, symbol, prefix, threads, declarations)

    if target.struct("arena_s", symbol) is not None:
        yield Candidate(f"{named}, debug information", partial(from_symbols, None))
    for declarations in nearest(version):
        how = f"{named}, structs of {declarations.name}"
        yield Candidate(how, partial(from_symbols, declarations))


def _by_discovery(
    target: Target, memory: Memory, module: Module, version: Optional[str]
) -> Iterator[Candidate]:
    """The candidates for the jemalloc in ``module``, which has no symbols."""
    variables = _Variables(memory, module)
    for declarations in nearest(version):
        how = f"no symbols, structs of {declarations.name}"
        found = partial(_discover, target, memory, module, version, declarations, variables)
        yield Candidate(how, found)


def _from_symbols(
    target: Target,
    memory: Memory,
    module: Module,
    version: Optional[str],
    symbol: Symbol,
    prefix: str,
    threads: Optional[int],
    declarations: Optional[Declarations],
) -> Layout:
    """By the structs of ``declarations``, or of the debug information where None."""

    def address(*names: str) -> int:
        for name in names:
            other = target.symbol(prefix + name)
            named = [other] if other is not None else []
            if not any(_holds(module, s.address) for s in named):
                named = [s for s in target.symbols(prefix + name) if s.name == prefix + name]
            for found in named:
                if _holds(module, found.address):
                    return found.address
        raise LayoutError(f"{symbol.name} is there, {prefix}{' or '.join(names)} is not")

    def shown(name: str) -> Optional[Struct]:
        return target.struct(name, symbol)

    def heads() -> List[int]:
        return [] if threads is None else [memory.u64(threads)]

    bin_infos, arenas = address(*BIN_INFO_SYMBOLS), address("arenas")
    source: StructSource = shown
    sources = [shown] if declarations is None else _models(declarations)
    length = rtree_root(shown).count if declarations is None else None
    first: Optional[RtreeLayout] = None
    for parameters in _parameters(memory, [bin_info_layout(s, bin_infos) for s in sources], length):
        if declarations is not None:
            source = Model(declarations, parameters).struct
        root = symbol.address + rtree_root(source).offset
        rtree, extent = rtree_layout(source, root, parameters), extent_layout(source, parameters)
        first = first or rtree
        if declarations is None or rtree_agrees(memory, rtree, extent):
            layout = build(
                source,
                Roots(root, arenas, bin_infos),
                parameters,
                found_by="dwarf" if declarations is None else "symbols",
                module=module.path,
                version=version,
                prefix=prefix,
            )
            return _with_threads(target, memory, layout, heads)
    raise LayoutError(
        f"the rtree at {symbol.address:#x} fits no known width of addresses",
        _lost(memory, first) or UNUSED,
    )


def _parameters(
    memory: Memory, shapes: Sequence[BinInfoLayout], length: Optional[int]
) -> List[Parameters]:
    """The builds that bin_infos allows; without it those there are, the usual ones first."""
    try:
        _, lg_page, lg_quantum = read_bin_infos(memory, shapes)
    except LayoutError:
        builds = product((4, 3), (12, 16, 14))
        return [each for q, page in builds for each in parameters_from(page, q, length)]
    return parameters_from(lg_page, lg_quantum, length)


def _lost(memory: Memory, rtree: Optional[RtreeLayout]) -> Optional[str]:
    """That nodes below the root are not there, as where a core was cut off; None if all are."""
    if rtree is None:
        return None
    root = memory.block(rtree.root, element_size(rtree, 0) << rtree.bits[0])
    nodes = [word for _, word in islice(root.nonzero_words(), NODES_LOOK)]
    end = (element_size(rtree, 1) << rtree.bits[1]) - WORD
    lost = [n for n in nodes if not (memory.readable(n) and memory.readable(n + end))]
    if not lost:
        return None
    return f"{len(lost)} of the {len(nodes)} nodes that its root leads to cannot be read whole"


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


def _models(declarations: Declarations) -> List[StructSource]:
    """The structs of a version, for each page size that may lay them out differently."""
    return [Model(declarations, Parameters(lg_page, 4, 48)).struct for lg_page in LG_PAGES]


class _Variables:
    """The variables and constants of a module, read once for all candidates."""

    def __init__(self, memory: Memory, module: Module) -> None:
        self.sections = [s for s in module.sections if s.writable]
        self._constants = [s for s in module.sections if s.constant]
        self._memory = memory

    @cached_property
    def blocks(self) -> List[Block]:
        """The writable sections."""
        return [self._memory.block(s.start, s.end - s.start) for s in self.sections]

    @cached_property
    def constants(self) -> List[Block]:
        """The sections of constants: bin_infos lies there before 5.2."""
        return [self._memory.block(s.start, s.end - s.start) for s in self._constants]

    @cached_property
    def words(self) -> List[Tuple[int, int]]:
        """``(address, word)`` of each non-zero word of the variables that began as zeros.

        These are all that is looked for but bin_infos; of all variables where the
        module's sections have no such names.
        """
        pairs = zip(self.sections, self.blocks)
        blocks = [block for section, block in pairs if section.zero_initialized] or self.blocks
        return [word for block in blocks for word in block.nonzero_words()]

    def values(self) -> List[int]:
        """The words without their addresses."""
        return [word for _, word in self.words]

    @property
    def missing(self) -> int:
        """Bytes of the variables that could not be read."""
        return sum(block.missing for block in self.blocks)


def _discover(
    target: Target,
    memory: Memory,
    module: Module,
    version: Optional[str],
    declarations: Declarations,
    variables: _Variables,
) -> Layout:
    """By the shape of the variables alone."""
    try:
        shapes = [bin_info_layout(source, 0) for source in _models(declarations)]
        try:
            shapes = [find_bin_infos(memory, [*variables.blocks, *variables.constants], shapes)]
            infos = shapes[0].address
        except LayoutError:
            infos = None
        rejected: List[LayoutError] = []
        for parameters in _parameters(memory, shapes, None):
            source = Model(declarations, parameters).struct
            extent = extent_layout(source, parameters)
            shape = rtree_layout(source, 0, parameters)
            words = variables.words
            try:
                rtree = find_rtree(memory, words, variables.sections, shape, extent)
            except LayoutError as error:
                rejected.append(error)
                continue
            layout = build(
                source,
                Roots(rtree.root, None, infos),
                parameters,
                found_by="discovered",
                module=module.path,
                version=version,
                prefix=None,
            )
            bins = bins_of(memory, layout.bin_info, parameters)
            arena = find_arenas(memory, words, layout.arena, source, bins, extent)
            layout = replace(layout, arena=arena)
            return _with_threads(target, memory, layout, variables.values)
        raise rejected[0]
    except LayoutError as error:
        missing = variables.missing
        why = f"{missing} bytes of its variables could not be read" if missing else UNUSED
        release = "of unknown version" if version is None else release_of(version)
        raise LayoutError(f"jemalloc {release} in {module.path}: {error.message}", why) from None


def _holds(module: Module, address: int) -> bool:
    return any(s.start <= address < s.end for s in module.sections)


def _no_jemalloc(modules: Sequence[Module], mappings: Sequence[Mapping]) -> NoJemalloc:
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
    named = {OTHERS.search(os.path.basename(m.path)): m.path for m in mappings}
    others = [f"{match[0]} ({path})" for match, path in named.items() if match is not None]
    return NoJemalloc(
        f"no jemalloc in this process: none of its {len(modules)} files holds"
        " jemalloc's version string",
        f"it uses {others[0]}" if others else "it may use another allocator, as glibc's malloc",
    )
