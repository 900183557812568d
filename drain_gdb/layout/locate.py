"""Find the jemallocs of a process, by the surest way each allows.

The ladder: debug information; a symbol table with the structs of that version;
no symbols, the variables discovered by their shape.  Which rung held is said in
:attr:`Layout.source`, what was tried before in :attr:`Layout.notes`.
"""

from __future__ import annotations

import re
from typing import List, Optional, Sequence, Tuple

from drain_gdb.errors import LayoutError, NoJemalloc, UnreadableMemory
from drain_gdb.layout.build import (
    Roots,
    StructSource,
    arena_layout,
    bin_info_layout,
    build,
    extent_layout,
    parameters_from,
    require,
    rtree_layout,
)
from drain_gdb.layout.discover import (
    LG_PAGES,
    find_arenas,
    find_bin_infos,
    find_rtree,
    read_bin_infos,
    rtree_agrees,
)
from drain_gdb.layout.model import Declarations, Model, known_releases, load_all
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import Layout
from drain_gdb.layout.serialize import from_value
from drain_gdb.layout.versions import VERSION, release_of
from drain_gdb.memory import BULK_CHUNK, Memory
from drain_gdb.target.identity import overlaps, require_program, require_same_file
from drain_gdb.target.protocol import Mapping, Module, Struct, Symbol, Target

RTREE_SYMBOL = "arena_emap_global"
"""arena.c, 5.3.0: the emap_t whose only member is the rtree."""
VERSION_OVERLAP = 64
UNUSED = "it may not have been used yet, or differ from the build this version usually is"


def locate(target: Target, memory: Memory) -> List[Layout]:
    """Every jemalloc of the process, at least one.

    Raises :class:`NoJemalloc` where there is none and :class:`LayoutError` where
    one is present but of a version, or in a state, that is not understood.  A
    recording has them from when it was made.
    """
    recorded = target.layouts()
    if recorded is not None:
        return [from_value(value) for value in recorded]
    modules, mappings = target.modules(), target.mappings()
    require_program(target.process(), modules, mappings)
    found: List[Layout] = []
    refused: List[LayoutError] = []
    symbols = target.symbols(RTREE_SYMBOL)
    for module in modules:
        version = find_version(memory, module)
        own = [s for s in symbols if _holds(module, s.address)]
        if version is None and not own:
            continue
        require_same_file(memory, module, mappings)
        try:
            found.append(_locate_in(target, memory, module, version, own))
        except LayoutError as error:
            refused.append(error)
    if found:
        return found
    if refused:
        raise refused[0]
    raise _no_jemalloc(modules, mappings)


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


def _locate_in(
    target: Target,
    memory: Memory,
    module: Module,
    version: Optional[str],
    symbols: Sequence[Symbol],
) -> Layout:
    notes: List[str] = []
    for symbol in symbols:
        prefix = symbol.name[: -len(RTREE_SYMBOL)]
        try:
            return _from_symbols(target, memory, module, version, symbol, prefix)
        except LayoutError as error:
            notes.append(f"symbols with prefix {prefix or '(none)'!r}: {error}")
    if version is None:
        raise LayoutError(notes[-1])
    return _discover(memory, module, version, notes)


def _from_symbols(
    target: Target,
    memory: Memory,
    module: Module,
    version: Optional[str],
    symbol: Symbol,
    prefix: str,
) -> Layout:
    """The jemalloc whose rtree is ``symbol``, by debug information or the model."""

    def address(name: str) -> int:
        other = target.symbol(prefix + name)
        if other is not None and _holds(module, other.address):
            return other.address
        raise LayoutError(f"{prefix}{RTREE_SYMBOL} is there, {prefix}{name} is not")

    def shown(name: str) -> Optional[Struct]:
        return target.struct(name, symbol)

    bin_infos, arenas = address("bin_infos"), address("arenas")
    typed = shown("arena_s") is not None
    declarations = None if typed else _declarations(version)
    source: StructSource = shown
    length = require(shown, "emap_s").find("rtree.root").count if typed else None
    infos = [bin_info_layout(s, bin_infos) for s in ([shown] if typed else _models(declarations))]
    _, lg_page, lg_quantum = read_bin_infos(memory, infos)
    for parameters in parameters_from(lg_page, lg_quantum, length):
        if declarations is not None:
            source = Model(declarations, parameters).struct
        root = symbol.address + require(source, "emap_s").offset("rtree.root")
        rtree, extent = rtree_layout(root, parameters), extent_layout(source, parameters)
        if typed or rtree_agrees(memory, rtree, extent):
            return build(
                source,
                Roots(root, arenas, bin_infos),
                parameters,
                found_by="dwarf" if typed else "symbols",
                module=module.path,
                version=version,
                prefix=prefix,
            )
    raise LayoutError(f"the rtree at {symbol.address:#x} fits no known width of addresses", UNUSED)


