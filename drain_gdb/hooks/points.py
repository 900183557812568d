"""Which functions of a jemalloc are counted at a layer, and what their arguments say.

Names and arguments are those of jemalloc's source, 5.0.1 to 5.3.1 and development of
May 2026: the public functions (jemalloc.c, jemalloc_cpp.cpp), the slow paths
(jemalloc.c, from 5.2) and what moves regions between caches and bins (arena.c,
tcache.c).  A name that a version lacks is simply not found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from drain_gdb.debuggee.functions import Function
from drain_gdb.errors import CountingError
from drain_gdb.hooks.layers import ARENA, ENTRY, FASTPATH, SLOWPATH

ALLOCATIONS, FREES = "allocations", "frees"
SIDES = (ALLOCATIONS, FREES)

ALLOCATE = "allocate"
"""Arguments: size."""
ALLOCATE_ARRAY = "allocate_array"
"""Arguments: number, size."""
ALLOCATE_ALIGNED = "allocate_aligned"
"""Arguments: alignment, size."""
ALLOCATE_PAGES = "allocate_pages"
"""Arguments: size; aligned to the page."""
ALLOCATE_INTO = "allocate_into"
"""Arguments: where the pointer goes, alignment, size."""
ALLOCATE_FLAGGED = "allocate_flagged"
"""Arguments: size, MALLOCX_* flags."""
REALLOCATE = "reallocate"
"""Arguments: pointer, size and, if there are three, MALLOCX_* flags."""
RESIZE = "resize"
"""Arguments: pointer; it stays in place."""
FREE = "free"
"""Arguments: pointer."""
FILL_ASKED = "fill_asked"
"""Arguments: szind, regions wanted."""
FILL_READ = "fill_read"
"""Arguments: cache bin, szind."""
FILL_RETURNED = "fill_returned"
"""Arguments: szind; returns the regions."""
FLUSH = "flush"
"""Arguments: cache bin, szind, regions that stay."""
BIN_ALLOCATE = "bin_allocate"
"""Arguments: size; counts where it is small."""

SIDE_OF = {FREE: FREES, FLUSH: FREES, REALLOCATE: None, RESIZE: None}
"""The side that an action is on, where it is not ALLOCATIONS; None is on both."""


@dataclass(frozen=True)
class Signature:
    """A function of jemalloc's.

    Attributes:
        name: without any prefix.
        arguments: the positions of those that ``action`` asks for.
        fast: its body begins with the fast path, or is reached through one that does.
        wraps: it may do its work by calling, or jumping to, another one.

    """

    name: str
    action: str
    arguments: Tuple[int, ...]
    fast: bool = False
    wraps: bool = False

    @property
    def side(self) -> Optional[str]:
        """ALLOCATIONS, FREES, or None for one that is on both."""
        return SIDE_OF.get(self.action, ALLOCATIONS)


PUBLIC = (
    Signature("malloc", ALLOCATE, (0,), fast=True),
    Signature("calloc", ALLOCATE_ARRAY, (0, 1)),
    Signature("realloc", REALLOCATE, (0, 1)),
    Signature("free", FREE, (0,), fast=True),
    Signature("aligned_alloc", ALLOCATE_ALIGNED, (0, 1)),
    Signature("posix_memalign", ALLOCATE_INTO, (0, 1, 2)),
    Signature("memalign", ALLOCATE_ALIGNED, (0, 1)),
    Signature("valloc", ALLOCATE_PAGES, (0,)),
    Signature("pvalloc", ALLOCATE_PAGES, (0,)),
    Signature("mallocx", ALLOCATE_FLAGGED, (0, 1)),
    Signature("rallocx", REALLOCATE, (0, 1, 2)),
    Signature("xallocx", RESIZE, (0,)),
    Signature("dallocx", FREE, (0,)),
    Signature("sdallocx", FREE, (0,), fast=True),
    Signature("free_sized", FREE, (0,), fast=True, wraps=True),
    Signature("free_aligned_sized", FREE, (0,), fast=True, wraps=True),
    # Redis 8 adds these to its own copy of jemalloc.
    Signature("malloc_with_usize", ALLOCATE, (0,), fast=True),
    Signature("calloc_with_usize", ALLOCATE_ARRAY, (0, 1)),
    Signature("realloc_with_usize", REALLOCATE, (0, 1)),
    Signature("free_with_usize", FREE, (0,), fast=True),
)
"""Behind the public prefix (--with-jemalloc-prefix)."""


def _operators() -> Iterable[Signature]:
    """C++'s operators new and delete (jemalloc_cpp.cpp), by their mangled names."""
    nothrow, align = "RKSt9nothrow_t", "St11align_val_t"
    for new in ("_Znwm", "_Znam"):
        for tail in ("", nothrow):
            yield Signature(new + tail, ALLOCATE, (0,), fast=True, wraps=True)
            yield Signature(new + align + tail, ALLOCATE_ALIGNED, (1, 0), wraps=True)
    for delete in ("_ZdlPv", "_ZdaPv"):
        for tail in ("", nothrow, "m", align, align + nothrow, "m" + align):
            yield Signature(delete + tail, FREE, (0,), fast=True, wraps=True)


