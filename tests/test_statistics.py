"""What malloc_stats_print() printed as a target: of every version, cut, quoted, hostile.

tests/statistics holds outputs of real processes, and in walked.json what a verified walk of
the same process said meanwhile (of Redis without what its reply takes while it is printed).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest

from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.errors import StatisticsError, UsageError
from drain_gdb.jemalloc.printed import is_printed, parse
from tests.support.runs import shell, sweep_json

HERE = Path(__file__).parent / "statistics"
WALKED: Dict[str, Dict[str, Any]] = json.loads((HERE / "walked.json").read_text())
TEXT = (HERE / "jemalloc-5.3.0.txt").read_text()
JSON = (HERE / "jemalloc-5.3.0.json").read_text()


def _arena(**changes: Any) -> Dict[str, Any]:
    """A section of one bin, 2 slabs of 256 regions of 16 bytes, 100 of them allocated."""
    bins = [{"curregs": 0, "curslabs": 0, "nmalloc": 0}]
    bins.append({"curregs": 100, "curslabs": 2, "nmalloc": 120})
    large = {"small": {"allocated": 1600}, "large": {"allocated": 32768}, "pactive": 10}
    section = {**large, "bins": bins, "lextents": [{"curlextents": 0}, {"curlextents": 1}]}
    return {**section, **changes}


def _printed(*arenas: Dict[str, Any], **changes: Any) -> str:
    sizes = [(8, 512), (16, 256)]
    general = {
        "page": 4096,
        "bin": [{"size": size, "nregs": regs, "slab_size": 4096} for size, regs in sizes],
        "lextent": [{"size": 16384}, {"size": 32768}],
    }
    sections = {str(index): arena for index, arena in enumerate(arenas or [_arena()])}
    return json.dumps({"jemalloc": {"arenas": general, "stats.arenas": sections, **changes}})


@pytest.mark.parametrize("name", sorted(WALKED))
def test_every_version_says_what_was_walked(name: str) -> None:
    said, walked = sweep_json(HERE / name), WALKED[name]
    found = {**said["totals"], **said["extents"], **said["allocator"]}
    assert {key: found[key] for key in walked} == walked
    assert said["verification"]["status"] == "unavailable"
    assert said["totals"]["live"] is said["totals"]["dsr"] is None


def test_every_output_is_of_a_walk_and_none_is_large() -> None:
    files = {path.name: path.stat().st_size for path in HERE.iterdir()}
    assert files.keys() - {"walked.json"} == WALKED.keys()
    assert max(files.values()) < 100_000
    assert {str(each["version"])[:5] for each in WALKED.values()} >= {"5.1.0", "5.2.1", "5.3.0"}


def test_both_forms_of_the_settings_are_read() -> None:
    text, tree = parse(TEXT), parse(JSON)
    assert text.settings == tree.settings
    assert text.settings["narenas"] == 2
    assert text.settings["background_thread"] is False
    assert text.settings["hpa_dirty_mult"] == "0.25"
    assert text.current["dirty_decay_ms"] == tree.current["dirty_decay_ms"] == 10_000
    arenas = [*text.arenas.values(), *tree.arenas.values()]
    assert [each.dirty_decay_ms for each in arenas] == [10_000] * 4
    assert text.merged is not None
    assert text.merged.dirty_decay_ms == -1


def _prompt(text: str) -> str:
    return f"127.0.0.1:6379> MEMORY MALLOC-STATS\n{text}(1.07s)\n127.0.0.1:6379> \n"


def _logged(text: str) -> str:
    lines = enumerate(text.splitlines())
    stamped = [f"2026-11-27T15:00:{number % 60:02}Z app[7]: {line}" for number, line in lines]
    return "2026-11-27 starting\n" + "\n".join(stamped) + "\n2026-11-27 going on\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'127.0.0.1:6379> memory malloc-stats\n"{escaped}"\n'


def _interleaved(text: str) -> str:
    """Another thread's words between the lines, in the midst of tables too."""
    lines = text.splitlines(keepends=True)
    return "".join(f"{line}worker 3: 12 jobs done\n" for line in lines)


