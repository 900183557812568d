"""Data sets of many kinds of values for a Redis, the same whenever they are made."""

from __future__ import annotations

import random
import socket
from itertools import islice
from typing import Callable, Dict, Iterable, Iterator, List, Tuple

Command = Tuple[bytes, ...]
AT_ONCE = 500
PREFIXES = ("session", "user", "rank", "queue", "events", "tags", "profile", "blob")


class Client:
    """A connection that sends many commands at once and reads whatever is answered."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._answers = self._socket.makefile("rb")

    def run(self, commands: Iterable[Command]) -> List[object]:
        """The answers to all commands; AssertionError where one is an error."""
        answers: List[object] = []
        every = iter(commands)
        while some := list(islice(every, AT_ONCE)):
            self._socket.sendall(b"".join(map(_packed, some)))
            answers += [self._answer() for _ in some]
        return answers

    def _answer(self) -> object:
        line = self._answers.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        assert kind in b"+:$*" and kind, line
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._answers.read(size + 2)[:-2]
        return int(rest) if kind == b":" else rest

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def _packed(command: Command) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in command)


def words(*parts: object) -> Command:
    """A command; what is not bytes as it is written."""
    return tuple(p if isinstance(p, bytes) else str(p).encode() for p in parts)


def eight_prefixes(scale: int, deleted: float = 0.6, seed: int = 14) -> Iterator[Command]:
    """Keys of eight kinds, ``scale`` times some of each, made in turn, then most deleted."""
    chance = random.Random(seed)
    keys: Dict[bytes, None] = {}
    for number in range(scale):
        for prefix in PREFIXES:
            for command in MAKERS[prefix](f"{prefix}:{number}", chance):
                keys[command[1]] = None
                yield command
    yield from (words("DEL", key) for key in keys if chance.random() < deleted)


def _session(key: str, chance: random.Random) -> Iterator[Command]:
    for part in range(20):
        yield words("SET", f"{key}:{part}", chance.randbytes(chance.randint(80, 400)), "EX", 90000)


def _user(key: str, chance: random.Random) -> Iterator[Command]:
    for part in range(8):
        fields = [(f"field{n}", chance.getrandbits(64)) for n in range(chance.randint(3, 12))]
        yield words("HSET", f"{key}:{part}", *(word for pair in fields for word in pair))


def _rank(key: str, chance: random.Random) -> Iterator[Command]:
    members = range(chance.randint(130, 200))
    pairs = [(chance.random(), f"member:{chance.getrandbits(40)}") for _ in members]
    yield words("ZADD", key, *(word for pair in pairs for word in pair))


def _queue(key: str, chance: random.Random) -> Iterator[Command]:
    for _ in range(3):
        yield words("RPUSH", key, *(chance.randbytes(120) for _ in range(chance.randint(20, 60))))


def _events(key: str, chance: random.Random) -> Iterator[Command]:
    for number in range(1, chance.randint(60, 130)):
        yield words("XADD", key, f"{number}-1", "kind", chance.choice("abc"), "at", number * 37)


def _tags(key: str, chance: random.Random) -> Iterator[Command]:
    numbers = (chance.getrandbits(30) for _ in range(chance.randint(5, 100)))
    yield words("SADD", f"{key}:numbers", *numbers)
    letters = (f"tag-{chance.getrandbits(32):x}" for _ in range(chance.randint(5, 40)))
    yield words("SADD", key, *letters)


def _profile(key: str, chance: random.Random) -> Iterator[Command]:
    fields = ((f"f{n}", "y" * chance.randint(65, 100)) for n in range(chance.randint(10, 30)))
    yield words("HSET", key, *(word for pair in fields for word in pair))


def _blob(key: str, chance: random.Random) -> Iterator[Command]:
    yield words("SET", key, chance.randbytes(chance.randint(1000, 12_000)))


MAKERS: Dict[str, Callable[[str, random.Random], Iterator[Command]]] = {
    "session": _session,
    "user": _user,
    "rank": _rank,
    "queue": _queue,
    "events": _events,
    "tags": _tags,
    "profile": _profile,
    "blob": _blob,
}
