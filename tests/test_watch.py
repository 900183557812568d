"""Watching a process that runs: a row a sweep, cheap, and without growth."""

from __future__ import annotations

import csv
import gc
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from drain_gdb.analysis.watch import Row, Trend
from drain_gdb.debuggee.motion import MovingTarget
from drain_gdb.debuggee.procfs import ProcessTarget
from drain_gdb.debuggee.views import memory_of
from drain_gdb.errors import MissingDependency, OutputError, ProcessEnded
from drain_gdb.jemalloc.again import Repeated
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.render.rows import Rows
from drain_gdb.render.style import Style
from drain_gdb.render.watch import Lines, Table
from tests.bench.watch import resident
from tests.support.inputs import ROOT, program
from tests.support.processes import Program, standing
from tests.support.real import columnar_python
from tests.support.runs import gdb, shell

ROWS_MAX = 200
OWN = 20
"""Slabs that the program and its C library have of their own, at most."""
ROW = Row(
    time="2026-05-01T10:20:30.123+00:00",
    seconds=1.5,
    resident_bytes=1 << 27,
    live_bytes=1 << 25,
    waste_bytes=1 << 24,
    slabs=12_345,
    cohort_dsr=0.25,
    cohort_dsr_low=0.25,
    cohort_dsr_high=0.5,
    released=10,
    released_high=20,
    drainable=3,
    pinned=17,
    new=4,
    made=None,
    status="exact",
)


@contextmanager
def renewing() -> Iterator[Program]:
    child = Program([str(program("renew", "-ljemalloc"))])
    try:
        yield child
    finally:
        child.stop()


