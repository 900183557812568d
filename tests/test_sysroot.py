"""The files of another machine, below a directory of this one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from drain_gdb.debuggee.files import inside
from tests.support.inputs import program
from tests.support.processes import Program, gcore
from tests.support.runs import shell, sweep_json

NONE = ("--debugger", "none")


class Elsewhere(NamedTuple):
    """A core whose program and jemalloc are gone from where they ran, and its sysroot."""

    core: Path
    sysroot: Path
    place: Path


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    place = folder / "srv"
    place.mkdir()
    shutil.copyfile("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", place / "libjemalloc.so.2")
    shutil.copy(program("explicit", "-ljemalloc"), place / "server")
    env = {"LD_LIBRARY_PATH": str(place)}
    child = Program([str(place / "server")], env)
    try:
        core = gcore(child.pid, folder / "core")
    finally:
        child.stop()
    sysroot = folder / "sysroot"
    # The program through an absolute link, which leads to the sysroot's own /opt.
    (sysroot / "opt").mkdir(parents=True)
    inner = sysroot / str(place).lstrip("/")
    inner.parent.mkdir(parents=True)
    shutil.move(str(place), sysroot / "opt" / "srv")
    inner.symlink_to("/opt/srv")
    for name in ("/lib", "/lib64"):
        (sysroot / name.lstrip("/")).symlink_to("usr" + name)
    for library in ("libc.so.6", "ld-linux-x86-64.so.2"):
        here = Path(os.path.realpath(f"/lib/x86_64-linux-gnu/{library}"))
        there = sysroot / str(here).lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here, there)
    yield Elsewhere(core, sysroot, place)


def test_without_it_the_program_is_missing(elsewhere: Elsewhere) -> None:
    ran = shell("sweep", elsewhere.core, *NONE)
    assert (ran.status, ran.out) == (2, "")
    assert f"the core's program {elsewhere.place}/server cannot be loaded" in ran.err
    assert "--sysroot DIR" in ran.err


def test_with_it_links_stay_inside(elsewhere: Elsewhere) -> None:
    report = sweep_json(elsewhere.core, *NONE, "--sysroot", elsewhere.sysroot)
    assert report["verification"]["status"] == "exact"
    assert report["process"]["executable"] == str(elsewhere.sysroot / "opt/srv/server")
    module = f"{elsewhere.sysroot}{elsewhere.place}/libjemalloc.so.2"
    assert report["allocator"]["module"] == module


def test_gdb_is_told(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """gdb itself follows an absolute link out of a sysroot, so here there is none."""
    sysroot = tmp_path / "sysroot"
    shutil.copytree(elsewhere.sysroot, sysroot, symlinks=True)
    link = sysroot / str(elsewhere.place).lstrip("/")
    link.unlink()
    shutil.move(str(sysroot / "opt" / "srv"), link)
    options = ("--sysroot", sysroot)
    by_gdb = sweep_json(elsewhere.core, "--debugger", "gdb", *options)
    directly = sweep_json(elsewhere.core, *NONE, *options)
    assert by_gdb["verification"]["status"] == "exact"
    assert by_gdb["process"].pop("debugger") == "gdb"
    assert directly["process"].pop("debugger") == "none"
    assert by_gdb == directly


def test_nothing_is_taken_from_outside(elsewhere: Elsewhere, tmp_path: Path) -> None:
    """What the sysroot lacks is not there, wherever its links would lead."""
    sysroot = tmp_path / "sysroot"
    outer = sysroot / str(elsewhere.place).lstrip("/")
    outer.parent.mkdir(parents=True)
    outer.symlink_to(elsewhere.sysroot / "opt" / "srv")
    ran = shell("sweep", elsewhere.core, *NONE, "--sysroot", sysroot)
    assert (ran.status, ran.out) == (2, "")
    assert "the core's program" in ran.err


def test_another_build_is_said(elsewhere: Elsewhere, tmp_path: Path) -> None:
    sysroot = tmp_path / "sysroot"
    shutil.copytree(elsewhere.sysroot, sysroot, symlinks=True)
    library = sysroot / "opt/srv/libjemalloc.so.2"
    changed = bytearray(library.read_bytes())
    changed[changed.index(b"\x03\0\0\0GNU\0") + 8] ^= 0xFF
    library.write_bytes(changed)
    ran = shell("sweep", elsewhere.core, *NONE, "--sysroot", sysroot)
    assert (ran.status, ran.out) == (2, "")
    assert "is not the file this process ran (build-id " in ran.err


def test_a_sysroot_that_is_not_there(elsewhere: Elsewhere) -> None:
    ran = shell("sweep", elsewhere.core, *NONE, "--sysroot", "/no/such/place")
    assert ran.status == 2
    assert ran.err == "drain-gdb: cannot open /no/such/place: no such directory\n"


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/usr/file", "usr/file"),
        ("/lib/file", "usr/lib/file"),
        ("/../../../etc/passwd", "etc/passwd"),
        ("/up/passwd", "etc/passwd"),
        ("/deep/up/file", "file"),
        ("//usr/./../usr//file", "usr/file"),
        ("/ring", None),
    ],
)
def test_resolving(path: str, leads_to: str | None, tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "deep").mkdir()
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "up").symlink_to("../../../../../../../../etc")
    (tmp_path / "deep/up").symlink_to("../../..")
    (tmp_path / "ring").symlink_to("/ring")
    found = inside(str(tmp_path), path)
    assert found == (None if leads_to is None else str(tmp_path / leads_to))
