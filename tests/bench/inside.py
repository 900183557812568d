"""The part of the sweep benchmark that runs in gdb."""

import json
import os
import sys
import time
import tracemalloc
from pathlib import Path

import gdb

sys.path.append(str(Path(__file__).resolve().parents[2]))

from drain_gdb.loaders.dependencies import advice

advice()

from drain_gdb.analysis.report import Selection
from drain_gdb.analysis.sweep import sweep
from drain_gdb.debuggee.gdb import GdbTarget
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import ACTIVE
from drain_gdb.jemalloc.walk import walk
from drain_gdb.memory import Memory
from drain_gdb.render.style import Style
from drain_gdb.render.text import render
from tests.bench.timing import best


def reported(target, layout):
    report = sweep(walk(Memory(target.read), layout), target.process(), Selection())
    return render(report, Style())


def drainsweep(target):
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return render(sweep(heap, target.process(), Selection()), Style())


def field_walk():
    """Every slab by gdb.Value: through the leaves, then three fields of each extent."""
    root = gdb.parse_and_eval("je_arena_emap_global.rtree.root")
    edata_t = gdb.lookup_type("edata_t").pointer()
    word_t = gdb.lookup_type("unsigned long").pointer()
    low, high = root.type.range()
    pointers = root[0]["child"]["repr"].address.cast(word_t)
    words = gdb.selected_inferior().read_memory(int(pointers), 8 * (high - low + 1)).cast("B")
    slabs = 0
    for index in range(high - low + 1):
        if not any(words[8 * index : 8 * index + 8]):
            continue
        leaf = gdb.Value(int(pointers[index])).cast(word_t)
        seen = set()
        for key in range(1 << 18):
            bits = int(leaf[key])
            if bits & 0x1D != 1 or bits & 0xFFFFFFFFFF80 in seen:
                continue
            seen.add(bits & 0xFFFFFFFFFF80)
            edata = gdb.Value(bits & 0xFFFFFFFFFF80).cast(edata_t).dereference()
            e_bits, address = int(edata["e_bits"]), int(edata["e_addr"])
            bitmap = edata["e_slab_data"]["bitmap"]
            free = sum(bin(int(bitmap[group])).count("1") for group in range(8))
            slabs += bool(e_bits and address and free >= 0)
    return slabs


def main():
    target = GdbTarget()
    layout = find_heaps(target, lambda: Memory(target.read))[0][0].layout
    tracemalloc.start()
    heap = walk(Memory(target.read), layout)
    _, used = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reads = []

    def noted(address, size):
        reads.append((address, size))
        return target.read(address, size)

    walk(Memory(noted), layout)
    result = {
        "python": sys.version.split()[0],
        "slabs": len(heap.slabs),
        "extents": len(heap.extents.address),
        "bytes": sum(size for _, size in reads),
        "memory": used,
        "bare read": best(lambda: [target.read(*read) for read in reads]),
        "walk": best(lambda: walk(Memory(target.read), layout)),
        "with report": best(lambda: reported(target, layout)),
        "drainsweep": best(lambda: drainsweep(target)),
    }
    assert heap.verification.status == "exact"
    assert any(kind.state == ACTIVE for kind in heap.extents.kinds)
    start = time.perf_counter()
    assert field_walk() == len(heap.slabs)
    result["field walk"] = time.perf_counter() - start
    Path(os.environ["BENCH_RESULT"]).write_text(json.dumps(result))


main()
