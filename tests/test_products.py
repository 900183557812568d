"""Products as their makers ship them: BOLT, static-pie, no version, layouts between releases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Sequence

import pytest

from drain_gdb.errors import EXIT_DONE
from tests.support.arm64 import arm64_core, arm64_program
from tests.support.browser import SHADES, browser, looked_at
from tests.support.inputs import LLDB, wheel_file
from tests.support.lsp import LanguageServer
from tests.support.processes import Program, gcore, standing
from tests.support.real import Process
from tests.support.runs import comparable, shell, sweep_json
from tests.support.tables import note
from tests.support.tiers import tiered

TABLE = "products"
CHDB = "chdb-core==26.9.0"
TY, RUFF = "ty==0.0.108", "ruff==0.17.6"
MUSL = ("--platform", "musllinux_1_2_x86_64")
RAY = "ray==2.60.0"
DUCKDB_SCRIPT = """
import duckdb
c = duckdb.connect()
for n in range(300):
    c.execute(f"create table t{n} as select range a, 'value ' || range b from range({50 + 7 * n})")
for n in range(0, 300, 2):
    c.execute(f"drop table t{n}")
"""
CHDB_SCRIPT = """
from chdb.session import Session
s = Session()
s.query("create table t (a UInt64, b String) engine=Memory")
s.query("insert into t select number, toString(number) from numbers(200000)")
q = "select size, sum(toInt64(allocations) - toInt64(deallocations)) from system.jemalloc_bins"
q += " where not large group by size"
s.query(q)
print(s.query(q, "CSV"))
"""
PRELOADED_SCRIPT = "x = [bytearray(n % 900) for n in range(30000)]; del x[::2]"
NEAR, NEARLY = 200, 0.05
"""Regions of a class, and the share of them, by which ClickHouse's own threads and the end of
its query move the figures that it has just told."""


def _python(code: str, **env: str) -> Program:
    """This Python, running ``code``, and then waiting."""
    waiting = "import sys; print('ready', flush=True); sys.stdin.read()"
    return Program([sys.executable, "-c", f"{code}\n{waiting}"], env)


def _duckdb(version: str) -> Process:
    library = wheel_file(f"duckdb=={version}", "*duckdb.cpython-*.so")
    folder = library.parent if library.name.startswith("_") else library.parent.parent
    return _python(DUCKDB_SCRIPT, PYTHONPATH=str(folder))


@dataclass(frozen=True)
class Product:
    """One of them.

    Attributes:
        start: runs it, given a folder of its own.
        module: how the name of the file with jemalloc begins.
        version: of its jemalloc, as far as it is the same everywhere.
        status: what verification says.

    """

    name: str
    start: Callable[[Path], Process]
    module: str
    version: str
    status: str = "exact"


PRODUCTS = [
    Product("duckdb 0.9.2", lambda _: _duckdb("0.9.2"), "duckdb.cpython", "5.3.0-0-g"),
    Product("duckdb 1.1.3", lambda _: _duckdb("1.1.3"), "duckdb.cpython", "5.3.0-196-g"),
    Product("duckdb 1.3.2", lambda _: _duckdb("1.3.2"), "duckdb.cpython", "5.3.0-196-g"),
    Product("duckdb 2.0.1", lambda _: _duckdb("2.0.1"), "_duckdb.cpython", "5.3.0-196-g"),
    Product(
        "ty, by BOLT",
        lambda folder: LanguageServer(wheel_file(TY, "*/scripts/ty"), folder),
        "ty",
        "5.3.0-1-g",
        "unavailable",
    ),
    Product(
        "ruff, static-pie with musl",
        lambda folder: LanguageServer(wheel_file(RUFF, "*/scripts/ruff", *MUSL), folder),
        "ruff",
        "5.3.0-1-g",
        "unavailable",
    ),
    Product(
        "ray's libjemalloc",
        lambda _: _python(PRELOADED_SCRIPT, LD_PRELOAD=str(wheel_file(RAY, "libjemalloc.so"))),
        "libjemalloc.so",
        "5.3.0-0-g",
    ),
]


def _noted(product: Product, source: str, report: Dict[str, Any]) -> Dict[str, Any]:
    allocator, status = report["allocator"], report["verification"]["status"]
    note(TABLE, f"{product.name} ({allocator['layout_source']})", source, status)
    assert os.path.basename(allocator["module"]).startswith(product.module)
    assert allocator["version"].startswith(product.version)
    assert status == product.status
    assert report["verification"]["mismatches"] == []
    assert report["totals"]["live"] > 100
    return comparable(report)


EACH = tiered(
    PRODUCTS, lambda name: not name.startswith(("duckdb 2", "ty")), lambda product: product.name
)


@pytest.mark.parametrize("product", EACH)
def test_is_read(product: Product, tmp_path: Path) -> None:
    """Live and from a core, by every kind of reader."""
    process = product.start(tmp_path)
    try:
        live = sweep_json("--pid", process.pid, "--debugger", "none", "--stop")
        core = gcore(process.pid, tmp_path / "core")
    finally:
        process.stop()
    _noted(product, "live", live)
    reports = [
        _noted(product, reader, sweep_json(core, "--debugger", reader, env=env))
        for reader, env in (("gdb", {}), ("none", {}), ("lldb", {"DRAIN_GDB_LLDB": LLDB}))
    ]
    assert all(report == reports[0] for report in reports)


STANDS = 10
"""How often it is stopped; its own threads may be inside the allocator just then."""


class ClickHouse(NamedTuple):
    """What a sweep says of one, the page of it, and what it says itself."""

    report: Dict[str, Any]
    page: Path
    output: Sequence[str]


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> ClickHouse:
    page = tmp_path_factory.mktemp("clickhouse") / "page.html"
    child = _python(CHDB_SCRIPT, PYTHONPATH=str(wheel_file(CHDB, "_chdb.abi3.so").parents[1]))
    live = ("--pid", child.pid, "--debugger", "none")
    try:
        for _ in range(STANDS):
            with standing(child.pid):
                swept = shell("sweep", *live, "--by", "slab", "--format", "json")
                made = shell("report", *live, "-o", page, "--force")
            if swept.status == made.status == EXIT_DONE:
                break
    finally:
        child.stop()
    assert (swept.status, made.status) == (EXIT_DONE, EXIT_DONE), (swept.err, made.err)
    return ClickHouse(json.loads(swept.out), page, child.output)


def test_clickhouse_tells_its_own_bins(clickhouse: ClickHouse) -> None:
    """No version, half a gigabyte of file; what ``system.jemalloc_bins`` says, class by class."""
    report = clickhouse.report
    note(TABLE, "chdb", "live", report["verification"]["status"])
    library = wheel_file(CHDB, "_chdb.abi3.so")
    assert os.path.samefile(report["allocator"]["module"], library)
    assert report["allocator"]["version"] is None
    assert report["verification"]["status"] == "exact"
    rows = (line.strip().split(",") for line in clickhouse.output)
    truth = {int(row[0]): int(row[1]) for row in rows if len(row) == 2}
    walked = {row["size"]: row["live"] + row["cached"] for row in report["bins"]}
    assert len(truth) == 36
    for size, regions in truth.items():
        assert walked.get(size, 0) == pytest.approx(regions, abs=NEAR, rel=NEARLY)
    assert sum(walked.values()) == pytest.approx(sum(truth.values()), rel=NEARLY)


def test_clickhouse_to_look_at(clickhouse: ClickHouse) -> None:
    slabs = clickhouse.report["slabs"]
    with browser() as chromium, looked_at(chromium, clickhouse.page) as looked:
        for row in (slabs[0], slabs[len(slabs) // 2], slabs[-1]):
            looked.find(int(row["address"], 16))
            told = looked.readout()
            assert told["address"] == row["address"]
            assert told["what"] == f"slab of class {row['size']:,}"
            assert [told["live"], told["cached"]] == [f"{row[n]:,}" for n in ("live", "cached")]
        assert looked.pictured() > SHADES
        assert looked.said == []


@pytest.mark.parametrize("symbols", [pytest.param("symbols", marks=pytest.mark.long), "stripped"])
def test_arm64(symbols: str, tmp_path: Path) -> None:
    """glibc's locks are of 48 bytes there; the core, of qemu, does not say what was mapped."""
    binary = arm64_program("aborting", tmp_path)
    if symbols == "stripped":
        subprocess.run(["aarch64-linux-gnu-strip", "-s", str(binary)], check=True)
    core = arm64_core(binary, tmp_path)
    reports = [
        comparable(sweep_json(core, *options, "--debugger", reader, env={"DRAIN_GDB_LLDB": LLDB}))
        for reader in ("none", "lldb")
        for options in ((), ("--exe", binary))
    ]
    note(TABLE, f"arm64, static, {symbols}", "none", reports[0]["verification"]["status"])
    assert reports[0]["verification"]["status"] == "exact"
    rows = [row for row in reports[0]["bins"] if row["size"] == 3072]
    assert [row["live"] for row in rows] == [2000]
    assert all(report == reports[0] for report in reports)
