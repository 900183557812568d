"""Programs in the situations that people ask about, and what is to be said of each."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

from tests.support.inputs import program
from tests.support.processes import await_line
from tests.support.runs import sweep_json

STOP_SECONDS = 60


@dataclass(frozen=True)
class Situation:
    """One of ``programs/situations.c``.

    Attributes:
        name: its argument there.
        options: of MALLOC_CONF.
        causes: those that are to be named first, in this order.
        remedies: what is then done for real, of the causes named, in this order.

    """

    name: str
    options: str
    causes: Tuple[str, ...]
    remedies: Tuple[str, ...] = ()


SITUATIONS = (
    Situation("freed", "", ("dirty_pages",), ("background_thread", "decay", "purge")),
    Situation("freed", "background_thread:true,dirty_decay_ms:60000", ("dirty_pages",), ("purge",)),
    Situation("evicted", "dirty_decay_ms:-1", ("dirty_pages", "live_data"), ("purge",)),
    Situation("cached", "", ("dirty_pages", "cached_regions"), ("purge", "flush_caches")),
    Situation("leaked", "", ("live_data",)),
    Situation("pinned", "", ("pinned_slabs",)),
    Situation("untouched", "", ("untouched", "small_process")),
    Situation("mapped", "", ("not_jemalloc",)),
    Situation("huge", "thp:always,dirty_decay_ms:0", ("huge_pages",), ("huge_pages_off",)),
    Situation("arenas", "narenas:64,tcache:false", ("many_arenas",), ("fewer_arenas",)),
    Situation("lazy", "muzzy_decay_ms:-1,dirty_decay_ms:1", ("muzzy_pages",), ("purge",)),
    Situation("sampled", "prof:true,lg_prof_sample:10", ("profiling", "live_data")),
    Situation("forked", "", ("dirty_pages", "shared_pages"), ("purge",)),
    Situation("metadata", "", ("metadata",)),
    Situation("oversize", "", ("live_data",)),
    Situation("locked", "dirty_decay_ms:0", ("retained_resident",)),
    Situation("small", "", ("small_process",)),
    Situation("freed", "percpu_arena:percpu,dirty_decay_ms:-1", ("dirty_pages",), ("purge",)),
)


@dataclass(frozen=True)
class Running:
    """A program that is in its situation; ``pid`` may be another than that of ``process``."""

    process: subprocess.Popen[str]
    pid: int

    def do(self, command: str) -> None:
        """Have it do ``command``, and wait until that is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        await_line(self.process, "done")

    def memory(self, field: str = "Rss") -> int:
        """Bytes, as the system says."""
        return rollup(self.pid)[field]

    def sweep(self) -> Dict[str, Any]:
        """What is said of it."""
        return sweep_json("--pid", self.pid)


def rollup(pid: int) -> Dict[str, int]:
    """The sums of /proc/PID/smaps_rollup, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}


@contextmanager
def running(name: str, options: str = "", *how: str) -> Iterator[Running]:
    """The program in the situation ``name``; with ``busy`` it is not idle there."""
    process = subprocess.Popen(
        [str(program("situations", "-ljemalloc")), name, *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MALLOC_CONF": options},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Running(process, int(await_line(process, "ready")[-1].split()[1]))
    finally:
        process.stdin.close()
        process.wait(STOP_SECONDS)
        process.stdout.close()
