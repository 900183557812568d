"""What a recording costs a live Redis, measured by its clients.

    python3 -m tests.bench.stop [--keys N] [--rounds N] [--gdb GDB]

A Redis of N keys of about 1 KB, half of them deleted, is asked for one key after the
other, each as soon as the last was answered, while it is recorded in each of three ways:

    stopped      drain-gdb record --debugger none --stop
    in motion    drain-gdb record --debugger none, which never stops it
    gdb          drain-gdb record, attached to by gdb, which stops it for all of its work

Printed are the percentiles of the latency of all requests of a round from the start of
the command to its end, the longest, and how long the command itself says it stopped the
process; beside them those of rounds without any, and with a command that only keeps the
machine as busy.  The longest of a round is the stop as a client sees it.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from tabulate import tabulate

from examples.redis.server import half_emptied
from tests.support.inputs import GDB, ROOT, debian_redis
from tests.support.runs import sweep_json

KEY_SIZE = 1000
QUIET_SECONDS = 3
BUSY = "import time\nend = time.time() + 3\nwhile time.time() < end: pass"
STOPPED = re.compile(r"stopped for (\d+\.\d+) s")


class Round(NamedTuple):
    """Latencies in milliseconds, and how long the command says that it stopped the process."""

    latencies: List[float]
    stopped: Optional[float]


class Client:
    """A connection that asks for one key after the other, and notes how long each took."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._going = True
        self._latencies: List[float] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        number = 0
        while self._going:
            key = f"key:{number % 50_000}".encode()
            request = b"*2\r\n$6\r\nSTRLEN\r\n$%d\r\n%s\r\n" % (len(key), key)
            start = time.perf_counter()
            self._socket.sendall(request)
            answer = self._socket.recv(64)
            self._latencies.append((time.perf_counter() - start) * 1000)
            assert answer.startswith(b":"), answer
            number += 2

    def stop(self) -> List[float]:
        """All latencies so far, in milliseconds."""
        self._going = False
        self._thread.join()
        self._socket.close()
        return self._latencies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gdb", default=GDB)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with half_emptied(debian_redis(), folder, args.keys) as server:
            file = folder / "file.drain"
            record = [sys.executable, "-m", "drain_gdb", "record", "--pid", str(server.pid)]
            record += ["-o", str(file), "--force"]
            ways: Dict[str, Sequence[str]] = {
                "nothing": [sys.executable, "-c", f"import time; time.sleep({QUIET_SECONDS})"],
                "a busy machine": [sys.executable, "-c", BUSY],
                "stopped": [*record, "--debugger", "none", "--stop"],
                "in motion": [*record, "--debugger", "none"],
                "gdb": [*record, "--debugger", "gdb"],
            }
            rows = []
            for way, command in ways.items():
                rounds = [measure(server.port, command, args.gdb) for _ in range(args.rounds)]
                rows.append(row_of(way, rounds))
                if file.exists():
                    slabs = sweep_json(file)["totals"]["slabs"]
    print(f"{slabs:,} slabs, {args.rounds} rounds each, milliseconds")
    heads = ["", "requests", "median", "99 %", "99.9 %", "99.99 %", "longest: median", "worst"]
    heads.append("stopped, as it says")
    print(tabulate(rows, heads, colalign=("left", *["right"] * 8), disable_numparse=True))
    return 0


def measure(port: int, command: Sequence[str], gdb: str) -> Round:
    """One round: the latencies while ``command`` runs, which may start ``gdb``."""
    client = Client(port)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DRAIN_GDB_GDB": gdb},
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    finally:
        latencies = client.stop()
    assert done.returncode in (0, 3), done
    said = STOPPED.search(done.stdout + done.stderr)
    return Round(latencies, None if said is None else float(said[1]) * 1000)


def row_of(way: str, rounds: Sequence[Round]) -> List[str]:
    together = sorted(each for one in rounds for each in one.latencies)

    def at(share: float) -> str:
        return f"{together[min(len(together) - 1, int(share * len(together)))]:.3f}"

    longest = [max(one.latencies) for one in rounds]
    said = [one.stopped for one in rounds if one.stopped is not None]
    return [
        way,
        f"{len(together):,}",
        *map(at, (0.5, 0.99, 0.999, 0.9999)),
        f"{statistics.median(longest):.1f}",
        f"{max(longest):.1f}",
        f"{statistics.median(said):.0f}" if said else "-",
    ]


if __name__ == "__main__":
    sys.exit(main())
