"""What single regions are, by what is in them and what they point at; no survey of the heap."""

from __future__ import annotations

from functools import cached_property
from typing import Callable, List, Optional

from drain_gdb.objects import registry
from drain_gdb.objects.contents import IndexContents
from drain_gdb.objects.recogniser import Kind, Recogniser, Region


class Looker:
    """Names one region at a time; what only its holder tells stays unknown."""

    def __init__(self, contents: IndexContents, note: Callable[[str], None]) -> None:
        self._contents = contents
        self._note = note

    @cached_property
    def _recognisers(self) -> List[Recogniser]:
        return [
            *registry.recognisers(self._contents, self._note),
            *registry.forms(self._contents),
        ]

    def what(self, address: int) -> Optional[str]:
        """What the live region at ``address`` is; None where it is not known."""
        region = self._contents.region_at(address)
        if region is None:
            return None
        kinds = (self._kind(each, region) for each in self._recognisers)
        return next((kind.what for kind in kinds if kind is not None), None)

    def _kind(self, recogniser: Recogniser, region: Region) -> Optional[Kind]:
        words = region.words
        for index in recogniser.keys:
            if index < len(words):
                kind = recogniser.by_word(index, words[index], region.size)
                if kind is not None:
                    return kind
        return recogniser.recognise(region)
