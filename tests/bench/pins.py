"""What drainpins costs on a large core.

    python3 -m tests.bench.pins [--keys N] [--core CORE]

A Redis is filled with N keys of about 1 KB and half emptied (1,500,000 leave a core of two
gigabytes), or a core is given.  First its live memory is looked through for references, which is
timed without the reading; then the whole command is run, with NumPy and without.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import List, Tuple

from tabulate import tabulate

from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.views import memory_of
from drain_gdb.objects.fast import VARIABLE
from drain_gdb.objects.references import Finder, pieces
from drain_gdb.objects.references_numpy import NumpyFinder
from drain_gdb.objects.references_plain import PlainFinder
from drain_gdb.snapshot import Snapshot
from examples.redis.server import half_emptied
from tests.support.inputs import debian_redis
from tests.support.processes import gcore

KEYS = 1_500_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--core", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        core = given.core
        if core is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with half_emptied(debian_redis(), folder, given.keys) as server:
                core = gcore(server.pid, folder / "core")
        scanned = [scan(core, make) for make in (NumpyFinder, PlainFinder)]
        rows = [
            [name, *scanned[row], *whole(core, plain)]
            for row, (name, plain) in enumerate((("NumPy", ""), ("plain", "1")))
        ]
    heads = ["", "live memory, MB", "references", "GB/s", "drainpins, s", "processor, s"]
    print(tabulate(rows, [*heads, "memory, MB"], disable_numparse=True, stralign="right"))
    return 0


def scan(core: Path, make: type) -> List[str]:
    """Megabytes, references, gigabytes of live memory a second of processor time."""
    with File(str(core)) as file:
        snapshot = Snapshot(CoreTarget(file))
        live = snapshot.survey.live
        finder: Finder = make(live)
        size, took = 0, 0.0
        for address, data in pieces(live, memory_of(snapshot.target)):
            start = time.process_time()
            finder.feed(address, data)
            took += time.process_time() - start
            size += len(data)
    found = finder.references
    number = len(found.strong.targets) + len(found.slack.targets) + len(found.weak_to)
    return [f"{size / 1e6:,.0f}", f"{number:,}", f"{size / 1e9 / took:.2f}"]


def whole(core: Path, plain: str) -> Tuple[str, str, str]:
    """Seconds, seconds of processor time and megabytes of the command, read directly."""
    command = [sys.executable, "-m", "drain_gdb", "pins", str(core), "--debugger", "none"]
    start = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, VARIABLE: plain}
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - start
    assert child.returncode == 0
    processor = used.ru_utime + used.ru_stime
    return f"{took:.1f}", f"{processor:.1f}", f"{used.ru_maxrss / 1024:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
