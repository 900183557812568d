"""How long ``drain-gdb fleet`` takes, by the number of its workers.

    python3 -m tests.bench.fleet [RECORDINGS] [WORKERS ...]

The recordings are the permanent cases, each copied so often; then once more with nothing new.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List, Sequence

from tabulate import tabulate

from tests.support.fleet import RECORDINGS
from tests.support.inputs import ROOT

NUMBER, WORKERS = 1000, (1, 2)


def _moments(folder: Path, number: int) -> None:
    folder.mkdir()
    for each in range(number):
        shutil.copy(RECORDINGS[each % len(RECORDINGS)], folder / f"host{each:04}.drain")


def _timed(moments: Path, table: Path, workers: int) -> List[str]:
    """Seconds, and seconds of processor time, of one run."""
    words = ["fleet", str(moments), "-o", str(table), "--workers", str(workers), "--quiet"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "drain_gdb", *words], check=True, cwd=ROOT)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [f"{took:.1f}", f"{busy:.1f}"]


def main(number: int, workers: Sequence[int]) -> None:
    """Print the table."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        moments = Path(folder) / "moments"
        _moments(moments, number)
        for many in workers:
            table = Path(folder) / f"fleet-{many}.parquet"
            seconds, busy = _timed(moments, table, many)
            again, _ = _timed(moments, table, many)
            lines.append([many, seconds, busy, f"{number / float(seconds):.1f}", again])
    heads = ("workers", "seconds", "processor time, s", "recordings a second", "again, s")
    print(tabulate(lines, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    main(words[0] if words else NUMBER, words[1:] or WORKERS)
