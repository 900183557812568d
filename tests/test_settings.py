"""What a jemalloc was told to do, read from processes made by hand."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Dict, Tuple

import pytest

from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.protocol import Member, Process, Struct, Symbol
from drain_gdb.debuggee.surroundings import TEXT_MAX, environment, string_at, surroundings
from drain_gdb.errors import UnreadableMemory
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.settings import Settings, settings_of
from drain_gdb.memory import Memory
from tests.support.fakeheap import BSS, FakeHeap

ENVIRON, TABLE, STRINGS = 0x1000_0000, 0x2000_0000, 0x3000_0000
VARIABLES, PAGE = 0x4000_0000, 0x1000
CONF = re.compile("[A-Z0-9_]*MALLOC_CONF")


def of_environment(*variables: str, table: int = TABLE) -> Tuple[Symbol, Dict[int, bytes]]:
    """The variable ``environ`` and the memory it leads to."""
    texts = [variable.encode() + b"\0" for variable in variables]
    places = [STRINGS + sum(map(len, texts[:row])) for row in range(len(texts))]
    memory = {
        ENVIRON: struct.pack("<Q", table),
        TABLE: struct.pack(f"<{len(places)}Q", *places).ljust(PAGE, b"\0"),
        STRINGS: b"".join(texts).ljust(PAGE, b"\0"),
    }
    return Symbol("environ", ENVIRON), memory


def target_of(symbol: Symbol, memory: Dict[int, bytes]) -> BytesTarget:
    return BytesTarget(memory, symbol_list=[symbol])


# -- the environment ------------------------------------------------------------------


def test_of_the_environment_only_what_is_asked_for_is_kept() -> None:
    target = target_of(
        *of_environment("PASSWORD=secret", "MALLOC_CONF=thp:never", "XMALLOC_CONF2=a", "B", "C=")
    )
    assert environment(target, CONF) == {"MALLOC_CONF": "thp:never"}
    assert environment(target_of(*of_environment()), CONF) == {}


def test_an_environment_that_is_not_there_is_not_known() -> None:
    assert environment(BytesTarget({}), CONF) is None
    symbol, memory = of_environment("MALLOC_CONF=thp:never")
    for lost in memory:
        rest = {address: data for address, data in memory.items() if address != lost}
        assert environment(target_of(symbol, rest), CONF) is None
    cut = {**memory, TABLE: memory[TABLE][:8]}
    assert environment(target_of(symbol, cut), CONF) is None


def test_an_environment_without_end_is_given_up() -> None:
    endless = {ENVIRON: struct.pack("<Q", TABLE), TABLE: struct.pack("<Q", STRINGS) * (1 << 16)}
    target = target_of(Symbol("environ", ENVIRON), {**endless, STRINGS: b"A=1".ljust(PAGE, b"\0")})
    assert environment(target, CONF) == {}


def test_strings_end_where_they_do() -> None:
    page, rest = STRINGS + PAGE - 5, b"fg".ljust(PAGE, b"\0")
    assert string_at(BytesTarget({page: b"abcd\0"}), page) == "abcd"
    assert string_at(BytesTarget({page: b"abcde", STRINGS + PAGE: rest}), page) == "abcdefg"
    assert string_at(BytesTarget({STRINGS: b"\xff".ljust(PAGE, b"\0")}), STRINGS) == "\ufffd"
    assert len(string_at(BytesTarget({STRINGS: b"a" * 2 * TEXT_MAX}), STRINGS)) == TEXT_MAX
    with pytest.raises(UnreadableMemory):
        string_at(BytesTarget({page: b"abcde"}), page)


def test_another_machines_process_is_not_looked_for_here() -> None:
    """Its number is one of this machine's by chance: its memory is not there."""
    live = Process("live", 1, None, None, "gdb", None)
    assert surroundings(BytesTarget({}, described_as=live), 0x10).cpus is None
    assert surroundings(BytesTarget({}), 0x10).cpus is None


# -- settings -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fake() -> Tuple[BytesTarget, Heap]:
    made = FakeHeap()
    made.slab(1, [0])
    target = made.target()
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return target, heap


