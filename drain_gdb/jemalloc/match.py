"""Each struct by its own evidence, where no version's structs fit as they are.

The tree and its extents come first: a slab's bitmap must have as many free regions as its
``nfree`` says, and it must be as large as slabs of its class are.  What the tree holds then
decides between arenas: their bins must have counted just these slabs and regions (or,
without statistics, list them).  And it decides between thread caches: what they hold must
be allocated regions of their class.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

from drain_gdb.errors import LayoutError, UnreadableMemory
from drain_gdb.jemalloc.arenas import walk_arenas
from drain_gdb.jemalloc.extents import ExtentWalk, popcount
from drain_gdb.jemalloc.heap import ACTIVE, Coverage, ThreadCaches
from drain_gdb.jemalloc.infer import infer_arenas
from drain_gdb.jemalloc.leaves import Leaf
from drain_gdb.jemalloc.nonfull import count_nonfull
from drain_gdb.jemalloc.regions import RegionFinder
from drain_gdb.jemalloc.rtree import Rtree
from drain_gdb.jemalloc.tcaches import walk_tcaches
from drain_gdb.jemalloc.verify import verify
from drain_gdb.layout.bins import BinInfo
from drain_gdb.layout.discover import ArenaShape
from drain_gdb.layout.locate import Allocator
from drain_gdb.layout.parameters import WORD_BITS, Parameters
from drain_gdb.layout.pieces import ArenaForm, Form, Named, Pieces
from drain_gdb.layout.records import CacheLayout, ExtentLayout, Layout, RtreeLayout
from drain_gdb.memory import CACHE_PAGE, WORD, Memory

FEW = 1
"""Figures of arenas that may differ by damage; where more do, they may be of another form."""
SAMPLES = 2048
"""Slabs, and cached regions, that a form is judged by."""


class Tally(NamedTuple):
    """What speaks for a form and what against it."""

    right: int
    wrong: int

    @property
    def score(self) -> int:
        """The more, the better."""
        return self.right - self.wrong


def match(memory: Memory, allocator: Allocator) -> Layout:
    """The layout of ``allocator``, each struct of the form that most speaks for.

    Raises :class:`LayoutError` where the tree, which all else is judged by, is not found.
    """
    pieces = allocator.pieces
    assert pieces is not None
    known = pieces.bins(pieces.tree[1])
    forms = {"size classes": pieces.size_classes.form or "the formula"}
    forms["extents"], (rtree, extent), _ = _best(
        pieces.trees(), lambda form: _extents(memory, *form, known)
    )
    parameters = pieces.with_quantum(extent)
    bins = pieces.bins(parameters)
    layout = replace(pieces.draft(), parameters=parameters, rtree=rtree, extent=extent)
    walker = ExtentWalk(memory, layout, bins, Coverage())
    walker.run(())

    def arenas(form: ArenaForm) -> Tally:
        return _arenas(memory, _with_arenas(pieces, layout, form, bins), walker, bins)

    try:
        forms["arenas"], chosen = _best_arenas(memory, pieces, parameters, walker, arenas)
        layout = _with_arenas(pieces, layout, chosen, bins)
    except LayoutError:
        # What the tree holds is still told; jemalloc's counters are not to be had.
        forms["arenas"] = "none that is known"

    def caches(form: CacheLayout) -> Tally:
        return _caches(memory, allocator.finish(replace(layout, tcache=form)), bins)

    forms["thread caches"], tcache, _ = _best(pieces.caches(parameters), caches)
    return replace(allocator.finish(replace(layout, tcache=tcache)), forms=forms)


def _best_arenas(
    memory: Memory,
    pieces: Pieces,
    parameters: Parameters,
    walker: ExtentWalk,
    judge: Callable[[ArenaForm], Tally],
) -> Tuple[str, ArenaForm]:
    """The form of arenas that most speaks for: a known one, else what the data shows."""
    refused: Optional[LayoutError] = None
    try:
        name, chosen, known = _best(pieces.arenas(parameters), judge)
        if known.wrong <= FEW:
            return name, chosen
    except LayoutError as error:
        refused = error
    try:
        inferred = infer_arenas(memory, pieces, parameters, walker)
        if refused is not None or judge(inferred).wrong < known.wrong:
            return "as the data has them", inferred
    except LayoutError:
        if refused is not None:
            raise refused from None
    return name, chosen


def _best(forms: Named[Form], judge: Callable[[Form], Tally]) -> Tuple[str, Form, Tally]:
    """The form that most speaks for, the first of several, with its name and what speaks.

    One that nothing speaks against ends the search.
    """
    best: Optional[Tuple[str, Form, Tally]] = None
    refused: Optional[LayoutError] = None
    for name, form in forms:
        try:
            found = judge(form)
        except (LayoutError, UnreadableMemory) as error:
            refused = refused or LayoutError(error.message)
            continue
        if best is None or found.score > best[2].score:
            best = name, form, found
        if found.right and not found.wrong:
            break
    if best is None:
        raise refused or LayoutError("no form of this jemalloc's structs is known")
    return best


def _extents(
    memory: Memory, rtree: RtreeLayout, extent: ExtentLayout, bins: Sequence[BinInfo]
) -> Tally:
    """Slabs whose bitmap, size, place and leaf element agree with their ``e_bits``."""
    right = seen = 0
    for base, stretches in Rtree(memory, rtree, Coverage()).leaves():
        leaf = Leaf(base, stretches, rtree)
        for edata, page, tag in zip_longest(leaf.extents, leaf.pages, leaf.tags):
            bits = memory.u64(edata + extent.bits)
            if not extent.slab.of(bits) or extent.state.of(bits) != ACTIVE:
                continue
            seen += 1
            right += _is_slab(memory, extent, edata, page, tag, bins)
            if seen >= SAMPLES:
                return Tally(right, seen - right)
    return Tally(right, seen - right)


def _is_slab(
    memory: Memory,
    extent: ExtentLayout,
    edata: int,
    page: int,
    tag: Optional[int],
    bins: Sequence[BinInfo],
) -> bool:
    bits = memory.u64(edata + extent.bits)
    szind, nfree = extent.szind.of(bits), extent.nfree.of(bits)
    if szind >= len(bins) or tag not in (None, szind):
        return False
    info = bins[szind]
    if extent.shard.of(bits) >= info.n_shards:
        return False
    size = memory.u64(edata + extent.size_and_esn) & -CACHE_PAGE
    length = -(-info.nregs // WORD_BITS) * WORD
    bitmap = int.from_bytes(memory.read(edata + extent.bitmap, length), "little")
    placed = memory.u64(edata + extent.address) == page and size == info.slab_size
    return placed and popcount(bitmap) == nfree


def _with_arenas(
    pieces: Pieces, layout: Layout, form: ArenaForm, bins: Sequence[BinInfo]
) -> Layout:
    """``layout`` with that form of arenas, and their table."""
    parameters, arena, bin_form = form
    shape = ArenaShape(arena, bin_form, bins, layout.extent)
    table = pieces.table(shape, pieces.near_words)
    return replace(layout, parameters=parameters, arena=replace(arena, table=table), bin=bin_form)


def _arenas(memory: Memory, layout: Layout, walker: ExtentWalk, bins: Sequence[BinInfo]) -> Tally:
    """What arenas and bins have counted, or list, of what the tree holds."""
    coverage = Coverage()
    arenas, counters = walk_arenas(memory, layout, bins, coverage)
    nonfull = None
    if not any(counter.curslabs for counter in counters):
        nonfull = count_nonfull(memory, layout, counters, len(walker.slabs), coverage)
    found = verify(
        walker, ThreadCaches(), arenas, coverage, counters, bins, layout.parameters, nonfull
    )
    # Only under statistics do bases count what they gave out (base.c).
    counted = [bool(arena.base_allocated) == (nonfull is None) for arena in arenas]
    return Tally(sum(counted), len(found.mismatches) + len(counted) - sum(counted))


def _caches(memory: Memory, layout: Layout, bins: Sequence[BinInfo]) -> Tally:
    """Caches that can be read, and regions in them that are allocated and of their class."""
    coverage = Coverage()
    arenas, _ = walk_arenas(memory, layout, bins, coverage)
    statistics = any(arena.base_allocated for arena in arenas)
    found = walk_tcaches(memory, layout, arenas, statistics, coverage)
    finder = RegionFinder(memory.read, layout)
    sample = found.regions[:: len(found.regions) // SAMPLES + 1]
    regions = (finder.find(region.pointer) for region in sample)
    placed = [at is not None and at.szind == r.szind for at, r in zip(regions, sample)]
    right = sum(placed)
    return Tally(found.whole + right, found.unreadable + len(placed) - right)
