"""Labels spread with NumPy, where there are many at once."""

from __future__ import annotations

from typing import Any, Sequence

from drain_gdb.objects.fast import numpy, view
from drain_gdb.objects.references import Links
from drain_gdb.objects.spread import FEW, PlainSpreader, Reach, Seeds

TOGETHER = 1 << 20
"""Regions whose references are followed at once."""


class NumpySpreader:
    """:class:`~drain_gdb.objects.spread.Spreader`; the same labels as by plain loops."""

    def __init__(self, reach: Reach) -> None:
        np: Any = numpy()
        self._np = np
        self._reach = reach
        self._plain = PlainSpreader(reach)
        references = reach.references
        self._weak_from = view(references.weak_from, "u4")
        self._weak_to = view(references.weak_to, "u4")
        self._label = view(reach.label, "u4")
        self._parent = view(reach.parent, "u4")
        self._kinds = view(reach.kinds, "u2")
        self._own = np.asarray(reach.own, "u4")

    def sow(self, seeds: Seeds) -> Sequence[int]:
        """Label the seeds that have no label, the first comes first; these regions."""
        regions, labels, parents = (self._np.asarray(column, "u4") for column in seeds)
        sown: Sequence[int] = self._take(regions, labels, parents)
        return sown

    def spread(self, regions: Sequence[int], *links: Links) -> None:
        """Label what is reached from these."""
        while len(regions):
            parts = [self._level(regions, each) for each in links]
            regions = parts[0] if len(parts) == 1 else self._np.concatenate(parts)

    def onward(self, links: Links) -> Sequence[int]:
        """Label what those with a label refer to by these links."""
        known = self._np.flatnonzero(self._label).astype("u4")
        reached: Sequence[int] = self._level(known, links)
        return reached

    def _level(self, regions: Any, links: Links) -> Any:
        """Label what these refer to; the regions that are reached now."""
        if len(regions) <= FEW:
            return self._plain.level(list(map(int, regions)), links)
        every = self._np.asarray(regions, "u4")
        parts = range(0, len(every), TOGETHER)
        many = [self._many(every[at : at + TOGETHER], links) for at in parts]
        return self._np.concatenate(many)

    def _many(self, regions: Any, links: Links) -> Any:
        np = self._np
        begins, pointed = view(links.begins, "u4"), view(links.targets, "u4")
        first = begins[regions].astype("i8")
        counts = begins[regions + 1].astype("i8") - first
        before = np.cumsum(counts) - counts
        total = int(counts.sum())
        targets = pointed[np.repeat(first - before, counts) + np.arange(total)]
        sources = np.repeat(regions, counts)
        return self._take(targets, self._label[sources], sources)

    def _take(self, targets: Any, given: Any, parents: Any) -> Any:
        """Label those of ``targets`` that have no label; of several that come the first counts."""
        np, label, parent = self._np, self._label, self._parent
        fresh = np.flatnonzero(label[targets] == 0)
        targets, given, parents = targets[fresh], given[fresh], parents[fresh]
        # What is assigned last stays.
        order = np.arange(len(targets), dtype="u4")
        parent[targets[::-1]] = order[::-1]
        winners = np.flatnonzero(parent[targets] == order)
        targets, given = targets[winners], given[winners]
        parent[targets] = parents[winners]
        own = self._own[self._kinds[targets]]
        if own.any():
            rank = np.asarray(self._reach.rank, "u1")
            given = np.where((own > 0) & (rank[own] > rank[given]), own, given)
        label[targets] = given
        return targets

    def weak(self) -> Seeds:
        """What has no label and is weakly referred to by what has one."""
        label = self._label
        known = (label[self._weak_to] == 0) & (label[self._weak_from] != 0)
        rows = self._np.flatnonzero(known)
        sources = self._weak_from[rows]
        return Seeds(self._weak_to[rows], label[sources], sources)
