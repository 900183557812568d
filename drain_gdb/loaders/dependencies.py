"""Find the packages the program needs, for a Python that may not be ours.

A debugger embeds its own Python, which sees neither a virtual environment nor
the place this package was installed to.  What it cannot import is looked for
beside this package and in the checkout's ``.venv``; the place is appended to
``sys.path``, so nothing the debugger has is replaced.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Iterator, List, Sequence

from drain_gdb.errors import MissingDependency

NEEDED = ("pygments", "tabulate")
NEEDED_DIRECTLY = (*NEEDED, "elftools", "lz4", "zstandard")
"""Reading a core or a process with no debugger needs more."""
OPTIONAL = "numpy"
"""Nothing needs it, but where the live regions are looked at it is many times as fast."""
PACKAGES = {"elftools": "pyelftools"}
"""Modules whose package has another name."""
MEND_LLDB = "use gdb, or apt-get install lldb-19 and DRAIN_GDB_LLDB=lldb-19 for drain-gdb"
HOME = Path(__file__).resolve().parents[2]
"""The directory that holds the package: a checkout, or site-packages."""


def _missing(needed: Sequence[str]) -> List[str]:
    return [name for name in needed if importlib.util.find_spec(name) is None]


def _places() -> Iterator[Path]:
    yield HOME
    yield from sorted(HOME.glob(".venv/lib/python3*/site-packages"))


def ensure(needed: Sequence[str] = NEEDED) -> None:
    """Make ``needed`` importable, or raise :class:`MissingDependency`."""
    for place in _places():
        missing = _missing(needed)
        if not missing:
            break
        if any((place / name).exists() or (place / f"{name}.py").exists() for name in missing):
            sys.path.append(str(place))
    missing = _missing(needed)
    if missing:
        raise MissingDependency(
            f"this Python ({sys.version.split()[0]}) cannot import {' and '.join(missing)}",
            f"run: {_command(missing)}",
        )
    _offer(OPTIONAL)


def _offer(name: str) -> None:
    """Make a package importable that holds machine code, where it is there for this Python."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for place in _places() if _missing([name]) else ():
        if (place / name).exists() and (place == HOME or version in place.parts):
            sys.path.append(str(place))
            return


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
    venv = HOME / ".venv"
    return f"python3 -m venv {venv} && {venv}/bin/pip install {packages}"