def _models(declarations: Optional[Declarations]) -> List[StructSource]:
    """The structs of a version, for each page size that may lay them out differently."""
    if declarations is None:
        return []
    return [Model(declarations, Parameters(lg_page, 4, 48)).struct for lg_page in LG_PAGES]


def _declarations(version: Optional[str]) -> Declarations:
    for declarations in load_all():
        if version is not None and declarations.release == release_of(version):
            return declarations
    releases = ", ".join(known_releases())
    raise LayoutError(
        f"jemalloc {release_of(version) if version else 'of unknown version'} without"
        f" debug information is not supported (known without it: {releases})",
        "load the debug information of this build, if there is any",
    )


def _discover(memory: Memory, module: Module, version: str, notes: Sequence[str]) -> Layout:
    """The jemalloc in ``module`` without a symbol, by the shape of its variables."""
    declarations = _declarations(version)
    sections = [s for s in module.sections if s.writable]
    blocks = [memory.block(s.start, s.end - s.start) for s in sections]
    words: List[Tuple[int, int]] = [w for block in blocks for w in block.nonzero_words()]
    try:
        shapes = [bin_info_layout(source, 0) for source in _models(declarations)]
        infos = find_bin_infos(memory, blocks, shapes)
        bins, lg_page, lg_quantum = read_bin_infos(memory, [infos])
        rejected: List[LayoutError] = []
        for parameters in parameters_from(lg_page, lg_quantum, None):
            source = Model(declarations, parameters).struct
            extent = extent_layout(source, parameters)
            try:
                rtree = find_rtree(memory, words, sections, rtree_layout(0, parameters), extent)
            except LayoutError as error:
                rejected.append(error)
                continue
            arena = find_arenas(memory, words, arena_layout(source, 0), source, bins, extent)
            return build(
                source,
                Roots(rtree.root, arena.table, infos.address),
                parameters,
                found_by="discovered",
                module=module.path,
                version=version,
                prefix=None,
                notes=notes,
            )
        raise rejected[0]
    except LayoutError as error:
        missing = sum(block.missing for block in blocks)
        why = f"{missing} bytes of its variables could not be read" if missing else UNUSED
        raise LayoutError(
            f"jemalloc {release_of(version)} in {module.path}: {error.message}", why
        ) from None


def _holds(module: Module, address: int) -> bool:
    return any(s.start <= address < s.end for s in module.sections)


def _no_jemalloc(modules: Sequence[Module], mappings: Sequence[Mapping]) -> NoJemalloc:
    if not modules:
        return NoJemalloc(
            "no program file is loaded, so jemalloc cannot be looked for",
            "load it with gdb's 'file PROGRAM', or give --exe PROGRAM",
        )
    opened = {m.path for m in mappings for module in modules if overlaps(m, module)}
    missing = sorted({m.path for m in mappings if ".so" in m.path} - opened)
    if missing:
        listed = ", ".join(missing[:4]) + (" ..." if len(missing) > 4 else "")
        return NoJemalloc(
            f"no jemalloc in the {len(modules)} files that could be opened; not opened: {listed}",
            "give the directory that holds them with gdb's 'set sysroot DIR'",
        )
    return NoJemalloc(
        f"no jemalloc in this process: none of its {len(modules)} files holds"
        " jemalloc's version string",
        "it may use another allocator, such as glibc's malloc",
    )