@pytest.mark.parametrize(
    "around",
    [_prompt, _logged, _quoted, _interleaved, lambda text: text.replace("\n", "\r\n")],
    ids=["prompt", "log", "redis-cli", "interleaved", "crlf"],
)
def test_it_is_found_in_the_midst_of_other_lines(around: Any) -> None:
    found, plain = parse(around(TEXT)), parse(TEXT)
    assert (found.merged, found.arenas, found.settings) == (
        plain.merged,
        plain.arenas,
        plain.settings,
    )


def test_json_is_found_in_the_midst_of_other_lines() -> None:
    for text in (f"log line {{}}\n{JSON}\nafter", _quoted(JSON)):
        assert parse(text).arenas == parse(JSON).arenas


def test_of_several_outputs_the_last_is_taken() -> None:
    found = parse(TEXT + "between\n" + _printed())
    assert [row.curregs for row in found.arenas[0].bins or ()] == [100]
    assert len(found.remarks) == 1
    assert sweep_statistics(found, Selection()).coverage.anomalies == found.remarks


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("whole", [TEXT, JSON, _quoted(TEXT)], ids=["text", "json", "quoted"])
def test_a_cut_one_is_refused_in_one_line(whole: str, share: float, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_text(whole[: int(share * len(whole))])
    with pytest.raises(StatisticsError, match=r"cut off( or damaged)? in line \d+|cut off: their"):
        parse(cut.read_text())
    if share == 0.5:
        ran = shell("sweep", cut)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.count("\n") == 1


def test_where_it_is_cut_is_said() -> None:
    with pytest.raises(StatisticsError, match=r"arenas\[0\], the table 'bins'"):
        parse(TEXT[: TEXT.index("bins:", TEXT.index("arenas[0]")) + 900])
    with pytest.raises(StatisticsError, match=r"within jemalloc\.stats\.arenas\.merged\.bins"):
        parse(JSON[: JSON.index('"bins"') + 400])


def test_one_without_its_beginning_is_refused(tmp_path: Path) -> None:
    rest = tmp_path / "rest"
    rest.write_text(TEXT[len(TEXT) // 2 :])
    assert is_printed(str(rest))
    with pytest.raises(StatisticsError, match="beginning of the statistics is missing"):
        parse(rest.read_text())


def test_a_lost_line_is_a_mismatch(tmp_path: Path) -> None:
    at = TEXT.index("\n", TEXT.index("bins:")) + 1
    lost = tmp_path / "lost"
    lost.write_text(TEXT[:at] + TEXT[TEXT.index("\n", at) + 1 :])
    ran = shell("sweep", lost)
    assert ran.status == 3
    assert "NOT VERIFIED" in ran.out
    assert "bytes of small regions" in ran.out


@pytest.mark.parametrize(
    ("section", "what"),
    [
        (_arena(bins=None), "no size classes.*option b"),
        (_arena(bins=[{"curregs": 1}]), "lacks its size, its slabs or its regions"),
        (_arena(bins=[7]), "something else than size classes"),
        (_arena(bins=[{"curregs": 1 << 64, "curslabs": 1}]), "no number of 64 bits"),
        (_arena(bins=[{"curregs": -1, "curslabs": 1}]), "no number of 64 bits"),
        (_arena(bins=[{"curregs": 0.5, "curslabs": 1}]), "no number of 64 bits"),
        (_arena(bins=[{"curregs": "\x1b[2J", "curslabs": 1}]), "no number of 64 bits"),
        (_arena(lextents=[{"curlextents": True}]), "no number of 64 bits"),
        (_arena(small=[]), "'small' of the statistics is no object"),
        (_arena(bins=[{}] * 5000), "no list of size classes"),
    ],
)
def test_what_is_no_statistic_is_refused(section: Dict[str, Any], what: str) -> None:
    with pytest.raises(StatisticsError, match=what):
        sweep_statistics(parse(_printed(section)), Selection())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"jemalloc": 5}', "no object 'jemalloc'"),
        (_printed(**{"stats.arenas": {}}), "hold no arenas"),
        (_printed(**{"stats.arenas": {"²": {}, "9" * 5000: {}}}), "hold no arenas"),
        (_printed(arenas={"page": 3}), "no jemalloc has pages of 3 bytes"),
        (_printed(arenas={"page": 4096, "quantum": 1 << 60}), "and a quantum of"),
        (_printed(arenas={}), "page size"),
        ('{"jemalloc": {"a": ' + "9" * 5000 + "}}", "a number of 5000 digits"),
        ('{"jemalloc": ' + "[" * 200_000, "nested too deeply|cut off"),
        (TEXT.replace("    ---\n", "    7 7\n", 1), "a row of .*'bins' does not fit its columns"),
    ],
)
def test_what_is_no_output_is_refused(text: str, what: str) -> None:
    with pytest.raises(StatisticsError, match=what):
        sweep_statistics(parse(text), Selection())