class Watching:
    """drain-gdb watch, as it runs."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "drain_gdb", "watch", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def until(self, rows: Path, key: str, least: int) -> Dict[str, Any]:
        """The first row from now on with that figure or more."""
        for _ in range(ROWS_MAX):
            assert self.line(), rows.read_text()
            row: Dict[str, Any] = json.loads(rows.read_text().splitlines()[-1])
            if row[key] >= least:
                return row
        raise AssertionError(f"{key} was never {least}: {rows.read_text()}")

    def ended(self) -> subprocess.CompletedProcess[str]:
        out, err = self.process.communicate(timeout=60)
        return subprocess.CompletedProcess([], self.process.returncode, out, err)


def test_a_row_a_sweep_says_what_drains_and_what_appears(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with renewing() as child:
        watching = Watching("--pid", child.pid, "--every", "100ms", "-o", rows)
        assert "cohort DSR" in watching.line()
        first = watching.until(rows, "released", 0)
        child.ask("free")
        freed = watching.until(rows, "released", 2500)
        child.ask("fill")
        filled = watching.until(rows, "made", 1250)
    ended = watching.ended()
    assert ended.returncode == 0
    assert "has ended, " in ended.stderr
    assert "never stopped" in ended.stderr
    assert first["cohort_dsr"] * first["slabs"] <= OWN
    assert 2500 <= first["slabs"] - freed["slabs"] == freed["released"] <= 2500 + OWN
    assert freed["cohort_dsr"] == pytest.approx(1 / 3, abs=0.01)
    assert filled["slabs"] == freed["slabs"] + 1250
    assert 1250 <= filled["released"] <= 2500 <= filled["released_high"] <= 2500 + OWN
    assert filled["cohort_dsr_low"] < filled["cohort_dsr_high"] == freed["cohort_dsr"]
    assert {row["status"] for row in map(json.loads, rows.read_text().splitlines())} == {"exact"}


def test_an_interrupt_is_the_way_to_end_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    with renewing() as child:
        watching = Watching("--pid", child.pid, "--every", "1h", "-o", rows)
        assert watching.line() and watching.line()
        watching.process.send_signal(signal.SIGINT)
        ended = watching.ended()
    assert ended.returncode == 0
    assert "interrupted, 1 sweep, the process was never stopped" in ended.stderr
    with rows.open() as file:
        (kept,) = csv.DictReader(file)
    assert list(kept) == list(asdict(ROW))
    assert int(kept["slabs"]) >= 7500


def test_it_ends_when_nobody_reads_on() -> None:
    with renewing() as child:
        watching = Watching("--pid", child.pid, "--every", "50ms")
        assert watching.line() and watching.line()
        assert watching.process.stdout is not None
        watching.process.stdout.close()
        assert watching.process.wait(60) == 0
        assert watching.process.stderr is not None
        assert watching.process.stderr.read() == ""
        watching.process.stderr.close()


def test_recordings_of_each_sweep_can_be_compared(tmp_path: Path) -> None:
    with renewing() as child:
        ran = shell(
            *("watch", "--pid", child.pid, "--every", "100ms", "--for", "3s"),
            *("--recordings", tmp_path, "--quiet"),
        )
    assert ran.status == 0
    assert ran.out == ""
    first, *_, last = sorted(tmp_path.glob("*.drain"))
    assert first.name.endswith("-000001.drain")
    report = json.loads(shell("diff", first, last, "--format", "json").out)
    assert report["same_process"] is True
    assert report["cohort"]["released"]["high"] <= OWN


def test_the_next_program_of_a_process_is_another_one() -> None:
    preload = {"LD_PRELOAD": "libjemalloc.so.2"}
    child = Program(["sh", "-c", "echo ready; read line; exec cat"], preload)
    try:
        repeated = Repeated(ProcessTarget(child.pid))
        repeated.walk()
        assert child.ask("line\nanswer") == "answer"
        with pytest.raises(ProcessEnded, match="runs another program now"):
            repeated.walk()
    finally:
        child.stop()
    with pytest.raises(ProcessEnded, match="has ended"):
        repeated.walk()


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        ([], 1, "--pid"),
        (["core.1", "--pid", "1"], 1, "unrecognized arguments: core.1"),
        (["--pid", "1", "-o", "rows.txt"], 1, "its name ends with one of"),
        (["--pid", "1", "--every", "5x"], 1, "invalid seconds value"),
        (["--pid", "1", "--recordings", "/nowhere"], 2, "it is no directory"),
        (["--pid", "4000000"], 2, "No such process"),
    ],
)
def test_misuse_is_named(words: List[str], status: int, why: str) -> None:
    ran = shell("watch", *words)
    assert ran.status == status
    assert why in ran.err
    assert ran.out == ""


def test_a_debugger_has_stopped_what_is_to_be_watched() -> None:
    ran = gdb("drainwatch")
    assert "run drain-gdb watch --pid PID in a shell" in ran.err


# -- walked again ---------------------------------------------------------------------


def state_of(heap: Heap) -> Dict[str, Any]:
    """All that two walks of the same bytes must agree on."""
    slabs = heap.slabs
    kinds = [slabs.kinds[number] for number in slabs.kind]
    return {
        "slabs": list(zip(slabs.address, kinds)),
        "cached": slabs.cached,
        "census": slabs.census,
        "extents": sorted(zip(heap.extents.address, heap.extents.size)),
        "sums": heap.extents.sums,
        "counters": list(heap.counters),
        "status": heap.verification.status,
        "anomalies": heap.coverage.anomalies,
        "huge": heap.extents.huge_pages,
    }


def fresh(pid: int) -> Heap:
    target = MovingTarget(ProcessTarget(pid))
    (heap,), _ = find_heaps(target, lambda: memory_of(target))
    return heap


def test_what_is_remembered_is_what_would_be_found_anew() -> None:
    """Of a process whose threads allocate and free without rest, stopped for both walks."""
    child = Program([str(program("churn", "-ljemalloc")), "2", "20000"])
    try:
        repeated = Repeated(ProcessTarget(child.pid))
        for _ in range(4):
            with standing(child.pid):
                once, twice = (repeated.walk()[1] for _ in range(2))
                found = fresh(child.pid)
            for (heap,) in once, twice:
                assert state_of(heap) == state_of(found)
    finally:
        child.stop()


def test_many_sweeps_take_no_more_memory_than_some() -> None:
    """Without Python looking for rings: what was read for one is let go of at its end."""
    child = Program([str(program("explicit", "-ljemalloc"))])
    try:
        live = ProcessTarget(child.pid)
        repeated, trend = Repeated(live), Trend()

        def sweep(times: int) -> int:
            for _ in range(times):
                target, heaps = repeated.walk()
                taken_at = target.process().taken_at
                assert taken_at is not None
                trend.row(heaps, live.resident_bytes(), taken_at)
            return resident()

        gc.disable()
        some = sweep(60)
        many = sweep(200)
    finally:
        gc.enable()
        child.stop()
    assert many - some < 1 << 20, f"{many - some} bytes in 200 sweeps"


# -- rows -----------------------------------------------------------------------------


def test_rows_are_in_the_file_as_they_come(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.jsonl", "rows.json"):
        path = tmp_path / name
        with Rows(str(path), Row) as rows:
            for number in range(3):
                rows.put(replace(ROW, slabs=number))
                lines = path.read_text().splitlines()
                assert len(lines) == number + 1 + name.endswith("csv")
        last = lines[-1]
        if name.endswith("csv"):
            assert last.split(",")[1:3] == ["1.5", str(1 << 27)]
        else:
            assert json.loads(last) == asdict(replace(ROW, slabs=2))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*: No such file"):
        Rows(str(tmp_path / "nowhere" / "rows.csv"), Row)
    with pytest.raises(OutputError, match="No space left"), Rows("/dev/full", Row) as rows:
        rows.put(ROW)


def test_parquet_needs_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match="pip install pyarrow"):
        Rows(str(tmp_path / "rows.parquet"), Row)


PARQUET = """
import sys
from dataclasses import dataclass
from typing import Optional
from drain_gdb.render.rows import Rows

