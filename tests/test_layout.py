"""Build parameters and the layout model, against jemalloc's own words."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Tuple

import pytest

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import LayoutError, MissingField
from drain_gdb.layout import generate
from drain_gdb.layout.locate import nearest
from drain_gdb.layout.model import DATA, Declarations, Model, known_releases, load_all
from drain_gdb.layout.parameters import Parameters
from tests.conftest import RedisCore
from tests.support.inputs import falkordb_redis, program


def test_size_classes_are_those_of_a_running_jemalloc() -> None:
    """mallctl's arenas.bin.*.size and arenas.lextent.*.size, printed by the library."""
    done = subprocess.run(
        [str(program("classes", "-ljemalloc"))], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    parameters = Parameters(said["lg_page"], said["lg_quantum"], 48)
    assert list(parameters.sizes) == said["bins"] + said["large"]
    assert parameters.nbins == len(said["bins"])


def test_dimensions_of_a_quantum_8_build(dwarf_redis: RedisCore) -> None:
    """As the debug information of such a build has them (see the layout file's source)."""
    parameters = Parameters(12, 3, 48)
    assert (parameters.nbins, parameters.nsizes, parameters.npsizes) == (39, 235, 199)
    assert parameters.bitmap_groups == 8
    assert parameters.tcache_nbins_max == 76
    assert parameters.rtree_bits == (18, 18)
    assert parameters.compact_leaf


def test_dimensions_of_builds_for_wide_addresses() -> None:
    """rtree.h: three levels, and no room beside the pointer, at 57 bits."""
    assert Parameters(12, 4, 57).rtree_bits == (15, 15, 15)
    assert not Parameters(12, 4, 57).compact_leaf
    assert Parameters(16, 4, 48).rtree_bits == (16, 16)
    assert Parameters(14, 4, 57).rtree_bits == (14, 14, 15)


def test_a_large_bitmap_is_a_tree() -> None:
    """bitmap.h: 64 KiB pages allow 8192 regions, 128 words, then 2, then 1."""
    assert Parameters(16, 4, 48).bitmap_groups == 128 + 2 + 1
    assert Parameters(16, 4, 48).bitmap_info_words == 1 + 1 + 6
    assert Parameters(12, 4, 48).bitmap_info_words == 1 + 1


def test_layout_files_hold_what_their_build_shows(tmp_path: Path) -> None:
    """Generated again from the build they name, they come out the same."""
    (file,) = DATA.glob("5.3.0.json")
    output = tmp_path / "layout.json"
    done = subprocess.run(
        ["python3", "-m", "drain_gdb.layout.generate", str(falkordb_redis()), "-o", str(output)],
        cwd=DATA.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(output) in done.stdout
    assert output.read_text() == file.read_text()


def test_a_binary_without_debug_information_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LayoutError, match="no jemalloc structures in /bin/ls"):
        generate.generate(Path("/bin/ls"))


def _model(structs: object) -> Model:
    assert isinstance(structs, dict)
    return Model(Declarations("5.3.0-0-g0", structs, {}), Parameters(12, 4, 48))


def test_the_model_follows_the_rules_of_c() -> None:
    struct = _model(
        {
            "inner_s": {"members": [["a", [1, 1]], ["b", [2, 2], 3]]},
            "outer_s": {
                "members": [
                    ["flag", [1, 1]],
                    ["inner", "inner_s", 2],
                    ["", {"union": [["word", [8, 8]], ["half", [4, 4]]]}],
                    ["last", [1, 1]],
                    ["flexible", "inner_s", 0],
                ]
            },
        }
    ).struct("outer_s")
    assert struct is not None
    offsets = {name: struct.offset(name) for name in ("flag", "inner", "word", "half", "last")}
    assert offsets == {"flag": 0, "inner": 2, "word": 24, "half": 24, "last": 32}
    assert struct.offset("inner.b") == 4
    assert (struct.offset("flexible"), struct.size, struct.align) == (34, 40, 8)
    assert struct.find("inner").count == 2


def test_a_missing_member_names_itself_and_its_struct() -> None:
    struct = Struct("bin_s", 8, 8, (Member("lock", 0, 8, 8),))
    for path in ("stats", "lock.inner", "stats.nmalloc"):
        with pytest.raises(MissingField, match=f"struct bin_s has no member '{path}'"):
            struct.offset(path)


DEBUG = {d.release for d in load_all() if d.debug}


def test_versions_come_newest_first() -> None:
    assert known_releases() == ("5.3.1+47", "5.3.1", "5.3.0", "5.2.1", "5.1.0", "5.0.1")


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("5.3.0-0-g54eaed1d8b56", ("5.3.0", "5.3.1")),
        ("5.3.1-0-g81034ce1f137", ("5.3.1", "5.3.1+47")),
        ("5.3.1-90-gabc", ("5.3.1+47", "5.3.1")),
        ("5.2.0-0-gabc", ("5.2.1",)),
        ("5.0.0-0-gabc", ("5.0.1",)),
        ("6.1.0-0-gabc", ("5.3.1",)),
    ],
)
def test_the_nearest_layouts_are_tried_first(version: str, names: Tuple[str, ...]) -> None:
    tried = nearest(version)
    releases = [declarations.release for declarations in tried if not declarations.debug]
    assert tuple(releases[: len(names)]) == names
    assert sorted(releases) == sorted(known_releases())
    # A debug build is tried after the usual one of its release.
    assert [d.release for d in tried if d.debug] == [r for r in releases if r in DEBUG]
    assert not tried[0].debug
