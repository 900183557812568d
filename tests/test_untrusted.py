"""What a target says of itself is data: never run, never shown as it is, never followed."""

from __future__ import annotations

import ast
import hashlib
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Iterator, List

import pytest

from drain_gdb.commands.base import Context
from drain_gdb.debuggee import recording
from drain_gdb.debuggee.homes import without_homes
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.recording import MAGIC, PREFIX
from drain_gdb.errors import LayoutError, TargetError
from drain_gdb.loaders.boundary import guarded
from drain_gdb.render.style import Style
from tests.support.inputs import ROOT, program
from tests.support.processes import Program
from tests.support.runs import gdb, shell, sweep_json

EVIL = "/opt/\033[2J\u202egnp\x9b1m\x7f\n/lib.so"
ESCAPED = r"/opt/\x1b[2J\u202egnp\x9b1m\x7f\n/lib.so"
RECORDING = ROOT / "tests/recordings/jemalloc-5.3.0.drain"
UNPACKED = 1 << 29
EMPTY_LAST_BLOCK = b"\3\0"
RESIDENT_MAX = 256 << 20
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
"""Runs a command; its exit status, and the most bytes it had resident."""


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_nothing_that_runs_data() -> None:
    """No unpickling, no eval or exec: files are parsed, by code that is here."""
    for path in (ROOT / "drain_gdb").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not {"eval", "exec", "compile", "__import__"} & set(_calls(tree)), path
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in (
                [each.name for each in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
        }
        assert not {"pickle", "marshal", "shelve", "dill", "yaml", "runpy"} & imported, path


def test_a_symbol_is_a_name_and_nothing_is_evaluated(tmp_path: Path) -> None:
    ran = gdb(
        "break ready",
        "run",
        "print z+(++touches)+(long)&arenas",
        "print touches",
        "drainsweep",
        "print touches",
        "kill",
        arguments=[str(program("symbols"))],
    )
    assert "$2 = 1" in ran.out, "the expression does what a debugger that takes it would do"
    assert "$3 = 1" in ran.out
    assert "drainsweep: no jemalloc in this process" in ran.err


@pytest.mark.parametrize("error", [TargetError(f"cannot read {EVIL}"), ValueError(EVIL)])
def test_lines_of_failures_are_escaped(error: Exception) -> None:
    def fail() -> int:
        raise error

    _, line = guarded("drainsweep", fail)
    assert ESCAPED in line
    assert line.isprintable()


def test_notes_are_escaped() -> None:
    told: List[str] = []
    context = Context(lambda: BytesTarget({}), told.append, told.append, Style())
    context.note(f"{EVIL}: rejected")
    assert told == [f"{ESCAPED}: rejected"]


def test_a_process_with_an_evil_name(tmp_path: Path) -> None:
    """Its own name, and the path of its library, hold what would steer a terminal."""
    folder = tmp_path / "a\033[31mb\u202e"
    folder.mkdir()
    library = folder / "libjemalloc.so.2"
    shutil.copyfile("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", library)
    binary = folder / "ser\033]0;ver\007"
    shutil.copy(program("livelist", "-ljemalloc"), binary)
    child = Program([str(binary), str(tmp_path / "lists")], {"LD_LIBRARY_PATH": str(folder)})
    try:
        for options in ([], ["--verbose"], ["--format", "json"], ["--format", "csv"]):
            ran = shell("sweep", "--pid", child.pid, "--debugger", "none", *options)
            assert ran.status == 0, ran
            for text in (ran.out, ran.err):
                assert all(line.isprintable() for line in text.splitlines()), options
        found = sweep_json("--pid", child.pid, "--debugger", "none")
        assert found["process"]["executable"] == str(binary)
        library.unlink()
        refused = shell("sweep", "--pid", child.pid, "--debugger", "none", "--allocator", "\033")
        assert refused.status in (1, 2)
        assert refused.err.rstrip("\n").isprintable()
    finally:
        child.stop()


# -- recordings -----------------------------------------------------------------------


def test_paths_in_homes_are_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/ann")
    assert without_homes(
        {
            "executable": "/srv/people/ann/my work/server",
            "module": "/home/bob/lib/libjemalloc.so.2",
            "notes": ["no /root/build/lib.so: bad; /home/bob, (/srv/people/ann) /usr/lib/x.so"],
            "home": "/home/bob",
            "pid": 7,
            "near": ["/srv/people/anne/x", "/rooted/x", "/homes/x", None, True],
        }
    ) == {
        "executable": "server",
        "module": "libjemalloc.so.2",
        "notes": ["no lib.so: bad; ~, (~) /usr/lib/x.so"],
        "home": "~",
        "pid": 7,
        "near": ["/srv/people/anne/x", "/rooted/x", "/homes/x", None, True],
    }


def test_a_recording_names_nothing_of_a_home(tmp_path: Path) -> None:
    home = tmp_path / "private"
    home.mkdir()
    shutil.copy(program("livelist", "-ljemalloc"), home / "server")
    shutil.copyfile("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", home / "libjemalloc.so.2")
    environment = {"HOME": str(home), "LD_LIBRARY_PATH": str(home)}
    child = Program([str(home / "server"), str(tmp_path / "lists")], environment)
    try:
        file = tmp_path / "file.drain"
        ran = shell("record", "--pid", child.pid, "-o", file, env={"HOME": str(home)})
        assert ran.status == 0, ran
    finally:
        child.stop()
    whole = zlib.decompress(file.read_bytes()[PREFIX.size + recording.DIGEST :])
    assert b"server" in whole
    assert b"private" not in whole
    report = sweep_json(file)
    assert report["process"]["executable"] == "server"
    assert report["allocator"]["module"] == "libjemalloc.so.2"


def _sealed(path: Path, packed: bytes, length: int) -> Path:
    prefix = PREFIX.pack(MAGIC, recording.VERSION, len(packed), length)
    path.write_bytes(prefix + hashlib.sha256(prefix + packed).digest() + packed)
    return path


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Half a megabyte that unpacks to half a gigabyte, within what a recording may be."""
    packer, zeros = zlib.compressobj(9), bytes(1 << 20)
    first, again = (packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    check = 1
    for _ in range(UNPACKED >> 20):
        check = zlib.adler32(zeros, check)
    packed = first + again * ((UNPACKED >> 20) - 1) + EMPTY_LAST_BLOCK + check.to_bytes(4, "big")
    file = _sealed(tmp_path / "bomb", packed, UNPACKED)
    assert file.stat().st_size < 2 << 20
    # A small process starts it: what its parent has resident counts as its own before exec().
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, sys.executable, "-m", "drain_gdb", "sweep", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert "its head cannot be read" in ran.stderr
    status, resident = map(int, ran.stdout.split())
    assert status == 2
    assert 0 < resident < RESIDENT_MAX


def test_a_recording_takes_the_room_that_it_needs() -> None:
    """Not what the largest may need: limits on address space are common."""
    room = f"--as={1 << 30}"
    done = subprocess.run(
        ["prlimit", room, sys.executable, "-m", "drain_gdb", "sweep", str(RECORDING)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_declared_beyond_the_bounds_is_refused_unread(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(8 << 20), 9)
    for length in (4 << 30, recording.CONTENT_MAX + 1, 1 << 62):
        file = _sealed(tmp_path / "file", packed, length)
        with pytest.raises(recording.RecordingError, match="cannot hold"):
            recording.read(str(file))


def test_layouts_of_a_stranger_are_shown_escaped(tmp_path: Path) -> None:
    ran = shell("sweep", tmp_path / "\033[31mnone")
    assert ran.status == 2
    assert r"\x1b[31mnone" in ran.err
    assert LayoutError(EVIL).exit_status == 2
