"""Reports as tables: CSV and Parquet that DuckDB and pandas load as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

import drain_gdb
from drain_gdb.analysis.report import Selection
from drain_gdb.errors import MissingDependency
from drain_gdb.render import machine, rows
from tests.support.inputs import ROOT
from tests.support.reports import sweep_of
from tests.support.runs import shell

duckdb, pandas = pytest.importorskip("duckdb"), pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
RECORDING = ROOT / "tests" / "recordings" / "jemalloc-5.3.0.drain"
KEYS = {"bin": "bins", "slab": "slabs", "large": "large_bins", "extent": "extent_rows"}
SUMS = ("live", "bytes", "slabs", "cached", "alone_bytes", "regions", "waste_bytes")


def _same(path: Path, expected: List[Dict[str, Any]]) -> None:
    """DuckDB and pandas have the rows of the JSON report."""
    relation = duckdb.sql(f"SELECT * FROM '{path}'")
    frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    assert list(frame.columns) == list(relation.columns)
    assert set(expected[0]) - {"owners", "kinds"} <= {*frame.columns}
    assert len(frame) == len(relation) == len(expected)
    for key in set(SUMS) & set(expected[0]):
        truth = sum(row[key] for row in expected)
        assert int(frame[key].sum()) == truth
        assert duckdb.sql(f"SELECT sum({key}) FROM relation").fetchall() == [(truth,)]
    if "address" in expected[0]:
        addresses = [int(row["address"], 16) for row in expected]
        (found,) = zip(*relation.select("address").fetchall())
        as_numbers = [int(each, 16) if isinstance(each, str) else each for each in found]
        assert as_numbers == addresses


@pytest.mark.parametrize("by", KEYS)
def test_every_view_of_a_sweep(by: str, tmp_path: Path) -> None:
    content = json.loads(shell("sweep", RECORDING, "--by", by, "--format", "json").out)
    for options in ((), ("--format", "csv")):
        path = tmp_path / f"rows.{options[-1] if options else 'parquet'}"
        ran = shell("sweep", RECORDING, "--by", by, "--output", path, *options)
        assert (ran.status, ran.out, ran.err) == (0, "", "")
        _same(path, content[KEYS[by]])


def test_extents_add_up_to_what_the_sweep_says() -> None:
    with drain_gdb.open(RECORDING) as snapshot:
        report = snapshot.sweep(Selection("extent"))
    sums: Dict[str, int] = {}
    assert report.extent_rows is not None
    for row in report.extent_rows:
        sums[row.state] = sums.get(row.state, 0) + row.bytes
    totals = report.extents
    assert sums["active"] == totals.large_bytes
    assert sums["dirty"] == totals.dirty_bytes
    assert sums["retained"] == totals.retained_bytes
    large = [row for row in report.extent_rows if row.state == "active"]
    assert {row.size for row in large} == {row.size for row in report.large}


def test_groups_of_pins(tmp_path: Path) -> None:
    options = ("--threshold", "1")
    groups = json.loads(shell("pins", RECORDING, *options, "--format", "json").out)["groups"]
    assert groups
    for ending in ("csv", "parquet"):
        path = tmp_path / f"groups.{ending}"
        ran = shell("pins", RECORDING, *options, "--format", ending, "--output", path)
        assert (ran.status, ran.out, ran.err) == (0, "", "")
        _same(path, groups)


def test_parquet_goes_to_a_file_and_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = shell("sweep", RECORDING, "--format", "parquet")
    assert (ran.status, ran.out) == (1, "")
    assert "--format parquet goes to a file; add --output FILE" in ran.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match="pip install pyarrow"):
        rows.write_parquet("/nowhere", machine.table(sweep_of()))
