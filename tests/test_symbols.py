"""One core, read with the debug information, the symbols, or nothing: one report."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Iterator, Tuple

import pytest

from tests.conftest import RedisCore
from tests.support.inputs import falkordb_redis, program
from tests.support.processes import Program, gcore
from tests.support.runs import sweep_json, without_finding

STATIC = ("-Wl,-z,muldefs", "-l:libjemalloc.a", "-lm", "-lstdc++")


def _stripped(binary: Path, folder: Path) -> Path:
    twin = folder / binary.name
    subprocess.run(["strip", "-s", "-o", str(twin), str(binary)], check=True)
    return twin


@pytest.fixture(scope="module")
def static_core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Path, Path]]:
    """A program with Debian's static jemalloc (symbols, no debug information), its core."""
    folder = tmp_path_factory.mktemp("static")
    binary = program("livelist", *STATIC)
    child = Program([str(binary), str(folder / "lists")])
    try:
        core = gcore(child.pid, folder / "core")
    finally:
        child.stop()
    yield binary, core


def test_static_with_symbols_and_stripped(static_core: Tuple[Path, Path], tmp_path: Path) -> None:
    binary, core = static_core
    full = sweep_json(core, "--by", "slab")
    bare = sweep_json(core, "--by", "slab", "--exe", _stripped(binary, tmp_path))
    assert full["allocator"]["layout_source"] == "symbols"
    assert full["allocator"]["symbol_prefix"] == "je_"
    assert bare["allocator"]["layout_source"] == "discovered"
    assert full["verification"]["status"] == "exact"
    assert without_finding(full) == without_finding(bare)


def test_debug_information_and_stripped(dwarf_redis: RedisCore, tmp_path: Path) -> None:
    """Another quantum, so other sizes of nearly every structure, modelled alike."""
    full = sweep_json(dwarf_redis.core, "--by", "slab")
    twin = _stripped(falkordb_redis(), tmp_path)
    bare = sweep_json(dwarf_redis.core, "--by", "slab", "--exe", twin)
    assert full["allocator"]["layout_source"] == "dwarf"
    assert bare["allocator"]["layout_source"] == "discovered"
    assert without_finding(full) == without_finding(bare)
