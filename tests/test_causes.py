"""Why RSS is what it is: by hand-made accounts, and by programs made for the purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from drain_gdb.analysis.causes import find_causes, telling
from drain_gdb.analysis.report import (
    Account,
    ArenaRow,
    Cause,
    Detail,
    LargeRow,
    Part,
    Remedy,
    Sweep,
    UnusedExtents,
)
from drain_gdb.jemalloc.settings import Settings, parse_options, prefix_of, program_of
from drain_gdb.words import amount, listed, many, seconds, whole_percent
from tests.support.inputs import debian_jemalloc
from tests.support.processes import await_line
from tests.support.real import columnar_python
from tests.support.reports import MIB, account_of, row, state, sweep_of
from tests.support.situations import Running, Situation, running

REDIS = Settings(program="redis", port=7777, active_defragmentation=True, background_thread=True)


def arena(dirty: int = 0, muzzy: int = 0, **other: Any) -> ArenaRow:
    values: Dict[str, Any] = {"index": 0, "threads": 1, "slab_bytes": 4096}
    values.update(dirty_bytes=dirty, muzzy_bytes=muzzy, dirty_decay_ms=10_000, muzzy_decay_ms=0)
    return ArenaRow(**{**values, **other})


def causes_of(account: Account, report: Sweep, zeros: Optional[float] = None) -> List[Cause]:
    return list(find_causes(account, {0: report}, zeros))


def only(name: str, account: Account, report: Sweep, **other: Any) -> Cause:
    (found,) = (cause for cause in causes_of(account, report, **other) if cause.cause == name)
    return found


def remedy(cause: Cause, name: str) -> Remedy:
    (found,) = (remedy for remedy in cause.remedies if remedy.remedy == name)
    return found


def dirty(settings: Settings, **of_arena: Any) -> Cause:
    """What is said of 400 MiB of dirty pages."""
    report = sweep_of(arenas=(arena(400 * MIB, **of_arena),), settings=settings)
    return only("dirty_pages", account_of(dirty=400 * MIB, file_backed=MIB), report)


# -- unused pages -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("background", "of_arena", "goes", "why"),
    [
        (False, {"dirty_decay_ms": -1}, "no", "is -1, so they are never purged"),
        (True, {"dirty_decay_ms": -1}, "no", "is -1, so they are never purged"),
        (True, {"dirty_decay_ms": 9_000_000_000}, "no", "so they stay for up to 104 days"),
        (False, {"dirty_decay_ms": 7_200_000}, "no", "so they stay for up to 2 hours"),
        (True, {}, "in_time", "background thread purges them within 10 s"),
        (False, {"idle_seconds": 25.0}, "no", "freed for 25 s, so they stay"),
        (False, {"idle_seconds": 0.2}, "in_time", "while the program allocates and frees"),
        (False, {"idle_seconds": 8.0}, "unknown", "stay once it is idle"),
        (False, {"threads": 0, "idle_seconds": 8.0}, "no", "no thread uses the arena"),
        (False, {"threads": 0, "idle_seconds": 0.2}, "in_time", "while the program allocates"),
        (None, {"idle_seconds": 25.0}, "unknown", "whether a background thread runs is not known"),
        (True, {"dirty_decay_ms": None}, "unknown", "decay time is not known"),
    ],
)
def test_dirty_pages_go_only_where_they_do(
    background: Optional[bool], of_arena: Dict[str, Any], goes: str, why: str
) -> None:
    found = dirty(Settings(background_thread=background), **of_arena)
    assert (found.goes_by_itself, found.bytes) == (goes, 400 * MIB)
    assert why in found.evidence
    assert remedy(found, "purge").bytes == 400 * MIB
    offered = {remedy.remedy for remedy in found.remedies}
    as_set = of_arena.get("dirty_decay_ms") in (-1, 7_200_000, 9_000_000_000)
    assert ("background_thread" in offered) == (background is not True and not as_set)
    if as_set:
        assert remedy(found, "decay").how == "MALLOC_CONF=dirty_decay_ms:10000"


def test_the_arena_with_the_most_pages_speaks_for_them() -> None:
    arenas = (
        arena(300 * MIB, dirty_decay_ms=-1),
        arena(100 * MIB, index=1),
    )
    report = sweep_of(arenas=arenas, settings=Settings(background_thread=True))
    found = only("dirty_pages", account_of(dirty=400 * MIB), report)
    assert found.goes_by_itself == "no"
    assert "never purged (so for 75 % of them)" in found.evidence


def test_extents_of_unused_pages_are_counted() -> None:
    report = sweep_of(arenas=(arena(4 * MIB),), settings=Settings(background_thread=True))
    extents = replace(report.extents, unused={"dirty": UnusedExtents(12, 3 * MIB)})
    found = only("dirty_pages", account_of(dirty=4 * MIB), replace(report, extents=extents))
    assert found.evidence.endswith("12 extents, the largest 3.0 MiB")


def test_what_a_fork_shares_does_not_come_back() -> None:
    account = account_of(dirty=400 * MIB)
    part = replace(account.parts[0], shared_bytes=300 * MIB)
    account = replace(account, parts=(part,), shared_bytes=300 * MIB)
    report = sweep_of(arenas=(arena(400 * MIB),), settings=Settings(background_thread=False))
    found = only("dirty_pages", account, report)
    assert found.bytes == 400 * MIB
    assert {remedy.bytes for remedy in found.remedies} == {100 * MIB}
    assert "300.0 MiB is shared with a fork" in found.evidence
    assert only("shared_pages", account, report).bytes == 300 * MIB


# -- the command of this very process ---------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "purge", "background"),
    [
        (
            Settings(background_thread=False),
            'mallctl("arena.4096.purge", NULL, NULL, NULL, 0)',
            "MALLOC_CONF=background_thread:true",
        ),
        (
            Settings(
                variable="_RJEM_MALLOC_CONF", background_thread=False, options={"thp": "never"}
            ),
            '_rjem_mallctl("arena.4096.purge", NULL, NULL, NULL, 0)',
            "_RJEM_MALLOC_CONF=thp:never,background_thread:true",
        ),
        (
            Settings(
                options={"narenas": "4", "prof": "true", "lg_prof_sample": "19", "thp": "always"},
                background_thread=False,
                program="python",
            ),
            'ctypes.CDLL(None).mallctl(b"arena.4096.purge", None, None, None, 0)',
            "background_thread:true added to MALLOC_CONF",
        ),
        (
            replace(REDIS, background_thread=False),
            "redis-cli -p 7777 MEMORY PURGE",
            "redis-cli -p 7777 CONFIG SET jemalloc-bg-thread yes",
        ),
        (
            Settings(program="valkey", background_thread=False),
            "valkey-cli MEMORY PURGE",
            "valkey-cli CONFIG SET jemalloc-bg-thread yes",
        ),
    ],
)
def test_remedies_are_in_the_words_of_the_program(
    settings: Settings, purge: str, background: str
) -> None:
    found = dirty(settings, idle_seconds=25.0)
    assert remedy(found, "purge").how == purge
    assert remedy(found, "background_thread").how == background


def test_an_option_that_is_given_is_given_otherwise() -> None:
    found = dirty(Settings(options={"dirty_decay_ms": "-1"}), dirty_decay_ms=-1)
    assert remedy(found, "decay").how == "MALLOC_CONF=dirty_decay_ms:10000"


def pinned(settings: Settings, slabs: int = 20_000) -> Cause:
    """What is said of slabs of four regions of 1 KiB, each with one that is live."""
    report = sweep_of(row(1024, state(slabs, 4, 1024, slabs)), settings=settings)
    account = account_of(live=slabs * 1024, pinned_waste=3 * slabs * 1024)
    return only("pinned_slabs", account, report)


def test_who_can_defragment_is_told_to_with_his_thresholds_looked_at() -> None:
    found = pinned(REDIS)
    assert found.bytes == 20_000 * 3072
    assert found.goes_by_itself == "no"
    assert "20,000 of 20,000 slabs" in found.evidence
    assert "the 1024-byte class (100 %)" in found.evidence
    first = remedy(found, "active_defrag")
    # Of four slabs one would do; told to leave no more than 1 MB alone it goes all the way.
    assert first.bytes == 15_000 * 4096
    assert first.how.startswith("redis-cli -p 7777 CONFIG SET activedefrag yes")
    assert "active-defrag-ignore-bytes 1mb: it ignores up to 100mb by default;" in first.how
    larger = remedy(pinned(REDIS, 80_000), "active_defrag")
    assert "ignore-bytes" not in larger.how
    # By its own thresholds it may end with 100 MiB left, or at packed slabs.
    fewest = 80_000 * 3072 - 100 * MIB
    assert larger.bytes == (fewest + 60_000 * 4096) // 2
    own = replace(REDIS, defrag_ignore_bytes=400 * MIB, defragments=True, defrag_threshold=400)
    how = remedy(pinned(own, 80_000), "active_defrag").how
    assert how == (
        "active defragmentation is on, with active-defrag-ignore-bytes 1mb: it ignores up to"
        " 400mb, with active-defrag-threshold-lower 1; then redis-cli -p 7777 MEMORY PURGE"
    )


def test_who_cannot_defragment_is_not_told_to() -> None:
    plain = replace(REDIS, active_defragmentation=False)
    assert [r.remedy for r in pinned(plain).remedies] == ["restart"]
    assert "cannot defragment" in pinned(plain).remedies[0].how
    assert [r.remedy for r in pinned(Settings()).remedies] == ["restart", "dedicated_arena"]
    assert [r.remedy for r in pinned(Settings(program="python")).remedies] == ["restart"]


def test_several_classes_are_named_with_their_shares() -> None:
    rows = [row(size, state(1000, 4, size, 1000)) for size in (64, 32, 128, 1024)]
    account = account_of(pinned_waste=3 * 1000 * (64 + 32 + 128 + 1024))
    found = only("pinned_slabs", account, sweep_of(*rows))
    assert found.evidence.endswith("1024-, 128- and 64-byte classes (82 %, 10 % and 5 %)")


def test_room_that_many_arenas_keep_is_theirs() -> None:
    arenas = tuple(arena(index=index) for index in range(64))
    # A region in a slab of each arena; one slab would hold them all.
    rows = [row(64, state(64, 64, 64, 64, ideal_slabs=64))]
    settings = Settings(threads=64, cpus=2)
    report = sweep_of(*rows, arenas=arenas, merged_bytes=4096, settings=settings)
    account = account_of(live=64 * 64, pinned_waste=63 * 4096)
    found = only("many_arenas", account, report)
    assert found.bytes == 63 * 4096
    assert found.evidence.startswith("64 arenas, 64 threads and 2 CPUs")
    assert remedy(found, "fewer_arenas").how == "MALLOC_CONF=narenas:2"
    assert [c.cause for c in causes_of(account, report) if c.cause == "pinned_slabs"] == []


# -- thread caches ------------------------------------------------------------------------


def cached(version: str) -> Cause:
    rows = [row(2048, state(10, 2, 2048, 0, 20, cache_held=10, drainable_bytes=40960))]
    report = sweep_of(*rows)
    allocator = replace(report.allocator, version=version, thread_caches=200)
    extents = replace(report.extents, large_cached_bytes=300 * MIB, large_cached_count=9000)
    report = replace(report, allocator=allocator, extents=extents)
    return only("cached_regions", account_of(cached=40960, large_cached=300 * MIB), report)


def test_caches_are_flushed_or_kept_small() -> None:
    found = cached("5.3.0-0-gabc")
    assert found.bytes == 300 * MIB + 40960
    assert "200 thread caches: 9,020 regions, 300.0 MiB of it in large ones" in found.evidence
    assert remedy(found, "flush_caches").bytes == 300 * MIB + 40960
    assert remedy(found, "tcache_max").how == "MALLOC_CONF=tcache_max:8192"
    assert remedy(cached("5.2.1-0-gabc"), "tcache_max").how == "MALLOC_CONF=lg_tcache_max:13"


# -- what is in use, and what is not there ------------------------------------------------


def large(szind: int, size: int, count: int, resident: int) -> LargeRow:
    return LargeRow(szind, size, count, size * count, 0, 0, resident)


def test_live_data_is_an_answer() -> None:
    report = sweep_of(row(160, state(60_000, 25, 160, 1_500_000)))
    found = only("live_data", account_of(live=240_000_000, file_backed=MIB), report)
    assert found.bytes == 240_000_000
    assert "1,500,000 objects of the 160-byte class (100 % of it)" in found.evidence
    assert [r.remedy for r in found.remedies] == ["find_owner"]


def test_large_classes_are_named_too() -> None:
    report = sweep_of(large=(large(40, 65536, 30, 30 * 65536), large(50, 4 * MIB, 5, 20 * MIB)))
    found = only("live_data", account_of(large=20 * MIB + 30 * 65536), report)
    assert found.evidence == "The program holds it: 5 objects of the 4.0 MiB class (91 % of it)"


def test_what_was_never_touched_is_not_in_rss() -> None:
    report = sweep_of(large=(large(60, 8 * MIB, 100, 6 * MIB),))
    part = Part("large", 0, 800 * MIB, 6 * MIB)
    account = Account(11 * MIB, "pagemap", (part, Part("file_backed", None, 5 * MIB, 5 * MIB)))
    found = causes_of(account, report)
    assert [cause.cause for cause in found[:2]] == ["untouched", "small_process"]
    assert found[0].bytes == 794 * MIB
    assert "99 % of 800.0 MiB" in found[0].evidence
    big = replace(account, resident_bytes=900 * MIB)
    assert not [c for c in causes_of(big, report) if c.cause == "untouched"]


def test_sampled_allocations_are_the_profilers() -> None:
    report = sweep_of(
        large=(large(36, 16384, 1000, 4 * MIB), large(50, 4 * MIB, 1, 4 * MIB)),
        settings=Settings(profiling=True, lg_prof_sample=10, options={"prof": "true"}),
    )
    extents = replace(report.extents, sampled_bytes=16384 * 1000, sampled_count=1000)
    report = replace(report, extents=extents)
    account = account_of(large=8 * MIB)
    found = only("profiling", account, report)
    assert found.bytes == 4 * MIB
    assert "one each 1.0 KiB (lg_prof_sample 10)" in found.evidence
    assert remedy(found, "profiling_rate").how == "MALLOC_CONF=prof:true,lg_prof_sample:19"
    assert only("live_data", account, report).bytes == 4 * MIB


def test_an_impossible_rate_is_not_reckoned_with() -> None:
    report = sweep_of(
        large=(large(36, 16384, 1, 16384),), settings=Settings(lg_prof_sample=1 << 60)
    )
    extents = replace(report.extents, sampled_bytes=16384, sampled_count=1)
    found = only("profiling", account_of(large=MIB), replace(report, extents=extents))
    assert "one each" not in found.evidence


def test_huge_pages_are_a_cause_by_what_was_never_written() -> None:
    account = account_of(large=320 * MIB, metadata=10 * MIB)
    parts = [replace(account.parts[0], huge_bytes=300 * MIB), account.parts[1]]
    account = replace(account, parts=tuple(parts), huge_bytes=300 * MIB)
    report = sweep_of(settings=Settings(huge_pages="always", options={"thp": "always"}))
    found = only("huge_pages", account, report, zeros=0.9)
    assert found.bytes == 270 * MIB
    assert "by jemalloc's option thp; 90 % of them was never written" in found.evidence
    assert "RSS would be some 60.0 MiB" in found.evidence
    assert remedy(found, "huge_pages_off").how == "MALLOC_CONF=thp:never"
    assert only("live_data", account, report, zeros=0.9).bytes == 50 * MIB
    assert not [c for c in causes_of(account, report) if c.cause == "huge_pages"]


def test_what_was_given_back_and_is_there_all_the_same() -> None:
    report = sweep_of()
    found = only("retained_resident", account_of(retained=50 * MIB), report)
    assert "the system did not take it" in found.evidence
    account = account_of(retained=50 * MIB)
    part = replace(account.parts[0], huge_bytes=48 * MIB)
    found = only("retained_resident", replace(account, parts=(part,)), report)
    assert [r.remedy for r in found.remedies] == ["huge_pages_off"]


@pytest.mark.parametrize(
    ("arenas", "cpus", "how"),
    [
        (600, 2, "arena.<i>.destroy"),
        (8, 2, "MALLOC_CONF=narenas:2"),
        (2, 2, "it grows with arenas, threads and extents"),
        (600, None, "MALLOC_CONF=narenas:4"),
    ],
)
def test_metadata_of_arenas(arenas: int, cpus: Optional[int], how: str) -> None:
    report = sweep_of(settings=Settings(cpus=cpus))
    report = replace(report, allocator=replace(report.allocator, arenas=arenas))
    assert how in only("metadata", account_of(metadata=50 * MIB), report).remedies[0].how


# -- what is not jemalloc's -----------------------------------------------------------------


def test_memory_of_others_is_named() -> None:
    account = account_of(large=20 * MIB, other_anonymous=300 * MIB, brk_heap=MIB)
    details = (Detail(None, 75, 299 * MIB, 299 * MIB), Detail("[anon: x]", 1, MIB, MIB))
    parts = [
        replace(p, details=details) if p.part == "other_anonymous" else p for p in account.parts
    ]
    found = only("not_jemalloc", replace(account, parts=tuple(parts)), sweep_of())
    assert found.bytes == 301 * MIB
    assert found.evidence == (
        "300.0 MiB anonymous memory that is not jemalloc's (75 mappings of 4.0 MiB)"
    )
    assert found.remedies[0].how == "see who calls mmap: strace -f -k -e trace=mmap"


def test_files_count_only_where_they_are_many() -> None:
    few = account_of(live=100 * MIB, file_backed=8 * MIB)
    assert "not_jemalloc" not in [c.cause for c in causes_of(few, sweep_of())]
    lots = account_of(live=100 * MIB, file_backed=80 * MIB)
    assert only("not_jemalloc", lots, sweep_of()).bytes == 80 * MIB


def test_an_allocator_of_another_kind_is_named() -> None:
    account = account_of(live=MIB, unknown_allocator=110 * MIB)
    details = (Detail("CPython's arenas", 110, 110 * MIB, 110 * MIB),)
    part = replace(account.parts[1], details=details)
    account = replace(account, parts=(account.parts[0], part))
    found = only("other_allocator", account, sweep_of(settings=Settings(program="python")))
    assert found.evidence == "It belongs to CPython's arenas"
    assert "PYTHONMALLOC=malloc" in found.remedies[0].how
    java = (Detail("the Java virtual machine", 3, 110 * MIB, 110 * MIB),)
    account = replace(account, parts=(account.parts[0], replace(part, details=java)))
    found = only("other_allocator", account, sweep_of(settings=Settings(program="other")))
    assert found.evidence == "It belongs to the Java virtual machine"
    assert found.remedies[0].how.startswith("its own statistics: jcmd PID VM.native_memory")
    heaps = (Detail("glibc's heaps", 3, 110 * MIB, 110 * MIB),)
    account = replace(account, parts=(account.parts[0], replace(part, details=heaps)))
    found = only("other_allocator", account, sweep_of(settings=Settings(program="python")))
    assert "malloc_trim" in found.remedies[0].how


def test_the_largest_comes_first_and_small_ones_are_left_out() -> None:
    account = account_of(
        live=200 * MIB, dirty=300 * MIB, metadata=20 * MIB, other_anonymous=400 * MIB
    )
    report = sweep_of(arenas=(arena(300 * MIB),))
    found = causes_of(account, report)
    names = ["not_jemalloc", "dirty_pages", "live_data", "metadata"]
    assert [cause.cause for cause in found] == names
    assert [cause.cause for cause in telling(account, found)] == names[:3]


def test_of_several_allocators_each_cause_says_of_which() -> None:
    account = account_of(dirty=300 * MIB)
    account = replace(account, parts=(*account.parts, Part("dirty", 1, 200 * MIB, 200 * MIB)))
    settings = Settings(variable="JE_ARROW_MALLOC_CONF", program="python")
    reports = {}
    for number, (size, library) in enumerate([(300, "libarrow.so"), (200, "polars.so")]):
        report = sweep_of(arenas=(arena(size * MIB),), settings=settings)
        allocator = replace(report.allocator, module=f"/usr/lib/{library}")
        reports[number] = replace(report, allocator=allocator)
    first, second = find_causes(account, reports)
    assert first.evidence.startswith("In libarrow.so. dirty_decay_ms is 10000; whether")
    assert second.evidence.startswith("In polars.so. ")
    library = 'ctypes.CDLL("/usr/lib/libarrow.so")'
    call = f'{library}.je_arrow_mallctl(b"arena.4096.purge", None, None, None, 0)'
    assert remedy(first, "purge").how == call


@pytest.mark.parametrize(
    ("program", "module", "closed"),
    [
        ("python", "/usr/lib/_ext.so", True),
        ("python", "/usr/bin/python3", True),
        ("other", "/usr/lib/libjni.so", True),
        ("other", "/usr/bin/server", False),
    ],
)
def test_what_a_library_does_not_export_nobody_is_told_to_call(
    program: str, module: str, closed: bool
) -> None:
    """But what is linked with a program is called by the program's own code."""
    settings = Settings(
        variable="_RJEM_MALLOC_CONF", exported=False, background_thread=True, program=program
    )
    report = sweep_of(arenas=(arena(400 * MIB),), settings=settings)
    executable = "/usr/bin/python3" if program == "python" else "/usr/bin/server"
    report = replace(
        report,
        allocator=replace(report.allocator, module=module),
        process=replace(report.process, executable=executable),
        totals=replace(report.totals, cached=9, empty=0, cache_held=9, drainable_bytes=90 * MIB),
    )
    account = account_of(dirty=400 * MIB, cached=50 * MIB, drainable=40 * MIB)
    found = {
        name: only(name, account, report)
        for name in ("dirty_pages", "cached_regions", "drainable_slabs")
    }
    offered = {name: [each.remedy for each in cause.remedies] for name, cause in found.items()}
    if closed:
        assert offered == {
            "dirty_pages": ["decay"],
            "cached_regions": ["tcache_max"],
            "drainable_slabs": ["tcache_max"],
        }
        for cause in found.values():
            assert f"{Path(module).name} does not export _rjem_mallctl()" in cause.evidence
        assert remedy(found["dirty_pages"], "decay").how == "_RJEM_MALLOC_CONF=dirty_decay_ms:0"
    else:
        assert "flush_caches" in offered["drainable_slabs"]
        assert "purge" in offered["dirty_pages"]


