"""What each struct of one jemalloc may be, by itself: for evidence to choose from.

Layouts change by commit, not by release, and a build may be of any commit, or have none
that it says.  So each struct is a piece of its own: of every form that it ever had, those
of the nearest commits first.  What the forms have in common is found without knowing the
form: in all of them an extent begins with ``e_bits``, ``e_addr`` and ``e_size_esn``
(extent_structs.h 5.0.0, edata.h 5.3.1), and what jemalloc makes for itself stands in base
blocks: arenas, extents and the tree's nodes side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import (
    Callable,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from drain_gdb.debuggee.protocol import Section
from drain_gdb.errors import LayoutError
from drain_gdb.layout.bins import LG_PAGES, BinInfo, read_bin_infos
from drain_gdb.layout.build import (
    Roots,
    StructSource,
    arena_layout,
    bin_info_layout,
    bin_layout,
    build,
    extent_layout,
    first_of,
    require,
    rtree_layout,
    tcache_layout,
)
from drain_gdb.layout.discover import (
    ArenaShape,
    find_arenas,
    find_bin_infos,
    find_rtree,
    in_base_blocks,
)
from drain_gdb.layout.model import Declarations, Model
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    BinLayout,
    CacheLayout,
    ExtentLayout,
    Layout,
    RtreeLayout,
)
from drain_gdb.memory import WORD, Block, Memory

LG_VADDRS = (48, 57, 64, 52, 47)
"""Widths of addresses that configure.ac finds, the frequent ones first."""
LOCKS = (40, 48)
"""sizeof(pthread_mutex_t): 48 on aarch64 with glibc, else 40 (bits/pthreadtypes-arch.h)."""
TAGS = 64
"""Extents of every version stand at cache lines; the bits below are tags of leaf elements."""

PAGES = tuple(Parameters(lg_page, 4, 48) for lg_page in LG_PAGES)
"""A build of each page size: bin_info_t has the shape of a bitmap in it (bitmap.h)."""
UNUSED = "it may not have been used yet, or be of a form that is not known"
NODES_LOOK = 64
"""Nodes below the root that are looked at to say why the tree is none; heaps have few."""

STRUCTS = ("size classes", "extents", "arenas", "thread caches")
"""What is told apart: :attr:`Layout.forms` says of each which declarations it is of."""

Form = TypeVar("Form")
Named = Iterator[Tuple[str, Form]]
"""The forms of a struct, each once, with the name of the newest declarations that have it."""


ArenaForm = Tuple[Parameters, ArenaLayout, BinLayout]


class SizeClasses(NamedTuple):
    """``bin_infos``: its form, where it is, what it says, and the parameters that follow."""

    form: str
    info: BinInfoLayout
    bins: List[BinInfo]
    lg_page: int
    lg_quantum: int


class BaseForm(NamedTuple):
    """Where a ``base_t`` (base.h) has the index of its ``arena``, its blocks and accounts."""

    arena: int
    blocks: int
    allocated: int
    resident: int
    mapped: int


@dataclass(frozen=True)
class Places:
    """Where variables are, as far as symbols tell.

    Attributes:
        rtree: the variable that holds the tree; a section of its own.
        arenas, bin_infos: addresses.
        prefix: of the symbols.
        found_by: ``symbols`` or ``discovered``.
    """

    rtree: Optional[Section] = None
    arenas: Optional[int] = None
    bin_infos: Optional[int] = None
    prefix: Optional[str] = None
    found_by: str = "discovered"


class Variables:
    """The variables and constants of a module, read once for all candidates."""

    def __init__(self, memory: Memory, sections: Sequence[Section]) -> None:
        self.sections = [s for s in sections if s.writable]
        self._constants = [s for s in sections if s.constant]
        self._memory = memory

    @cached_property
    def blocks(self) -> List[Block]:
        """The writable sections."""
        return [self._memory.block(s.start, s.end - s.start) for s in self.sections]

    def all(self) -> Iterator[Block]:
        """The variables, then, if need be, the constants: bin_infos lies there before 5.2."""
        yield from self.blocks
        for section in self._constants:
            yield self._memory.block(section.start, section.end - section.start)

    @cached_property
    def words(self) -> List[Tuple[int, int]]:
        """``(address, word)`` of each non-zero word of the variables that began as zeros.

        These are all that is looked for but bin_infos; of all variables where none are
        known to have begun so.
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


