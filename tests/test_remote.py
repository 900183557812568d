"""Behind gdbserver every read is a packet or more, each with a way there and back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import List

import pytest

from examples.redis.server import Redis
from tests.support.inputs import debian_redis, falkordb_redis
from tests.support.processes import GdbServer
from tests.support.runs import comparable, gdb, sweep_json

KEYS = 38_000
PACKETS_MAX = 1000
MARK = "qMark"


def _packets(log: Path) -> List[str]:
    """What gdb sent between the two marks, from its own log of the connection."""
    between = log.read_text(errors="replace").split(f"maint packet {MARK}\n")[1]
    return re.findall(r"^w \+*\$([^#\n]*)", between, re.M)[1:]


@pytest.mark.parametrize(
    "binary",
    [debian_redis, pytest.param(falkordb_redis, marks=pytest.mark.long)],
    ids=["stripped", "dwarf"],
)
def test_ten_thousand_slabs_in_a_thousand_packets(binary, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    server = Redis(binary(), tmp_path)
    log, output = tmp_path / "log", tmp_path / "report.json"
    try:
        server.populate(KEYS)
        server.delete_odd(KEYS)
        remote = GdbServer(server.pid)
        try:
            ran = gdb(
                f"target remote 127.0.0.1:{remote.port}",
                f"maint packet {MARK}",
                f"drainsweep --by slab --format json --output {output}",
                f"maint packet {MARK}",
                "detach",
                before=["set sysroot /", f"set remotelogfile {log}"],
            )
        finally:
            remote.stop()
        assert output.exists(), ran
        live = sweep_json("--pid", server.pid, "--by", "slab", "--debugger", "none", "--stop")
    finally:
        server.stop()
    report = json.loads(output.read_text())
    assert report["totals"]["slabs"] >= 10_000
    assert report["verification"]["status"] == "exact"
    sent = _packets(log)
    assert sum(packet.startswith("m") for packet in sent) > 100, "nothing was counted"
    assert len(sent) < PACKETS_MAX, len(sent)
    # What is not read for it (parts of the tree for addresses that are not mapped) is null.
    walked = comparable(report)["verification"]
    assert walked["slabs_walked"] == pytest.approx(live["verification"]["slabs_walked"], abs=20)