OPERATORS = tuple(_operators())
OPERATORS_OWN = ("fallback_impl", "fallbackNewImpl", "handleOOM", "newImpl")
"""Functions of jemalloc_cpp.cpp itself: with them, the operators are jemalloc's."""
SLOW = (
    Signature("malloc_default", ALLOCATE, (0,)),
    Signature("free_default", FREE, (0,)),
    Signature("sdallocx_default", FREE, (0,)),
)
"""Behind the private prefix, as the rest."""
NOFLAGS = Signature("je_sdallocx_noflags", FREE, (0,), fast=True)
"""What free_sized() and the sized operators delete call; not public, it has the fast path."""
BINS = (
    Signature("arena_cache_bin_fill_small", FILL_ASKED, (4, 5)),
    Signature("arena_tcache_fill_small", FILL_READ, (3, 4)),
    Signature("arena_ptr_array_fill_small", FILL_RETURNED, (2,)),
    Signature("arena_malloc_hard", BIN_ALLOCATE, (2,)),
    Signature("tcache_bin_flush_small", FLUSH, (2, 3, 4)),
    Signature("arena_dalloc_small", FREE, (1,)),
)
NEEDED: Mapping[str, Mapping[str, Sequence[str]]] = {
    SLOWPATH: {ALLOCATIONS: ["malloc_default"], FREES: ["free_default", "sdallocx_default"]},
    FASTPATH: {ALLOCATIONS: ["malloc_default"], FREES: ["free_default", "sdallocx_default"]},
    ARENA: {
        ALLOCATIONS: [s.name for s in BINS if s.action.startswith("fill")],
        FREES: ["tcache_bin_flush_small"],
    },
}
"""Of each layer and side, the names one of which must be found for it to be counted."""
INLINED = {"imalloc_fastpath": ALLOCATIONS, "free_fastpath": FREES}
"""The fast paths themselves, which are in no symbol table (JEMALLOC_ALWAYS_INLINE)."""
ANCHORS = ("mallocx", "sdallocx", "mallctl", "malloc_stats_print", "malloc_usable_size")
"""Names that no other allocator has; what stands before them is the public prefix."""
CLONE = re.compile(r"(?:\.(?:constprop|isra|part|lto_priv|localalias|llvm)\.?\d*)+$")
RENAMED = re.compile(r"(?:\.(?:lto_priv|localalias|llvm)\.?\d*)+$")
"""What compilers append to the names of copies; those of RENAMED have all arguments."""


@dataclass(frozen=True)
class HookPoint:
    """A function to be counted, at the address of its first instruction.

    Attributes:
        name: as the symbol table has it.
        end: the address after the function.
        readable: whether its arguments are those of the source; a compiler's clone
            may have lost some.
        slow: a slow path that takes back what the fast layer counted at the entry.

    """

    name: str
    address: int
    end: int
    signature: Signature
    readable: bool = True
    slow: bool = False


