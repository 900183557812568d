"""Running the program as users do: in the shell, and typed into a debugger."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from drain_gdb.debuggee.corenotes import read_notes
from tests.support.forked import forked
from tests.support.inputs import GDB, LLDB, ROOT

RUN_SECONDS = 300
GDBINIT = ROOT / "drain_gdb" / "gdbinit.py"
LLDBINIT = ROOT / "drain_gdb" / "lldbinit.py"


class Ran(NamedTuple):
    status: int
    out: str
    err: str


def shell(
    *arguments: object, env: Optional[Dict[str, str]] = None, cwd: Optional[Path] = None
) -> Ran:
    """``drain-gdb ARGUMENTS``; a Python of its own is started where ``env`` is about Python."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    words = [str(argument) for argument in arguments]
    if not any(name.startswith("PYTHON") for name in env or {}):
        return Ran(*forked(words, whole, cwd or ROOT, RUN_SECONDS))
    done = subprocess.run(
        [sys.executable, "-m", "drain_gdb", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
        cwd=cwd or ROOT,
        stdin=subprocess.DEVNULL,
        env=whole,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def sweep_json(*arguments: object, env: Optional[Dict[str, str]] = None) -> Dict[str, Any]:
    """The report of ``drain-gdb sweep ARGUMENTS --format json``, which must succeed.

    Without a debugger, where neither ``arguments`` nor ``env`` name one: that all read the
    same is asked in test_parity.py and test_sources.py.
    """
    named = "--debugger" in arguments or any(name.startswith("DRAIN_GDB_") for name in env or {})
    how = () if named else ("--debugger", "none")
    ran = shell("sweep", *arguments, *how, "--format", "json", env=env)
    assert ran.status == 0, (ran.status, ran.err, ran.out[-1000:])
    content = json.loads(ran.out)
    assert isinstance(content, dict)
    return content


def gdb(
    *commands: str,
    before: Optional[List[str]] = None,
    arguments: Optional[List[str]] = None,
    env: Optional[Dict[str, str]] = None,
) -> Ran:
    """gdb with the commands loaded, then ``commands``, one after the other."""
    options = [o for c in [*(before or ()), f"source {GDBINIT}", *commands] for o in ("-ex", c)]
    done = subprocess.run(
        [GDB, "-batch", "-nx", "-q", *options, *(arguments or ())],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def sweeps(core: Path, folder: Path, *options: str) -> List[Ran]:
    """What ``drainsweep`` says of a core with each of ``options``, all typed into one gdb.

    Its notes on standard error are those of all of them.
    """
    files = [folder / f"sweep-{number}" for number in range(len(options))]
    commands: List[str] = []
    for words, file in zip(options, files):
        commands += [f"drainsweep {words} --output {file}", "print $_drain_status"]
    ran = gdb(*commands, arguments=[str(read_notes(str(core)).program), str(core)])
    statuses = re.findall(r"^\$\d+ = (\d+)$", ran.out, re.M)
    assert len(statuses) == len(options), ran
    return [
        Ran(int(status), file.read_text(encoding="utf-8"), ran.err)
        for status, file in zip(statuses, files)
    ]


def lldb(
    *commands: str,
    before: Sequence[str] = (),
    arguments: Sequence[object] = (),
    env: Optional[Dict[str, str]] = None,
    program: str = LLDB,
    init: Path = LLDBINIT,
) -> Ran:
    """lldb with the commands loaded, then ``commands``, one after the other."""
    lines = ["script lldb.debugger.SetAsync(False)", *before]
    lines += [f"command script import {init}", *commands]
    done = subprocess.run(
        [program, "--no-lldbinit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
        input="\n".join(lines) + "\n",
        env={**os.environ, **(env or {})},
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def comparable(report: Dict[str, Any]) -> Dict[str, Any]:
    """A report without what depends on the way it was read rather than on the heap."""
    process = {k: report["process"][k] for k in ("pid", "executable", "name")}
    coverage = {k: v for k, v in report["coverage"].items() if k != "bytes_read"}
    return {**of_heap(report), "process": process, "coverage": coverage}


def of_heap(report: Dict[str, Any]) -> Dict[str, Any]:
    """A report without what depends on what is resident, and on the moment it was made."""
    parts = {k: v for k, v in report.items() if k not in ("account", "causes", "settings")}
    large = [{**row, "resident_bytes": None} for row in report["large_bins"]]
    arenas = [{**row, "idle_seconds": None} for row in report["arenas"]]
    return {**parts, "large_bins": large, "arenas": arenas}


def without_finding(report: Dict[str, Any]) -> Dict[str, Any]:
    """A report without the words on how the structures were found."""
    how = ("layout_source", "symbol_prefix", "module")
    allocator = {k: v for k, v in report["allocator"].items() if k not in how}
    coverage = {k: v for k, v in report["coverage"].items() if k != "bytes_read"}
    process = {k: v for k, v in report["process"].items() if k != "executable"}
    return {**report, "allocator": allocator, "coverage": coverage, "process": process}
