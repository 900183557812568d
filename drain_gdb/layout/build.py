"""From structs and the addresses of four variables to a :class:`Layout`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Protocol, Sequence, Tuple

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import LayoutError, MissingField
from drain_gdb.layout.counters import counters_layout
from drain_gdb.layout.parameters import ARENAS_MAX, LG_MAXREGS, LG_VADDRS, WORD_BITS, Parameters
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    BinLayout,
    Bits,
    CacheLayout,
    CountedCaches,
    DecayLayout,
    ExtentLayout,
    Layout,
    Positions,
    RtreeLayout,
    StackedCaches,
)
from drain_gdb.memory import WORD


class StructSource(Protocol):
    """Gives structs by name, None where there is none.

    Attributes:
        constants: what is no struct, as :class:`~drain_gdb.layout.model.Declarations`
            has it.
    """

    @property
    def constants(self) -> Mapping[str, Any]:
        """What macros say."""

    def __call__(self, name: str) -> Optional[Struct]:
        """Struct ``name``."""


TRAILING_JUNK = 0xA7A7A7A7A7A7A7A7
"""What follows the last stack where no constant says it: until 5.2.1-565 (cache_bin.c)."""
COUNTERS = ("nmalloc", "ndalloc", "nrequests", "curregs", "curslabs")
"""Members of ``bin_stats_t`` (bin_stats.h) that the walk compares with what it finds."""
MADE = ("nslabs", "reslabs")
"""Those that say how many slabs were made so far, and how often one was allocated from again."""
LEAF_SZIND_WIDTH = 8
"""Of the size class, behind the other tags in a leaf's second word (rtree.h, 5.3.0)."""
MUTEX_SIZES = (104, 112)
MUTEX_HELD = 64
"""sizeof(malloc_mutex_t) of builds that are not for debugging, and sizeof(mutex_prof_data_t),
which it begins with (mutex.h, 5.0 to 5.3).  Then come the lock, whose first int glibc keeps
zero while it is free, or, from 5.3.1, ``locked``."""
ARENA_MUTEXES = {
    "list of thread caches locked": ("cache_bin_array_descriptor_ql_mtx", "tcache_ql_mtx"),
    "large extents locked": ("large_mtx",),
    "dirty extents locked": ("pa_shard.pac.ecache_dirty.mtx", "extents_dirty.mtx"),
    "muzzy extents locked": ("pa_shard.pac.ecache_muzzy.mtx", "extents_muzzy.mtx"),
    "retained extents locked": ("pa_shard.pac.ecache_retained.mtx", "extents_retained.mtx"),
    "growth of the arena locked": ("pa_shard.pac.grow_mtx", "extent_grow_mtx"),
}
"""An arena's mutexes, in words, and their names, newest first."""
ARENA_DECAYS = {
    "dirty": ("pa_shard.pac.decay_dirty", "decay_dirty"),
    "muzzy": ("pa_shard.pac.decay_muzzy", "decay_muzzy"),
}
"""decay_t (decay.h; arena_structs_b.h before 5.3): a mutex, then ``purging``, which is set
while the mutex is let go for the purge itself, in a word of its own, ``time_ms``, ``interval``
and ``epoch``; the last two are nstime_t, a word in builds that are not for debugging."""
CACHED_STATES = ("dirty", "muzzy", "retained", "pinned")
"""extent_state_t from 1 on (edata.h); the last since mid-2026."""


@dataclass(frozen=True)
class Roots:
    """Addresses of the variables everything else hangs from.

    Attributes:
        rtree: element 0 of the rtree's root array.
        arenas: element 0 of ``arenas``; None where it was not found.
        bin_infos: element 0 of ``bin_infos``; None where it was not found.
    """

    rtree: int
    arenas: Optional[int]
    bin_infos: Optional[int]


def require(source: StructSource, *names: str) -> Struct:
    """The first of the structs ``names`` that the source has; newest name first.

    Raises :class:`LayoutError` where it has none.
    """
    for name in names:
        struct = source(name)
        if struct is not None:
            return struct
    raise LayoutError(f"this jemalloc has no struct {' or '.join(names)}")


