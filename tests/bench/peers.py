"""What others say of the same ten addresses of the same core.

    python3 -m tests.bench.peers --pwndbg DIR/gdbinit.py [--library DIR]

runs a program that knows what it holds, on Debian's stripped jemalloc or on the one in
``--library``, and asks drain_gdb and pwndbg (``xinfo``, ``jemalloc_find_extent``) of one
address of each kind.  Kinds that the program cannot know are taken from drain_gdb's walk; they
are marked.  What pwndbg needs is to be on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Tuple

from tabulate import tabulate

import drain_gdb
from tests.support.inputs import program
from tests.support.processes import Program, gcore

MARK = "@@@"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LARGE = 100_000
WALKED = "dirty", "metadata"
INSIDE = 64


class Asked(NamedTuple):
    """An address, and what it is in truth."""

    what: str
    address: int


def _known(rows: List[List[str]]) -> Iterator[Asked]:
    """One address of each kind that the program lists."""
    found: Dict[str, int] = {}
    for what, at, *rest in rows:
        address = int(at, 16)
        if what in ("live", "cached", "free"):
            size, start = int(rest[0]), int(rest[1], 16)
            kind = f"{what}, {'large' if size > LARGE else 'small'}"
            kind += ", start" if address == start else ", inside"
        else:
            kind = what
        found.setdefault(kind, address)
    for kind in (
        *("live, small, start", "live, small, inside", "cached, small, start"),
        *("free, small, inside", "live, large, start", "stack", "global", "file"),
    ):
        yield Asked(kind, found[kind])


def _walked(core: Path) -> Iterator[Asked]:
    """One address of each kind that only a walk knows."""
    found: Dict[str, int] = {}
    with drain_gdb.open(str(core)) as snapshot:
        for column in snapshot.columns:
            for start, kind in zip(column.starts, column.kinds):
                found.setdefault(column.claims[kind].part, start)
    return (Asked(f"{part} (as walked)", found[part] + INSIDE) for part in WALKED)


def _own(core: Path, asked: List[Asked]) -> List[str]:
    with drain_gdb.open(str(core)) as snapshot:
        said = []
        for each in asked:
            found = snapshot.find(each.address)
            place = found.symbol or found.module or ""
            words = [found.state or "", found.kind, f"of {found.size}" if found.size else "", place]
            said.append(" ".join(filter(None, words)))
        return said


def _pwndbg(
    start: Path, binary: Path, core: Path, library: str, asked: List[Asked]
) -> List[Tuple[str, str]]:
    """Of each address what ``xinfo`` and ``jemalloc_find_extent`` say."""
    commands = [f"source {start}", f"set solib-search-path {library}", f"file {binary}"]
    commands.append(f"core {core}")
    for each in asked:
        for command in ("xinfo", "jemalloc_find_extent"):
            commands += [f"echo {MARK}\\n", f"{command} {each.address:#x}"]
    options = [part for command in commands for part in ("-ex", command)]
    environment = {**os.environ, "PWNDBG_VENV_PATH": "PWNDBG_PLEASE_SKIP_VENV"}
    # gdb ends with 1 where its last command failed.
    ran = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", *options],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    _, *said = COLOURS.sub("", ran.stdout + ran.stderr).split(f"{MARK}\n")
    if len(said) != 2 * len(asked):
        raise SystemExit(f"pwndbg did not answer: {ran.stderr.strip()[-500:]}")
    texts = [" ".join(each.split()) for each in said]
    return list(zip(map(_mapping, texts[::2]), map(_extent, texts[1::2])))


def _mapping(text: str) -> str:
    found = re.search(r"Containing mapping: \S+ \S+ (\S+) \S+ \S+ (.*?) Offset", text)
    return f"{found[1]} {found[2].rpartition('/')[2]}" if found else text[-60:]


def _extent(text: str) -> str:
    found = re.search(
        r"((?:Required \S+ symbol|Extent) not found)|(Allocated Address.*?State: \w+)", text
    )
    return next(filter(None, found.groups())) if found else text[-60:]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pwndbg", type=Path, required=True)
    parser.add_argument("--library", default="")
    arguments = parser.parse_args()
    binary = program("places", "-ljemalloc", "-lpthread")
    folder = Path(tempfile.mkdtemp())
    child = Program([str(binary), str(folder / "list")], {"LD_LIBRARY_PATH": arguments.library})
    try:
        core = gcore(child.pid, folder / "core")
    finally:
        child.stop()
    rows = [line.split() for line in (folder / "list").read_text().splitlines()]
    asked = [*_known(rows), *_walked(core)]
    theirs = _pwndbg(arguments.pwndbg, binary, core, arguments.library, asked)
    table = [(each.what, own, *their) for each, own, their in zip(asked, _own(core, asked), theirs)]
    heads = ("the address", "drain_gdb", "pwndbg xinfo", "pwndbg jemalloc_find_extent")
    print(tabulate(table, heads, maxcolwidths=[None, 40, 30, 60]))


if __name__ == "__main__":
    main()
