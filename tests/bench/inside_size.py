"""The part of the benchmark of size that runs in gdb."""

import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from drain_gdb.loaders.dependencies import advice

advice()

from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.sweep import sweep
from drain_gdb.debuggee.gdb import GdbTarget
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.serialize import from_value
from drain_gdb.memory import Memory
from drain_gdb.render.style import Style
from drain_gdb.render.text import render
from tests.bench.synthetic import FileTarget
from tests.bench.timing import best


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def found(target):
    """The layout of the one jemalloc of a process, without what its walk held."""
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return heap.layout


def main():
    before = resident()
    request = json.loads(Path(os.environ["BENCH_REQUEST"]).read_text())
    if "parts" in request:
        layout = from_value(request["layout"])
        target = FileTarget([(address, Path(path)) for address, path in request["parts"]])
    else:
        target = GdbTarget()
        layout = found(target)
    reports = []

    def swept():
        reports[:] = [sweep(walk(Memory(target.read), layout), target.process(), Selection())]
        assert render(reports[0], Style())

    start = time.perf_counter()
    swept()
    first = time.perf_counter() - start
    memory = resident()
    reads = []

    def noted(address, size):
        data = target.read(address, size)
        reads.append((address, size))
        return data

    def read_again():
        for address, size in reads:
            target.read(address, size)

    walk(Memory(noted), layout)
    (report,) = reports
    result = {
        "python": sys.version.split()[0],
        "slabs": report.totals.slabs,
        "regions": report.totals.regions,
        "live": report.totals.live,
        "cached": report.totals.cached,
        "status": report.verification.status,
        "bytes": sum(size for _, size in reads),
        "before": before,
        "memory": memory,
        "bare read": best(read_again),
        "sweep": min(first, best(swept)),
    }
    Path(request["result"]).write_text(json.dumps(result))


main()
