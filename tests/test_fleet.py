"""Many processes into tables: what is read, what is kept, what goes wrong and costs no more."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import pytest

from drain_gdb.analysis.fleet import GROUPS, HOSTS, cells_of, names_of, rows_of
from drain_gdb.errors import DrainError, ReportError, TargetError, UsageError
from drain_gdb.loaders.fleet import files, journal
from drain_gdb.loaders.fleet.command import Counter
from drain_gdb.loaders.fleet.files import Source
from drain_gdb.loaders.fleet.journal import Journal
from drain_gdb.loaders.fleet.reading import Asked, Place, read
from tests.support.deadly import Deadly
from tests.support.fleet import BROKEN, CLASS, PINNED, RECORDINGS, WORST, of_host, template, write
from tests.support.inputs import ROOT
from tests.support.runs import shell, sweep_json

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("distributed")
FLEET = 1000
MOMENTS = 10
STATISTICS = ROOT / "tests" / "statistics" / "jemalloc-5.3.0.txt"
LIMIT = 3
"""Seconds for a file, where one hangs."""


def rows(path: Path, query: str = "SELECT *") -> List[Dict[str, Any]]:
    relation = duckdb.sql(f"{query} FROM '{path}'")
    return [dict(zip(relation.columns, row)) for row in relation.fetchall()]


@pytest.fixture(scope="module")
def report() -> Dict[str, Any]:
    return template()


# -- a thousand ---------------------------------------------------------------------


def test_a_thousand_of_which_some_are_broken(tmp_path: Path) -> None:
    """Swept, asked, swept again after some have changed, and asked what could not be read."""
    source, tables = tmp_path / "fleet", tmp_path / "tables"
    tables.mkdir()
    hosts = FLEET - MOMENTS - BROKEN - PINNED
    names = write(source, hosts, MOMENTS)
    assert len(names) == FLEET
    words = ("fleet", source, "-o", tables / "fleet.parquet")
    ran = shell(*words)
    assert (ran.status, ran.out) == (3, "")
    said = f"1,000 of 1,000 files, {BROKEN} errors: {tables / 'fleet.parquet'}\n"
    assert ran.err == f"drain-gdb fleet: {said}"

    found = rows(tables / "fleet.parquet")
    assert sorted(os.path.relpath(row["file"], source) for row in found) == names
    kinds = {row["host"]: row["error_kind"] for row in found if row["error"] is not None}
    assert kinds == {
        "cut/moment": "RecordingError",
        "cut/sweep": "ReportError",
        "odd/sweep": "ReportError",
        "text/notes": "TargetError",
    }
    by_host = {row["host"]: row for row in found}
    assert by_host["moments/0000"]["kind"] == "recording"
    assert by_host["moments/0000"]["status"] == "exact"

    shown = subprocess.run(
        [sys.executable, "-m", "examples.fleet.show", str(tables)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    worst, second = _lines(shown, "host", "waste_bytes")[:2]
    assert worst == f"host{WORST:04}/sweep"
    assert second in (f"host{WORST - 1:04}/sweep", f"host{WORST + 1:04}/sweep")
    assert _lines(shown, "size", "worst_host")[0] == str(template()["bins"][CLASS]["size"])
    assert _lines(shown, "error_kind", "files") == ["ReportError", "RecordingError", "TargetError"]
    assert _lines(shown, "cause", "remedy_bytes") and _lines(shown, "what", "alone_bytes")
    _it_goes_on(source, tables / "fleet.parquet", words, len(found))


def _lines(shown: str, *heads: str) -> List[str]:
    """The first column of the first table below these heads."""
    lines = shown.splitlines()
    start = next(i for i, line in enumerate(lines) if all(head in line for head in heads))
    cells = [line.split("│")[1].strip() for line in lines[start:] if line.startswith("│")]
    return [cell for cell in cells[2:] if cell]


def _it_goes_on(source: Path, table: Path, words: Any, number: int) -> None:
    """What has changed is read anew, what is gone is left out, the rest is not looked at."""
    changed = source / "host0000" / "sweep.json"
    content = json.loads(changed.read_text())
    content["process"]["pid"] = 123456
    changed.write_text(json.dumps(content))
    (source / "host0001" / "sweep.json").unlink()
    kept = (source / "moments" / "0000.drain").stat()
    (source / "moments" / "0000.drain").write_bytes(b"x" * kept.st_size)
    os.utime(source / "moments" / "0000.drain", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    before = (table.parent / "fleet.parquet.journal").read_text().count("\n")
    ran = shell(*words, "--workers", 1)
    assert ran.status == 3
    found = {row["host"]: row for row in rows(table)}
    assert len(found) == number - 1
    assert found["host0000/sweep"]["pid"] == 123456
    assert "host0001/sweep" not in found
    assert found["moments/0000"]["status"] == "exact"
    after = (table.parent / "fleet.parquet.journal").read_text().count("\n")
    assert after <= before


# -- by itself ----------------------------------------------------------------------


def test_a_row_says_what_the_report_says(report: Dict[str, Any]) -> None:
    (host,) = rows_of(HOSTS, "/srv/a.json", "a", cells_of(report, "report"))
    totals = report["totals"]
    assert host.slabs == totals["slabs"]
    for key in ("dsr", "occupancy", "retention_ratio", "waste_bytes", "ideal_slabs"):
        assert getattr(host, key) == pytest.approx(totals[key])
    assert host.resident_bytes == report["account"]["resident_bytes"]
    assert host.cause == report["causes"][0]["cause"]
    classes = cells_of(report, "report")["classes"]
    assert len(classes) == len(report["bins"])
    assert host.sound


def test_several_allocators_are_one_host(report: Dict[str, Any]) -> None:
    both = {**report, "other_allocators": [of_host(report, 1)]}
    cells = cells_of(both, "report")
    (host,) = rows_of(HOSTS, "", "", cells)
    assert host.allocators == 2
    assert host.slabs == 2 * report["totals"]["slabs"]
    assert host.dsr == pytest.approx(report["totals"]["dsr"])
    assert len(cells["classes"]) == 2 * len(report["bins"])


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "drain_gdb.plan/1"},
        {"totals": None},
        {"causes": [{}]},
        {"process": {"pid": "1"}},
        {"process": {"pid": 1 << 64}},
        {"process": {"pid": True}},
        {"verification": {"status": "fine"}},
        {"bins": [{"index": 1, "size": 8}]},
        {"bins": 5},
        {"selection": {"arena": 1}},
    ],
)
def test_a_report_that_is_none_is_refused(report: Dict[str, Any], change: Dict[str, Any]) -> None:
    with pytest.raises(ReportError):
        cells_of({**report, **change}, "report")


def test_names_are_what_tells_files_apart() -> None:
    assert names_of(["/srv/a/core.1", "/srv/b/core.1"]) == ["a/core.1", "b/core.1"]
    assert names_of(["/srv/a/x.drain", "/srv/a/y.json.zst"]) == ["x", "y"]
    assert names_of(["/srv/a/.drain"]) == [".drain"]
    assert names_of([]) == []


def test_names_that_are_no_text_are_kept(report: Dict[str, Any]) -> None:
    odd = {**report, "process": {**report["process"], "name": "a\udcff"}}
    (host,) = rows_of(HOSTS, "", "", cells_of(odd, "report"))
    assert host.name == "a\\udcff"


# -- files ---------------------------------------------------------------------------


def test_folders_patterns_and_urls(tmp_path: Path) -> None:
    for name in ("a/1.drain", "a/b/2.drain", "c/3.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "a" / "ring").symlink_to(tmp_path)

    def found(*arguments: object, without: Any = ()) -> List[str]:
        sources = files.find([str(each) for each in arguments], [str(each) for each in without])
        return [os.path.relpath(p.name, tmp_path) for s in sources for p in s.places]

    assert found(tmp_path) == ["a/1.drain", "a/b/2.drain", "c/3.json"]
    assert found(tmp_path / "*/*.drain", tmp_path / "a") == ["a/1.drain", "a/b/2.drain"]
    assert found(tmp_path, without=[tmp_path / "c/3.json"]) == ["a/1.drain", "a/b/2.drain"]
    with pytest.raises(UsageError, match="there is no file at"):
        found(tmp_path / "*.core")
    with pytest.raises(UsageError, match="nowhere"):
        found(tmp_path / "nowhere")
    with pytest.raises(DrainError, match="no-such-protocol"):
        found("no-such-protocol://bucket")


def test_files_of_other_systems_are_fetched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "moments.zip", "w") as archive:
        archive.write(RECORDINGS[-1], "web/1.drain")
    (source,) = files.find([f"zip://*/*.drain::{tmp_path / 'moments.zip'}"], [])
    (place,) = source.places
    assert place.name == "zip://web/1.drain"
    (host,) = rows_of(HOSTS, "", "", read(source.system, place, Asked()))
    assert (host.kind, host.status) == ("recording", "exact")


def test_cores_and_statistics_and_who_pins(small_core: Path) -> None:
    core, told = Place(str(small_core), "", 0, ""), Place(str(STATISTICS), "", 0, "")
    cells = read(None, core, Asked(pins=True))
    (host,) = rows_of(HOSTS, "", "", cells)
    assert (host.kind, host.status, host.error) == ("core", "exact", None)
    groups = list(rows_of(GROUPS, "", "", cells))
    assert [row.rank for row in groups] == list(range(1, len(groups) + 1)) != []
    assert GROUPS not in read(None, core, Asked())
    (host,) = rows_of(HOSTS, "", "", read(None, told, Asked(pins=True)))
    assert (host.kind, host.status, host.dsr) == ("statistics", "unavailable", None)
    assert host.slabs == sum(row["slabs"] for row in sweep_json(STATISTICS)["bins"])


def test_a_journal_remembers_what_was_read(tmp_path: Path, report: Dict[str, Any]) -> None:
    path = str(tmp_path / "x.journal")
    place, other = Place("/a", "/a", 1, "first"), Place("/b", "/b", 1, "first")
    good, bad = cells_of(report, "report"), read(None, Place("/nowhere", "", 0, ""), Asked())
    with Journal(path, Asked()) as kept:
        kept.keep(place, good)
        kept.keep(other, bad)
        with pytest.raises(UsageError, match="another drain-gdb fleet"):
            Journal(path, Asked())
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"file": "/c", "mark": "fi')
    with Journal(path, Asked()) as kept:
        assert kept.known(place)
        assert not kept.known(other)
        assert not kept.known(Place("/a", "/a", 1, "second"))
        kept.keep(other, good)
    with Journal(path, Asked()) as kept:
        assert kept.known(place) and kept.known(other)
        kept.tidy(["/a"])
    assert Path(path).read_text().count("\n") == 2
    with Journal(path, Asked(pins=True)) as kept:
        assert not kept.known(place)
    assert journal.host_of(bad).error_kind == "TargetError"


# -- workers -------------------------------------------------------------------------


def test_a_worker_that_dies_or_hangs_costs_that_file_alone(
    tmp_path: Path, report: Dict[str, Any]
) -> None:
    from drain_gdb.loaders.fleet import crew  # noqa: PLC0415 - Dask takes a second

    names = [f"fine{number}" for number in range(20)]
    names[3:3], names[12:12] = ["kills"], ["hangs"]
    for name in names:
        (tmp_path / name).write_text(json.dumps(report))
    places = [Place(str(tmp_path / name), name, 1, "") for name in names]
    with crew.local(2) as client:
        workers = crew.Crew(client, Asked(limit=LIMIT))
        got = {place.name: cells for place, cells in workers.read([Source(Deadly(), places)])}
    assert sorted(got) == sorted(names)
    errors = {name: journal.host_of(cells).error for name, cells in got.items()}
    assert errors.pop("kills") == "the worker that read it ended, as when memory is short"
    assert errors.pop("hangs") == f"it took longer than {LIMIT} s"
    assert set(errors.values()) == {None}


def test_a_cluster_that_is_there_is_used(tmp_path: Path, report: Dict[str, Any]) -> None:
    import distributed  # noqa: PLC0415 - it takes a second

    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.json").write_text(json.dumps(report))
    table = tmp_path / "fleet.jsonl"
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        address = cluster.scheduler_address
        ran = shell("fleet", tmp_path / "in", "-o", table, "--scheduler", address)
        assert (ran.status, ran.out) == (0, "")
        assert ran.err == f"drain-gdb fleet: 3 of 3 files: {table}\n"
    assert [json.loads(line)["host"] for line in table.read_text().splitlines()] == ["0", "1", "2"]


def test_progress_is_a_line_that_goes() -> None:
    terminal = io.StringIO()
    progress = Counter(terminal, 1200)
    progress.add(True)
    progress.close()
    assert "\rdrain-gdb fleet: 1 of 1,200 files, 1 error" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\033[K")
    Counter(None, 1).close()


def test_an_interrupt_leaves_what_is_done(tmp_path: Path) -> None:
    source = tmp_path / "moments"
    source.mkdir()
    for number in range(200):
        shutil.copy(RECORDINGS[number % len(RECORDINGS)], source / f"{number}.drain")
    table, kept = tmp_path / "fleet.csv", tmp_path / "fleet.csv.journal"
    words = ["fleet", str(source), "-o", str(table), "--workers", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "drain_gdb", *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    while running.poll() is None and not (kept.exists() and kept.read_text().count("\n") > 3):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.startswith("drain-gdb fleet: interrupted, the same command goes on; ")
    assert err.count("\n") == 1
    with table.open() as file:
        done = list(csv.DictReader(file))
    assert 3 <= len(done) < 200
    assert {row["status"] for row in done} <= {"exact", "unavailable"}


# -- misuse --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["."], 1, "-o"),
        ([".", "-o", "rows.txt"], 1, "its name ends with one of"),
        (["nowhere", "-o", "{tmp}/rows.csv"], 1, "nowhere"),
        ([".", "-o", "/nowhere/rows.csv"], 2, "cannot write /nowhere/rows.csv.journal"),
        ([".", "-o", "{tmp}/there.csv"], 2, "is there already, and not of a fleet; add --force"),
        ([".", "-o", "{tmp}/rows.csv", "--workers", "1", "--scheduler", "x"], 1, "not allowed"),
    ],
)
def test_misuse_is_named(words: List[str], status: int, why: str, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    ran = shell("fleet", *[word.format(tmp=tmp_path) for word in words])
    assert ran.status == status
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from drain_gdb.loaders.fleet import crew  # noqa: PLC0415 - Dask takes a second

    monkeypatch.setattr(crew, "CONNECT_SECONDS", 1)
    said = "cannot reach a Dask scheduler at tcp://127.0.0.1:1: "
    with pytest.raises(TargetError, match=said), crew.remote("tcp://127.0.0.1:1"):
        pass


def test_what_is_missing_is_named_with_its_command() -> None:
    code = (
        "import sys; sys.modules['distributed'] = None;"
        "from drain_gdb.loaders.shell import main; sys.exit(main(['fleet', '.', '-o', 'x.csv']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "cannot import distributed; run: " in done.stderr
    assert done.stderr.rstrip().endswith("pip install 'dask[distributed]'")
