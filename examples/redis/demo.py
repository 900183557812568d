"""Redis filled, half emptied, emptied: what drainsweep says at each of the three.

    python3 -m examples.redis.demo [--redis BINARY]

A core is taken when every second key has been deleted, and explained in full;
before and after, the running server is swept.  At the end the three stand side
by side, beside what Redis says of itself (INFO memory).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from tabulate import tabulate

from drain_gdb.render.style import count, percent, size
from examples.redis.server import KEYS, Redis

SWEEP = [sys.executable, "-m", "drain_gdb", "sweep"]


class Moment(NamedTuple):
    """A sweep and Redis' own figures of the same time."""

    name: str
    sweep: Dict[str, Any]
    info: Dict[str, str]


def say(text: str) -> None:
    """A heading, flushed before the next program speaks."""
    print(f"\n== {text}", flush=True)


def sweep(*target: str) -> Dict[str, Any]:
    """The report of a sweep of ``target``."""
    done = subprocess.run([*SWEEP, *target, "--format", "json"], stdout=subprocess.PIPE, check=True)
    content = json.loads(done.stdout)
    assert isinstance(content, dict)
    return content


def moment(name: str, redis: Redis, target: Sequence[str]) -> Moment:
    """Sweep ``target`` and ask Redis."""
    return Moment(name, sweep(*target), redis.memory())


def show(moments: Sequence[Moment]) -> None:
    """The moments side by side."""

    def row(name: str, cells: List[str]) -> List[str]:
        return [name, *cells]

    totals = [m.sweep["totals"] for m in moments]
    rows = [
        row("DSR, live", [percent(t["dsr"]) for t in totals]),
        row("DSR, bitmap", [percent(t["dsr_bitmap"]) for t in totals]),
        row("slabs", [count(t["slabs"]) for t in totals]),
        row("  pinned", [count(t["pinned"]) for t in totals]),
        row("  drainable", [count(t["drainable"]) for t in totals]),
        row("occupancy", [percent(t["occupancy"]) for t in totals]),
        row("waste in slabs", [size(t["waste_bytes"]) for t in totals]),
        row("verification", [m.sweep["verification"]["status"] for m in moments]),
        row("", [""] * len(moments)),
        row("Redis: used_memory", [size(int(m.info["used_memory"])) for m in moments]),
        row("Redis: used_memory_rss", [size(int(m.info["used_memory_rss"])) for m in moments]),
        row("Redis: mem_fragmentation_ratio", [m.info["mem_fragmentation_ratio"] for m in moments]),
    ]
    heads = ["", *(m.name for m in moments)]
    align = ("left", *["right"] * len(moments))
    print(tabulate(rows, heads, colalign=align, disable_numparse=True))


def conclude(filled: Moment, halved: Moment, flushed: Moment) -> None:
    """In words, what the table shows."""

    def rss(moment: Moment) -> int:
        return int(moment.info["used_memory_rss"])

    before, half, after = (m.sweep["totals"] for m in (filled, halved, flushed))
    print(
        f"\nHalf of the keys gone: Redis uses {size(int(halved.info['used_memory']))} of"
        f" {size(int(filled.info['used_memory']))}, yet {size(rss(halved))}"
        f" are resident ({size(rss(filled))} before)."
        f"\n{count(half['pinned'])} of {count(half['slabs'])} slabs still hold a live region"
        f" (before: {count(before['pinned'])} of {count(before['slabs'])})."
        f"\nAll keys gone: {count(half['slabs'] - after['slabs'])} slabs went back,"
        f" the resident size is {size(rss(flushed))}."
    )


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", default=shutil.which("redis-server"), help="redis-server to run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drain-gdb-redis-") as name:
        folder = Path(name)
        redis = Redis(Path(args.redis), folder)
        try:
            say(f"{args.redis} on port {redis.port}: {KEYS:,} keys of about 1 KB")
            redis.populate()
            live = ("--pid", str(redis.pid))
            filled = moment("filled", redis, live)
            say("every second key deleted; a core, and what drainsweep says of it")
            redis.delete_odd()
            core = str(folder / "redis.core")
            gcore = ["gdb", "-batch", "-nx", "-p", live[1], "-ex", f"gcore {core}"]
            subprocess.run(gcore, capture_output=True, check=True)
            print(f"$ drain-gdb sweep {core}\n", flush=True)
            subprocess.run([*SWEEP, core], check=True)
            halved = moment("half deleted", redis, (core,))
            redis.command("FLUSHALL", "SYNC")
            redis.command("MEMORY", "PURGE")
            flushed = moment("flushed", redis, live)
        finally:
            redis.stop()
    say("the three side by side")
    show([filled, halved, flushed])
    conclude(filled, halved, flushed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