@dataclass(frozen=True)
class Plan:
    """What is counted at a layer.

    Attributes:
        prefix: what stands before the public names.
        only: the one side that is counted; None where both are.
        missing: what the counts leave out, a phrase each.
        how: how the places were found, in words.

    """

    layer: str
    prefix: str
    points: Tuple[HookPoint, ...]
    only: Optional[str]
    missing: Tuple[str, ...]
    how: str


Inlined = Callable[[str], Sequence[int]]
"""The addresses where a function begins, inlined copies too, by debug information."""


def make_plan(
    layer: str,
    functions: Sequence[Function],
    private: Optional[str],
    inlined: Inlined,
    asymmetric: bool,
) -> Plan:
    """The plan for ``layer`` (not REQUESTS) of the jemalloc with these ``functions``.

    ``private`` is the prefix of its private names, None where it has no symbols.
    Raises :class:`CountingError` where the layer cannot be counted, or on one side
    only and not ``asymmetric``.
    """
    prefix = public_prefix(functions)
    if prefix is None:
        raise CountingError(
            "hooks need the names of jemalloc's functions, and this one has none",
            "--layer requests needs none; or install its debug symbols",
        )
    own = _private(functions, private or "")
    if layer == ENTRY:
        return Plan(layer, prefix, _public(functions, prefix), None, _OF_ENTRY, "by name")
    sides = [side for side in SIDES if any(name in own for name in NEEDED[layer][side])]
    only = _only(layer, sides, asymmetric)
    if layer == FASTPATH:
        return _fast(functions, prefix, own, inlined, only)
    table = SLOW if layer == SLOWPATH else BINS
    points = [p for s in table if only in (None, s.side) for p in own.get(s.name, ())]
    missing = [_OF_SLOW] if layer == SLOWPATH else list(_OF_ARENA)
    missing += _unnamed(layer, functions, prefix, own) + _copies(points, inlined)
    return Plan(layer, prefix, _distinct(points), only, tuple(missing), "by name")


_OF_ENTRY = (
    "what jemalloc allocates for itself (profiling, background threads)",
    "mallctl's batch allocation and arena resets",
)
_OF_SLOW = "what the fast path serves, and calloc, realloc, the aligned and the *allocx functions"
_OF_FAST = "what the slow path serves, and calloc, realloc, the aligned and the *allocx functions"
_OF_ARENA = (
    "batch allocation and arena resets",
    "regions stashed for use-after-free detection",
)


def public_prefix(functions: Sequence[Function]) -> Optional[str]:
    """What stands before jemalloc's public names; None where there are none."""
    names = {function.name for function in functions}
    prefixes = {n[: -len(a)] for n in names for a in ANCHORS if n.endswith(a)}
    found = {p: sum(p + s.name in names for s in PUBLIC) for p in sorted(prefixes, key=len)}
    best = max(found, key=lambda p: found[p], default=None)
    return best if best is not None and found[best] else None


def _public(functions: Sequence[Function], prefix: str) -> Tuple[HookPoint, ...]:
    by_name = {prefix + signature.name: signature for signature in PUBLIC}
    if not prefix or any(name in f.name for f in functions for name in OPERATORS_OWN):
        by_name.update({signature.name: signature for signature in OPERATORS})
    points = [_point(f, by_name[f.name]) for f in functions if f.name in by_name]
    order = {signature.name: number for number, signature in enumerate((*PUBLIC, *OPERATORS))}
    return _distinct(sorted(points, key=lambda p: order[p.signature.name]))


def _private(functions: Sequence[Function], prefix: str) -> Dict[str, List[HookPoint]]:
    """The hook points of the private functions, copies that compilers made too."""
    own = (*SLOW, *BINS, NOFLAGS)
    # Static functions have no prefix, whatever the build.
    by_name = {name: s for s in own for name in (s.name, prefix + s.name)}
    found: Dict[str, List[HookPoint]] = {}
    for function in functions:
        signature = by_name.get(CLONE.sub("", function.name))
        if signature is not None:
            whole = RENAMED.sub("", function.name)
            point = replace(_point(function, signature), readable=whole in by_name)
            found.setdefault(signature.name, []).append(point)
    return found


