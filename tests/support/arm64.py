"""Programs for arm64: linked with Debian's jemalloc of that machine, run by qemu, which dumps."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

from tests.support.inputs import CACHE, PROGRAMS, alone

PACKAGE = "libjemalloc-dev:arm64"
RUN_SECONDS = 60


def _jemalloc() -> Path:
    """The folder of Debian's libjemalloc.a for arm64, loaded beside this machine's packages."""
    place = CACHE / "arm64"
    done = place / "done"
    with alone("arm64"):
        if not done.exists():
            (place / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (place / "archives" / "partial").mkdir(parents=True, exist_ok=True)
            settings = [f"Dir::State::lists={place / 'lists'}", f"Dir::Cache={place}"]
            settings += ["APT::Architecture=arm64", "APT::Architectures::=arm64"]
            apt = ["apt-get", "-qq", *(word for each in settings for word in ("-o", each))]
            subprocess.run([*apt, "update"], check=True)
            subprocess.run([*apt, "download", PACKAGE], cwd=place, check=True)
            (package,) = place.glob("*.deb")
            subprocess.run(["dpkg", "-x", str(package), str(place)], check=True)
            done.touch()
    return place / "usr" / "lib" / "aarch64-linux-gnu"


def arm64_program(name: str, folder: Path) -> Path:
    """``programs/NAME.c`` as a static program with jemalloc and glibc, with all its symbols."""
    built = folder / name
    command = ["aarch64-linux-gnu-gcc", "-O1", "-g", "-static", "-o", str(built)]
    command += [str(PROGRAMS / f"{name}.c"), f"-L{_jemalloc()}", "-Wl,-z,muldefs"]
    subprocess.run([*command, "-l:libjemalloc.a", "-lm", "-pthread"], check=True)
    return built


def arm64_core(program: Path, folder: Path) -> Path:
    """The core that qemu writes when ``program`` aborts."""

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)

    subprocess.run(
        ["qemu-aarch64-static", str(program)],
        cwd=folder,
        check=False,
        timeout=RUN_SECONDS,
        preexec_fn=allow,
        stderr=subprocess.DEVNULL,
    )
    (core,) = folder.glob("qemu_*.core")
    return core
