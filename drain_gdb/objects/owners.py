"""Who owns each live region: what it is first reached from, and the group that this makes.

Owning begins where the program itself says so (the keys of a Redis), then at its variables, then
in memory of other allocators, then at stacks and registers: what a variable leads to stays when a
function that has it, too, returns.
There a region belongs to the topmost object whose type is known on the way to it, since a root
alone says little, else to the root; a type of which there are hardly any objects is no better
than a root.  What pointers to unusual places lead to comes last, and what nothing leads to has no
owner.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.objects.fast import looked_up, occurrences, without
from drain_gdb.objects.recogniser import Beginnings
from drain_gdb.objects.references import (
    NOWHERE,
    Finder,
    Links,
    only_of_holders,
    only_of_tables,
    only_to_others,
)
from drain_gdb.objects.roots import FOREIGN, PASSING, STAYING, RootReference
from drain_gdb.objects.spread import Seeds, fresh, spreader

NOT_FOUND = "no owner found"
BY_ROOT, BY_RARE_TYPE, BY_TYPE, BY_PROGRAM = range(4)
"""Ranks of labels: what a group is called by."""
RARE = 2
"""Objects of a type up to which it says no more than a root."""
WEAK_ROUNDS = 50
"""How often weak references are followed, and then strong ones from there."""
CHAIN_MAX = 64
"""Links of a chain that are looked at."""
LEFT_OUT = "..."


@dataclass(frozen=True)
class Owners:
    """The owner of each region.

    Attributes:
        live: the regions.
        labels: the groups; the first is for what has no owner.
        label: of each region the number of its group.
        ranks: of each group, what it is called by.
        names: what the roots are called.

    """

    live: LiveRegions
    labels: Sequence[str]
    label: array[int]
    ranks: Sequence[int]
    names: Sequence[str]
    _parent: array[int]

    def parent(self, region: int) -> Optional[int]:
        """The region that refers to it first on the way from a root; None for none."""
        parent = self._parent[region]
        return parent if parent < len(self.label) else None

    def root(self, region: int) -> Optional[int]:
        """The number of the root that refers to it first, where no region does."""
        parent = self._parent[region]
        return parent - len(self.label) if len(self.label) <= parent < NOWHERE else None

    def chain(self, region: int, what: Callable[[int], str], steps: int) -> Tuple[str, ...]:
        """What refers to a region, what to that, and so on up to a root, so many ``steps``.

        ``what`` says what a region is; several alike in a row are given once, and three dots
        stand for what is left out.
        """
        links: List[str] = []
        for step in range(steps):
            parent = self._parent[region]
            if parent == NOWHERE:
                return ()
            if parent >= len(self.label):
                return (*links, self.names[parent - len(self.label)])
            if step < CHAIN_MAX:
                link = what(parent)
                if not links or links[-1] != link:
                    links.append(link)
            elif step == CHAIN_MAX:
                links.append(LEFT_OUT)
            region = parent
        return tuple(links)


def find_owners(
    live: LiveRegions,
    finder: Finder,
    programs: Sequence[Beginnings],
    root_names: Sequence[str],
    root_references: Sequence[RootReference],
    kinds: Sequence[int],
    kind_names: Sequence[str],
) -> Owners:
    """Let owning spread from all roots.

    ``programs`` are those of the program's own kind.  ``kinds`` has, by region, the number of
    its type in ``kind_names``, which are empty where that is not sure.
    """
    labels = _Labels()
    own = _own_labels(labels, kinds, kind_names)
    reach = fresh(finder.references, kinds, own, labels.ranks)
    spreading = spreader(reach)
    names = list(root_names)
    first_name = live.total

    strong, slack = reach.references.strong, reach.references.slack

    def spread(seeds: Seeds, *links: Links) -> bool:
        regions = spreading.sow(seeds)
        spreading.spread(regions, *links)
        return len(regions) > 0

    for program in programs:
        spread(_program_seeds(finder, program, labels, names, first_name), strong)
    numbers = [labels.number(name, BY_ROOT) for name in root_names]
    for order in (STAYING, FOREIGN, PASSING):
        chosen = [each for each in root_references if each.strong and each.order == order]
        spread(_seeds(chosen, numbers, first_name), strong)
    # What the slack of a region points at may well be another's: those first that nobody
    # refers to otherwise, of these those in regions that surely hold pointers, which a text does
    # not, and of these those in tables, which have no slack.  Of a table that is being emptied
    # into another one the last entries may be left alone.
    nobodys = only_to_others(slack, strong)
    for some in (only_of_holders(nobodys, strong), nobodys):
        for links in (only_of_tables(some, live), some):
            spreading.spread(spreading.onward(links), strong, links)
    spreading.spread(spreading.onward(slack), strong, slack)
    unsure = [each for each in root_references if not each.strong]
    spread(_seeds(unsure, numbers, first_name), strong, slack)
    for _ in range(WEAK_ROUNDS):
        if not spread(spreading.weak(), strong, slack):
            break
    return Owners(
        live=live,
        labels=labels.names,
        label=reach.label,
        ranks=labels.ranks,
        names=names,
        _parent=reach.parent,
    )


class _Labels:
    """The groups, by number; the first is for what has no owner."""

    def __init__(self) -> None:
        self._numbers: Dict[Tuple[str, int], int] = {}
        self.names: List[str] = [NOT_FOUND]
        self.ranks: List[int] = [BY_ROOT]

    def number(self, name: str, rank: int) -> int:
        """The number of a group, a new one where there is none yet."""
        key = name, rank
        if key not in self._numbers:
            self._numbers[key] = len(self.names)
            self.names.append(name)
            self.ranks.append(rank)
        return self._numbers[key]


def _own_labels(labels: _Labels, kinds: Sequence[int], names: Sequence[str]) -> List[int]:
    """By kind the label that it makes, 0 for none."""
    numbers = [0] * len(names)
    for kind, number in occurrences(kinds, len(names)):
        if names[kind]:
            rank = BY_TYPE if number > RARE else BY_RARE_TYPE
            numbers[kind] = labels.number(names[kind], rank)
    return numbers


def _seeds(references: Sequence[RootReference], labels: Sequence[int], first: int) -> Seeds:
    """The regions that ``references`` of roots point into."""
    return Seeds(
        [each.region for each in references],
        [labels[each.name] for each in references],
        [first + each.name for each in references],
    )


def _program_seeds(
    finder: Finder, program: Beginnings, labels: _Labels, names: List[str], first_name: int
) -> Seeds:
    """Those that the program itself says; their labels are appended to ``names``."""
    first_name += len(names)
    names += program.labels
    groups = [labels.number(label, BY_PROGRAM) for label in program.labels]
    regions, numbers = without(NOWHERE, finder.regions(program.addresses), program.numbers)
    parents = range(first_name, first_name + len(groups))
    return Seeds(regions, looked_up(groups, numbers), looked_up(parents, numbers))
