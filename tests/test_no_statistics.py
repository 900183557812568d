"""jemalloc built without statistics: caches through the threads, proof by structure."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import List, Tuple

import pytest

from drain_gdb.analysis.report import Selection, Sweep
from drain_gdb.analysis.sweep import sweep
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.layout.build import tcache_layout
from drain_gdb.layout.model import Model, at
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import CountedCaches
from drain_gdb.layout.threads import find_thread_caches
from drain_gdb.memory import Memory
from drain_gdb.render.style import Style
from drain_gdb.render.text import render
from tests.support.fakeheap import BSS, METADATA, FakeHeap

TLS = 0x7E00_0000_0000
NREGS = 256
"""Regions of a slab of 16 bytes."""


def heap_of(threads: int = 2) -> Tuple[FakeHeap, List[int]]:
    """A heap whose threads cache two regions each, and their descriptors."""
    fake = FakeHeap(statistics=False)
    slabs = [fake.slab(1, range(number, 40)) for number in range(6)]
    fake.slab(1, range(NREGS))
    descriptors = []
    for thread in range(threads):
        held = [slabs[thread] + 16 * 20, slabs[thread] + 16 * 21]
        descriptors.append(fake.cache(0, {1: held}))
    return fake, descriptors


def swept(target: BytesTarget) -> Sweep:
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return sweep(heap, target.process(), Selection())


def test_threads_on_a_ring_that_has_no_name() -> None:
    """5.2.0 to 5.3.1: some variable points at the first of them."""
    fake, descriptors = heap_of()
    fake.bss.put(BSS + 8, "<Q", fake.threads[1])
    report = swept(fake.target())
    assert report.verification.status == "unavailable"
    assert report.verification.mismatches == ()
    assert report.allocator.thread_caches == len(descriptors)
    assert (report.totals.live, report.totals.cached) == (NREGS + 6 * 40 - 15 - 4, 4)
    assert "reached through the threads" in report.coverage.anomalies[0]


def test_threads_below_their_thread_pointers() -> None:
    """In any version, where the linker put the module's variables at a fixed place."""
    fake, descriptors = heap_of(threads=3)
    idle = METADATA + len(fake.metadata.data) - 64
    pointers = [descriptor + 512 for descriptor in descriptors]
    target = replace(fake.target(), thread_pointer_list=[idle, *pointers])
    assert swept(target).allocator.thread_caches == 3


def vector(thread: int, blocks: List[int], own: bool) -> bytes:
    """A thread control block at ``thread`` and its vector of modules right after."""
    table = thread + 64
    head = struct.pack("<QQ", thread, table) if own else struct.pack("<QQ", table, 0)
    entries = [len(blocks), 0, 1, 0, *(word for block in blocks for word in (block, 0))]
    return (head + bytes(32) + struct.pack(f"<{len(entries)}Q", *entries)).ljust(4096, b"\0")


@pytest.mark.parametrize("own", [True, False], ids=["x86-64", "aarch64"])
def test_threads_through_the_vector_of_modules(own: bool) -> None:
    """A library that was opened later has its storage anywhere."""
    fake, _ = heap_of()
    tls = {TLS + n * 8192: [TLS, tsd] for n, tsd in enumerate(fake.threads)}
    target = fake.target()
    target = replace(
        target,
        ranges={**target.ranges, **{at: vector(at, held, own) for at, held in tls.items()}},
        thread_pointer_list=list(tls),
    )
    assert swept(target).allocator.thread_caches == 2


def test_threads_that_cannot_be_found_are_said_to_be_missing() -> None:
    fake, _ = heap_of()
    target = replace(fake.target(), thread_pointer_list=[0, 24, 1 << 63, TLS])
    report = swept(target)
    assert (report.allocator.thread_caches, report.totals.cached) == (0, 0)
    assert "could not be reached" in report.coverage.anomalies[0]


def test_a_slab_that_its_bin_does_not_list_is_a_contradiction() -> None:
    fake, _ = heap_of()
    fake.metadata.put(fake.bin_field(0, 1, "slabs_nonfull"), "<Q", 0)
    report = swept(fake.target())
    assert report.verification.status == "mismatch"
    (found,) = report.verification.mismatches
    assert (found.what, found.walked, found.recorded) == ("slabs with free regions", 6, 1)
    shown = render(report, Style())
    assert "jemalloc's structures contradict each other" in " ".join(shown.split())
    assert "slabs with free regions: walked 6, recorded 1" in shown


@pytest.mark.parametrize("szind", [0, 2])
def test_what_a_bin_lists_must_be_a_slab_of_its_own(szind: int) -> None:
    fake, _ = heap_of()
    link = fake.bin_field(0, szind, "slabs_nonfull")
    fake.metadata.put(link, "<Q", fake.metadata.get(fake.bin_field(0, 1, "slabcur"), "<Q"))
    # It does not count where it does not belong.
    assert swept(fake.target()).verification.mismatches == ()


def test_a_list_of_slabs_that_cannot_be_read_makes_the_walk_partial() -> None:
    fake, _ = heap_of()
    fake.metadata.put(fake.bin_field(0, 1, "slabs_nonfull"), "<Q", 0x1000)
    report = swept(fake.target())
    assert report.verification.mismatches == ()
    assert report.coverage.partial
    assert any("slabs with room of arena 0" in text for text in report.coverage.anomalies)


def test_a_list_of_slabs_that_never_ends_is_cut_off() -> None:
    """Each node is new and readable, none is a slab."""
    fake, _ = heap_of()
    start = METADATA + len(fake.metadata.data)
    fake.metadata.put(fake.bin_field(0, 1, "slabs_nonfull"), "<Q", start)
    link = 8 + fake._struct("edata_s").offset("heap_link")
    chain = bytearray(8 * 4096)
    for node in range(0, 4000 * 8 - link, 8):
        struct.pack_into("<Q", chain, node + link, start + node + 8)
    fake.metadata.data += chain
    assert swept(fake.target()).verification.status == "mismatch"


@pytest.mark.parametrize("release", ["5.0.1", "5.1.0", "5.2.1"])
def test_caches_before_5_3_are_known_by_their_stacks(release: str) -> None:
    """One stands at the same place of two threads; what only begins like one is none."""
    source = Model(at(release), Parameters(12, 4, 48))
    layout = tcache_layout(source)
    assert isinstance(layout, CountedCaches)

    def thread(bins: int) -> bytes:
        data = bytearray(1 << 16)
        for index in range(bins):
            at = 4096 + layout.own_small + index * layout.bin_size + layout.avail
            struct.pack_into("<Q", data, at, 0x7000_0000 + 160 * index)
        return bytes(data)

    ranges = {TLS + (n << 20): thread(bins) for n, bins in enumerate([36, 35, 36])}
    pointers = [start + (1 << 16) for start in ranges]
    memory = Memory(BytesTarget(ranges).read)
    found = find_thread_caches(memory, layout, [], lambda: pointers)
    assert found == (TLS + 4096, TLS + (2 << 20) + 4096)