@pytest.mark.parametrize("filler", [" ", "1", "1 ", ",", "{", '"', "opt.a: ", "\\", "race "])
def test_long_lines_take_no_longer_than_they_must(filler: str) -> None:
    begun = TEXT.index("\n", TEXT.index("bins:")) + 1
    for at in (begun, TEXT.index("\n") + 1):
        try:
            parse(TEXT[:at] + filler * 200_000 + "x\n" + TEXT[at:])
        except StatisticsError as error:
            assert len(str(error)) < 400


def test_nothing_steers_the_terminal(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    evil.write_text(
        TEXT.replace("Version: ", "Version: \x1b]0;owned\x07").replace("opt.", "\x1b[31m")
    )
    ran = shell("sweep", evil)
    assert ran.status == 0
    assert "\x1b" not in ran.out + ran.err
    assert "\x1b" not in shell("sweep", evil, "--format", "json").out


def test_arenas_add_up_where_they_are_not_merged() -> None:
    found = sweep_statistics(parse(_printed(_arena(), _arena())), Selection())
    (row,) = found.bins
    assert (row.size, row.state.slabs, row.state.allocated) == (16, 4, 200)
    # Each arena has 10 active pages, two of them in slabs.
    assert found.extents.large_bytes == 2 * 8 * 4096
    assert found.extents.large_count == 2
    assert found.extents.dirty_bytes is None
    assert found.verification.mismatches == ()


def test_rows_that_do_not_add_up_are_told() -> None:
    merged = _arena(bins=[{}, {"curregs": 99, "curslabs": 2, "nmalloc": 120}])
    merged["bins"][0] = {"curregs": 0, "curslabs": 0}
    text = _printed(**{"stats.arenas": {"merged": merged, "0": _arena()}})
    found = sweep_statistics(parse(text), Selection()).verification
    assert found.status == "mismatch"
    assert {item.what for item in found.mismatches} == {
        "regions of all arenas",
        "bytes of small regions",
    }


def test_what_statistics_do_not_tell_is_refused() -> None:
    whole = parse(_printed(_arena(), _arena()))
    merged = parse(_printed(**{"stats.arenas": {"merged": _arena()}}))
    for statistics, selection, what in (
        (whole, Selection("slab"), "one slab from another"),
        (whole, Selection("shard"), "one shard from another"),
        (whole, Selection(arena=2), "no arena 2"),
        (whole, Selection(size=1 << 20), "no small size"),
        (merged, Selection("arena"), "one arena from another"),
    ):
        with pytest.raises(UsageError, match=what):
            sweep_statistics(statistics, selection)


def test_a_size_and_an_arena_are_chosen() -> None:
    statistics = parse(_printed(_arena(), _arena()))
    chosen = sweep_statistics(statistics, Selection(arena=1, size=9))
    assert (chosen.totals.slabs, chosen.totals.allocated) == (2, 100)
    assert sweep_statistics(statistics, Selection(size=8)).totals.slabs == 0


def test_the_report_shows_what_is_known() -> None:
    ran = shell("sweep", HERE / "redis-6.2-jemalloc-5.1.0.txt")
    assert ran.status == 0
    assert "jemalloc 5.1.0" in ran.out
    assert "utilization" in ran.out
    assert "DSR" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100
    csv = shell("sweep", HERE / "jemalloc-5.3.0.txt", "--format", "csv").out.splitlines()
    first = dict(zip(csv[0].split(","), csv[1].split(",")))
    assert (first["live"], first["dsr"], first["occupancy_histogram"]) == ("", "", "")
    assert int(first["allocated"]) > 0
    info = shell("sweep", HERE / "jemalloc-5.3.0.txt", "--format", "info").out
    assert "mem_drainability_ratio:\n" in info
    assert "mem_drainprof_pinned_extents:\n" in info


@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        (
            ["record", HERE / "jemalloc-5.3.0.txt", "-o", "none"],
            2,
            "on statistics these work: sweep",
        ),
        (["sweep", HERE / "jemalloc-5.3.0.txt", "--exe", "/bin/true"], 1, "leave --exe out"),
        (["sweep", HERE / "jemalloc-5.3.0.txt", "--debugger", "gdb"], 1, "gdb cannot read"),
        (["sweep", HERE / "jemalloc-5.3.0.txt", "--sort", "dsr"], 1, "has no column dsr"),
        (["sweep", HERE / "jemalloc-5.3.0.txt", "--format", "malloc_stats"], 1, "leave --format"),
    ],
)
def test_what_cannot_be_done_with_statistics(arguments: Any, status: int, what: str) -> None:
    ran = shell(*arguments)
    assert (ran.status, ran.err.count("\n")) == (status, 1)
    assert what in ran.err


