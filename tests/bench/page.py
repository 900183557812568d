"""How large a page is, how long it takes to make and to open, and how fast its map scrolls.

    python3 -m tests.bench.page [SLABS ...]

Heaps as ``tests.bench.size`` has them, where much repeats, and heaps filled by lot.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import List, Tuple

from tabulate import tabulate

import drain_gdb
from drain_gdb.debuggee.views import memory_of
from drain_gdb.jemalloc.walk import walk
from drain_gdb.render.page.cells import cells_of
from drain_gdb.render.page.content import content
from drain_gdb.render.page.document import document
from drain_gdb.snapshot import Snapshot
from tests.bench.synthetic import FileTarget, make
from tests.support.browser import browser, looked_at
from tests.support.inputs import ROOT
from tests.support.lots import random_heap

SLABS = (100_000, 1_000_000)
ARENAS, CACHE = 16, 10_000
STEPS = 60
SCROLL = """
(view) => new Promise((done) => {
  const begun = performance.now();
  let n = 0;
  const step = () => {
    view.scrollTop = (view.scrollHeight - view.clientHeight) * n / STEPS;
    n += 1;
    if (n > STEPS) done((performance.now() - begun) / STEPS);
    else requestAnimationFrame(step);
  };
  step();
})
"""


def _regular(slabs: int, folder: Path) -> str:
    heap = make(folder, slabs, ARENAS, slabs // CACHE)
    target = FileTarget(heap.parts)
    snapshot = Snapshot(target)
    snapshot.__dict__["_found"] = ([walk(memory_of(target), heap.layout)], [])
    return document(content(snapshot))


def _by_lot(slabs: int, _: Path) -> str:
    view = random_heap(slabs, slabs // 10)
    pinners = {address: (f"group {address % 50}",) for address in view.slabs.address}
    with drain_gdb.open(ROOT / "tests" / "recordings" / "jemalloc-5.3.0.drain") as snapshot:
        found = content(snapshot)
    return document(replace(found, cells=[cells_of(view, 4096, pinners)]))


def _shown(path: Path) -> Tuple[float, float]:
    """Seconds until the map is there, milliseconds a step of scrolling through all of it."""
    with browser() as chromium:
        begun = time.monotonic()
        with looked_at(chromium, path) as looked:
            opened = time.monotonic() - begun
            view = looked.page.locator("[data-view]").first
            looked.page.locator("[data-zoom]").first.fill("3")
            step: float = view.evaluate(SCROLL.replace("STEPS", str(STEPS)))
    return opened, step


def main() -> None:
    """Measure, print a table."""
    rows: List[List[str]] = []
    for slabs in map(int, sys.argv[1:]) if sys.argv[1:] else SLABS:
        for name, made in (("regular", _regular), ("by lot", _by_lot)):
            with tempfile.TemporaryDirectory() as folder:
                begun = time.process_time()
                text = made(slabs, Path(folder))
                seconds = time.process_time() - begun
                page = Path(folder) / "page.html"
                page.write_text(text, encoding="utf-8")
                opened, step = _shown(page)
            mb = len(text.encode()) / 1e6
            row = [f"{slabs:,}", name, f"{mb:.2f}", f"{seconds:.1f}", f"{opened:.1f}"]
            rows.append([*row, f"{step:.1f}"])
    heads = ["slabs", "heap", "page, MB", "CPU s to make", "s to open", "ms a scroll step"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=["right"] * 6))


if __name__ == "__main__":
    main()
