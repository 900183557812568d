"""Find the packages the program needs, for a Python that may not be ours.

A debugger embeds its own Python, which sees neither a virtual environment nor
the place this package was installed to.  What it cannot import is looked for
beside this package and in the checkout's ``.venv``; the place is appended to
``sys.path``, so nothing the debugger has is replaced.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Iterator, List, Sequence

from drain_gdb.errors import MissingDependency

WANTED = ("pygments", "tabulate")
"""For reports in colour, and as tables; there are stand-ins."""
NEEDED_DIRECTLY = ("elftools",)
"""For reading a core or a process with no debugger."""
USED_DIRECTLY = ("zstandard",)
"""And what there is of these: for debug information that zstd has packed."""
NEEDED_TO_UNPACK = {"lz4": ("lz4",), "zstd": ("zstandard",)}
"""By the compression of a core; the others are Python's own."""
NEEDED_BY_FLEET = ("cryptography", "distributed", "fsspec")
NEEDED_FOR_PARQUET = ("pyarrow",)
OPTIONAL = "numpy"
"""Nothing needs it, but where the live regions are looked at it is many times as fast."""
PACKAGES = {"elftools": "pyelftools", "distributed": "'dask[distributed]'"}
"""Modules whose package has another name."""
MEND_LLDB = "use gdb, or apt-get install lldb-19 and DRAIN_GDB_LLDB=lldb-19 for drain-gdb"
HOME = Path(__file__).resolve().parents[2]
"""What holds the package: a checkout, site-packages, or a zip file."""


def _missing(needed: Sequence[str]) -> List[str]:
    return [name for name in needed if importlib.util.find_spec(name) is None]


def _has(place: Path, name: str) -> bool:
    """Whether the module is to be found in ``place``, a directory or a zip file."""
    return importlib.machinery.PathFinder.find_spec(name, [str(place)]) is not None


def _places() -> Iterator[Path]:
    yield HOME
    yield from sorted(HOME.glob(".venv/lib/python3*/site-packages"))


def _reach(needed: Sequence[str]) -> List[str]:
    """Make ``needed`` importable; those that are nowhere."""
    for place in _places():
        missing = _missing(needed)
        if any(_has(place, name) for name in missing):
            sys.path.append(str(place))
    return _missing(needed)


def _offer(name: str) -> None:
    """Make a package importable that holds machine code, where it is there for this Python."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for place in _places() if _missing([name]) else ():
        if (place / name).exists() and (place == HOME or version in place.parts):
            sys.path.append(str(place))
            return


def ensure(needed: Sequence[str]) -> None:
    """Make ``needed`` importable, or raise :class:`MissingDependency`."""
    nowhere = _reach([*needed, *USED_DIRECTLY])
    missing = [name for name in needed if name in nowhere]
    if missing:
        raise MissingDependency(_cannot(missing), f"run: {_command(missing)}")
    _offer(OPTIONAL)


def advice() -> str:
    """Make importable what reports look best with; how to get what is nowhere, empty if all is."""
    missing = _reach(WANTED)
    _offer(OPTIONAL)
    return f"plain text: {_cannot(missing)}; run: {_command(missing)}" if missing else ""


def _cannot(missing: List[str]) -> str:
    return f"this Python ({sys.version.split()[0]}) cannot import {' and '.join(missing)}"


def require_lldb() -> None:
    """Raise :class:`MissingDependency` where lldb's own module is not all there.

    A module that lies elsewhere than lldb looks for it leaves an empty package of
    that name, or none.
    """
    try:
        lldb = importlib.import_module("lldb")
    except ImportError:
        raise broken_lldb() from None
    if not hasattr(lldb, "SBDebugger"):
        raise broken_lldb()
    if not hasattr(lldb.SBType, "GetByteAlign"):
        raise MissingDependency(
            f"{lldb.SBDebugger.GetVersionString().splitlines()[0]} is too old",
            f"lldb 19 or later is needed; {MEND_LLDB}",
        )


def broken_lldb() -> MissingDependency:
    """The error of an lldb whose Python does not find lldb's own module."""
    return MissingDependency(
        "the Python of this lldb is broken: it cannot import lldb's own module"
        " (Debian's lldb-14 is so)",
        MEND_LLDB,
    )


def _command(missing: List[str]) -> str:
    packages = " ".join(PACKAGES.get(name, name) for name in missing)
    if HOME.name in ("site-packages", "dist-packages"):
        return f"python3 -m pip install --target {HOME} {packages}"
    if HOME.is_file():
        return f"python3 -m pip install {packages}"
    venv = HOME / ".venv"
    return f"python3 -m venv {venv} && {venv}/bin/pip install {packages}"