@pytest.mark.parametrize("name", sorted(WALKED))
def test_the_account_is_all_that_jemalloc_says_is_resident(name: str) -> None:
    statistics = parse((HERE / name).read_text())
    report = sweep_statistics(statistics, Selection())
    account, walked = report.account, WALKED[name]
    assert account is not None
    assert (account.source, account.resident_bytes) == ("statistics", statistics.resident)
    there = {part.part: part.resident_bytes for part in account.parts}
    assert sum(filter(None, there.values())) == statistics.resident
    assert there["allocated"] == walked["allocated_bytes"]
    assert there["free"] == walked["slab_bytes"] - walked["allocated_bytes"]
    assert there["retained"] == 0
    # Metadata is resident in whole pages, from the arena's first block on.
    assert (there["metadata"] or 0) >= walked["metadata_bytes"]
    causes = {cause.cause: cause for cause in report.causes}
    assert causes["pinned_slabs"].bytes == there["free"]
    assert causes["dirty_pages"].bytes == there["dirty"]
    goes = "in_time" if statistics.background_threads else "unknown"
    assert causes["dirty_pages"].goes_by_itself == goes
    cached = report.allocator.thread_cache_bytes
    assert causes["cached_regions"].bytes == cached
    held = (there["allocated"] or 0) + (there["large"] or 0)
    assert causes["live_data"].bytes == held - (cached or 0)


@pytest.mark.parametrize(
    ("decay", "background", "goes"),
    [(-1, 0, "no"), (10_000, 1, "in_time"), (10_000, 0, "unknown")],
)
def test_whether_dirty_pages_go_is_read_of_the_statistics(
    decay: int, background: int, goes: str
) -> None:
    arena = _arena(pdirty=1000, pmuzzy=0, resident=4096 * 1020, dirty_decay_ms=decay)
    said = {"stats": {"background_thread": {"num_threads": background}}}
    text = _printed(arena, opt={"background_thread": False}, **said)
    report = sweep_statistics(parse(text), Selection())
    assert report.settings is not None
    assert report.settings.background_thread is (background > 0)
    (dirty,) = [cause for cause in report.causes if cause.cause == "dirty_pages"]
    assert (dirty.bytes, dirty.goes_by_itself) == (4096 * 1000, goes)


def test_large_allocations_are_told_by_class() -> None:
    rows = sweep_statistics(parse(JSON), Selection("large")).large
    assert sum(row.count for row in rows) == WALKED["jemalloc-5.3.0.json"]["large_count"]
    assert {row.cached for row in rows} == {None}
    ran = shell("sweep", HERE / "jemalloc-5.3.0.json", "--by", "large", "--sort", "bytes")
    assert ran.status == 0
