"""All that is known of who holds the live regions of a process that stands still."""

from __future__ import annotations

from functools import cached_property
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.residence import Residence
from drain_gdb.debuggee.views import memory_of
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.live import LiveRegions
from drain_gdb.jemalloc.placed import Column
from drain_gdb.memory import Memory
from drain_gdb.objects import registry
from drain_gdb.objects.contents import HeapContents
from drain_gdb.objects.naming import UNKNOWN, Kinds, Names, Words, word_namer
from drain_gdb.objects.owners import Owners, find_owners
from drain_gdb.objects.recogniser import Kind, Recogniser
from drain_gdb.objects.references import Finder, finder, pieces
from drain_gdb.objects.roots import Roots
from drain_gdb.objects.sideways import Blinds
from drain_gdb.objects.typed import Types

STEPS, STEPS_MAX = 1 << 10, 1 << 24
"""References that are followed back from one of many regions, and from a single one."""
Note = Callable[[str], None]


class Survey:
    """Live regions, what they are and who owns them; each is found when it is asked for.

    Attributes:
        live: the regions.
        contents: what is in them.

    """

    def __init__(
        self,
        target: Target,
        heaps: Sequence[Heap],
        memories: Callable[[], Memory],
        columns: Sequence[Column],
        residence: Optional[Residence],
        note: Note,
    ) -> None:
        self._target = target
        self._heaps = heaps
        self._memories = memories
        self._columns = columns
        self._residence = residence
        self._note = note
        self.live = LiveRegions(heaps, [memories() for _ in heaps], columns)
        self.contents = HeapContents(target, self.live)

    @cached_property
    def _recognisers(self) -> List[Recogniser]:
        return registry.recognisers(self.contents, self._note)

    @cached_property
    def _scanned(self) -> Tuple[Finder, Kinds]:
        """All live memory is read once: for references, and for words that tell a kind."""
        found, kinds = finder(self.live), Kinds(self.live.total)
        words = Words(self._recognisers, kinds)
        namer = word_namer(self.live, words, kinds, self.contents.spans)
        blinds = Blinds(self.contents, registry.sideways(self.contents))
        for address, data in pieces(self.live, self._memories()):
            found.feed(address, blinds.over(address, data))
            if words.indices:
                namer.feed(address, data)
        return found, kinds

    @property
    def finder(self) -> Finder:
        """Has looked through all live memory."""
        return self._scanned[0]

    @property
    def kinds(self) -> Kinds:
        """What is known of kinds so far."""
        return self._scanned[1]

    @cached_property
    def _roots(self) -> Roots:
        memory = memory_of(self._target)
        heaps, columns = self._heaps, self._columns
        elsewhere = registry.elsewhere(self.contents)
        return Roots(
            self._target,
            memory,
            self.finder,
            heaps,
            columns,
            self._residence,
            elsewhere,
            self._note,
        )

    @cached_property
    def owners(self) -> Owners:
        """Who owns each region."""
        programs = registry.owners(self.contents)
        return find_owners(
            self.live,
            self.finder,
            [program.roots() for program in programs],
            self._roots.names,
            self._roots.references,
            self.kinds.of,
            self.kinds.exact,
        )

    @cached_property
    def names(self) -> Names:
        """Names regions one by one."""
        forms = registry.forms(self.contents)
        return Names(
            self.live,
            self.contents,
            self._recognisers,
            forms,
            self.kinds,
            self.owners.parent,
            self._of_variables,
        )

    def _of_variables(self, region: int) -> Iterator[Tuple[int, Kind]]:
        """The typed pointers of the variables of which one refers to a region first."""
        root = self.owners.root(region)
        places = () if root is None else sorted(self._roots.variables.get(root, ()))
        for each in self._recognisers:
            if isinstance(each, Types):
                for address in places:
                    yield from each.variable(address)

    def known(self, region: int) -> Optional[str]:
        """What a region is; None where nothing tells."""
        kind = self.names.kind(region)
        return None if kind == UNKNOWN else kind.what

    def what(self, region: int) -> str:
        """What a region is, in words."""
        known = self.known(region)
        if known is not None:
            return known
        live = self.live
        row = live.row_of(region)
        return f"{live.size[row]} bytes" if live.slab[row] else "a large allocation"

    def chain(self, region: int, steps: int = STEPS) -> Tuple[str, ...]:
        """What refers to a region, what to that, ..., the root last; empty where none was found."""
        return self.owners.chain(region, self.what, steps)

    def owners_of(self, address: int) -> Optional[Tuple[str, ...]]:
        """The chain of owners of the live region that holds ``address``, the root last.

        Empty where none was found; None where there is no live region.
        """
        region = self.live.region_at(address)
        return None if region is None else self.chain(region, STEPS_MAX)
