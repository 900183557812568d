"""The looks of a report, from reports made by hand."""

from __future__ import annotations

import csv
import io
import json
import string
from dataclasses import asdict, replace
from typing import Any, Dict

import pytest

from drain_gdb.analysis.report import LargeRow, Selection, SlabRow, UnusedExtents
from drain_gdb.jemalloc.heap import InFlight
from drain_gdb.render import machine, text
from drain_gdb.render.pins import cut
from drain_gdb.render.style import Style, percent, printable, size
from tests.support.reports import MIB, MISMATCH, PARTIAL, row, state, sweep_of

REPORT = sweep_of(
    row(16, state(2, 256, 16, 300, 12, cache_held=1, drainable_bytes=4096)),
    row(1024, state(20_000, 4, 1024, 40_000)),
)
PLAIN = Style(unicode=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 << 40, "5.00 TiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_sizes(value: Any, shown: str) -> None:
    assert size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0.0 %"),
        (0.0001, "<0.1 %"),
        (0.5, "50.0 %"),
        (0.99999, ">99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_rates_never_round_to_all_or_nothing(value: Any, shown: str) -> None:
    assert percent(value) == shown


def test_a_histogram_shows_every_bucket_that_is_not_empty() -> None:
    counts = (0, 1, 0, 0, 500, 0, 0, 0, 0, 1000)
    assert Style().histogram(counts) == " ▁  ▄    █"
    assert PLAIN.histogram(counts) == " .  =    @"
    assert Style().histogram((0,) * 10) == " " * 10


def test_text_reads_top_down_within_a_hundred_columns() -> None:
    shown = text.render(REPORT, Style())
    lines = shown.splitlines()
    assert max(map(len, lines)) <= text.WIDTH
    heads = ("core of server (pid 42)", "verified: ", "DSR, live", "size", "memory", "verdict: ")
    places = [next(i for i, line in enumerate(lines) if line.lstrip().startswith(h)) for h in heads]
    assert places == sorted(places)
    assert "jemalloc 5.3.0 found without symbols in libj.so" in lines[0]
    assert shown.endswith("\n")
    assert not shown.endswith("\n\n")


def test_ascii_and_colour_only_where_asked() -> None:
    assert text.render(REPORT, PLAIN).isascii()
    assert "\033[" not in text.render(REPORT, Style())
    assert "\033[" in text.render(REPORT, Style(colour=True))


def test_a_mismatch_is_said_before_any_number() -> None:
    shown = text.render(sweep_of(*REPORT.bins, verification=MISMATCH), Style())
    assert shown.index("NOT VERIFIED") < shown.index("DSR, live")
    assert "arena 0 size class 3 slabs: walked 10, recorded 11" in shown
    assert "verified: the" not in shown


def test_partial_is_said_before_any_number_and_in_the_verdict() -> None:
    shown = " ".join(text.render(sweep_of(*REPORT.bins, coverage=PARTIAL), Style()).split())
    assert shown.index("PARTIAL: 0.4 % of the metadata") < shown.index("DSR, live")
    assert "3.0 MiB could not" in shown
    assert "17 extents" in shown
    assert "of what could be read" in shown[shown.index("verdict") :]
    assert "thread cache 0x7f00 cannot be read" in shown


def test_every_total_of_a_partial_sweep_is_marked_in_every_format() -> None:
    """Before the totals, the table and the memory; in each object and row; in a line."""
    report = sweep_of(*REPORT.bins, coverage=PARTIAL)
    parts = text.render(report, Style()).split("\n\n")
    assert [part.startswith("partial, of what could be read:\n") for part in parts[1:4]] == [
        True
    ] * 3
    content = _json(report)
    assert content["coverage"]["partial"] is True
    assert content["coverage"]["readable"] == 12345 / (12345 + 3 * MIB)
    assert content["totals"]["partial"] is True
    assert {row["partial"] for row in content["bins"]} == {True}
    for by_slab in (None, SLABS):
        shown = machine.as_csv(sweep_of(*REPORT.bins, slabs=by_slab, coverage=PARTIAL))
        assert {row["partial"] for row in csv.DictReader(io.StringIO(shown))} == {"true"}
    assert machine.as_info(report).endswith("\nmem_drainprof_partial:1\n")


def test_a_whole_sweep_is_not_marked() -> None:
    assert "partial" not in text.render(REPORT, Style())
    assert _json(REPORT)["coverage"]["readable"] == 1
    assert {row["partial"] for row in csv.DictReader(io.StringIO(machine.as_csv(REPORT)))} == {
        "false"
    }
    assert "partial" not in machine.as_info(REPORT)


def test_what_is_in_flight_is_told_before_any_number() -> None:
    found = (InFlight(0, 5, 1, "bin locked"), InFlight(2, None, None, "purge of dirty extents"))
    report = sweep_of(*REPORT.bins, verification=replace(MISMATCH, in_flight=found))
    shown = " ".join(text.render(report, Style()).split())
    assert "(arena 0 size class 5: bin locked, arena 2: purge of dirty extents)" in shown
    assert shown.index("in flight: ") < shown.index("DSR, live")
    assert _json(report)["verification"]["in_flight"] == [
        {"arena": 0, "index": 5, "shard": 1, "what": "bin locked"},
        {"arena": 2, "index": None, "shard": None, "what": "purge of dirty extents"},
    ]


def test_without_statistics_it_says_so() -> None:
    report = sweep_of(
        *REPORT.bins,
        verification=replace(REPORT.verification, status="unavailable", slabs_recorded=None),
    )
    assert "not verifiable: this jemalloc keeps no statistics" in text.render(report, Style())


def test_no_slabs_are_no_crash() -> None:
    shown = text.render(sweep_of(), Style())
    assert "no slabs" in shown
    assert "there is no rate to give" in shown


@pytest.mark.parametrize("by", ["bin", "arena", "shard"])
def test_the_largest_figures_still_fit(by: str) -> None:
    occupancy = state(10**9, 512, 8, 5 * 10**11 // 3, 10**9, cache_held=10**8)
    place = {"arena": None if by == "bin" else 4094, "shard": 63 if by == "shard" else None}
    report = sweep_of(row(14336, occupancy, **place))
    shown = text.render(replace(report, selection=Selection(by)), Style())
    assert max(map(len, shown.splitlines())) <= text.WIDTH
    table = shown[shown.index("\n\n", shown.index("retention ")) :]
    for head in ("size", "slabs", "DSR", "live", "occupancy", "waste"):
        assert head in table


def test_a_selection_has_no_waterfall_and_no_verdict() -> None:
    report = replace(REPORT, selection=Selection(arena=0))
    shown = text.render(report, Style())
    assert "only arena 0:" in shown
    assert "verdict" not in shown
    assert "metadata" not in shown


def test_control_characters_of_the_target_never_reach_the_terminal() -> None:
    process = replace(REPORT.process, name="evil\033[2Jname\n")
    coverage = replace(PARTIAL, anomalies=("see \033]0;title\007",))
    shown = text.render(replace(REPORT, process=process, coverage=coverage), Style())
    assert "\033" not in shown
    assert "\007" not in shown
    assert r"evil\x1b[2Jname\n" in shown
    hostile = replace(process, executable="/opt/\u202egnp\x9b2J\x7f\ud800", pid=7)
    said = machine.as_json([replace(REPORT, process=hostile, coverage=coverage)])
    assert all(character in string.printable for character in said)
    assert json.loads(said)["process"]["executable"] == hostile.executable
    assert printable("tab\tis\x9bout") == r"tab\tis\x9bout"


def test_rows_sort_by_quantity_downwards_and_by_size_upwards() -> None:
    columns = text.columns_of("bin")

    def sizes(sort: str, top: Any = None) -> Any:
        return [r.size for r in text.arrange(REPORT.bins, columns, text.View(sort, top))]

    assert sizes("size") == [16, 1024]
    assert sizes("waste_bytes") == [1024, 16]
    assert sizes("dsr") == [16, 1024]
    assert sizes("slabs", 1) == [1024]
    shown = text.render(REPORT, Style(), text.View("slabs", 1))
    assert "(1 of 2 rows)" in shown


def test_unknown_values_sort_last() -> None:
    empty = row(64, state(1, 64, 64, 0, empty=1))
    columns = text.columns_of("bin")
    rows = text.arrange([empty, *REPORT.bins], columns, text.View("retention_ratio"))
    assert rows[-1].size == 64


def _json(report: Any, **other: Any) -> Dict[str, Any]:
    content = json.loads(machine.as_json([report]))
    assert isinstance(content, dict)
    return content


def test_json_has_the_promised_keys() -> None:
    content = _json(REPORT)
    assert content["schema"] == "drain_gdb.sweep/1"
    assert {"source", "pid", "executable", "debugger", "taken_at"} <= set(content["process"])
    totals = {
        *("slabs", "drainable", "empty", "cache_held", "pinned", "dsr", "dsr_bitmap"),
        *("regions", "live", "cached", "free", "slab_bytes", "live_bytes", "waste_bytes"),
        *("occupancy", "ideal_slabs", "retention_ratio", "partial"),
        *("allocated", "allocated_bytes", "free_bytes", "utilization"),
    }
    assert set(content["totals"]) == totals
    assert set(content["bins"][0]) == totals | {
        *("arena", "shard", "index", "size", "slab_size", "nregs", "occupancy_histogram")
    }
    assert {
        *("name", "version", "symbol_prefix", "layout_source", "page_size", "statistics"),
        *("arenas", "thread_caches"),
    } <= set(content["allocator"])
    assert {
        *("large_bytes", "large_count", "dirty_bytes", "muzzy_bytes", "retained_bytes"),
        "metadata_bytes",
    } <= set(content["extents"])
    assert content["counters"] == {
        "requests": {"allocs": 1000, "deallocs": 900},
        "arena": {"allocs": 500, "deallocs": 400},
    }
    assert {"status", "slabs_walked", "slabs_recorded", "regions_walked", "regions_recorded"} < set(
        content["verification"]
    )
    assert "slabs" not in content


def test_json_of_a_mismatch() -> None:
    content = _json(sweep_of(*REPORT.bins, verification=MISMATCH))
    assert content["verification"]["mismatches"] == [
        {"arena": 0, "index": 3, "what": "slabs", "walked": 10, "recorded": 11}
    ]


SLABS = [SlabRow(0x7F0000001000, 0, 1, 1, 16, 256, 12, 2)]


def test_json_by_slab() -> None:
    content = _json(sweep_of(*REPORT.bins, slabs=SLABS))
    assert content["slabs"] == [
        {
            "address": "0x7f0000001000",
            "arena": 0,
            "shard": 1,
            "index": 1,
            "size": 16,
            "nregs": 256,
            "allocated": 12,
            "cached": 2,
            "live": 10,
        }
    ]


def test_csv_has_the_keys_of_json() -> None:
    (first, _) = csv.DictReader(io.StringIO(machine.as_csv(REPORT)))
    assert list(first) == list(_json(REPORT)["bins"][0])
    assert first["arena"] == ""
    assert first["size"] == "16"
    assert first["occupancy_histogram"] == "0 0 0 0 0 2 0 0 0 0"
    by_slab = sweep_of(*REPORT.bins, slabs=SLABS)
    (slab,) = csv.DictReader(io.StringIO(machine.as_csv(by_slab)))
    assert list(slab) == [*_json(by_slab)["slabs"][0], "partial"]
    assert slab["address"] == "0x7f0000001000"


LARGE = (
    LargeRow(36, 16384, 1000, 16384000, 10, 163840, 8 * MIB),
    LargeRow(50, 4 * MIB, 5, 20 * MIB, 0, 0, None),
)


def test_large_allocations_by_class_in_every_format() -> None:
    report = sweep_of(*REPORT.bins, large=LARGE, selection=Selection("large"))
    table = text.render(report, PLAIN).split("\n\n")[2].splitlines()
    assert [line.split() for line in table] == [
        ["size", "count", "bytes", "resident", "cached", "cached", "bytes"],
        ["16.0", "KiB", "1,000", "15.6", "MiB", "8.0", "MiB", "10", "160.0", "KiB"],
        ["4.0", "MiB", "5", "20.0", "MiB", "-", "0", "0", "B"],
    ]
    assert _json(report)["large_bins"] == [asdict(row) for row in LARGE]
    rows = list(csv.DictReader(io.StringIO(machine.as_csv(report))))
    assert list(rows[0]) == [*asdict(LARGE[0]), "partial"]
    assert [row["resident_bytes"] for row in rows] == [str(8 * MIB), ""]
    columns = text.columns_of("large")
    (first, _) = text.arrange(text.rows_of(report), columns, text.View("bytes"))
    assert first.size == 4 * MIB
    nothing = sweep_of(selection=Selection("large"))
    assert "no large allocations" in text.render(nothing, PLAIN)


def test_unused_extents_are_counted_and_measured() -> None:
    unused = {"dirty": UnusedExtents(1200, 3 * MIB), "muzzy": UnusedExtents(0, 0)}
    extents = replace(REPORT.extents, dirty_bytes=80 * MIB, unused=unused)
    report = replace(REPORT, extents=extents)
    assert "not given back yet: 1,200 extents, up to 3.0 MiB" in text.render(report, PLAIN)
    assert _json(report)["extents"]["unused"] == {
        "dirty": {"count": 1200, "largest_bytes": 3 * MIB},
        "muzzy": {"count": 0, "largest_bytes": 0},
    }


def test_csv_of_no_rows_still_has_its_header() -> None:
    assert machine.as_csv(sweep_of()).count("\n") == 1


def test_info_speaks_the_known_keys() -> None:
    assert machine.as_info(REPORT) == (
        "mem_drainability_ratio:0.0000\n"
        "mem_drainprof_total_extents:20002\n"
        "mem_drainprof_drainable_extents:1\n"
        "mem_drainprof_pinned_extents:20001\n"
        "mem_drainprof_total_allocs:1000\n"
        "mem_drainprof_total_deallocs:900\n"
    )
    assert machine.as_info(sweep_of()).startswith("mem_drainability_ratio:\n")


@pytest.mark.parametrize(
    ("drainable", "words"),
    [(0, "structural"), (9_000, "mixed"), (19_000, "temporary")],
)
def test_verdicts_name_the_bytes_and_the_class(drainable: int, words: str) -> None:
    occupancy = state(20_000, 4, 1024, 1_000, empty=drainable, drainable_bytes=drainable * 4096)
    shown = text.render(sweep_of(row(1024, occupancy)), Style())
    verdict = shown[shown.index("verdict: ") :]
    assert verdict.startswith(f"verdict: {words}: ")
    assert size(occupancy.waste_bytes) in verdict
    assert "1024-byte class" in " ".join(verdict.split())


def test_little_waste_is_not_called_none() -> None:
    """Of a small heap nearly all may be waste, and still be too little to act on."""
    shown = text.render(sweep_of(row(1024, state(242, 4, 1024, 11))), Style())
    said = " ".join(shown[shown.index("verdict: ") :].split())
    assert "little to reclaim in slabs: 957.0 KiB of 968.0 KiB in slabs hold no live region" in said


def test_unused_pages_are_named() -> None:
    extents = replace(REPORT.extents, dirty_bytes=80 * MIB)
    report = sweep_of(row(1024, state(20_000, 4, 1024, 79_000)), extents=extents)
    shown = text.render(report, Style())
    assert "80.0 MiB in unused dirty or muzzy pages" in " ".join(shown.split())


def test_names_that_would_look_alike_are_cut_in_the_middle() -> None:
    names = ["queue:#", "redis-server .bss+0x5a3c0", "redis-server .bss+0x61400", "a" * 30]
    assert cut(names, 20) == [
        "queue:#",
        "redis-ser...+0x5a3c0",
        "redis-ser...+0x61400",
        "a" * 17 + "...",
    ]
    assert cut(names, 30) == names