class Pieces:
    """The forms that the structs of the jemalloc in ``module`` may have, and what is certain.

    ``declarations`` gives all there are, likeliest first.
    """

    def __init__(
        self,
        memory: Memory,
        module: str,
        version: Optional[str],
        variables: Variables,
        places: Places,
        declarations: Callable[[], Iterable[Declarations]],
    ) -> None:
        self.module = module
        self.variables = variables
        self.places = places
        self._memory = memory
        self._version = version
        self._declarations = declarations

    @cached_property
    def size_classes(self) -> SizeClasses:
        """The table of size classes, and what follows from it."""
        forms = list(self._forms(lambda source, _: bin_info_layout(source, 0), PAGES))
        shapes = [shape for _, shape in forms]
        at = self.places.bin_infos
        if at is None:
            found = find_bin_infos(self._memory, self.variables.all(), shapes)
        else:
            placed = [replace(shape, address=at) for shape in shapes]
            found = next((s for s in placed if _is_there(self._memory, s)), placed[0])
        name = next(name for name, shape in forms if replace(shape, address=found.address) == found)
        return SizeClasses(name, found, *read_bin_infos(self._memory, [found]))

    @cached_property
    def tree(self) -> Tuple[RtreeLayout, Parameters]:
        """The tree's root, and the parameters it is of but for the size of a lock."""
        classes = self.size_classes
        refused: List[LayoutError] = []
        nearest = next(iter(self._declarations()))
        sections, words = self.variables.sections, self.variables.words
        if self.places.rtree is not None:
            own = self.places.rtree
            sections = [own]
            words = list(self._memory.block(own.start, own.end - own.start).nonzero_words())
        # A huge page is what one page of the kernel's table of pages maps.
        for lg_vaddr in LG_VADDRS:
            parameters = Parameters(
                classes.lg_page, classes.lg_quantum, lg_vaddr, lg_hugepage=2 * classes.lg_page - 3
            )
            source = Model(nearest, parameters)
            shape = rtree_layout(source, 0, parameters)
            any_tags = replace(shape, pointer_mask=shape.pointer_mask & -TAGS)
            extent = extent_layout(source, parameters)
            try:
                found = find_rtree(self._memory, words, sections, any_tags, extent)
            except LayoutError as error:
                refused.append(error)
                continue
            return found, parameters
        raise LayoutError(refused[0].message, self._why())

    def _why(self) -> str:
        """Why the tree may not have been found."""
        missing = self.variables.missing
        own = self.places.rtree
        if missing:
            return f"{missing} bytes of its variables could not be read"
        if own is not None:
            words = self._memory.block(own.start, own.end - own.start).nonzero_words()
            nodes = [word for _, word in islice(words, NODES_LOOK) if word % TAGS == 0]
            lost = [node for node in nodes if not self._memory.readable(node)]
            if lost:
                return f"{len(lost)} of the {len(nodes)} nodes of its root cannot be read"
        return UNUSED

    def assemble(self, declarations: Declarations) -> Layout:
        """The layout with every struct of ``declarations``; LayoutError where they do not fit."""
        classes = self.size_classes
        found, unlocked = self.tree
        refused: List[LayoutError] = []
        for lock in LOCKS:
            parameters = replace(unlocked, lock_bytes=lock)
            source = Model(declarations, parameters)
            shape = ArenaShape(
                arena_layout(source, 0),
                bin_layout(source),
                classes.bins,
                extent_layout(source, parameters),
            )
            try:
                arenas = self.table(shape, self.variables.words)
            except LayoutError as error:
                refused.append(error)
                continue
            roots = Roots(found.root, arenas, classes.info.address)
            layout = self._build(declarations, parameters, roots)
            return replace(layout, forms=dict.fromkeys(STRUCTS, declarations.name))
        raise refused[0]

    def table(self, shape: ArenaShape, words: Sequence[Tuple[int, int]]) -> int:
        """The address of ``arenas``, if there are arenas of that shape.

        Without symbols, of ``words`` one must point at an arena.
        """
        table = self.places.arenas
        if table is None:
            return find_arenas(self._memory, words, shape)
        entries = self._memory.words(table, shape.arena.table_size)
        own = [(table + WORD * index, word) for index, word in enumerate(entries) if word]
        if find_arenas(self._memory, own, shape) != table:
            raise LayoutError(f"no arena of that form is in the table at {table:#x}")
        return table

    @cached_property
    def near_words(self) -> List[Tuple[int, int]]:
        """The variables that may point at arenas, which stand beside the tree's nodes."""
        return in_base_blocks(self._memory, self.variables.words, self.tree[0])

    def draft(self) -> Layout:
        """The layout with all structs of the likeliest declarations, of which none is certain."""
        found, parameters = self.tree
        roots = Roots(found.root, 0, self.size_classes.info.address)
        return self._build(next(iter(self._declarations())), parameters, roots)

    def _build(self, declarations: Declarations, parameters: Parameters, roots: Roots) -> Layout:
        return build(
            Model(declarations, parameters),
            roots,
            parameters,
            found_by=self.places.found_by,
            module=self.module,
            version=self._version,
            prefix=self.places.prefix,
        )

    # -- every form of each struct ----------------------------------------------------

    def trees(self) -> Named[Tuple[RtreeLayout, ExtentLayout]]:
        """Of a leaf's elements and of extents (``edata_t``, ``extent_t`` before 5.3)."""
        found, parameters = self.tree

        def make(source: StructSource, p: Parameters) -> Tuple[RtreeLayout, ExtentLayout]:
            return rtree_layout(source, found.root, p), extent_layout(source, p)

        return self._forms(make, [parameters])

    def arenas(self) -> Named[ArenaForm]:
        """Of ``arena_t`` and its bins, for either size of a lock; the table still to be found."""
        builds = [replace(self.tree[1], lock_bytes=lock) for lock in LOCKS]
        return self._forms(
            lambda source, p: (p, arena_layout(source, 0), bin_layout(source)), builds
        )

    def caches(self) -> Named[CacheLayout]:
        """Of ``tcache_t`` and its cache bins, for either size of a lock."""
        builds = [replace(self.tree[1], lock_bytes=lock) for lock in LOCKS]
        return self._forms(lambda source, _: tcache_layout(source), builds)

    def bases(self) -> Named[BaseForm]:
        """Of ``base_t``, for either size of a lock."""

        def make(source: StructSource, _: Parameters) -> BaseForm:
            base = require(source, "base_s")
            # From 5.3 on the first member of ehooks_t (ehooks.h).
            index = first_of(base, "ind", "ehooks").offset
            names = ("blocks", "allocated", "resident", "mapped")
            return BaseForm(index, *map(base.offset, names))

        return self._forms(make, [replace(self.tree[1], lock_bytes=lock) for lock in LOCKS])

    def _forms(
        self, make: Callable[[StructSource, Parameters], Form], builds: Sequence[Parameters]
    ) -> Named[Form]:
        seen: List[Form] = []
        for declarations in self._declarations():
            for parameters in builds:
                form = make(Model(declarations, parameters), parameters)
                if form not in seen:
                    seen.append(form)
                    yield declarations.name, form


def size_class_shapes(every: Iterable[Declarations]) -> List[BinInfoLayout]:
    """Every form of ``bin_info_t``, each once, for builds of each page size."""
    found = [bin_info_layout(Model(each, pages), 0) for each in every for pages in PAGES]
    return list(dict.fromkeys(found))


def _is_there(memory: Memory, shape: BinInfoLayout) -> bool:
    try:
        read_bin_infos(memory, [shape])
    except LayoutError:
        return False
    return True
