"""Real programs the tests look at: built here, or taken from package registries."""

from __future__ import annotations

import re
import shutil
import subprocess
import venv
from functools import cache
from pathlib import Path

from examples.wheels import CACHE, ROOT, alone, falkordb_redis, wheel_file

__all__ = ["CACHE", "GDB", "PROGRAMS", "ROOT", "debian_redis", "falkordb_redis", "program"]
__all__ += ["alone", "wheel_file"]
PROGRAMS = ROOT / "tests" / "programs"
GDB = "gdb"
LLDB = "lldb-19"
LLDB_SERVER = "lldb-server-19"
COMPILERS = {".c": "gcc", ".cpp": "g++"}
NEWER_DEBUGGERS = ("gdb-for-pwndbg==18.1.0.post1", "lldb-for-pwndbg==23.1.0.post2")


def debian_redis() -> Path:
    """Debian's redis-server, on Debian's stripped, shared jemalloc."""
    found = shutil.which("redis-server")
    assert found, "redis-server is not installed: apt-get install redis-server"
    return Path(found)


def debian_jemalloc() -> Path:
    """Debian's stripped jemalloc."""
    (found,) = Path("/usr/lib").glob("*/libjemalloc.so.2")
    return found


def environment(name: str, *requirements: str) -> Path:
    """The ``bin`` of a virtual environment with the packages of ``requirements``.

    Made anew where they have changed, or the checkout was moved: its programs name it.
    """
    place = CACHE / name
    done, made_of = place / "done", "\n".join([str(place), *requirements])
    with alone(name):
        if not done.exists() or done.read_text() != made_of:
            venv.create(place, with_pip=True, clear=True)
            pip = str(place / "bin/pip")
            subprocess.run([pip, "install", "--quiet", *requirements], check=True)
            done.write_text(made_of)
    return place / "bin"


@cache
def newer_debuggers() -> Path:
    """The folder of the newest ``gdb`` and ``lldb`` that install from a package index."""
    return environment("debuggers", *NEWER_DEBUGGERS)


def program(name: str, *options: str) -> Path:
    """``programs/NAME.c`` or ``.cpp`` compiled with ``options``; built anew when it is newer."""
    (source,) = (path for path in PROGRAMS.glob(f"{name}.c*") if path.suffix in COMPILERS)
    parts = [name, *(re.sub(r"\W+", "", option) for option in options)]
    built = CACHE / "programs" / "-".join(parts)
    with alone("programs"):
        if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
            built.parent.mkdir(parents=True, exist_ok=True)
            command = [
                COMPILERS[source.suffix],
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-o",
                str(built),
            ]
            subprocess.run([*command, str(source), *options, "-pthread"], check=True)
    return built
