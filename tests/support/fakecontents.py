"""A process made by hand, as recognisers see it."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from drain_gdb.objects.recogniser import Region


class FakeContents:
    """What is at each address, in which there is nothing but zeros where only places are given.

    Attributes:
        parts: bytes by the address of the first.

    """

    def __init__(
        self,
        parts: Optional[Dict[int, bytes]] = None,
        regions: Sequence[Tuple[int, int]] = (),
        modules: Sequence[Tuple[int, int]] = (),
        symbols: Sequence[Tuple[int, int, str]] = (),
    ) -> None:
        self.parts = dict(parts or {})
        self._regions = regions
        self._modules = modules
        self._symbols = symbols
        for start, size in regions:
            self.parts.setdefault(start, bytes(size))
        for start, end in modules:
            self.parts.setdefault(start, bytes(end - start))

    def read(self, address: int, size: int) -> Optional[bytes]:
        for start, data in self.parts.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        return None

    def fetch(self, address: int, size: int) -> Optional[bytes]:
        return self.read(address, size)

    def word(self, address: int) -> Optional[int]:
        data = self.read(address, 8)
        return None if data is None else int.from_bytes(data, "little")

    def bounds_at(self, address: int) -> Optional[Tuple[int, int]]:
        return next((r for r in self._regions if r[0] <= address < sum(r)), None)

    def region_at(self, address: int) -> Optional[Region]:
        bounds = self.bounds_at(address)
        return None if bounds is None else Region(*bounds, self.parts[bounds[0]])

    def in_module(self, address: int) -> bool:
        return any(start <= address < end for start, end in self._modules)

    def variables(self) -> List[Tuple[int, int]]:
        return []

    def symbol_at(self, address: int) -> Optional[str]:
        return next((name for start, end, name in self._symbols if start <= address < end), None)

    def symbol(self, name: str) -> Optional[int]:
        return next((start for start, _, each in self._symbols if each == name), None)

    def types_at(self, address: int) -> None:
        del address