def with_symbols(
    fake: Tuple[BytesTarget, Heap], *variables: str, **values: Tuple[int, int]
) -> Settings:
    """Settings where the environment has ``variables``, and jemalloc's own have ``values``.

    Each value comes with its bytes; they lie in the module's sections, as jemalloc's do.
    """
    target, heap = fake
    environ, memory = of_environment(*variables)
    (module,) = target.module_list
    bss = next(section for section in module.sections if section.start == BSS)
    at = bss.end
    symbols = [environ]
    for name, (value, size) in values.items():
        symbols.append(Symbol(f"je_{name}", at))
        memory[at] = value.to_bytes(size, "little")
        at += 8
    sections = tuple(replace(s, end=at) if s is bss else s for s in module.sections)
    process = replace(
        target,
        ranges={**target.ranges, **memory},
        symbol_list=symbols,
        module_list=[replace(module, sections=sections)],
        thread_pointer_list=(1, 2, 3),
    )
    layout = replace(heap.layout, prefix="je_" if values else None)
    return settings_of(process, replace(heap, layout=layout))


def test_nothing_is_assumed(fake: Tuple[BytesTarget, Heap]) -> None:
    target, heap = fake
    assert settings_of(target, heap) == Settings()


def test_options_of_the_environment(fake: Tuple[BytesTarget, Heap]) -> None:
    found = with_symbols(fake, "MALLOC_CONF=narenas:4,background_thread:true,thp:always,x:1")
    assert (found.arenas, found.background_thread, found.huge_pages) == (4, True, "always")
    assert found.options is not None
    assert found.options["x"] == "1"
    assert found.threads == 3
    assert found.sources["arenas"] == "MALLOC_CONF of its environment"
    assert found.sources["threads"] == "the core"


def test_without_options_there_are_none(fake: Tuple[BytesTarget, Heap]) -> None:
    found = with_symbols(fake, "HOME=/")
    assert found.options == {}
    assert found.background_thread is None


@pytest.mark.parametrize(
    "said", ["narenas:many", "narenas:-1", "narenas:" + "9" * 100, "narenas:", "narenas"]
)
def test_options_that_say_nothing(fake: Tuple[BytesTarget, Heap], said: str) -> None:
    assert with_symbols(fake, f"MALLOC_CONF={said},background_thread:maybe").arenas is None


def test_jemallocs_own_variables_count_more(fake: Tuple[BytesTarget, Heap]) -> None:
    found = with_symbols(
        fake,
        "MALLOC_CONF=narenas:4,prof:true,lg_prof_sample:10",
        narenas_auto=(9, 4),
        opt_prof=(0, 1),
        opt_percpu_arena=(3, 4),
        opt_thp=(2, 4),
        opt_metadata_thp=(7, 4),
        background_thread_enabled_state=(1, 1),
    )
    assert (found.arenas, found.profiling, found.percpu_arena) == (9, False, True)
    assert (found.huge_pages, found.background_thread) == ("never", True)
    assert found.metadata_huge_pages is None
    assert found.lg_prof_sample == 10
    assert found.sources["arenas"] == "je_narenas_auto"
    assert found.sources["lg_prof_sample"] == "MALLOC_CONF of its environment"


def test_a_server_is_asked_for_its_thresholds(fake: Tuple[BytesTarget, Heap]) -> None:
    target, heap = fake
    members = (
        Member("active_defrag_enabled", 0, 4, 4),
        Member("active_defrag_ignore_bytes", 8, 8, 8),
        Member("active_defrag_threshold_lower", 16, 4, 4),
    )
    server = replace(
        target,
        ranges={**target.ranges, VARIABLES: struct.pack("<IxxxxQI", 1, 5 << 20, 3)},
        symbol_list=[Symbol("server", VARIABLES)],
        structs={"redisServer": Struct("redisServer", 24, 8, members)},
        described_as=Process("core", 7, "redis-server", None, "none", None),
    )
    found = settings_of(server, heap)
    assert found.program == "redis"
    assert (found.defragments, found.defrag_ignore_bytes, found.defrag_threshold) == (
        *(True, 5 << 20, 3),
    )
    assert found.sources["defragments"] == "redisServer.active_defrag_enabled"
    assert found.active_defragmentation is None
    linked = {"/usr/bin/libfake.so": True, "/usr/bin/redis-server": False}
    for path, able in linked.items():
        process = replace(server.described_as, executable=path)
        again = settings_of(replace(server, described_as=process), heap)
        assert again.active_defragmentation is able
