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
from functools import cache, cached_property, lru_cache
from itertools import islice, product
from operator import sub
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

from drain_gdb.debuggee.protocol import Section
from drain_gdb.errors import LayoutError
from drain_gdb.layout.bins import (
    LG_PAGES,
    BinInfo,
    bin_infos_by_formula,
    bin_run,
    bins_of,
)
from drain_gdb.layout.build import (
    Roots,
    StructSource,
    arena_layout,
    base_index,
    bin_info_layout,
    bin_layout,
    build,
    extent_layout,
    require,
    rtree_layout,
    rtree_root,
    tcache_layout,
)
from drain_gdb.layout.discover import (
    ArenaShape,
    extent_places,
    find_arenas,
    find_bin_infos,
    find_rtree,
    in_base_blocks,
    slab_sizes,
)
from drain_gdb.layout.model import Declarations, Model, load_all, nearest
from drain_gdb.layout.parameters import LG_MAXREGS, LG_VADDRS, Parameters
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    BinLayout,
    CacheLayout,
    ExtentLayout,
    Layout,
    RtreeLayout,
)
from drain_gdb.memory import CACHE_PAGE, WORD, Block, Memory

LOCKS = (40, 48)
"""sizeof(pthread_mutex_t): 48 on aarch64 with glibc, else 40 (bits/pthreadtypes-arch.h)."""
TAGS = 64
"""Extents of every version stand at cache lines; the bits below are tags of leaf elements."""

PAGES = tuple(Parameters(lg_page, 4, 48) for lg_page in LG_PAGES)
"""A build of each page size: bin_info_t has the shape of a bitmap in it (bitmap.h)."""
USUAL_BUILDS = tuple((lg_page, lg_quantum) for lg_quantum in (4, 3) for lg_page in (12, 16, 14))
SLABS_LOOK = 1 << 10
UNUSED = "it may not have been used yet, or be of a form that is not known"
EXTENT_ALIGNMENT = 128
"""EDATA_ALIGNMENT (edata.h)."""
NODES_LOOK = 64
"""Nodes below the root that are looked at to say why the tree is none; heaps have few."""

STRUCTS = ("size classes", "extents", "arenas", "thread caches")
"""What is told apart: :attr:`Layout.forms` says of each which declarations it is of."""

Form = TypeVar("Form")
Named = Iterator[Tuple[str, Form]]
"""The forms of a struct, each once, with the name of the newest declarations that have it."""


ArenaForm = Tuple[Parameters, ArenaLayout, BinLayout]


