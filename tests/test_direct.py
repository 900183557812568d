"""Cores and processes read without a debugger, against what gdb reports of them."""

from __future__ import annotations

from typing import Any, Dict

from tests.conftest import Livelist, RedisCore
from tests.support.runs import sweep_json

NONE = ("--debugger", "none")
STATIC = ("-Wl,-z,muldefs", "-l:libjemalloc.a", "-lm", "-lstdc++")


def equal(target: object, *options: str) -> Dict[str, Any]:
    """The report of ``target`` that gdb and direct reading agree on, every field."""
    by_gdb = sweep_json(target, "--by", "slab", *options)
    directly = sweep_json(target, "--by", "slab", *options, *NONE)
    assert by_gdb["process"].pop("debugger") == "gdb"
    assert directly["process"].pop("debugger") == "none"
    assert directly == by_gdb
    return directly


def test_a_stripped_library(stripped_redis: RedisCore) -> None:
    assert equal(stripped_redis.core)["allocator"]["layout_source"] == "discovered"


def test_debug_information(dwarf_redis: RedisCore) -> None:
    assert equal(dwarf_redis.core)["allocator"]["layout_source"] == "dwarf"


def test_sparse_arenas(each_livelist: Livelist) -> None:
    assert equal(each_livelist.core)["allocator"]["arenas"] == 4