@dataclass(frozen=True)
class Row:
    time: str
    slabs: int
    dsr: Optional[float]

if __name__ == "__main__":
    with Rows(sys.argv[1], Row) as rows:
        for number in range(2500):
            rows.put(Row("now", number, None if number % 2 else 0.5))
    from pyarrow import parquet
    table = parquet.read_table(sys.argv[1])
    assert table.num_rows == 2500
    assert table.column("slabs").to_pylist() == list(range(2500))
    assert table.column("dsr").null_count == 1250
"""


def test_parquet_is_written_where_its_package_is(tmp_path: Path) -> None:
    script = tmp_path / "keep.py"
    script.write_text("from __future__ import annotations\n" + PARQUET)
    subprocess.run(
        [str(columnar_python()), str(script), str(tmp_path / "rows.parquet")],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_line_a_sweep_stays_within_the_screen() -> None:
    said: List[str] = []
    with Lines(said.append, Style()) as lines:
        lines.show(ROW)
        lines.show(replace(ROW, status="mismatch"))
    head, first, second = said
    assert "cohort DSR" in head
    assert "25.0..50.0 %" in first and "10..20" in first and "12,345" in first
    assert second.rstrip().endswith("NOT VERIFIED")
    assert max(len(line.rstrip()) for line in (head, first)) <= 100


def test_a_terminal_has_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    with Table("\x1b[31m[bold]server (pid 7)") as table:
        for number in range(3):
            table.show(replace(ROW, slabs=20_000 + number))
    shown = capsys.readouterr().out
    assert "\\x1b[31m[bold]server (pid 7)" in shown
    assert "20,002" in shown
    assert "10:20:30" in shown


@dataclass(frozen=True)
class Few:
    """Rows may be of any dataclass."""

    name: str
    value: Optional[int]


def test_unknown_is_empty_or_null(tmp_path: Path) -> None:
    for name, line in (("a.csv", "x,"), ("a.jsonl", '{"name": "x", "value": null}')):
        with Rows(str(tmp_path / name), Few) as rows:
            rows.put(Few("x", None))
        assert (tmp_path / name).read_text().splitlines()[-1] == line