SPOKEN_TO = """
import ctypes, sys
{}
print("ready", flush=True)
for line in sys.stdin:
    exec(line.replace("\\\\n", "\\n"))
    print("done", flush=True)
"""


def _spoken_to(python: Path, code: str, **env: str) -> Running:
    """A Python that executes the lines it is given."""
    process = subprocess.Popen(
        [str(python), "-c", SPOKEN_TO.format(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    await_line(process, "ready")
    return Running(process, process.pid)


def _dirty_of(report: Dict[str, Any]) -> Dict[str, Any]:
    (found,) = (cause for cause in report["causes"] if cause["cause"] == "dirty_pages")
    assert isinstance(found, dict)
    return found


def test_a_python_can_do_what_it_is_told_to() -> None:
    """Purge by the very call, where it is exported."""
    code = "x = [bytearray(n % 90000) for n in range(3000)]; del x"
    env = {"LD_PRELOAD": str(debian_jemalloc()), "MALLOC_CONF": "dirty_decay_ms:-1"}
    python = _spoken_to(Path("/usr/bin/python3"), code, **env)
    try:
        before = python.sweep()
        (call,) = (each for each in _dirty_of(before)["remedies"] if each["remedy"] == "purge")
        python.do(call["how"])
        after = python.sweep()["extents"]["dirty_bytes"]
    finally:
        python.process.kill()
    assert (before["extents"]["dirty_bytes"] > MIB, after) == (True, 0)


def test_a_python_is_not_told_what_it_cannot_do() -> None:
    """Arrow exports nothing of its jemalloc's."""
    code = (
        "import pyarrow; pool = pyarrow.jemalloc_memory_pool()\n"
        "held = [pyarrow.allocate_buffer(100000 + n, memory_pool=pool) for n in range(100)]\n"
        "for each in held: ctypes.memset(each.address, 1, each.size)\n"
        "del each, held"
    )
    python = _spoken_to(columnar_python(), code, JE_ARROW_MALLOC_CONF="dirty_decay_ms:-1")
    try:
        report = python.sweep()
        library = report["allocator"]["module"]
        python.do(f"assert not hasattr(ctypes.CDLL({library!r}), 'je_arrow_mallctl')")
    finally:
        python.process.kill()
    assert report["settings"]["exported"] is False
    dirty_pages = _dirty_of(report)
    assert [each["remedy"] for each in dirty_pages["remedies"]] == ["decay"]
    assert "does not export je_arrow_mallctl(): no other code" in dirty_pages["evidence"]


@pytest.mark.parametrize("library", ["debian", "duckdb"])
def test_what_it_was_built_with_is_as_it_says_itself(library: str) -> None:
    """DuckDB's has no heap profiler, and its background threads have no names."""
    if library == "debian":
        env = {"LD_PRELOAD": str(debian_jemalloc())}
        python = _spoken_to(Path("/usr/bin/python3"), "", **env)
    else:
        python = _spoken_to(Path(sys.executable), "import duckdb; duckdb.connect()")
    try:
        report = python.sweep()
        told = report["settings"]
        prefix = prefix_of(told["variable"])
        module = report["allocator"]["module"]
        python.do(f"call = ctypes.CDLL({module!r}).{prefix}mallctl; byref = ctypes.byref")
        python.do(
            "has, size = ctypes.c_bool(), ctypes.c_size_t(1)\\n"
            "assert call(b'config.prof', byref(has), byref(size), None, 0) == 0\\n"
            f"assert has.value is {told['has_profiler']}"
        )
        on = python.sweep()["settings"]["background_thread"]
        python.do(
            "assert not call(b'background_thread', None, None, byref(ctypes.c_bool(True)), size)"
        )
        on_then = python.sweep()["settings"]["background_thread"]
    finally:
        python.process.kill()
    assert told["exported"] is True
    assert told["has_profiler"] is (library == "debian")
    assert (on, on_then) == (False, True)


def test_what_it_was_not_built_with_is_not_offered() -> None:
    report = sweep_of(settings=Settings(has_profiler=False))
    (live,) = only("live_data", account_of(live=40 * MIB), report).remedies
    assert live.how.endswith("draindiff of two recordings")


def test_sizes_stand_in_where_residence_is_not_known() -> None:
    account = account_of(source="sizes", live=10 * MIB, dirty=300 * MIB, retained=900 * MIB)
    found = causes_of(account, sweep_of(arenas=(arena(300 * MIB),)))
    assert [(c.cause, c.bytes) for c in telling(account, found)] == [("dirty_pages", 300 * MIB)]


# -- settings, words ------------------------------------------------------------------------


def test_options_are_read_as_jemalloc_does() -> None:
    assert parse_options("a:b,thp:always,narenas:4") == {"a": "b", "thp": "always", "narenas": "4"}
    assert parse_options("") == {}
    assert parse_options("junk,prof:true") == {"prof": "true"}


@pytest.mark.parametrize(
    ("name", "executable", "program"),
    [
        ("redis-server", "/usr/bin/redis-check-rdb", "redis"),
        (None, "/opt/valkey-server", "valkey"),
        ("python3", "/usr/bin/python3.11", "python"),
        ("python3.9", None, "python"),
        ("server", "/usr/bin/server", "other"),
        (None, None, "other"),
    ],
)
def test_programs_with_commands_of_their_own(
    name: Optional[str], executable: Optional[str], program: str
) -> None:
    assert program_of(name, executable) == program


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (1.0, "most"),
        (0.51, "most"),
        (0.5, "some"),
        (0.1, "some"),
        (0.08, "little"),
        (0.0, "little"),
    ],
)
def test_most_is_more_than_half(share: float, word: str) -> None:
    assert amount(share) == word


def test_words_of_figures() -> None:
    assert [many(n, "slab") for n in (1, 2000)] == ["1 slab", "2,000 slabs"]
    assert [listed(w) for w in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]
    assert [seconds(s) for s in (0.25, 3, 25, 600, 9000)] == [
        *("0.2 s", "3 s", "25 s", "10 minutes", "2 hours"),
    ]
    assert [whole_percent(v) for v in (0, 0.001, 0.37, 0.999, 1)] == [
        *("0 %", "<1 %", "37 %", ">99 %", "100 %"),
    ]


# -- real programs ----------------------------------------------------------------------------

REAL = (
    Situation("freed", "background_thread:true,dirty_decay_ms:60000", ("dirty_pages",), ("purge",)),
    Situation("evicted", "dirty_decay_ms:-1", ("dirty_pages", "live_data"), ("purge",)),
    Situation("cached", "dirty_decay_ms:-1", ("dirty_pages", "cached_regions"), ("purge", "flush")),
    Situation("forked", "dirty_decay_ms:-1", ("dirty_pages", "shared_pages"), ("purge",)),
    Situation("untouched", "", ("untouched", "small_process")),
    Situation("sampled", "prof:true,lg_prof_sample:10", ("profiling", "live_data")),
)
GOES = {"freed": "in_time", "evicted": "no", "cached": "no", "forked": "no"}
NAMES = {"flush": "flush_caches"}
OFF = 0.05
"""Of what was foretold, what may come more or less."""


@pytest.mark.parametrize("situation", REAL, ids=lambda situation: str(situation.name))
def test_causes_and_what_their_remedies_give_back(situation: Situation) -> None:
    with running(situation.name, situation.options) as program:
        report = program.sweep()
        found = {cause["cause"]: cause for cause in report["causes"]}
        assert list(found)[: len(situation.causes)] == list(situation.causes)
        if situation.name in GOES:
            assert found["dirty_pages"]["goes_by_itself"] == GOES[situation.name]
        remedies: Dict[str, Any] = {}
        for cause in found.values():
            for each in cause["remedies"]:
                remedies.setdefault(each["remedy"], each)
        for command in situation.remedies:
            # What a fork shares stays with the other side.
            before = program.memory("Private_Dirty")
            program.do(command)
            program.do("purge")
            came = before - program.memory("Private_Dirty")
            foretold = remedies[NAMES.get(command, command)]["bytes"]
            assert abs(foretold - came) <= OFF * came, (command, foretold, came)


def test_settings_are_those_of_the_process() -> None:
    with running("small", "background_thread:true,narenas:3,dirty_decay_ms:1234") as program:
        report = program.sweep()
    settings = report["settings"]
    assert settings["background_thread"] is True
    assert settings["arenas"] == 3
    assert settings["options"]["dirty_decay_ms"] == "1234"
    assert settings["sources"]["arenas"] == "MALLOC_CONF of its environment"
    assert {row["dirty_decay_ms"] for row in report["arenas"]} == {1234}
    assert report["arenas"][0]["threads"] == 1
