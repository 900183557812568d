"""What the requests to a loaded Redis notice of a sweep.

    python3 -m tests.bench.latency [--requests N] [--keys N] [--clients N] [--pause SECONDS]

A Redis of N keys, half of them deleted, is loaded by redis-benchmark (SET, each client
one request at a time), which prints its latencies.  Meanwhile there are

    no sweeps
    sweeps in motion    drain-gdb sweep --pid PID --debugger none
    sweeps with a stop  the same with --stop: stopped while its metadata is copied
    sweeps by gdb       drain-gdb sweep --pid PID --debugger gdb: stopped throughout

one after the other, with a pause between them.  With one client the server and
redis-benchmark take turns on one processor, and a second one is free for the sweeps.
The rounds take turns, and of each way the one with the median of the worst latencies is
shown.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from tabulate import tabulate

from examples.redis.server import Redis, half_emptied
from tests.support.inputs import debian_redis

WAYS: Dict[str, Optional[Tuple[str, ...]]] = {
    "no sweeps": None,
    "sweeps in motion": ("--debugger", "none"),
    "sweeps with a stop": ("--debugger", "none", "--stop"),
    "sweeps by gdb": ("--debugger", "gdb"),
}
COLUMNS = ("rps", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "max_latency_ms")
ROUNDS = 3


class Sweeps(threading.Thread):
    """Sweeps one after the other, until it is told to end."""

    def __init__(self, pid: int, options: Tuple[str, ...], pause: float) -> None:
        super().__init__()
        self._command = [sys.executable, "-m", "drain_gdb", "sweep", "--pid", str(pid)]
        self._command += ["--format", "json", *options]
        self._pause = pause
        self.ended = threading.Event()
        self.statuses: List[str] = []

    def run(self) -> None:
        while not self.ended.is_set():
            done = subprocess.run(self._command, capture_output=True, check=False)
            self.statuses.append(json.loads(done.stdout)["verification"]["status"])
            self.ended.wait(self._pause)


def measure(
    server: Redis, way: Optional[Tuple[str, ...]], requests: int, clients: int, pause: float
) -> Tuple[Dict[str, float], List[str]]:
    """Latencies in milliseconds, and what each sweep meanwhile verified."""
    sweeps = None if way is None else Sweeps(server.pid, way, pause)
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(server.port), "--csv"]
    command += ["-t", "set", "-n", str(requests), "-r", "200000", "-d", "1000"]
    command += ["-c", str(clients)]
    if sweeps is not None:
        sweeps.start()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        if sweeps is not None:
            sweeps.ended.set()
            sweeps.join()
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    figures = {name: float(row[name]) for name in COLUMNS}
    return figures, [] if sweeps is None else sweeps.statuses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.0)
    args = parser.parse_args()
    found: Dict[str, List[Dict[str, float]]] = {name: [] for name in WAYS}
    said: Dict[str, List[str]] = {name: [] for name in WAYS}
    with (
        tempfile.TemporaryDirectory() as name,
        half_emptied(debian_redis(), Path(name), args.keys) as server,
    ):
        for _ in range(ROUNDS):
            for way, options in WAYS.items():
                figures, statuses = measure(
                    server, options, args.requests, args.clients, args.pause
                )
                found[way].append(figures)
                said[way] += statuses
    rows = []
    for way, rounds in found.items():
        median = sorted(rounds, key=lambda figures: figures["max_latency_ms"])[ROUNDS // 2]
        exact = f"{said[way].count('exact')} of {len(said[way])}" if said[way] else "-"
        cells = [f"{median[column]:,.{0 if column == 'rps' else 2}f}" for column in COLUMNS]
        rows.append([way, *cells, exact])
    heads = ["", "requests a second", "p50 ms", "p95 ms", "p99 ms", "max ms", "sweeps exact"]
    print(tabulate(rows, heads, colalign=("left", *["right"] * 6), disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
