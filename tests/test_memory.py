"""Reads of a target's memory, holes and all."""

from __future__ import annotations

import struct
from typing import List, Tuple

import pytest

from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.errors import UnreadableMemory
from drain_gdb.memory import BULK_CHUNK, CACHE_PAGE, Block, Memory

PAGE = CACHE_PAGE


def counting(target: BytesTarget) -> Tuple[Memory, List[Tuple[int, int]]]:
    calls: List[Tuple[int, int]] = []

    def read(address: int, size: int) -> bytes:
        calls.append((address, size))
        return target.read(address, size)

    return Memory(read), calls


def test_integers() -> None:
    memory = Memory(BytesTarget({0x1000: struct.pack("<HHIQ", 1, 2, 3, 4) + bytes(PAGE)}).read)
    assert memory.u16(0x1002) == 2
    assert memory.u32(0x1004) == 3
    assert memory.u64(0x1008) == 4
    assert list(memory.words(0x1000, 2)) == [3 << 32 | 2 << 16 | 1, 4]


def test_small_reads_are_cached_by_page() -> None:
    memory, calls = counting(BytesTarget({0x10000: bytes(8 * PAGE)}))
    for at in range(0x10000, 0x10000 + PAGE, 64):
        memory.u64(at)
    assert calls == [(0x10000, PAGE)]
    assert memory.bytes_read == PAGE // 64 * 8


def test_a_range_that_is_no_whole_page_is_read_all_the_same() -> None:
    """A file's section begins and ends anywhere."""
    memory = Memory(BytesTarget({0x1234: b"abcdefgh"}).read)
    assert memory.read(0x1236, 4) == b"cdef"


def test_unreadable_memory_says_where() -> None:
    memory = Memory(BytesTarget({0x1000: bytes(PAGE)}).read)
    with pytest.raises(UnreadableMemory, match="0x1ffc") as caught:
        memory.u64(0x1FFC)
    assert caught.value.address == 0x1FFC
    with pytest.raises(UnreadableMemory, match="outside the address space"):
        memory.u64((1 << 64) - 4)


def test_a_short_answer_is_no_answer() -> None:
    with pytest.raises(UnreadableMemory, match="only 3 bytes"):
        Memory(lambda address, size: b"abc").read(0, 8)


def test_a_block_keeps_what_can_be_read_around_a_hole() -> None:
    first, last = b"\x11" * (3 * PAGE), b"\x22" * (5 * PAGE)
    memory = Memory(BytesTarget({0: first, 4 * PAGE: last}).read)
    block = memory.block(0, 9 * PAGE)
    assert block.data == first + bytes(PAGE) + last
    assert block.holes == ((3 * PAGE, 4 * PAGE),)
    assert block.missing == memory.bytes_unreadable == PAGE
    assert block.has(2 * PAGE, PAGE)
    assert not block.has(3 * PAGE - 8, 16)
    assert not block.has(4 * PAGE - 1, 1)
    assert block.has(4 * PAGE, PAGE)


def test_a_block_of_nothing_takes_few_reads() -> None:
    memory, calls = counting(BytesTarget({}))
    block = memory.block(0, BULK_CHUNK)
    assert block.missing == BULK_CHUNK
    assert len(calls) < 20


def test_nonzero_words_and_stretches_keep_order() -> None:
    words = [0] * 2000
    words[3], words[511], words[1999] = 7, 8, 9
    block = Block(0x8000, struct.pack("<2000Q", *words))
    assert list(block.nonzero_words()) == [
        (0x8000 + 24, 7),
        (0x8000 + 8 * 511, 8),
        (0x8000 + 8 * 1999, 9),
    ]
    stretches = {at: words.tolist() for at, words in block.stretches()}
    assert {at: len(words) for at, words in stretches.items()} == {0x8000: 512, 0xB000: 464}
    assert [stretches[0x8000][index] for index in (3, 511)] == [7, 8]
    assert stretches[0xB000][463] == 9


def test_rows_are_read_at_once_and_count_by_what_is_asked_for() -> None:
    data = struct.pack("<6Q", *range(1, 7))
    memory, calls = counting(BytesTarget({0x10000: data.ljust(PAGE, b"\0")}))
    rows = memory.rows(0x10000, 16, 3, [(8, 8)])
    assert next(rows) == (0x10000, data[:16])
    assert memory.bytes_read == 8
    told: List[Tuple[int, bytes]] = []
    recorded = Memory(
        BytesTarget({0x10000: data}).read, recorder=lambda at, got: told.append((at, got))
    )
    assert next(recorded.rows(0x10000, 16, 3, [(8, 8)])) == (0x10000, data[:16])
    assert told == [(0x10008, data[8:16])]
    assert list(rows) == [(0x10010, data[16:32]), (0x10020, data[32:48])]
    assert (memory.bytes_read, len(calls)) == (24, 1)


def test_rows_without_what_lies_between_are_read_part_by_part() -> None:
    parts = {0x10008: b"12345678", 0x10018: b"abcdefgh"}
    memory = Memory(BytesTarget(parts).read)
    rows = memory.rows(0x10000, 16, 3, [(8, 8)])
    assert next(rows) == (0x10000, bytes(8) + b"12345678")
    assert next(rows) == (0x10010, bytes(8) + b"abcdefgh")
    with pytest.raises(UnreadableMemory, match="0x10028"):
        next(rows)


def test_words_of_a_block_are_aligned_by_address() -> None:
    block = Block(0x1004, bytes(4) + struct.pack("<QI", 5, 6))
    assert list(block.nonzero_words()) == [(0x1008, 5)]


def test_progress_counts_bytes() -> None:
    told: List[int] = []
    memory = Memory(BytesTarget({0: bytes(2 * BULK_CHUNK)}).read, told.append)
    memory.block(0, 2 * BULK_CHUNK)
    assert told == [BULK_CHUNK, BULK_CHUNK]
