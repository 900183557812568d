"""Typed and bulk reads of a target's memory.

A :class:`Memory` lives for one command: nothing it has read outlives the
moment, so a live process that moved between two commands is never seen through
stale bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import UnreadableMemory

WORD = 8
CACHE_PAGE = 4096
CACHED_PAGES_MAX = 4096
BULK_CHUNK = 4 << 20
ZEROS = bytes(CACHE_PAGE)

Progress = Callable[[int], None]


def words_of(data: bytes) -> Sequence[int]:
    """``data`` (a multiple of 8 bytes) as unsigned 64-bit words, without a copy.

    Targets are little-endian, as are the machines that gdb and lldb read them on.
    """
    return memoryview(data).cast("Q")


@dataclass(frozen=True)
class Block:
    """Bytes ``address .. address + len(data)``; holes read as zero.

    ``holes`` are the ``(start, end)`` addresses that could not be read.
    """

    address: int
    data: bytes
    holes: Tuple[Tuple[int, int], ...] = ()

    @property
    def missing(self) -> int:
        """Bytes of the block that could not be read."""
        return sum(end - start for start, end in self.holes)

    def nonzero_words(self) -> Iterator[Tuple[int, int]]:
        """``(address, word)`` of each non-zero aligned word, ascending."""
        for at, piece in self._nonzero_pieces():
            for index, word in enumerate(words_of(piece)):
                if word:
                    yield self.address + at + index * WORD, word

    def packed(self) -> bytes:
        """The data without most of its zeros, in order, whole words kept."""
        return b"".join(piece for _, piece in self._nonzero_pieces())

    def _nonzero_pieces(self) -> Iterator[Tuple[int, bytes]]:
        start = -self.address % WORD
        end = len(self.data) - (len(self.data) - start) % WORD
        for at in range(start, end, CACHE_PAGE):
            piece = self.data[at : min(at + CACHE_PAGE, end)]
            if piece != ZEROS[: len(piece)]:
                yield at, piece

    def has(self, address: int, size: int) -> bool:
        """Whether all of ``address .. address + size`` was readable."""
        return not any(start < address + size and address < end for start, end in self.holes)


class Memory:
    """Reads through ``read(address, size) -> bytes`` and keeps account.

    Small reads go through a page cache; :meth:`block` reads large areas once,
    past the cache, and leaves holes where the target has none of the bytes.

    Attributes:
        bytes_read: bytes of the target read so far.
        bytes_unreadable: bytes asked for that the target could not give.

    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        progress: Optional[Progress] = None,
    ) -> None:
        self._read = read
        self._pages: Dict[int, bytes] = {}
        self._progress = progress
        self.bytes_read = 0
        self.bytes_unreadable = 0

    def _fetch(self, address: int, size: int) -> bytes:
        data = self._read(address, size)
        if len(data) != size:
            raise UnreadableMemory(address, size, f"only {len(data)} bytes came back")
        self.bytes_read += size
        if self._progress is not None:
            self._progress(size)
        return data

    def _page(self, base: int) -> bytes:
        page = self._pages.get(base)
        if page is None:
            page = self._fetch(base, CACHE_PAGE)
            if len(self._pages) >= CACHED_PAGES_MAX:
                self._pages.clear()
            self._pages[base] = page
        return page

    def read(self, address: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``address``, or :class:`UnreadableMemory`."""
        if address < 0 or address + size > 1 << 64:
            raise UnreadableMemory(address, size, "outside the address space")
        first = address & -CACHE_PAGE
        if address + size > first + 4 * CACHE_PAGE:
            return self._fetch(address, size)
        try:
            data = b"".join(self._page(base) for base in range(first, address + size, CACHE_PAGE))
        except UnreadableMemory:
            # A range need not begin or end on a page of ours (a file's section).
            return self._fetch(address, size)
        return data[address - first : address - first + size]

    def u16(self, address: int) -> int:
        """The unsigned 16-bit integer at ``address``."""
        return int.from_bytes(self.read(address, 2), "little")

    def u32(self, address: int) -> int:
        """The unsigned 32-bit integer at ``address``."""
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        """The unsigned 64-bit integer at ``address``."""
        return int.from_bytes(self.read(address, 8), "little")

    def words(self, address: int, count: int) -> Sequence[int]:
        """``count`` unsigned 64-bit words at ``address``."""
        return words_of(self.read(address, count * WORD))

    def readable(self, address: int, size: int = WORD) -> bool:
        """Whether ``size`` bytes at ``address`` can be read."""
        try:
            self.read(address, size)
        except UnreadableMemory:
            return False
        return True

    def block(self, address: int, size: int) -> Block:
        """``size`` bytes at ``address``, in large reads, holes left as zeros."""
        parts: List[bytes] = []
        holes: List[Tuple[int, int]] = []
        for start in range(address, address + size, BULK_CHUNK):
            self._collect(start, min(BULK_CHUNK, address + size - start), parts, holes)
        return Block(address, b"".join(parts), tuple(holes))

    def _collect(
        self,
        address: int,
        size: int,
        parts: List[bytes],
        holes: List[Tuple[int, int]],
    ) -> None:
        try:
            parts.append(self._fetch(address, size))
            return
        except UnreadableMemory:
            pass
        page = CACHE_PAGE
        middle = (address + size // 2) & -page
        if size <= page or not any(
            self.readable(at & -WORD) for at in (address, middle, address + size - WORD)
        ):
            parts.append(bytes(size))
            holes.append((address, address + size))
            self.bytes_unreadable += size
            return
        if not address < middle < address + size:
            middle = address + size // 2
        self._collect(address, middle - address, parts, holes)
        self._collect(middle, address + size - middle, parts, holes)
