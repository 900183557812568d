"""Where the counters lie that only ``malloc_stats_print()`` is for.

A walk does without them.  What the structs at hand do not name is left out: a layout
without a counter makes statistics without it.
"""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import MissingField
from drain_gdb.layout.records import CountersLayout, Place, Rows

Paths = Mapping[str, str]

STATES = ("dirty", "muzzy", "retained", "pinned")
PURGES = ("npurge", "nmadvise", "purged")
BASE = ("allocated", "edata_allocated", "rtree_allocated", "resident", "mapped", "n_thp")
LARGE = ("nmalloc", "ndalloc", "nrequests", "nflushes", "active_bytes")
BIN = (
    *("nmalloc", "ndalloc", "nrequests", "curregs", "nfills", "nflushes"),
    *("nslabs", "reslabs", "curslabs", "nonfull_slabs"),
)
PROFILE = (
    *("n_lock_ops", "n_wait_times", "n_spin_acquired", "n_owner_switches"),
    *("tot_wait_time", "max_wait_time", "max_n_thds"),
)
"""Members of base_t, arena_stats_large_t, bin_stats_t and mutex_prof_data_t."""
SAME: Paths = {
    "nthreads": "nthreads",
    "dss": "dss_prec",
    "internal": "stats.internal",
}
_PAC = "stats.pa_shard_stats.pac_stats"
SINCE_5_3: Paths = {
    **{f"{state}_decay_ms": f"pa_shard.pac.decay_{state}.time_ms" for state in STATES[:2]},
    **{f"{s}_{what}": f"{_PAC}.decay_{s}.{what}" for s in STATES[:2] for what in PURGES},
    "mapped": f"{_PAC}.pac_mapped",
    "abandoned_vm": f"{_PAC}.abandoned_vm",
    "extent_avail": "pa_shard.edata_cache.count",
    "ever_used_hpa": "pa_shard.ever_used_hpa",
}
BEFORE_5_3: Paths = {
    **{f"{state}_decay_ms": f"decay_{state}.time_ms" for state in STATES[:2]},
    **{f"{s}_{what}": f"stats.decay_{s}.{what}" for s in STATES[:2] for what in PURGES},
    "mapped": "stats.mapped",
    "abandoned_vm": "stats.abandoned_vm",
    "extent_avail": "extent_avail_cnt",
}
"""Members of arena_t by the names that stats.c has for them."""
MUTEXES_SINCE_5_3: Paths = {
    "large": "large_mtx",
    "extent_avail": "pa_shard.edata_cache.mtx",
    **{f"extents_{state}": f"pa_shard.pac.ecache_{state}.mtx" for state in STATES},
    **{f"decay_{state}": f"pa_shard.pac.decay_{state}.mtx" for state in STATES[:2]},
    "tcache_list": "tcache_ql_mtx",
}
MUTEXES_BEFORE_5_3: Paths = {
    "large": "large_mtx",
    "extent_avail": "extent_avail_mtx",
    **{f"extents_{state}": f"extents_{state}.mtx" for state in STATES},
    **{f"decay_{state}": f"decay_{state}.mtx" for state in STATES[:2]},
    "tcache_list": "tcache_ql_mtx",
}
MUTEX_LATER = {"tcache_list": "cache_bin_array_descriptor_ql_mtx"}
"""An arena's mutexes (mutex_prof.h); each begins with its mutex_prof_data_t (mutex.h)."""


def counters_layout(arena: Struct, base: Struct, bin_s: Struct) -> CountersLayout:
    """All counters that the structs name."""
    later = _find(arena, "pa_shard") is not None
    mutexes = {**(MUTEXES_SINCE_5_3 if later else MUTEXES_BEFORE_5_3)}
    for name, path in MUTEX_LATER.items():
        if _find(arena, path) is not None:
            mutexes[name] = path
    places = {name: _find(arena, path) for name, path in mutexes.items()}
    lock = _find(bin_s, "lock")
    return CountersLayout(
        arena=_places(arena, {**SAME, **(SINCE_5_3 if later else BEFORE_5_3)}),
        base=_places(base, {name: name for name in BASE}),
        large=_places(_inner(arena, "stats.lstats"), {name: name for name in LARGE}),
        bin=_places(bin_s, {name: f"stats.{name}" for name in BIN}),
        extents={state: rows for state in STATES if (rows := _extents(arena, state))},
        profile=_places(_inner(arena, "stats.mutex_prof_data"), {name: name for name in PROFILE}),
        mutexes={name: member.offset for name, member in places.items() if member is not None},
        base_mutex=base.offset("mtx"),
        bin_mutex=None if lock is None else lock.offset,
    )


def _find(struct: Optional[Struct], path: str) -> Optional[Member]:
    try:
        return None if struct is None else struct.find(path)
    except MissingField:
        return None


def _inner(struct: Struct, path: str) -> Optional[Struct]:
    member = _find(struct, path)
    return None if member is None else member.type


def _places(struct: Optional[Struct], paths: Paths) -> Dict[str, Place]:
    """Where each of ``paths`` is in ``struct``; of an array its first element."""
    found = {name: _find(struct, path) for name, path in paths.items()}
    return {
        name: Place(member.offset, member.size // (member.count or 1))
        for name, member in found.items()
        if member is not None
    }


def _extents(arena: Struct, state: str) -> Tuple[Rows, ...]:
    """The counts of unused extents by size: one set of rows, or two that add up."""
    found = []
    for eset in ("eset", "guarded_eset"):
        rows = _find(arena, f"pa_shard.pac.ecache_{state}.{eset}.bin_stats")
        if rows is not None and rows.type is not None and rows.count:
            names: Sequence[Optional[Member]] = [
                _find(rows.type, name) for name in ("nextents", "nbytes")
            ]
            count, size = names
            if count is not None and size is not None:
                found.append(
                    Rows(
                        rows.offset + count.offset,
                        rows.offset + size.offset,
                        rows.type.size,
                        rows.count,
                    )
                )
    counts, sizes = (_find(arena, f"extents_{state}.{name}") for name in ("nextents", "nbytes"))
    if counts is not None and sizes is not None and counts.count:
        stride = counts.size // counts.count
        found.append(Rows(counts.offset, sizes.offset, stride, counts.count))
    return tuple(found)
