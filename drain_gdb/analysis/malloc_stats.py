"""The statistics of malloc_stats_print(), as jemalloc would make them of a walked heap.

Under the keys of its JSON form (option J), in its order (stats.c).  Which keys there are
follows from what the version at hand counts.  What is in no memory that is walked is left
out: how long an arena has been there, options, the counts of destroyed arenas, global
mutexes.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from drain_gdb.jemalloc.counters import ArenaCounters, Numbers
from drain_gdb.jemalloc.heap import Arena, Heap
from drain_gdb.layout.records import StackedCaches

Tree = Dict[str, Any]

DSS = ("disabled", "primary", "secondary")
NO_DSS = "N/A"
"""dss_prec_names (extent_dss.c)."""
NEVER = -1
EXTENT_STATES = ("dirty", "muzzy", "retained", "pinned")
MUTEX = {
    "num_ops": "n_lock_ops",
    "num_wait": "n_wait_times",
    "num_spin_acq": "n_spin_acquired",
    "num_owner_switch": "n_owner_switches",
    "total_wait_time": "tot_wait_time",
    "max_wait_time": "max_wait_time",
    "max_num_thds": "max_n_thds",
}
"""Keys of a mutex to members of mutex_prof_data_t (mutex_prof.h)."""
LARGEST = ("max_wait_time", "max_num_thds")
"""Those of which the largest counts where mutexes are put together, not the sum."""
BIN = {
    **{name: name for name in ("nmalloc", "ndalloc", "curregs", "nrequests", "nfills")},
    **{"nflushes": "nflushes", "nreslabs": "reslabs", "curslabs": "curslabs"},
    "nonfull_slabs": "nonfull_slabs",
}
"""Keys of a bin to members of bin_stats_t."""


def malloc_stats(heap: Heap, counters: Sequence[ArenaCounters]) -> Tree:
    """The whole tree."""
    arenas = {arena.index: arena for arena in heap.arenas}
    trees = {each.index: _arena(heap, arenas[each.index], each) for each in counters}
    merged = _merged(list(trees.values()))
    tree: Tree = {}
    if heap.layout.version is not None:
        tree["version"] = heap.layout.version
    tree["config"] = {"stats": heap.statistics}
    tree["arenas"] = _sizes(heap)
    tree["stats"] = _totals(merged, heap.layout.parameters.page)
    sections = {"merged": merged} if len(trees) > 1 else {}
    tree["stats.arenas"] = {**sections, **{str(index): each for index, each in trees.items()}}
    return {"jemalloc": tree}


def _sizes(heap: Heap) -> Tree:
    parameters, info = heap.layout.parameters, heap.layout.bin_info
    sharded = info is not None and info.n_shards is not None
    large = parameters.sizes[parameters.nbins :]
    return {
        "quantum": 1 << parameters.lg_quantum,
        "page": parameters.page,
        "nbins": len(heap.bins),
        "bin": [
            {
                "size": info.reg_size,
                "nregs": info.nregs,
                "slab_size": info.slab_size,
                **({"nshards": info.n_shards} if sharded else {}),
            }
            for info in heap.bins
        ],
        "nlextents": len(large),
        "lextent": [{"size": size} for size in large],
    }


def _totals(merged: Tree, page: int) -> Tree:
    names = ("metadata_edata", "metadata_rtree", "metadata_thp", "resident", "mapped")
    return {
        "allocated": merged["small"]["allocated"] + merged["large"]["allocated"],
        "active": merged["pactive"] * page,
        "metadata": merged["base"] + merged["internal"],
        **{name: merged[name] for name in (*names, "retained", "pinned") if name in merged},
    }


def _arena(heap: Heap, arena: Arena, counters: ArenaCounters) -> Tree:
    own, base, pages = counters.own, counters.base, arena.cached_pages
    page = heap.layout.parameters.page
    tree: Tree = {}
    _take(tree, own, "nthreads")
    if "dss" in own:
        tree["dss"] = DSS[own["dss"]] if own["dss"] < len(DSS) else NO_DSS
    for name in ("dirty_decay_ms", "muzzy_decay_ms"):
        if name in own:
            tree[name] = own[name] - (1 << 64) if own[name] >> 63 else own[name]
    tree["pactive"] = arena.nactive
    huge_pages = own.get("ever_used_hpa", 0)
    # The huge page allocator has dirty pages of its own, which are not walked.
    if not huge_pages:
        tree["pdirty"] = pages["dirty"]
    tree["pmuzzy"] = pages["muzzy"]
    for name in (f"{s}_{what}" for s in ("dirty", "muzzy") for what in _PURGES):
        _take(tree, own, name)
    sizes = heap.layout.parameters.sizes
    bins = [_bin(shards, counters.bin_mutexes[i]) for i, shards in enumerate(counters.bins)]
    large = [_large(row, size) for row, size in zip(counters.large, sizes[len(bins) :])]
    tree["small"] = _small(bins, sizes, "nflushes" in large[0])
    tree["large"] = {
        name: sum(row[name] for row in large) for name in large[0] if name != "curlextents"
    }
    if "mapped" in own and "mapped" in base:
        tree["mapped"] = own["mapped"] + base["mapped"]
    tree["retained"] = pages["retained"] * page
    if "pinned" in pages:
        tree["pinned"] = pages["pinned"] * page
    tree["base"] = base["allocated"]
    tree["internal"] = own["internal"]
    for name, theirs in _METADATA.items():
        _take(tree, base, theirs, name)
    tree.update(_cached(heap, arena.index, "n_thp" in base))
    if not huge_pages and "resident" in base and arena.nactive is not None:
        muzzy = 0 if isinstance(heap.layout.tcache, StackedCaches) else pages["muzzy"]
        used = arena.nactive + pages["dirty"] + muzzy + pages.get("pinned", 0)
        tree["resident"] = base["resident"] + used * page
    _take(tree, own, "abandoned_vm")
    _take(tree, own, "extent_avail")
    tree["mutexes"] = {name: _mutex([each]) for name, each in counters.mutexes.items()}
    tree["bins"] = bins
    tree["lextents"] = [{"curlextents": row["curlextents"]} for row in large]
    if counters.extents:
        tree["extents"] = _extents(counters.extents)
    return tree


_PURGES = ("npurge", "nmadvise", "purged")
_METADATA = {
    "metadata_edata": "edata_allocated",
    "metadata_rtree": "rtree_allocated",
    "metadata_thp": "n_thp",
}


def _take(tree: Tree, numbers: Numbers, name: str, named: Optional[str] = None) -> None:
    if name in numbers:
        tree[named or name] = numbers[name]


def _bin(shards: Sequence[Numbers], mutexes: Sequence[Numbers]) -> Tree:
    tree: Tree = {
        key: sum(shard[name] for shard in shards)
        for key, name in BIN.items()
        if all(name in shard for shard in shards)
    }
    if all(mutexes):
        tree["mutex"] = _mutex(mutexes)
    return tree


def _mutex(several: Sequence[Numbers]) -> Numbers:
    """One mutex, or several together (malloc_mutex_prof_merge(), mutex.h)."""
    made = [{key: each[name] for key, name in MUTEX.items() if name in each} for each in several]
    return _together(made)


def _together(several: Sequence[Numbers]) -> Numbers:
    return {
        key: (max if key in LARGEST else sum)(each[key] for each in several) for key in several[0]
    }


def _small(bins: Sequence[Tree], sizes: Sequence[int], fills: bool) -> Tree:
    """The sums of the bins; those of fills and flushes since 5.2 alone, as for large ones."""
    tree = {"allocated": sum(each["curregs"] * size for each, size in zip(bins, sizes))}
    names = ("nmalloc", "ndalloc", "nrequests", "nfills", "nflushes")
    for name in names if fills else names[:3]:
        if all(name in each for each in bins):
            tree[name] = sum(each[name] for each in bins)
    return tree


def _large(row: Numbers, size: int) -> Numbers:
    """A row, counted as arena_stats_merge() does.

    Every large allocation is a request and a fill.  From 5.3.1 on its bytes need not be those
    of its size class, and are counted.
    """
    extant = row["nmalloc"] - row["ndalloc"]
    made = {
        "curlextents": extant,
        "allocated": row.get("active_bytes", extant * size),
        "nmalloc": row["nmalloc"],
        "ndalloc": row["ndalloc"],
        "nrequests": row["nmalloc"] + row["nrequests"],
    }
    if "nflushes" in row:
        made["nfills"], made["nflushes"] = row["nmalloc"], row["nflushes"]
    return made


def _cached(heap: Heap, arena: int, later: bool) -> Tree:
    """What thread caches of the arena hold; 5.0 has another name for it."""
    caches, sizes = heap.tcaches, heap.layout.parameters.sizes

    def total(of: Mapping[Tuple[Optional[int], int], int]) -> int:
        return sum(number * sizes[szind] for (own, szind), number in of.items() if own == arena)

    stashed = total(caches.stashed)
    tree = {"tcache_bytes" if later else "tcache": total(caches.held) - stashed}
    if isinstance(heap.layout.tcache, StackedCaches):
        tree["tcache_stashed_bytes"] = stashed
    return tree


def _extents(states: Mapping[str, Sequence[Tuple[int, int]]]) -> List[Tree]:
    """By page size class; the last count, of all that is larger, is not shown."""
    there = [state for state in EXTENT_STATES if state in states]
    rows = len(states[there[0]]) - 1
    return [
        {
            **{f"n{state}": states[state][row][0] for state in there},
            **{f"{state}_bytes": states[state][row][1] for state in there},
        }
        for row in range(rows)
    ]


def _merged(trees: Sequence[Tree]) -> Tree:
    """All arenas together (ctl_arena_stats_sdmerge(), ctl.c)."""
    first = trees[0]
    merged: Tree = {}
    for key in (key for key in first if all(key in tree for tree in trees)):
        values = [tree[key] for tree in trees]
        if key == "dss":
            merged[key] = NO_DSS
        elif key in ("dirty_decay_ms", "muzzy_decay_ms"):
            merged[key] = NEVER
        elif key == "mutexes":
            merged[key] = {name: _together([each[name] for each in values]) for name in values[0]}
        else:
            merged[key] = _added(values)
    return merged


def _added(values: Sequence[Any]) -> Any:
    """Numbers, or objects and lists of them, member by member."""
    first = values[0]
    if isinstance(first, list):
        return [_added(each) for each in zip(*values)]
    if isinstance(first, dict):
        return {
            key: _together([each[key] for each in values])
            if key == "mutex"
            else _added([each[key] for each in values])
            for key in first
        }
    return sum(values)
