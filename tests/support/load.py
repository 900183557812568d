"""A Redis that is being filled by redis-benchmark, and grows all the time."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Tuple

from examples.redis.server import Redis
from tests.support.inputs import debian_redis
from tests.support.processes import parse_malloc_stats
from tests.support.runs import Ran, shell

KEYS = 20_000
STARTED = 2_000
"""Keys of the benchmark's own by which it has surely begun."""
ENDLESS = 100_000_000
"""Requests, and keys to choose from: nearly every one is new."""
READY_SECONDS = 60


class Load:
    """The server is loaded when the constructor returns, and until :meth:`stop`."""

    def __init__(self, folder: Path) -> None:
        self.server = Redis(debian_redis(), folder)
        try:
            self.server.populate(KEYS)
            self.server.delete_odd(KEYS)
            command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(self.server.port), "-q"]
            command += ["-t", "set", "-r", str(ENDLESS), "-n", str(ENDLESS)]
            command += ["-d", "400", "-c", "10"]
            self.benchmark = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except BaseException:
            self.server.stop()
            raise
        deadline = time.monotonic() + READY_SECONDS
        while self.keys() < KEYS // 2 + STARTED:
            if self.benchmark.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError("redis-benchmark adds no keys")

    def keys(self) -> int:
        return int(self.server.command("DBSIZE"))

    def slabs(self) -> int:
        """How many slabs jemalloc's own statistics say there are."""
        bins = parse_malloc_stats(self.server.command("MEMORY", "MALLOC-STATS"))
        return sum(each.slabs for each in bins.values())

    def sweep(self, *options: str) -> Tuple[Ran, Dict[str, Any]]:
        """A sweep without a debugger."""
        directly = ("--debugger", "none", "--format", "json")
        ran = shell("sweep", "--pid", self.server.pid, *directly, *options)
        return ran, json.loads(ran.out)

    def stop(self) -> None:
        self.benchmark.kill()
        self.benchmark.wait()
        self.server.stop()