def has(struct: Struct, path: str) -> bool:
    """Whether ``struct`` has a member at ``path``."""
    try:
        struct.find(path)
    except MissingField:
        return False
    return True


def first_of(struct: Struct, *paths: str) -> Member:
    """The first of ``paths`` that ``struct`` has; newest name first."""
    found = [path for path in paths[:-1] if has(struct, path)]
    return struct.find(found[0] if found else paths[-1])


def rtree_root(source: StructSource) -> Member:
    """``root`` in the rtree's variable: an emap_t (emap.h, 5.3.0) or an rtree_t."""
    if source("emap_s") is not None:
        return require(source, "emap_s").find("rtree.root")
    return require(source, "rtree_s").find("root")


def rtree_layout(source: StructSource, root: int, parameters: Parameters) -> RtreeLayout:
    """The rtree at ``root``: level widths and leaf form (rtree.h)."""
    align: int = source.constants["extent_alignment"]
    address_bits = parameters.lg_vaddr if parameters.compact_leaf else WORD_BITS
    slab, szind = _leaf_tags(source, parameters)
    return RtreeLayout(
        root=root,
        bits=parameters.rtree_bits,
        lg_page=parameters.lg_page,
        compact=parameters.compact_leaf,
        pointer_mask=(1 << address_bits) - align,
        slab=slab,
        szind=szind,
    )


def _leaf_tags(source: StructSource, parameters: Parameters) -> Tuple[Bits, Bits]:
    """Slab and size class in the last word of a leaf element (struct rtree_leaf_elm_s, rtree.h).

    The word is the tagged pointer, le_metadata from 5.3, or le_szind and le_slab before.
    """
    if parameters.compact_leaf:
        return Bits(0, 1), Bits(parameters.lg_vaddr, WORD_BITS - parameters.lg_vaddr)
    if source.constants["leaf_metadata"]:
        before = sum(width for _, width in source.constants["leaf_tags"])
        return Bits(0, 1), Bits(before, LEAF_SZIND_WIDTH)
    return Bits(32, 1), Bits(0, 32)


def _e_bits(source: StructSource, parameters: Parameters) -> Dict[str, Bits]:
    """The fields of e_bits: EDATA_BITS_* (edata.h, 5.3.0), EXTENT_BITS_* (extent_structs.h)."""
    packed, shift = {}, 0
    for name, declared in source.constants["e_bits"]:
        width = parameters.dimension(declared) if isinstance(declared, str) else declared
        packed[name] = Bits(shift, width)
        shift += width
    return packed


def extent_layout(source: StructSource, parameters: Parameters) -> ExtentLayout:
    """``edata_t`` (edata.h), ``extent_t`` before 5.3 (extent_structs.h)."""
    edata = require(source, "edata_s", "extent_s")
    bits = _e_bits(source, parameters)
    return ExtentLayout(
        size=edata.size,
        bits=edata.offset("e_bits"),
        address=edata.offset("e_addr"),
        size_and_esn=edata.offset("e_size_esn"),
        bitmap=edata.offset("e_slab_data.bitmap"),
        heap_link=first_of(edata, "heap_link", "ph_link").offset,
        arena=bits["arena"],
        slab=bits["slab"],
        state=bits["state"],
        szind=bits["szind"],
        nfree=bits["nfree"],
        shard=bits.get("binshard", Bits(0, 0)),
        pai=bits.get("pai"),
    )


def bin_info_layout(source: StructSource, address: int) -> BinInfoLayout:
    """``bin_info_t`` (bin_info.h; bin.h in 5.1), ``arena_bin_info_t`` in 5.0."""
    info = require(source, "bin_info_s", "arena_bin_info_s")
    return BinInfoLayout(
        address=address,
        size=info.size,
        reg_size=info.offset("reg_size"),
        slab_size=info.offset("slab_size"),
        nregs=info.offset("nregs"),
        n_shards=info.offset("n_shards") if has(info, "n_shards") else None,
    )


