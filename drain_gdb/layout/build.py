"""From structs and the addresses of four variables to a :class:`Layout`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from drain_gdb.errors import LayoutError
from drain_gdb.layout.parameters import ARENAS_MAX, WORD_BITS, Parameters
from drain_gdb.layout.records import (
    ArenaLayout,
    BinInfoLayout,
    BinLayout,
    Bits,
    ExtentLayout,
    Layout,
    RtreeLayout,
    TcacheLayout,
)
from drain_gdb.memory import WORD
from drain_gdb.target.protocol import Struct

StructSource = Callable[[str], Optional[Struct]]

LG_EXTENT_ALIGN = 7
"""EDATA_ALIGNMENT is 128 (edata.h, 5.3.0): the low bits of a leaf word are free."""
STATE_BITS = 3
"""EDATA_BITS_STATE_WIDTH (edata.h, 5.3.0)."""
TRAILING_JUNK = 0xA7A7A7A7A7A7A7A7
"""cache_bin_trailing_junk (cache_bin.h, 5.3.0)."""
COUNTERS = ("nmalloc", "ndalloc", "nrequests", "curregs", "curslabs")
"""Members of ``bin_stats_t`` (bin_stats.h) that the walk reads."""


@dataclass(frozen=True)
class Roots:
    """Addresses of the variables everything else hangs from.

    Attributes:
        rtree: element 0 of the rtree's root array.
        arenas: element 0 of ``arenas``.
        bin_infos: element 0 of ``bin_infos``.

    """

    rtree: int
    arenas: int
    bin_infos: int


def require(source: StructSource, name: str) -> Struct:
    """Struct ``name``, or :class:`LayoutError` where the source lacks it."""
    struct = source(name)
    if struct is None:
        raise LayoutError(f"this jemalloc has no struct {name}")
    return struct


def _pack(fields: Iterable[Tuple[str, int]], shift: int = 0) -> Dict[str, Bits]:
    """Bit fields one after the other from bit ``shift``."""
    packed = {}
    for name, width in fields:
        packed[name] = Bits(shift, width)
        shift += width
    return packed


def rtree_layout(root: int, parameters: Parameters) -> RtreeLayout:
    """The rtree at ``root``: level widths and leaf form (rtree.h, 5.3.0)."""
    compact = parameters.compact_leaf
    widths = (("slab", 1), ("is_head", 1), ("state", STATE_BITS))
    flags = _pack(widths, 0 if compact else WORD_BITS)
    szind_shift = parameters.lg_vaddr if compact else flags["state"].shift + STATE_BITS
    address_bits = parameters.lg_vaddr if compact else WORD_BITS
    return RtreeLayout(
        root=root,
        bits=parameters.rtree_bits,
        lg_page=parameters.lg_page,
        compact=compact,
        slab=flags["slab"],
        state=flags["state"],
        szind=Bits(szind_shift, parameters.szind_bits),
        pointer_mask=(1 << address_bits) - (1 << LG_EXTENT_ALIGN),
    )


def extent_layout(source: StructSource, parameters: Parameters) -> ExtentLayout:
    """``edata_t`` and the packing of ``e_bits`` (edata.h, 5.3.0, EDATA_BITS_*)."""
    edata = require(source, "edata_s")
    bits = _pack(
        (
            ("arena", 12),
            ("slab", 1),
            ("committed", 1),
            ("pai", 1),
            ("zeroed", 1),
            ("guarded", 1),
            ("state", STATE_BITS),
            ("szind", parameters.szind_bits),
            ("nfree", parameters.lg_slab_maxregs + 1),
            ("shard", 6),
        )
    )
    return ExtentLayout(
        size=edata.size,
        bits=edata.offset("e_bits"),
        address=edata.offset("e_addr"),
        size_and_esn=edata.offset("e_size_esn"),
        bitmap=edata.offset("e_slab_data.bitmap"),
        arena=bits["arena"],
        slab=bits["slab"],
        state=bits["state"],
        szind=bits["szind"],
        nfree=bits["nfree"],
        shard=bits["shard"],
    )


def bin_info_layout(source: StructSource, address: int) -> BinInfoLayout:
    """``bin_info_t`` (bin_info.h)."""
    info = require(source, "bin_info_s")
    return BinInfoLayout(
        address=address,
        size=info.size,
        reg_size=info.offset("reg_size"),
        slab_size=info.offset("slab_size"),
        nregs=info.offset("nregs"),
        n_shards=info.offset("n_shards"),
    )


def bin_layout(source: StructSource) -> BinLayout:
    """``bin_t`` (bin.h) with its ``bin_stats_t``."""
    bin_s = require(source, "bin_s")
    return BinLayout(
        size=bin_s.size,
        stats={name: bin_s.offset(f"stats.{name}") for name in COUNTERS},
        slabcur=bin_s.offset("slabcur"),
    )


def arena_layout(source: StructSource, table: int) -> ArenaLayout:
    """``arena_t`` (arena_structs.h) and ``base_t`` (base.h)."""
    arena = require(source, "arena_s")
    base = require(source, "base_s")
    lstats = arena.find("stats.lstats")
    large = require(source, "arena_stats_large_s")
    return ArenaLayout(
        table=table,
        table_size=ARENAS_MAX,
        index=arena.offset("ind"),
        bins=arena.offset("bins"),
        base=arena.offset("base"),
        descriptors=arena.offset("cache_bin_array_descriptor_ql"),
        nactive=arena.offset("pa_shard.nactive"),
        cached_pages={
            state: tuple(
                arena.offset(f"pa_shard.pac.ecache_{state}.{eset}.npages")
                for eset in ("eset", "guarded_eset")
            )
            for state in ("dirty", "muzzy", "retained")
        },
        large=lstats.offset,
        large_size=large.size,
        large_count=lstats.count or 0,
        large_nmalloc=large.offset("nmalloc"),
        large_ndalloc=large.offset("ndalloc"),
        base_allocated=base.offset("allocated"),
    )


def tcache_layout(source: StructSource) -> TcacheLayout:
    """``tcache_slow_t``, ``cache_bin_t`` (tcache_structs.h, cache_bin.h, 5.3.0)."""
    slow = require(source, "tcache_slow_s")
    cache_bin = require(source, "cache_bin_s")
    bins = require(source, "tcache_s").find("bins")
    descriptor = slow.offset("cache_bin_array_descriptor")
    return TcacheLayout(
        next=slow.offset("cache_bin_array_descriptor.link.qre_next") - descriptor,
        bins=slow.offset("cache_bin_array_descriptor.bins") - descriptor,
        stack=slow.offset("dyn_alloc") - descriptor,
        nbins_max=bins.count or 0,
        bin_size=cache_bin.size,
        head=cache_bin.offset("stack_head"),
        requests=cache_bin.offset("tstats.nrequests"),
        low_bits_full=cache_bin.offset("low_bits_full"),
        low_bits_empty=cache_bin.offset("low_bits_empty"),
        leading=WORD,
        trailing=TRAILING_JUNK,
    )


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
        rtree=rtree_layout(roots.rtree, parameters),
        extent=extent_layout(source, parameters),
        bin_info=bin_info_layout(source, roots.bin_infos),
        bin=bin_layout(source),
        arena=arena_layout(source, roots.arenas),
        tcache=tcache_layout(source),
        notes=tuple(notes),
    )


def parameters_from(
    lg_page: int, lg_quantum: int, root_elements: Optional[int]
) -> List[Parameters]:
    """Builds that fit a page size, a quantum and (if known) the rtree root's length."""
    fitting = []
    for lg_vaddr in (48, 57, 52, 47):
        parameters = Parameters(lg_page, lg_quantum, lg_vaddr)
        if root_elements in (None, 1 << parameters.rtree_bits[0]):
            fitting.append(parameters)
    return fitting
