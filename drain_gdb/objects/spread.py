"""Labels that spread from regions along their references, each to what none has reached yet."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import List, NamedTuple, Protocol, Sequence

from drain_gdb.objects.fast import numpy
from drain_gdb.objects.references import NOWHERE, Links, References

FEW = 256
"""Regions of a frontier up to which plain loops are faster: lists have one at a time."""


class Seeds(NamedTuple):
    """Regions from which labels spread; ``parents`` are what refers to each.  Columns."""

    regions: Sequence[int]
    labels: Sequence[int]
    parents: Sequence[int]


@dataclass
class Reach:
    """How far labels have spread.

    Attributes:
        references: along which they do.
        label: of each region; 0 where none has come.
        parent: the region that each was first reached from, or, from ``len(label)`` on, a root.
        kinds: of each region the number of its kind.
        own: of each kind a label of its own, 0 for none: in regions of that kind it takes the
            place of one of a lower rank that comes to them.
        rank: of each label; there may come more.

    """

    references: References
    label: array[int]
    parent: array[int]
    kinds: Sequence[int]
    own: Sequence[int]
    rank: List[int]

    def resolved(self, region: int, label: int) -> int:
        """The label that a region takes when one comes to it."""
        own = self.own[self.kinds[region]]
        return own if own and self.rank[own] > self.rank[label] else label


def fresh(
    references: References, kinds: Sequence[int], own: Sequence[int], rank: List[int]
) -> Reach:
    """Nothing is reached yet."""
    total = len(kinds)
    nothing = array("I", bytes(4 * total))
    return Reach(references, nothing, array("I", [NOWHERE]) * total, kinds, own, rank)


class Spreader(Protocol):
    """Lets labels spread."""

    def sow(self, seeds: Seeds) -> Sequence[int]:
        """Label the seeds that have no label, the first comes first; these regions."""

    def spread(self, regions: Sequence[int], *links: Links) -> None:
        """Label what is reached from these along all of these links, the nearest first."""

    def onward(self, links: Links) -> Sequence[int]:
        """Label what those with a label refer to by these links; the regions reached."""

    def weak(self) -> Seeds:
        """What has no label and is weakly referred to by what has one."""


def spreader(reach: Reach) -> Spreader:
    """The fastest one that this Python can have."""
    # Each is imported only where it is used.
    if numpy() is None:
        return PlainSpreader(reach)
    from drain_gdb.objects.spread_numpy import NumpySpreader  # noqa: PLC0415

    return NumpySpreader(reach)


class PlainSpreader:
    """:class:`Spreader` in plain loops."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def sow(self, seeds: Seeds) -> Sequence[int]:
        """Label the seeds that have no label, the first comes first; these regions."""
        reach = self._reach
        sown = []
        for region, label, parent in zip(*seeds):
            if not reach.label[region]:
                reach.label[region] = reach.resolved(region, label)
                reach.parent[region] = parent
                sown.append(region)
        return sown

    def spread(self, regions: Sequence[int], *links: Links) -> None:
        """Label what is reached from these."""
        while regions:
            regions = [reached for each in links for reached in self.level(regions, each)]

    def onward(self, links: Links) -> Sequence[int]:
        """Label what those with a label refer to by these links."""
        return self.level([r for r, label in enumerate(self._reach.label) if label], links)

    def level(self, regions: Sequence[int], links: Links) -> List[int]:
        """Label what these refer to; the regions that are reached now."""
        reach = self._reach
        begins, targets = links
        label, parent, kinds = reach.label, reach.parent, reach.kinds
        reached = []
        for region in regions:
            first, last = begins[region], begins[region + 1]
            if first == last:
                continue
            given = label[region]
            for target in targets[first:last]:
                if not label[target]:
                    label[target] = reach.resolved(target, given) if kinds[target] else given
                    parent[target] = region
                    reached.append(target)
        return reached

    def weak(self) -> Seeds:
        """What has no label and is weakly referred to by what has one."""
        label, references = self._reach.label, self._reach.references
        pairs = [
            (source, target)
            for source, target in zip(references.weak_from, references.weak_to)
            if not label[target] and label[source]
        ]
        sources = [source for source, _ in pairs]
        return Seeds([target for _, target in pairs], [label[s] for s in sources], sources)