class SizeClasses(NamedTuple):
    """``bin_infos``: its form and where it is, both None where it is not to be found.

    ``builds`` are the ``(lg_page, lg_quantum)`` that it allows, one unless it is missing.
    """

    form: Optional[str]
    info: Optional[BinInfoLayout]
    builds: Sequence[Tuple[int, int]]


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
    """The forms that the structs of the jemalloc in ``module`` may have, and what is certain."""

    def __init__(
        self,
        memory: Memory,
        module: str,
        version: Optional[str],
        variables: Variables,
        places: Places,
    ) -> None:
        self.module = module
        self.variables = variables
        self.places = places
        self._memory = memory
        self._version = version

    @cached_property
    def size_classes(self) -> SizeClasses:
        """The table of size classes, and what follows from it."""
        forms = list(self._forms(_bin_info, PAGES))
        shapes = [shape for _, shape in forms]
        at = self.places.bin_infos
        try:
            if at is None:
                found = find_bin_infos(self._memory, self.variables.all(), shapes)
                placed = [found]
            else:
                placed = [replace(shape, address=at) for shape in shapes]
            run = bin_run(self._memory, placed)
        except LayoutError:
            run = None
        if run is None:
            return SizeClasses(None, None, USUAL_BUILDS)
        known = replace(run.info, address=0)
        name = next(name for name, shape in forms if replace(shape, address=0) == known)
        build = run.parameters.lg_page, run.parameters.lg_quantum
        return SizeClasses(name, run.info, [build])

    def bins(self, parameters: Parameters) -> List[BinInfo]:
        """The size classes with slabs of a build, repaired where they are damaged."""
        return bins_of(self._memory, self.size_classes.info, parameters)

    def with_quantum(self, extent: ExtentLayout) -> Parameters:
        """The build, its quantum by the sizes of slabs where ``bin_infos`` does not say it."""
        rtree, known = self.tree
        if self.size_classes.info is not None:
            return known
        seen = list(islice(slab_sizes(self._memory, rtree, extent), SLABS_LOOK))

        def agreeing(lg_quantum: int) -> int:
            bins = bin_infos_by_formula(replace(known, lg_quantum=lg_quantum))
            return sum(s < len(bins) and bins[s].slab_size == size for s, size in seen)

        return replace(known, lg_quantum=max((4, 3, 5), key=agreeing))

    @cached_property
    def tree(self) -> Tuple[RtreeLayout, Parameters]:
        """The tree's root, and the parameters it is of but for the size of a lock."""
        refused: List[LayoutError] = []
        likeliest = nearest(self._version)[0]
        sections, words = self.variables.sections, self.variables.words
        if self.places.rtree is not None:
            own = self.places.rtree
            sections = [own]
            words = list(self._memory.block(own.start, own.end - own.start).nonzero_words())
        for (lg_page, lg_quantum), lg_vaddr in product(self.size_classes.builds, LG_VADDRS):
            parameters = Parameters(lg_page, lg_quantum, lg_vaddr)
            source = Model(likeliest, parameters)
            shape = rtree_layout(source, 0, parameters)
            whole = shape.pointer_mask | CACHE_PAGE - 1
            any_tags = replace(shape, pointer_mask=whole & -TAGS)
            extent = extent_layout(source, parameters)
            try:
                found = find_rtree(self._memory, words, sections, any_tags, extent)
            except LayoutError as error:
                refused.append(error)
                continue
            return found, self._with_maxregs(found, parameters)
        raise LayoutError(refused[0].message, self._why())

    def _with_maxregs(self, rtree: RtreeLayout, known: Parameters) -> Parameters:
        """With the regions a slab may have, where the form of ``bin_infos`` says: more than usual.

        The bitmap of an extent is for that many, and extents stand one beside the other.
        """
        info = self.size_classes.info
        usual = [shape for _, shape in self._forms(_bin_info, (known,))]
        if info is None or replace(info, address=0) in usual:
            return known
        places = sorted(set(islice(extent_places(self._memory, rtree), SLABS_LOOK)))
        apart = min(map(sub, places[1:], places), default=0)
        for lg_maxregs in LG_MAXREGS:
            parameters = replace(known, lg_maxregs=lg_maxregs)
            extent = extent_layout(Model(nearest(self._version)[0], parameters), parameters)
            if extent.size <= apart < extent.size + EXTENT_ALIGNMENT:
                return parameters
        return known

    def _why(self) -> str:
        """Why the tree may not have been found."""
        missing = self.variables.missing
        own = self.places.rtree
        if missing:
            return f"{missing} bytes of its variables could not be read"
        if own is not None:
            lg_page, lg_quantum = self.size_classes.builds[0]
            parameters = Parameters(lg_page, lg_quantum, LG_VADDRS[0])
            root = rtree_root(Model(nearest(self._version)[0], parameters))
            words = self._memory.block(own.start + root.offset, root.size).nonzero_words()
            nodes = [word for _, word in islice(words, NODES_LOOK)]
            lost = [node for node in nodes if not self._memory.readable(node)]
            if lost:
                return (
                    f"{len(lost)} of the {len(nodes)} nodes that its root leads to cannot be"
                    " read whole"
                )
        return UNUSED

    def assemble(self, declarations: Declarations) -> Layout:
        """The layout with every struct of ``declarations``.

        Without a table of arenas where none of that form are found.
        """
        found, known = self.tree
        parameters = self.with_quantum(extent_layout(Model(declarations, known), known))
        bins = self.bins(parameters)
        builds = self.builds(parameters)
        table = self.places.arenas
        for each in builds:
            source = Model(declarations, each)
            arena, own_bins = arena_layout(source, None), bin_layout(source)
            shape = ArenaShape(arena, own_bins, bins, extent_layout(source, each))
            try:
                table = self.table(shape, self.variables.words)
            except LayoutError:
                continue
            parameters = each
            break
        layout = self._build(declarations, parameters, found.root, table)
        return replace(layout, forms=dict.fromkeys(STRUCTS, declarations.name))

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
        likeliest = nearest(self._version)[0]
        return self._build(likeliest, parameters, found.root, self.places.arenas)

    def _build(
        self, declarations: Declarations, parameters: Parameters, root: int, table: Optional[int]
    ) -> Layout:
        info = self.size_classes.info
        return build(
            Model(declarations, parameters),
            Roots(root, table, None if info is None else info.address),
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
        for name, (rtree, extent) in self._forms(_tree, (parameters,)):
            yield name, (replace(rtree, root=found.root), extent)

    def builds(self, known: Parameters) -> List[Parameters]:
        """The builds that the tree does not tell apart: by the size of a lock and a huge page."""
        # What one page of the kernel's table of pages maps, unless configure found no such.
        huge = dict.fromkeys((known.lg_hugepage, 2 * known.lg_page - 3))
        return [replace(known, lock_bytes=lock, lg_hugepage=lg) for lg in huge for lock in LOCKS]

    def arenas(self, known: Parameters) -> Named[ArenaForm]:
        """Of ``arena_t`` and its bins, in any of the builds; the table still to be found."""
        return self._forms(_arena, self.builds(known))

    def caches(self, known: Parameters) -> Named[CacheLayout]:
        """Of ``tcache_t`` and its cache bins."""
        return self._forms(_cache, self.builds(known))

    def bases(self, known: Parameters) -> Named[BaseForm]:
        """Of ``base_t``."""
        return self._forms(_base, self.builds(known))

    def _forms(self, make: Make[Form], builds: Sequence[Parameters]) -> Named[Form]:
        known: _Forms[Form] = _forms(make, tuple(builds), self._version)
        return iter(known)


Make = Callable[[StructSource, Parameters], Form]


def _bin_info(source: StructSource, _: Parameters) -> BinInfoLayout:
    return bin_info_layout(source, 0)


def _tree(source: StructSource, parameters: Parameters) -> Tuple[RtreeLayout, ExtentLayout]:
    return rtree_layout(source, 0, parameters), extent_layout(source, parameters)


def _arena(source: StructSource, parameters: Parameters) -> ArenaForm:
    return parameters, arena_layout(source, None), bin_layout(source)


def _cache(source: StructSource, _: Parameters) -> CacheLayout:
    return tcache_layout(source)


def _base(source: StructSource, _: Parameters) -> BaseForm:
    base = require(source, "base_s")
    figures = map(base.offset, ("blocks", "allocated", "resident", "mapped"))
    return BaseForm(base_index(base), *figures)


class _Forms(Generic[Form]):
    """The distinct forms that ``make`` gives, nearest to a version first, each made once."""

    def __init__(
        self, make: Make[Form], builds: Sequence[Parameters], version: Optional[str]
    ) -> None:
        self._make = make
        self._made: List[Tuple[str, Form]] = []
        self._seen: Set[str] = set()
        # What was looked at of declarations, in a build, which gives what it gave before.
        self._known: Dict[Parameters, List[Mapping[str, int]]] = {build: [] for build in builds}
        self._rest = iter(product(nearest(version), builds))

    def __iter__(self) -> Named[Form]:
        row = 0
        while row < len(self._made) or self._more():
            yield self._made[row]
            row += 1

    def _more(self) -> bool:
        for declarations, parameters in self._rest:
            if self._is_known(declarations, parameters):
                continue
            model = Model(declarations, parameters)
            form = self._make(model, parameters)
            self._known[parameters].append(model.asked)
            shown = repr(form)
            if shown not in self._seen:
                self._seen.add(shown)
                self._made.append((declarations.name, form))
                return True
        return False

    def _is_known(self, declarations: Declarations, parameters: Parameters) -> bool:
        forms = declarations.forms
        return any(
            all(forms.get(name, 0) == form for name, form in asked.items())
            for asked in self._known[parameters]
        )


@lru_cache(maxsize=64)
def _forms(make: Any, builds: Tuple[Parameters, ...], version: Optional[str]) -> Any:
    """One :class:`_Forms` for every search of this process that asks the same."""
    return _Forms(make, builds, version)


@cache
def size_class_shapes() -> Tuple[BinInfoLayout, ...]:
    """Every form of ``bin_info_t`` there was, each once, for builds of each page size."""
    found = (bin_info_layout(Model(each, pages), 0) for each in load_all() for pages in PAGES)
    return tuple(dict.fromkeys(found))
