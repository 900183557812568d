"""Compressed cores are read as they are, by whatever reads cores."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict

import lz4.frame
import pytest
import zstandard

from tests.support.inputs import ROOT
from tests.support.runs import shell, sweep_json

NONE = ("--debugger", "none")
PACKED: Dict[str, Callable[[bytes], bytes]] = {
    "zst": zstandard.compress,
    "lz4": lz4.frame.compress,
    "gz": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}
BOMB = 1 << 30


@pytest.fixture(scope="module")
def expected(small_core: Path) -> Dict[str, Any]:
    return sweep_json(small_core, *NONE)


@pytest.mark.parametrize("kind", PACKED)
def test_each_form(kind: str, small_core: Path, expected: Dict[str, Any], tmp_path: Path) -> None:
    """Two members one after the other, as parallel compressors write them."""
    data = small_core.read_bytes()
    middle = len(data) // 2
    core = tmp_path / f"core.{kind}"
    core.write_bytes(PACKED[kind](data[:middle]) + PACKED[kind](data[middle:]))
    room = {"TMPDIR": str(tmp_path)}
    ran = shell("sweep", core, "--format", "json", *NONE, env=room)
    assert (ran.status, ran.err) == (0, "")
    assert json.loads(ran.out) == expected
    assert [path.name for path in tmp_path.iterdir()] == [core.name]


def test_in_a_debugger(small_core: Path, expected: Dict[str, Any], tmp_path: Path) -> None:
    core = tmp_path / "core.zst"
    core.write_bytes(zstandard.compress(small_core.read_bytes()))
    report = sweep_json(core, "--debugger", "gdb")
    assert report["process"].pop("debugger") == "gdb"
    assert {**report["process"], "debugger": "none"} == expected["process"]
    assert report["totals"] == expected["totals"]


@pytest.mark.parametrize("kind", PACKED)
def test_cut_off(kind: str, small_core: Path, tmp_path: Path) -> None:
    """Read as far as it goes, or refused; never more than that, and the reason is said."""
    core = tmp_path / f"core.{kind}"
    packed = PACKED[kind](small_core.read_bytes())
    core.write_bytes(packed[: len(packed) * 9 // 10])
    ran = shell("sweep", core, *NONE)
    assert ran.status in (2, 3), ran
    assert "is truncated" in ran.err or "is damaged" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("kind", PACKED)
def test_damaged(kind: str, small_core: Path, tmp_path: Path) -> None:
    core = tmp_path / f"core.{kind}"
    packed = bytearray(PACKED[kind](small_core.read_bytes()))
    for at in range(len(packed) // 2, len(packed) // 2 + 4096):
        packed[at] ^= 0x55
    core.write_bytes(packed)
    ran = shell("sweep", core, *NONE)
    assert ran.status in (2, 3), ran
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err


@pytest.mark.parametrize("kind", PACKED)
def test_no_core_inside(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"notes.{kind}"
    file.write_bytes(PACKED[kind](b"nothing to see here\n" * 10))
    ran = shell("sweep", file, *NONE)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"drain-gdb: {file} is compressed, but holds no ELF core file\n"


def test_a_bomb(small_core: Path, tmp_path: Path) -> None:
    """Nothing beyond what the core's headers promise is unpacked."""
    core = tmp_path / "core.zst"
    whole = small_core.read_bytes()
    core.write_bytes(zstandard.compress(whole) + zstandard.compress(bytes(BOMB)))
    ran = shell("sweep", core, *NONE, env={"TMPDIR": str(tmp_path)})
    assert (ran.status, ran.out) == (2, "")
    assert "is damaged: more than the " in ran.err
    assert "bytes come out that its core says it has" in ran.err


def test_no_room(small_core: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    core = tmp_path / "core.gz"
    core.write_bytes(gzip.compress(small_core.read_bytes(), 1))
    drain_gdb = shlex.join([sys.executable, "-m", "drain_gdb", "sweep", str(core), *NONE])
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 1024; exec {drain_gdb}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot unpack" in done.stderr
    assert "set TMPDIR to a directory with more room" in done.stderr


def test_a_form_that_is_not_known_is_named(small_core: Path, tmp_path: Path) -> None:
    core = tmp_path / "core.bz2"
    core.write_bytes(bz2.compress(b"\x7fELF" + bytes(100)))
    ran = shell("sweep", core, *NONE)
    assert ran.status == 2
    assert "nor one compressed by zstd, lz4, gzip, xz" in ran.err


def test_what_unpacks_is_asked_for_by_name(small_core: Path, tmp_path: Path) -> None:
    packed = tmp_path / "core.zst"
    packed.write_bytes(zstandard.compress(small_core.read_bytes()))
    code = "import sys; sys.modules.update(lz4=None, zstandard=None);"
    code += "from drain_gdb.loaders.shell import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", str(packed), "--debugger", "none"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "cannot import zstandard; run: " in line
    assert line.endswith("pip install zstandard")