def bin_layout(source: StructSource) -> BinLayout:
    """``bin_t`` (bin.h; ``arena_bin_t`` in 5.0) with its statistics."""
    bin_s = require(source, "bin_s", "arena_bin_s")
    return BinLayout(
        size=bin_s.size,
        stats={name: bin_s.offset(f"stats.{name}") for name in (*COUNTERS, *MADE)},
        slabcur=bin_s.offset("slabcur"),
        slabs_nonfull=bin_s.offset("slabs_nonfull"),
        lock=_held(bin_s, "lock"),
    )


def _held(struct: Struct, path: str) -> Optional[int]:
    """The offset of a word that is not zero while the mutex at ``path`` is held.

    None where the mutex is of a form that is not known.
    """
    mutex = struct.find(path)
    if mutex.type is not None and has(mutex.type, "lock"):
        return mutex.offset + mutex.type.offset("lock")
    return mutex.offset + MUTEX_HELD if mutex.size in MUTEX_SIZES else None


def _locks(arena: Struct) -> Iterator[Tuple[str, int]]:
    """Locks and purges of an arena, in words, each with where a word is not zero meanwhile."""
    for what, paths in ARENA_MUTEXES.items():
        for path in [path for path in paths if has(arena, path)][:1]:
            held = _held(arena, path)
            if held is not None:
                yield what, held
    for state, paths in ARENA_DECAYS.items():
        for path in [path for path in paths if has(arena, path)][:1]:
            decay = arena.find(path)
            purging = _of_decay(arena, decay, "purging")
            named = decay.type is not None and has(decay.type, "purging")
            if named or arena.find("large_mtx").size in MUTEX_SIZES:
                yield f"purge of {state} extents", purging


def _of_decay(arena: Struct, decay: Member, name: str) -> int:
    """The offset in ``arena`` of a member of its decay_t: purging, time_ms or epoch."""
    if decay.type is not None and has(decay.type, name):
        return decay.offset + decay.type.offset(name)
    words = {"purging": 0, "time_ms": 1, "epoch": 3}[name]
    return decay.offset + arena.find("large_mtx").size + words * WORD


def _decays(arena: Struct) -> Iterator[Tuple[str, DecayLayout]]:
    """The settings of an arena's decay, by the state of the pages."""
    for state, paths in ARENA_DECAYS.items():
        if not any(has(arena, path) for path in paths):
            continue
        decay = first_of(arena, *paths)
        named = decay.type is not None and has(decay.type, "epoch")
        known = named or arena.find("large_mtx").size in MUTEX_SIZES
        epoch = _of_decay(arena, decay, "epoch") if known else None
        yield state, DecayLayout(_of_decay(arena, decay, "time_ms"), epoch)


def base_index(base: Struct) -> int:
    """Where a base_t has its arena's index: from 5.2.1-221 on first in ehooks_t (ehooks.h)."""
    return first_of(base, "ind", "ehooks").offset


def arena_layout(source: StructSource, table: Optional[int]) -> ArenaLayout:
    """``arena_t`` (arena_structs.h, arena_structs_b.h before 5.3) and ``base_t`` (base.h)."""
    arena = require(source, "arena_s")
    base = require(source, "base_s")
    lstats = arena.find("stats.lstats")
    if lstats.type is None or not lstats.count:
        raise MissingField(arena.name, "stats.lstats[]")
    own_index = has(arena, "ind")
    bins = first_of(arena, "all_bins", "bins")
    return ArenaLayout(
        table=table,
        table_size=ARENAS_MAX,
        index=arena.offset("ind") if own_index else base_index(base),
        index_in_base=not own_index,
        bins=bins.offset,
        bins_by_pointer=bins.type is not None and has(bins.type, "bin_shards"),
        base=arena.offset("base"),
        descriptors=first_of(arena, "cache_bin_array_descriptor_ql", "tcache_ql").offset,
        nactive=first_of(arena, "pa_shard.nactive", "nactive").offset,
        cached_pages={
            state: offsets for state in CACHED_STATES if (offsets := _page_counters(arena, state))
        },
        large=lstats.offset,
        large_size=lstats.type.size,
        large_count=lstats.count,
        large_nmalloc=lstats.type.offset("nmalloc"),
        large_ndalloc=lstats.type.offset("ndalloc"),
        base_allocated=base.offset("allocated"),
        caches=_second_ring(arena),
        locks=dict(_locks(arena)),
        base_blocks=base.offset("blocks"),
        decays=dict(_decays(arena)),
        threads=arena.offset("nthreads") if has(arena, "nthreads") else None,
    )


