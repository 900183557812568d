"""Data sets of many kinds of values for a Redis, the same whenever they are made."""

from __future__ import annotations

import random
import socket
from itertools import islice
from typing import Callable, Dict, Iterable, Iterator, List, Sequence, Tuple

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


def every_encoding(scale: int, fields_expire: bool = False, seed: int = 71) -> Iterator[Command]:
    """Values of every type, as many as possible of each encoding, some changed and deleted."""
    chance = random.Random(seed)
    yield words("CONFIG", "SET", "list-compress-depth", 1)
    keys = []
    for number in range(scale):
        for make in KINDS:
            key = _odd_key(chance, number)
            keys.append(key)
            yield from make(key, chance)
    for key in chance.sample(keys, scale):
        yield words("PEXPIRE", key, 10_000_000)
    if fields_expire:
        yield from _expiring_fields(scale, chance)
    yield words("SELECT", 3)
    yield from (words("SET", f"third:{n}", "x" * n) for n in range(scale))
    yield words("SELECT", 0)
    yield from (words("DEL", key) for key in keys if chance.random() < 0.4)


def _odd_key(chance: random.Random, number: int) -> str:
    """Keys of any length, so that all headers and places of keys occur."""
    return f"{chance.choice('abcdef')}-{number}/{chance.getrandbits(40)}" + "k" * chance.choice(
        (0, 3, 11, 40, 150, 300)
    )


def _integer(key: str, chance: random.Random) -> Iterator[Command]:
    yield words("SET", key, chance.choice((7, 9999, 10_000, -5, chance.getrandbits(60))))


def _short_text(key: str, chance: random.Random) -> Iterator[Command]:
    yield words("SET", key, chance.randbytes(chance.randint(0, 44)))


def _long_text(key: str, chance: random.Random) -> Iterator[Command]:
    yield words("SET", key, chance.randbytes(chance.choice((45, 64, 254, 255, 256, 3000, 20_000))))


def _grown_text(key: str, chance: random.Random) -> Iterator[Command]:
    for _ in range(3):
        yield words("APPEND", key, "grows " * chance.randint(1, 40))
    yield words("SETBIT", key, chance.randint(1, 60_000), 1)


def _sketch(key: str, chance: random.Random) -> Iterator[Command]:
    yield words("PFADD", key, *(chance.getrandbits(30) for _ in range(chance.choice((3, 400)))))


def _short_list(key: str, chance: random.Random) -> Iterator[Command]:
    yield words("LPUSH", key, *(chance.choice((b"", 5, b"item", 70_000, -3)) for _ in range(9)))


def _long_list(key: str, chance: random.Random) -> Iterator[Command]:
    for _ in range(6):
        yield words("RPUSH", key, *(chance.choice((b"again " * 30, n)) for n in range(60)))
    yield words("RPUSH", key, chance.randbytes(9000))


def _integers(key: str, chance: random.Random) -> Iterator[Command]:
    bits = chance.choice((6, 15, 31, 62))
    yield words("SADD", key, *(chance.getrandbits(bits) for _ in range(chance.choice((1, 2, 300)))))


def _members(key: str, chance: random.Random) -> Iterator[Command]:
    size = chance.choice((4, 12, 31, 90, 400))
    yield words("SADD", key, *(chance.randbytes(size) for _ in range(chance.choice((3, 150)))))


def _scores(key: str, chance: random.Random) -> Iterator[Command]:
    scores = ("inf", "-inf", 0, 3, -2.5, 1e300)
    members = (chance.randbytes(chance.choice((3, 20, 80))) for _ in range(chance.choice((5, 140))))
    yield words("ZADD", key, *(w for each in members for w in (chance.choice(scores), each)))
    yield words("GEOADD", f"{key}:places", 13.3, 52.5, "Berlin", 2.35, 48.85, "Paris")


def _fields(key: str, chance: random.Random) -> Iterator[Command]:
    size = chance.choice((5, 64, 65, 130, 700))
    fields = range(chance.choice((1, 20, 600)) if size < 100 else 5)
    names = (f"{n}" + "f" * chance.choice((1, 35, 280)) for n in fields)
    yield words("HSET", key, *(w for name in names for w in (name, chance.randbytes(size))))


def _log(key: str, chance: random.Random) -> Iterator[Command]:
    for number in range(1, chance.choice((2, 40, 350))):
        yield words(
            "XADD", key, f"{1_700_000_000_000 + 7 * number}-{number}", "a", number, "b", key
        )
    for group in ("first", "second"):
        yield words("XGROUP", "CREATE", key, group, 0)
    for consumer in ("one", "another"):
        count = ("COUNT", 5, "STREAMS", key, ">")
        yield words("XREADGROUP", "GROUP", "first", consumer, *count)


KINDS: Sequence[Callable[[str, random.Random], Iterator[Command]]] = (
    *(_integer, _short_text, _long_text, _grown_text, _sketch, _short_list, _long_list),
    *(_integers, _members, _scores, _fields, _log),
)


def _expiring_fields(scale: int, chance: random.Random) -> Iterator[Command]:
    for number in range(scale):
        names = [f"{n}" + "e" * chance.choice((2, 33)) for n in range(chance.choice((3, 700)))]
        key = f"expiring:{number}"
        yield words("HSET", key, *(word for name in names for word in (name, number)))
        some = names[: chance.choice((2, 20))][: len(names)]
        yield words("HPEXPIRE", key, 10_000_000 + number, "FIELDS", len(some), *some)
