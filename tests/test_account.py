"""The account: every page of RSS in one part, and who has memory that is not jemalloc's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Dict, Optional, Tuple

import pytest

from drain_gdb.analysis.account import SLABS, account, elsewhere, join
from drain_gdb.analysis.report import Account, Detail, Part
from drain_gdb.debuggee.residence import (
    BSS,
    CORE,
    FILE,
    HEAP,
    SMAPS,
    STACK,
    Area,
    Named,
    Residence,
    assembled,
)
from drain_gdb.jemalloc.heap import ACTIVE, DIRTY, RETAINED, CachedRegion
from drain_gdb.jemalloc.placed import columns_of, gaps
from drain_gdb.render import text
from drain_gdb.render.elsewhere import sentence
from drain_gdb.render.style import Style
from tests.conftest import Livelist
from tests.support.handmade import KILOBYTE, PAGE, HandmadeHeap, area, residence
from tests.support.reports import MIB, sweep_of
from tests.support.runs import sweep_json

START = 0x7F00_0000_0000
LARGE, UNUSED = 40, 232
"""Size classes of large and of unused extents."""


def account_of(heap: HandmadeHeap, found: Optional[Residence], *more: HandmadeHeap) -> Account:
    columns = columns_of([each.heap() for each in (heap, *more)])
    return account(join(columns, found))


def pages(made: Account) -> Dict[Tuple[str, Optional[int]], Optional[float]]:
    """Resident pages of each part."""
    return {
        (part.part, part.allocator): None
        if part.resident_bytes is None
        else part.resident_bytes / PAGE
        for part in made.parts
    }


def test_each_page_is_in_one_part() -> None:
    heap = HandmadeHeap(blocks=((START + 10 * PAGE, START + 12 * PAGE),))
    heap.slab(START, KILOBYTE, live=2, cached=1)
    heap.slab(START + PAGE, KILOBYTE, live=0, cached=2)
    heap.extent(START + 2 * PAGE, 2 * PAGE, ACTIVE, LARGE)
    heap.extent(START + 4 * PAGE, 3 * PAGE, DIRTY, UNUSED)
    heap.extent(START + 7 * PAGE, 2 * PAGE, RETAINED, UNUSED)
    made = account_of(
        heap,
        residence(
            area(0x1000, "ffp", FILE, "/bin/server"),
            area(0x4000, "p.", BSS, "/bin/server"),
            area(0x8000, "pp", HEAP),
            area(START, "ppp.pp..wpp.pp."),
            area(START + (1 << 30), "p", STACK),
        ),
    )
    assert pages(made) == {
        ("live", 0): 0.5,
        ("cached", 0): 0.75,
        ("drainable", 0): 0.5,
        ("pinned_waste", 0): 0.25,
        ("large", 0): 1,
        ("dirty", 0): 2,
        ("retained", 0): 0,
        ("metadata", 0): 1,
        ("brk_heap", None): 2,
        ("stacks", None): 1,
        ("file_backed", None): 2,
        ("file_copies", None): 2,
        ("other_anonymous", None): 3,
    }
    assert made.resident_bytes == 16 * PAGE
    assert made.swapped_bytes == PAGE
    assert (made.source, made.exact, made.shared_bytes) == ("pagemap", True, 0)


def test_parts_of_slabs_add_up_where_a_slab_is_partly_there() -> None:
    heap = HandmadeHeap()
    for number in range(3):
        heap.slab(START + number * 3 * PAGE, 48, live=100, cached=7)
    found = pages(account_of(heap, residence(area(START, "pp.p....."))))
    assert sum(filter(None, found.values())) == 3
    assert found["live", 0] == pytest.approx(3 * (3 * 100 * 48) / (9 * PAGE), abs=0.01)


def test_an_extent_may_lie_in_several_mappings() -> None:
    heap = HandmadeHeap()
    heap.extent(START + PAGE, 6 * PAGE, ACTIVE, LARGE)
    made = account_of(
        heap,
        residence(area(START, "ppp"), area(START + 3 * PAGE, "p."), area(START + 5 * PAGE, "ppp")),
    )
    assert pages(made) == {("large", 0): 5, ("other_anonymous", None): 2}


def test_what_two_claim_is_the_first_ones() -> None:
    first, second = HandmadeHeap(), HandmadeHeap()
    first.extent(START, 3 * PAGE, ACTIVE, LARGE)
    second.extent(START + 2 * PAGE, 3 * PAGE, DIRTY, UNUSED)
    second.extent(START + 3 * PAGE, PAGE, ACTIVE, LARGE)
    made = account_of(first, residence(area(START, "ppppp")), second)
    assert pages(made) == {("large", 0): 3, ("dirty", 1): 2}


def test_rare_pages_are_found_in_many_slabs() -> None:
    """Many slabs with few pages missing are counted another way than few with many."""
    heap = HandmadeHeap()
    states = ["p"] * 3000
    for number in range(1000):
        heap.slab(START + number * 3 * PAGE, 48, live=256 - number % 2)
    for page in (0, 4, 5, 6, 1001, 2999):
        states[page] = "."
    states[7] = states[2000] = "s"
    made = account_of(heap, residence(area(START, "".join(states))))
    (live,) = [part for part in made.parts if part.part == "live"]
    assert made.resident_bytes == 2994 * PAGE
    assert made.shared_bytes == 2 * PAGE
    assert live.shared_bytes == pytest.approx(2 * PAGE, abs=48)
    few = HandmadeHeap()
    for number in range(10):
        few.slab(START + number * 3 * PAGE, 48, live=256)
    live, *_ = account_of(few, residence(area(START, "p.s" * 10))).parts
    assert (live.resident_bytes, live.shared_bytes) == (20 * PAGE, 10 * PAGE)


def test_what_thread_caches_hold_and_are() -> None:
    heap = HandmadeHeap()
    for number in range(3):
        heap.extent(START + number * 4 * PAGE, 4 * PAGE, ACTIVE, LARGE)
    heap.tcaches.regions.append(CachedRegion(START + 4 * PAGE + 64, LARGE, 0))
    heap.tcaches.stacks.append(START + 8 * PAGE + 128)
    made = account_of(heap, residence(area(START, "ppppppp.p...")))
    assert pages(made) == {("large", 0): 4, ("large_cached", 0): 3, ("metadata", 0): 1}
    (metadata,) = [part for part in made.parts if part.part == "metadata"]
    assert metadata.details == (Detail("thread caches", 1, 4 * PAGE, PAGE),)


def test_the_rest_of_huge_pages_is_jemallocs() -> None:
    """Beside extents of the huge page allocator, and in no other huge page."""
    heap = HandmadeHeap()
    heap.slab(START, KILOBYTE, live=4)
    heap.slab(START + 5 * PAGE, KILOBYTE, live=4)
    states = "p" * 5 + "p" + "." * 500 + "p" * 6 + "p" * 512
    found = residence(area(START, states))
    assert pages(account_of(heap, found)) == {("live", 0): 2, ("other_anonymous", None): 522}
    heap.extents.huge_pages = True
    assert pages(account_of(heap, found)) == {
        ("live", 0): 2,
        ("dirty", 0): 10,
        ("other_anonymous", None): 512,
    }


def test_of_sums_each_part_gets_its_share() -> None:
    heap = HandmadeHeap()
    heap.slab(START, KILOBYTE, live=4)
    heap.extent(START + PAGE, 2 * PAGE, ACTIVE, LARGE)
    heap.extent(START + 3 * PAGE, 4 * PAGE, DIRTY, UNUSED)
    heap.extent(START + 7 * PAGE, 9 * PAGE, RETAINED, UNUSED)
    made = account_of(heap, residence(area(START, "pppp" + "." * 12), source=SMAPS))
    assert (made.source, made.exact, made.shared_bytes) == (SMAPS, False, None)
    assert pages(made) == {("live", 0): 1, ("large", 0): 1, ("dirty", 0): 2, ("retained", 0): 0}
    assert made.resident_bytes == 4 * PAGE


def test_of_a_core_files_are_not_known() -> None:
    unknown = Area(0x1000, 0x4000, FILE, "/bin/server")
    anonymous, states = area(START, "pp")
    found = assembled(CORE, True, PAGE, [unknown, replace(anonymous, huge=None)], {1: states})
    made = account_of(HandmadeHeap(), found)
    assert pages(made) == {("file_backed", None): None, ("other_anonymous", None): 2}
    assert made.resident_bytes == 2 * PAGE
    assert made.huge_bytes is None


def test_without_residence_there_are_sizes() -> None:
    heap = HandmadeHeap()
    heap.extent(START, 2 * PAGE, ACTIVE, LARGE)
    made = account_of(heap, None)
    assert (made.resident_bytes, made.source) == (None, None)
    assert made.parts == (Part("large", 0, 2 * PAGE, None),)


def test_large_classes_know_what_is_resident() -> None:
    heap = HandmadeHeap()
    heap.extent(START, 2 * PAGE, ACTIVE, LARGE)
    heap.extent(START + 2 * PAGE, 2 * PAGE, ACTIVE, LARGE + 1)
    columns = columns_of([heap.heap()])
    joined = join(columns, residence(area(START, "pp.p")))
    assert joined.large_resident(0, LARGE) == 2 * PAGE
    assert joined.large_resident(0, LARGE + 1) == PAGE
    assert join(columns, None).large_resident(0, LARGE) is None


def test_gaps_are_what_nobody_claims() -> None:
    heap = HandmadeHeap()
    heap.slab(START + PAGE, KILOBYTE, live=1)
    heap.slab(START + 2 * PAGE, KILOBYTE, live=1)
    heap.extent(START + 5 * PAGE, PAGE, ACTIVE, LARGE)
    found = residence(area(START, "pppp"), area(START + 4 * PAGE, "ppp"), area(0x1000, "p", HEAP))
    spans = [(gap.start, gap.end) for gap in gaps(columns_of([heap.heap()]), found)]
    assert spans == [
        (START, START + PAGE),
        (START + 3 * PAGE, START + 4 * PAGE),
        (START + 4 * PAGE, START + 5 * PAGE),
        (START + 6 * PAGE, START + 7 * PAGE),
    ]


def test_named_memory_becomes_an_area() -> None:
    whole = residence(area(START, "pp.s"), area(START + 8 * PAGE, "p"))
    found = whole.split([Named(START + PAGE, START + 3 * PAGE, STACK, None)])
    assert [(each.kind, each.size // PAGE, each.resident) for each in found.areas] == [
        ("anonymous", 1, PAGE),
        ("stack", 2, PAGE),
        ("anonymous", 1, PAGE),
        ("anonymous", 1, PAGE),
    ]
    assert pages(account_of(HandmadeHeap(), found)) == {
        ("stacks", None): 1,
        ("other_anonymous", None): 3,
    }


def anonymous(*details: Detail, live: int = 0) -> Account:
    size = sum(detail.resident_bytes or 0 for detail in details)
    parts = (
        Part("live", 0, live, live),
        Part("other_anonymous", None, size, size, details=details),
    )
    return Account(live + size, "pagemap", parts, exact=True)


def test_memory_that_is_not_jemallocs_is_named() -> None:
    found = elsewhere(anonymous(Detail(None, 75, 300 * MIB, 300 * MIB), live=20 * MIB))
    assert found is not None
    assert sentence(found) == (
        "300.0 MiB of anonymous memory, 93.8 % of all of it, is not jemalloc's:"
        " 300.0 MiB in 75 mappings of 4.0 MiB"
    )


@pytest.mark.parametrize(
    ("size", "live"), [(15 * MIB, 0), (30 * MIB, 300 * MIB)], ids=["little", "a tenth"]
)
def test_little_memory_elsewhere_is_not_named(size: int, live: int) -> None:
    assert elsewhere(anonymous(Detail(None, 1, size, size), live=live)) is None


def test_an_empty_jemalloc_beside_a_busy_process_is_not_verified() -> None:
    report = sweep_of()
    assert "verified: there are no slabs" in text.render(report, Style())
    busy = replace(report, account=anonymous(Detail("CPython's arenas", 3, 99 * MIB, 99 * MIB)))
    shown = text.render(busy, Style())
    assert "verified" not in shown
    assert "hardly used: there are no slabs" in shown
    assert "99.0 MiB of anonymous memory, 100.0 % of all of it, is not jemalloc's" in shown


def test_it_adds_up_to_rss(livelist: Livelist) -> None:
    """Of a live process the kernel's sum, whoever reads it; of a recording the same."""
    report = sweep_json("--pid", livelist.pid, "--debugger", "none")
    made = report["account"]
    said = Path(f"/proc/{livelist.pid}/smaps_rollup").read_text().split("Rss:")[1].split()[0]
    assert made["resident_bytes"] == int(said) * 1024
    assert sum(part["resident_bytes"] for part in made["parts"]) == made["resident_bytes"]
    parts = {part["part"]: part for part in made["parts"]}
    slabs = sum(parts[name]["bytes"] for name in SLABS if name in parts)
    assert slabs == report["totals"]["slab_bytes"]
    large = parts["large"]["bytes"] + parts["large_cached"]["bytes"]
    stacks = next(d for d in parts["metadata"]["details"] if d["what"] == "thread caches")
    assert large + stacks["bytes"] == report["extents"]["large_bytes"]
    assert parts["dirty"]["bytes"] == report["extents"]["dirty_bytes"]
    assert parts["metadata"]["resident_bytes"] <= parts["metadata"]["bytes"]


def test_a_core_says_the_same_of_what_was_written_to(livelist: Livelist) -> None:
    live = sweep_json("--pid", livelist.pid, "--debugger", "none")["account"]
    core = sweep_json(livelist.core, "--debugger", "none")["account"]
    assert (core["source"], core["exact"]) == ("core", False)
    for name in ("live", "cached", "pinned_waste", "dirty"):
        ours, theirs = (
            sum(p["resident_bytes"] for p in each["parts"] if p["part"] == name)
            for each in (core, live)
        )
        assert ours == pytest.approx(theirs, rel=0.05, abs=16 * PAGE), name
    files = [p["resident_bytes"] for p in core["parts"] if p["part"] == "file_backed"]
    assert files == [None]