def _second_ring(arena: Struct) -> Optional[int]:
    """The head of the caches' own ring where descriptors have one too (5.1 to 5.3.1)."""
    if has(arena, "cache_bin_array_descriptor_ql") and has(arena, "tcache_ql"):
        return arena.offset("tcache_ql")
    return None


def _page_counters(arena: Struct, state: str) -> Tuple[int, ...]:
    """Offsets of the page counters of unused extents in ``state`` (ecache.h; extents_t)."""
    cache = f"pa_shard.pac.ecache_{state}"
    paths = (f"{cache}.eset.npages", f"{cache}.guarded_eset.npages", f"extents_{state}.npages")
    return tuple(arena.offset(path) for path in paths if has(arena, path))


def tcache_layout(source: StructSource) -> CacheLayout:
    """Thread caches (tcache_structs.h, cache_bin.h)."""
    descriptor = source("cache_bin_array_descriptor_s")
    if source("tcache_slow_s") is not None and not (descriptor and has(descriptor, "bins_small")):
        return _stacked_caches(source)
    return _counted_caches(source)


def _stacked_caches(source: StructSource) -> StackedCaches:
    """``tcache_slow_t`` and ``cache_bin_t`` of 5.3.0 and later."""
    slow = require(source, "tcache_slow_s")
    cache_bin = require(source, "cache_bin_s")
    tcache = require(source, "tcache_s")
    bins = tcache.find("bins")
    descriptor = slow.offset("cache_bin_array_descriptor")
    counted = has(slow, "tcache_nbins")
    return StackedCaches(
        next=slow.offset("cache_bin_array_descriptor.link.qre_next") - descriptor,
        tcache=slow.offset("tcache") - descriptor,
        bins=bins.offset,
        descriptor=descriptor,
        stack=slow.offset("dyn_alloc") - descriptor,
        nbins_max=bins.count or 0,
        bin_size=cache_bin.size,
        head=cache_bin.offset("stack_head"),
        requests=cache_bin.offset("tstats.nrequests"),
        low_bits_full=cache_bin.offset("low_bits_full"),
        low_bits_empty=cache_bin.offset("low_bits_empty"),
        leading=WORD,
        nbins=slow.offset("tcache_nbins") - descriptor if counted else None,
        trailing=source.constants.get("trailing_junk", TRAILING_JUNK),
        low_water=cache_bin.offset("low_bits_low_water"),
        previous=slow.offset("cache_bin_array_descriptor.link.qre_prev") - descriptor,
        back=tcache.offset("tcache_slow"),
        link=slow.offset("link.qre_next") if has(slow, "link.qre_next") else None,
    )