def _point(function: Function, signature: Signature) -> HookPoint:
    return HookPoint(function.name, function.address, function.end, signature)


def _distinct(points: Iterable[HookPoint]) -> Tuple[HookPoint, ...]:
    """One point an address: aliases are the same function."""
    found: Dict[int, HookPoint] = {}
    for point in points:
        found.setdefault(point.address, point)
    return tuple(found.values())


def _only(layer: str, sides: Sequence[str], asymmetric: bool) -> Optional[str]:
    """The one side that can be counted, None where both can."""
    if len(sides) == len(SIDES):
        return None
    lacking = [side for side in SIDES if side not in sides]
    names = [" or ".join(NEEDED[layer][side]) for side in lacking]
    why = f"no symbol of this jemalloc is {' and none is '.join(names)}"
    if not sides:
        raise CountingError(
            f"the {layer} layer cannot be counted: {why}",
            "it may be stripped, built otherwise or older; --layer entry needs exports alone",
        )
    if not asymmetric:
        raise CountingError(
            f"the {layer} layer can be counted on the side of {sides[0]} alone: {why}",
            "such a count cannot be balanced; --asymmetric counts it all the same and says so",
        )
    return sides[0]


def _fast(
    functions: Sequence[Function],
    prefix: str,
    own: Mapping[str, Sequence[HookPoint]],
    inlined: Inlined,
    only: Optional[str],
) -> Plan:
    """Entries of functions with a fast path, less the slow paths they fall back to."""
    entries = [p for p in _public(functions, prefix) if p.signature.fast]
    places = {name: inlined(name) for name in INLINED}
    where = [(side, at) for name, side in INLINED.items() for at in places[name]]
    how = "entry minus slow path"
    missing = [_OF_FAST]
    if all(places.values()):
        how = "inlined places by debug information, minus slow path"
        entries += own.get(NOFLAGS.name, ())
        entries = [p for p in entries if any(_within(p, s, at) for s, at in where)]
        for function in functions:
            inside = [(s, at) for s, at in where if function.address <= at < function.end]
            known = any(_within(p, s, at) for p in entries for s, at in inside)
            if inside and not known:
                missing.append(f"the fast path in {function.name}")
    slow = [replace(p, slow=True) for s in SLOW for p in own.get(s.name, ())]
    points = [p for p in (*entries, *slow) if only in (None, p.signature.side)]
    missing += _unnamed(FASTPATH, functions, prefix, own) + _copies(slow, inlined)
    return Plan(FASTPATH, prefix, _distinct(points), only, tuple(missing), how)


def _within(point: HookPoint, side: str, address: int) -> bool:
    return point.signature.side == side and point.address <= address < point.end


def _unnamed(
    layer: str,
    functions: Sequence[Function],
    prefix: str,
    own: Mapping[str, Sequence[HookPoint]],
) -> List[str]:
    """The slow paths that have no symbol though their public function is there."""
    if layer == ARENA:
        return []
    names = {function.name for function in functions}
    public = [name for name in ("malloc", "free", "sdallocx") if prefix + name in names]
    return [
        f"the slow path of {n}, which has no symbol" for n in public if f"{n}_default" not in own
    ]


def _copies(points: Sequence[HookPoint], inlined: Inlined) -> List[str]:
    """What is said of clones, and of copies that no hook reaches."""
    said = [
        f"the size classes of {p.name}, a copy the compiler made with arguments of its own"
        for p in points
        if not p.readable
    ]
    for name in dict.fromkeys(CLONE.sub("", p.name) for p in points):
        others = [at for at in inlined(name) if not any(p.address <= at < p.end for p in points)]
        if others:
            said.append(f"{len(others)} inlined copies of {name}")
    return said


def ranges_of(functions: Sequence[Function], private: Optional[str]) -> List[Tuple[int, int]]:
    """The ``(start, end)`` of all functions known here: where a call in flight shows."""
    prefix = public_prefix(functions) or ""
    own = _private(functions, private or "")
    points = [*_public(functions, prefix), *(p for found in own.values() for p in found)]
    return [(point.address, point.end) for point in points]
