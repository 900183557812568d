"""Typed and bulk reads of a target's memory.

A :class:`Memory` lives for one command: nothing it has read outlives the
moment, so a live process that moved between two commands is never seen through
stale bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import UnreadableMemory

WORD = 8
CACHE_PAGE = 4096
CACHED_PAGES_MAX = 4096
HOLES_MAX = 1 << 16
BULK_CHUNK = 4 << 20
ZEROS = bytes(CACHE_PAGE)
ADDRESS_END = 1 << 64

Progress = Callable[[int], None]
Range = Tuple[int, int]
"""``(start, end)``."""
Recorder = Callable[[int, bytes], None]
"""Told ``(address, bytes)`` of all that a walker asked for and was given."""


def words_of(data: bytes) -> memoryview:
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
        for address, words in self.stretches():
            for index, word in enumerate(words):
                if word:
                    yield address + index * WORD, word

    def stretches(self) -> Iterator[Tuple[int, memoryview]]:
        """``(address, words)`` of each stretch of the block, most of its zeros left out."""
        start = -self.address % WORD
        end = len(self.data) - (len(self.data) - start) % WORD
        begun: Optional[int] = None
        for at in range(start, end, CACHE_PAGE):
            stop = min(at + CACHE_PAGE, end)
            if self.data[at:stop] == ZEROS[: stop - at]:
                if begun is not None:
                    yield self.address + begun, words_of(self.data[begun:at])
                begun = None
            elif begun is None:
                begun = at
        if begun is not None:
            yield self.address + begun, words_of(self.data[begun:end])

    def has(self, address: int, size: int) -> bool:
        """Whether all of ``address .. address + size`` was readable."""
        return not any(start < address + size and address < end for start, end in self.holes)


class Memory:
    """Reads through ``read(address, size) -> bytes`` and keeps account.

    Small reads go through a page cache; :meth:`block` and :meth:`records` read
    large areas once, past the cache, and leave holes where the target has none of
    the bytes.  What is counted, and what ``recorder`` is told, are the bytes that
    were asked for, never the rest of their pages: a recording replays with the
    same counts and holds nothing else.

    Attributes:
        bytes_read: bytes asked for that the target gave.
        bytes_unreadable: bytes asked for in blocks and records that it could not.
        mapped: ``(start, end)`` of all there is in the address space, ascending;
            None where that is not known.

    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        progress: Optional[Progress] = None,
        recorder: Optional[Recorder] = None,
        mapped: Optional[Sequence[Range]] = None,
    ) -> None:
        self._read = read
        self.mapped = mapped
        self._pages: Dict[int, bytes] = {}
        self._holes: Dict[Range, str] = {}
        self._progress = progress
        self._recorder = recorder
        self.bytes_read = 0
        self.bytes_unreadable = 0

    def _fetch(self, address: int, size: int) -> bytes:
        data = self._read(address, size)
        if len(data) != size:
            raise UnreadableMemory(address, size, f"only {len(data)} bytes came back")
        if self._progress is not None:
            self._progress(size)
        return data

    def _page(self, base: int) -> bytes:
        """The page at ``base``; empty where not all of it can be read."""
        page = self._pages.get(base)
        if page is None:
            try:
                page = self._fetch(base, CACHE_PAGE)
            except UnreadableMemory:
                page = b""
            if len(self._pages) >= CACHED_PAGES_MAX:
                self._pages.clear()
            self._pages[base] = page
        return page

    def _get(self, address: int, size: int) -> bytes:
        """``size`` bytes through the cache, without account."""
        if address < 0 or address + size > ADDRESS_END:
            raise UnreadableMemory(address, size, "outside the address space")
        first = address & -CACHE_PAGE
        if address + size <= first + CACHE_PAGE:
            page = self._page(first)
            if page:
                return page[address - first : address - first + size]
            return self._beside_a_hole(address, size)
        if address + size > first + 4 * CACHE_PAGE:
            return self._fetch(address, size)
        pages = [self._page(base) for base in range(first, address + size, CACHE_PAGE)]
        if not all(pages):
            # A range need not begin or end on a page of ours (a file's section).
            return self._fetch(address, size)
        return b"".join(pages)[address - first : address - first + size]

    def _beside_a_hole(self, address: int, size: int) -> bytes:
        """What can be read of a page that is not all there; what cannot is asked for once.

        Where no pointer is, the same text is taken for one again and again.
        """
        why = self._holes.get((address, size))
        if why is not None:
            raise UnreadableMemory(address, size, why)
        try:
            return self._fetch(address, size)
        except UnreadableMemory as error:
            if len(self._holes) >= HOLES_MAX:
                self._holes.clear()
            self._holes[address, size] = error.why
            raise

    def _give(self, address: int, data: bytes) -> None:
        """Account for ``data`` that a walker asked for."""
        self.bytes_read += len(data)
        if self._recorder is not None:
            self._recorder(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``address``, or :class:`UnreadableMemory`."""
        if size == 0:
            return b""
        data = self._get(address, size)
        self._give(address, data)
        return data

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

    def rows(
        self, address: int, size: int, count: int, parts: Sequence[Tuple[int, int]]
    ) -> Iterator[Tuple[int, bytes]]:
        """Address and bytes of ``count`` records of ``size`` bytes, in a row, read at once.

        Of each only ``parts``, ``(offset, length)``, are asked for: as in
        :meth:`records` the rest is read along, is neither counted nor recorded, and is
        zero where it cannot be read.  A record counts when it is taken.
        """
        try:
            whole: Optional[bytes] = self._get(address, size * count)
        except UnreadableMemory:
            whole = None
        for start in range(0, size * count, size):
            row = bytearray(size if whole is None else whole[start : start + size])
            for offset, length in parts:
                if whole is None:
                    row[offset : offset + length] = self.read(address + start + offset, length)
                else:
                    self._give(address + start + offset, bytes(row[offset : offset + length]))
            yield address + start, bytes(row)

    def may_hold(self, address: int) -> bool:
        """Whether anything may be at ``address``: it is mapped, or that is not known."""
        if self.mapped is None:
            return True
        row = bisect_right(self.mapped, (address, ADDRESS_END)) - 1
        return row >= 0 and address < self.mapped[row][1]

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
        for at in range(address, address + size, BULK_CHUNK):
            self._collect(at, min(BULK_CHUNK, address + size - at), parts, holes)
        return Block(address, b"".join(parts), tuple(holes))

    def suppose_zero(self, start: int, end: int) -> None:
        """Account for bytes that are known to be zero, as if they had been read."""
        if end > start:
            self.bytes_read += end - start
            if self._recorder is not None:
                self._recorder(start, bytes(end - start))

    def _collect(
        self,
        address: int,
        size: int,
        parts: List[bytes],
        holes: List[Tuple[int, int]],
    ) -> None:
        try:
            parts.append(self._fetch(address, size))
            self._give(address, parts[-1])
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

    def records(self, addresses: Sequence[int], size: int) -> Block:
        """Records of ``size`` bytes at ascending ``addresses``, at least one, in one block.

        What lies between them is read along, but may be anything: it is neither
        counted nor recorded.  A record that cannot be read whole is a hole.
        """
        first = addresses[0]
        parts = list(self._gather(addresses, size))
        holes: List[Tuple[int, int]] = []
        for run, data in parts:
            if data is None:
                holes.append((run[0], run[-1] + size))
                self.bytes_unreadable += len(run) * size
            elif self._recorder is None:
                self.bytes_read += len(run) * size
            else:
                for start, end in _stretches(run, size):
                    self._give(start, data[start - run[0] : end - run[0]])
        if len(parts) == 1 and parts[0][1] is not None:
            return Block(first, parts[0][1])
        whole = bytearray(addresses[-1] + size - first)
        for run, data in parts:
            if data is not None:
                whole[run[0] - first : run[-1] + size - first] = data
        return Block(first, bytes(whole), tuple(holes))

    def _gather(
        self, addresses: Sequence[int], size: int
    ) -> Iterator[Tuple[Sequence[int], Optional[bytes]]]:
        """The records in runs, each with all its bytes or, None, without any.

        A run that fails is halved for as long as its first, middle or last record
        can be read.
        """
        try:
            yield addresses, self._fetch(addresses[0], addresses[-1] + size - addresses[0])
            return
        except UnreadableMemory:
            pass
        middle = len(addresses) // 2
        if not middle or not any(self._has(addresses[at], size) for at in (0, middle, -1)):
            yield addresses, None
            return
        yield from self._gather(addresses[:middle], size)
        yield from self._gather(addresses[middle:], size)

    def _has(self, address: int, size: int) -> bool:
        try:
            self._get(address, size)
        except UnreadableMemory:
            return False
        return True


class LiveMemory(Memory):
    """Nothing is remembered: each read asks the target, which may run between two."""

    def _get(self, address: int, size: int) -> bytes:
        return self._fetch(address, size)


def _stretches(addresses: Sequence[int], size: int) -> Iterator[Tuple[int, int]]:
    """``(start, end)`` of each row of records of ``size`` bytes with nothing between them."""
    start = addresses[0]
    end = start + size
    for address in addresses[1:]:
        if address != end:
            yield start, end
            start = address
        end = address + size
    yield start, end


MakeMemory = Callable[[], Memory]
"""Memory of the process as it is now, with nothing of it read yet."""