def _counted_caches(source: StructSource) -> CountedCaches:
    """``tcache_t`` and ``cache_bin_t`` (``tcache_bin_t`` in 5.0) before 5.3."""
    tcache = require(source, "tcache_s")
    cache_bin = require(source, "cache_bin_s", "tcache_bin_s")
    descriptor = source("cache_bin_array_descriptor_s")
    small = first_of(tcache, "bins_small", "tbins_small")
    large = first_of(tcache, "bins_large", "tbins_large")
    # With its own ring and the descriptor in it (5.2.1-365), else they are in tcache_t.
    slow = source("tcache_slow_s")
    holder = slow or tcache
    if descriptor is None:
        places = [tcache.offset("link.qre_next"), small.offset, large.offset]
    else:
        names = ("link.qre_next", "bins_small", "bins_large")
        places = [descriptor.offset(name) for name in names]
    ring, at_small, at_large = places
    positions = _positions(cache_bin)
    return CountedCaches(
        next=ring,
        small=at_small,
        large=at_large,
        by_pointer=descriptor is not None,
        own_small=small.offset,
        own_large=large.offset,
        nsmall=small.count or 0,
        nlarge=large.count or 0,
        bin_size=cache_bin.size,
        ncached=0 if positions else cache_bin.offset("ncached"),
        requests=cache_bin.offset("tstats.nrequests"),
        avail=first_of(cache_bin, "stack_head", "cur_ptr", "avail").offset,
        low_water=first_of(
            cache_bin, "low_bits_low_water", "low_water_position", "low_water"
        ).offset,
        previous=None if slow else ring + WORD,
        descriptor=0 if descriptor is None else holder.offset("cache_bin_array_descriptor"),
        link=None if descriptor is None else holder.offset("link.qre_next"),
        positions=positions,
    )


def _positions(cache_bin: Struct) -> Optional[Positions]:
    """The positions of a stack's ends, from 5.2.1-18 on; None where regions are counted."""
    if has(cache_bin, "full_position"):
        full = cache_bin.find("full_position")
        return Positions(full.size, full.offset, None)
    if has(cache_bin, "low_bits_full"):
        full = cache_bin.find("low_bits_full")
        return Positions(full.size, full.offset, cache_bin.offset("low_bits_empty"))
    return None


def build(
    source: StructSource,
    roots: Roots,
    parameters: Parameters,
    *,
    found_by: str,
    module: str,
    version: Optional[str],
    prefix: Optional[str],
    notes: Sequence[str] = (),
) -> Layout:
    """The layout of the jemalloc at ``roots`` whose structs ``source`` describes.

    Raises :class:`~drain_gdb.errors.LayoutError` naming the struct or member
    that is missing.
    """
    return Layout(
        source=found_by,
        module=module,
        version=version,
        prefix=prefix,
        parameters=parameters,
        rtree=rtree_layout(source, roots.rtree, parameters),
        extent=extent_layout(source, parameters),
        bin_info=None if roots.bin_infos is None else bin_info_layout(source, roots.bin_infos),
        bin=bin_layout(source),
        arena=arena_layout(source, roots.arenas),
        tcache=tcache_layout(source),
        notes=tuple(notes),
        counters=counters_layout(
            require(source, "arena_s"),
            require(source, "base_s"),
            require(source, "bin_s", "arena_bin_s"),
        ),
    )


def parameters_from(source: StructSource, lg_page: int, lg_quantum: int) -> List[Parameters]:
    """Builds that fit a page size, a quantum, the rtree root's length and its leaves' form.

    And the length of an extent's bitmap.
    """
    elements, leaf = rtree_root(source).count, source("rtree_leaf_elm_s")
    compact = None if leaf is None else has(leaf, "le_bits")
    builds = [Parameters(lg_page, lg_quantum, lg_vaddr) for lg_vaddr in LG_VADDRS]
    groups = require(source, "edata_s", "extent_s").find("e_slab_data.bitmap").count
    return [
        _with_maxregs(parameters, groups)
        for parameters in builds
        if elements in (None, 1 << parameters.rtree_bits[0])
        and compact in (None, parameters.compact_leaf)
    ]


def _with_maxregs(parameters: Parameters, groups: Optional[int]) -> Parameters:
    """``parameters`` with the most regions of a slab that a bitmap of so many words is for."""
    if groups in (None, parameters.bitmap_groups):
        return parameters
    more = (replace(parameters, lg_maxregs=lg_maxregs) for lg_maxregs in LG_MAXREGS)
    return next((each for each in more if each.bitmap_groups == groups), parameters)
