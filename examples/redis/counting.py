"""Redis counted while a fixed number of SETs and DELs run, at two layers.

    python3 -m examples.redis.counting [--redis BINARY]

Each count balances, against the walk and against jemalloc's own counters.  At the
end stands what a count would have claimed that takes allocations at one layer and
frees at the other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from tabulate import tabulate

from drain_gdb.render.style import count
from examples.redis.server import Connection, Redis
from examples.wheels import ROOT, falkordb_redis

SETS, DELS = 600, 540
VALUE = "x" * 200
GDBINIT = ROOT / "drain_gdb" / "gdbinit.py"
COUNTING = "now continue"


def workload() -> List[str]:
    """``SETS`` keys set, ``DELS`` of them deleted again."""
    sets = [f"SET key:{number} {VALUE}" for number in range(SETS)]
    return [*sets, *(f"DEL key:{number}" for number in range(DELS))]


def counted(redis: Redis, client: Connection, layer: str, output: Path) -> Dict[str, Any]:
    """Count at ``layer`` while ``client`` works; the report is shown, and returned."""
    commands = [
        "set debuginfod enabled off",
        f"source {GDBINIT}",
        f"draincount start --layer {layer}",
        "continue",
        "draincount stop",
        f"draincount show --format json --output {output}",
        "detach",
    ]
    options = [word for command in commands for word in ("-ex", command)]
    gdb = subprocess.Popen(
        ["gdb", "-q", "-nx", "-batch", "-p", str(redis.pid), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert gdb.stdout is not None
    for line in gdb.stdout:
        if line.startswith("draincount"):
            print(line, end="", flush=True)
        if COUNTING in line:
            break
    else:
        raise RuntimeError(f"gdb ended with status {gdb.wait()} before it counted")
    client.run(workload())
    # What is left to do after that many answers is done before one more.
    client.run(["PING"])
    # As Ctrl-C does: gdb stops the process, which never sees the signal.
    os.kill(redis.pid, signal.SIGINT)
    report = False
    for line in gdb.stdout:
        report = report or line.startswith("counted ")
        if (report or line.startswith("draincount")) and not line.startswith("["):
            print(line, end="", flush=True)
    if gdb.wait() != 0 or not output.exists():
        raise RuntimeError(f"gdb ended with status {gdb.returncode}, without a count")
    content = json.loads(output.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def pair(name: str, allocs: Dict[str, Any], frees: Dict[str, Any]) -> List[str]:
    """A row: what would be live if these were all allocations and all frees."""
    made, gone = allocs["totals"]["allocs"], frees["totals"]["frees"]
    return [name, count(made), count(gone), f"{made - gone:+,}"]


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", type=Path, help="redis-server to run (default: one with DWARF)")
    args = parser.parse_args()
    binary = args.redis or falkordb_redis()
    with tempfile.TemporaryDirectory(prefix="drain-gdb-redis-") as name:
        folder = Path(name)
        redis = Redis(binary, folder)
        try:
            client = redis.connect()
            # Once before it counts, so that both counts find a server that knows its work.
            client.run(workload())
            reports = {}
            for layer in ("entry", "arena"):
                client.run(["FLUSHALL SYNC"])
                print(f"\n== {SETS:,} SETs and {DELS:,} DELs, counted at the {layer} layer\n")
                reports[layer] = counted(redis, client, layer, folder / f"{layer}.json")
            client.close()
        finally:
            redis.stop()
    entry, arena = reports["entry"], reports["arena"]
    print("\n== the two counts, and the pair that mixes them\n")
    rows = [
        pair("entry / entry", entry, entry),
        pair("arena / arena", arena, arena),
        pair("arena / entry: ASYMMETRIC", arena, entry),
    ]
    heads = ["allocations at / frees at", "allocations", "frees", "left over"]
    align = ("left", "right", "right", "right")
    print(tabulate(rows, heads, colalign=align, disable_numparse=True))
    truth = entry["checks"][0]["independent"]
    claimed = arena["totals"]["allocs"] - entry["totals"]["frees"]
    print(
        f"\nThe walk found {truth:+,} live regions after the first count, as it says itself."
        f"\nThe asymmetric pair would have claimed {claimed:+,}: one side counts regions that a"
        " refill moves\ninto a thread cache, the other every call of free, most of which the"
        " cache serves."
    )
    exact = all(check["difference"] == 0 for each in (entry, arena) for check in each["checks"])
    print(f"\nboth counts balance {'exactly' if exact else 'within what was in flight'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
