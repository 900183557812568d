"""The groups of all blocks counted with NumPy: the same as block by block, to the last digit."""

from __future__ import annotations

from typing import AbstractSet, Any, FrozenSet, Iterator, List, Sequence, Tuple

from drain_gdb.analysis.pins import TOGETHER, Measured, Signature, Tally
from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.objects.fast import numpy, view

AT_ONCE = 1 << 20
"""Regions that are counted at once."""


def measure_at_once(
    live: LiveRegions,
    groups: Sequence[int],
    cached: AbstractSet[int],
    whole: bool,
    threshold: float,
) -> Measured:
    """As :func:`~drain_gdb.analysis.pins.measure`."""
    found = Measured({}, {})
    np: Any = numpy()
    slab = view(live.slab, "u1")
    found.slabs = int(slab.sum(dtype="i8"))
    held = np.isin(view(live.start, "u8"), np.fromiter(cached, "u8", len(cached)))
    for first, last in _parts(live):
        _count(_Blocks(live, first, last, held, threshold), view(groups, "u4"), whole, found)
    return found


def _parts(live: LiveRegions) -> Iterator[Tuple[int, int]]:
    """Rows of blocks, from and to, with so many regions that they can be counted at once."""
    np: Any = numpy()
    firsts = view(live.first, "u8")
    at = 0
    while at < len(live):
        end = int(np.searchsorted(firsts, int(firsts[at]) + AT_ONCE, "right"))
        end = max(end - 1, at + 1) if end < len(live) else len(live)
        yield at, end
        at = end


class _Blocks:
    """Columns of some blocks."""

    def __init__(
        self, live: LiveRegions, first: int, last: int, held: Any, threshold: float
    ) -> None:
        rows = slice(first, last)
        self.row = first
        self.first = int(live.first[first])
        self.nregs = view(live.nregs, "u8")[rows].astype("i8")
        self.size = view(live.size, "u8")[rows].astype("i8")
        ends, starts = view(live.end, "u8")[rows], view(live.start, "u8")[rows]
        self.bytes = (ends - starts).astype("i8")
        self.slab = view(live.slab, "u1")[rows] != 0
        self.cached = held[rows]
        self.threshold = threshold


def _count(blocks: _Blocks, every: Any, whole: bool, found: Measured) -> None:
    np: Any = numpy()
    rows = np.repeat(np.arange(len(blocks.nregs)), blocks.nregs)
    groups = every[blocks.first : blocks.first + len(rows)]
    alive = np.flatnonzero(groups)
    if not len(alive):
        return
    rows, groups = rows[alive], groups[alive].astype("i8")
    # One key a pair of block and group, in the order of the blocks.
    width = int(groups.max()) + 1
    keys, counts = np.unique(rows * width + groups, return_counts=True)
    at, group = np.divmod(keys, width)
    number = np.bincount(rows, minlength=len(blocks.nregs))
    kinds = np.bincount(at, minlength=len(blocks.nregs))
    waste = np.where(blocks.slab, blocks.bytes - number * blocks.size, 0)
    pinned = blocks.slab & (number > 0)
    sparse = pinned & (number < blocks.threshold * blocks.nregs)
    scoped = (number > 0) & (sparse | whole)
    found.pinned += int(pinned.sum())
    found.sparse += int(sparse.sum())
    found.waste += int(waste[scoped].sum())
    found.waste_elsewhere += int(waste[(number > 0) & ~scoped].sum())
    for size in np.unique(blocks.size[pinned]).tolist():
        found.waste_by_size[size] += int(waste[pinned & (blocks.size == size)].sum())
    _sign(blocks, pinned & (kinds <= max(TOGETHER)), at, group, kinds, found)
    _tally(blocks, rows, groups, found, (at, group, counts, number, kinds, waste, scoped))


def _sign(blocks: _Blocks, some: Any, at: Any, group: Any, kinds: Any, found: Measured) -> None:
    """Count ``some`` slabs by the groups in them, which are few."""
    np: Any = numpy()
    begins = np.cumsum(kinds) - kinds
    said: List[Tuple[int, FrozenSet[int], Signature]] = []
    for number in range(1, max(TOGETHER) + 1):
        rows = np.flatnonzero(some & (kinds == number))
        if not len(rows):
            continue
        members = group[begins[rows][:, None] + np.arange(number)]
        signatures, firsts, which = np.unique(
            members, axis=0, return_index=True, return_inverse=True
        )
        which = which.reshape(-1)
        sums = (
            np.bincount(which, each[rows]) for each in (blocks.slab, blocks.cached, blocks.bytes)
        )
        for key, first, *sizes in zip(signatures.tolist(), rows[firsts].tolist(), *sums):
            said.append((first, frozenset(key), Signature(*map(int, sizes))))
    # In the order in which they first occur.
    for _, members, each in sorted(said, key=lambda each: each[0]):
        signature = found.signatures.setdefault(members, Signature())
        signature.slabs += each.slabs
        signature.cached += each.cached
        signature.bytes += each.bytes


def _tally(
    blocks: _Blocks, rows: Any, groups: Any, found: Measured, pairs: Tuple[Any, ...]
) -> None:
    """Add what each group has in these blocks."""
    np: Any = numpy()
    at, group, counts, number, kinds, waste, scoped = pairs
    parts = waste[at] * counts / number[at]
    own, firsts = np.unique(groups, return_index=True)
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], own, "right")
    begins = np.searchsorted(group[order], own, "left")
    # In the order in which they first occur.
    for turn in np.argsort(firsts).tolist():
        tally = found.tallies.setdefault(int(own[turn]), Tally())
        mine = order[begins[turn] : ends[turn]]
        block = at[mine]
        shared = kinds[block] > 1
        tally.shared = _added(tally.shared, parts[mine[shared]])
        alone = block[~shared & blocks.slab[block]]
        tally.alone_slabs += len(alone)
        tally.alone_cached += int(blocks.cached[alone].sum())
        tally.alone_bytes += int(blocks.bytes[alone].sum())
        mine = mine[scoped[block]]
        if len(mine):
            _add_scoped(tally, blocks, at[mine], counts[mine])
            tally.part = _added(tally.part, parts[mine])


def _add_scoped(tally: Tally, blocks: _Blocks, at: Any, counts: Any) -> None:
    np: Any = numpy()
    _look_at(tally, at + blocks.row, counts)
    tally.regions += int(counts.sum())
    sizes, which = np.unique(blocks.size[at], return_inverse=True)
    for size, count in zip(sizes.tolist(), np.bincount(which, counts).tolist()):
        tally.sizes[size] += int(count)
    large = ~blocks.slab[at]
    tally.large_bytes += int((counts * blocks.size[at])[large].sum())


def _look_at(tally: Tally, rows: Any, counts: Any) -> None:
    """As :meth:`~drain_gdb.analysis.pins.Tally.look_at` at one block after the other."""
    np: Any = numpy()
    ends = np.cumsum(counts)
    due, total = tally.due, int(ends[-1])
    while due < total:
        due += tally.take(int(rows[np.searchsorted(ends, due, "right")]))
    tally.due = due - total


def _added(total: float, parts: Any) -> float:
    """One by one, in their order, as Python adds them: NumPy adds pairs."""
    np: Any = numpy()
    return float(np.cumsum(np.concatenate([[total], parts]))[-1])
