"""What the regions of a Redis or Valkey are and who owns them, by the servers' own words."""

from __future__ import annotations

import random
import re
import struct
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, Optional, Sequence, Tuple

import pytest

from drain_gdb.objects.recogniser import STRUCTURE, Kind, Region
from drain_gdb.objects.redis import owner, packed
from drain_gdb.objects.redis.objects import Objects
from drain_gdb.objects.redis.owner import RedisKeys
from drain_gdb.objects.redis.patterns import DISTINCT_MAX, OTHERS, Patterns, pattern
from drain_gdb.objects.redis.places import begins
from drain_gdb.objects.redis.recogniser import RedisStructures
from drain_gdb.objects.redis.structures import Structures
from tests.conftest import Core, once
from tests.support.fakecontents import FakeContents
from tests.support.inputs import debian_jemalloc, program
from tests.support.kinds import contents_of, named
from tests.support.mixture import PREFIXES, eight_prefixes, every_encoding
from tests.support.processes import Program, gcore
from tests.support.real import python_running
from tests.support.servers import SERVERS, Filled, Server, described, filled
from tests.support.tiers import tiered

SCALE = 17
"""Times some values of each kind."""
SEED = 2024
"""Of values that nobody looked at while the recognisers were written."""
LOOKS_LIKE = {("sds", "hash entry")}
"""Members of a set behind which, in their regions, something of an old entry of a hash is."""
NAMED = {
    *("sds", "dictEntry", "dict", "hash table", "zset", "zskiplist", "zskiplist header"),
    *("zskiplistNode", "quicklist", "quicklistNode", "intset", "stream", "rax", "raxNode"),
    *("listpack", "streamCG", "streamNACK", "streamConsumer", "compressed listpack"),
}
"""What every server with dicts has."""


class Looked:
    """A server's core, with what is found in it."""

    def __init__(self, server: Server, told: Filled) -> None:
        self.server = server
        self.told = told
        self.contents = contents_of(told.core)
        self.found = named(self.contents, [RedisStructures(self.contents)])

    def at(self, address: int) -> Optional[str]:
        """What begins at an address."""
        region = self.contents.region_at(address)
        if region is None or not begins(region, address):
            return None
        return self.found[region.address].what


EACH = tiered(SERVERS, lambda name: name in ("Redis 6.2", "Valkey 8.1"), lambda server: server.name)


@pytest.fixture(scope="module", params=EACH)
def looked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Looked:
    server: Server = request.param

    def make(folder: Path) -> Filled:
        return filled(server, folder, every_encoding(SCALE, server.fields_expire, SEED))

    return Looked(server, once(tmp_path_factory, f"every-{server.name.replace(' ', '-')}", make))


def test_every_value_is_named_as_the_server_says(looked: Looked) -> None:
    values = looked.told.values
    assert len(values) > 100
    assert len({(value.type, value.encoding) for value in values}) >= 11
    expected = {value.key: f"{value.type} object, {value.encoding}" for value in values}
    assert {value.key: looked.at(value.address) for value in values} == expected


@pytest.mark.parametrize(
    "looked", [each for each in EACH if each.values[0].described], indirect=True
)
def test_every_struct_is_named_as_debug_information_says(looked: Looked) -> None:
    truth = described(looked.server, looked.told.core)
    kinds = Counter(truth.values())
    absent = {"dictEntry", "dict", "hash table"} if "hashtable" in kinds else set()
    assert set(kinds) >= NAMED - absent
    wrong = {at: (what, looked.at(at)) for at, what in truth.items() if looked.at(at) != what}
    assert set(wrong.values()) <= LOOKS_LIKE
    assert len(wrong) <= 0.0005 * len(truth)


def test_there_are_as_many_as_the_data_needs(looked: Looked) -> None:
    found = Counter(each.what for each in looked.found.values())
    expected = looked.told.counts
    assert all(expected.values())
    assert {what: found[what] for what in expected} == expected


def test_every_key_owns_its_value(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = RedisKeys(looked.contents)
    assert owners.applies()
    with monkeypatch.context() as patch:
        patch.setattr(owner, "numpy", lambda: None)
        plain = sorted(owners.roots())
    assert sorted(owners.roots()) == plain
    regions: Dict[int, str] = {}
    for root in owners.roots():
        region = looked.contents.region_at(root.address)
        assert region is not None
        regions[region.address] = root.label
    labels = Counter(regions.values())
    # An expiry has an entry of its own where values do not have it in themselves.
    assert labels["db 3 third:#"] == SCALE
    for value in looked.told.values:
        label = _masked(value.key)
        assert label in labels
        holder = looked.contents.region_at(value.address)
        assert holder is not None
        if holder.address in regions:
            assert regions[holder.address] == label
    assert not [label for label in labels if re.search(r"\d\d", label)]


def _masked(key: bytes) -> str:
    text = re.sub(r"\d+", "#", key.decode())
    return text if len(text) <= 40 else text[:39] + "…"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return once(
        tmp_path_factory,
        "mixed-redis",
        lambda folder: filled(SERVERS[0], folder, eight_prefixes(600)),
    )


def test_hardly_anything_is_unknown(mixed: Filled) -> None:
    contents = contents_of(mixed.core)
    found = named(contents, [RedisStructures(contents)])
    unknown = [each.region.size for each in found.values() if each.kind is None]
    assert len(unknown) < 0.03 * len(found)
    assert sum(unknown) < 0.03 * sum(each.region.size for each in found.values())


def test_keys_are_grouped_by_their_prefixes(mixed: Filled) -> None:
    roots = list(RedisKeys(contents_of(mixed.core)).roots())
    expected = Counter(_masked(value.key) for value in mixed.values)
    found = Counter(root.label for root in roots)
    # Sessions expire: each has a second entry.
    assert found.pop("session:#:#") == 2 * expected.pop("session:#:#")
    assert found == expected
    assert {label.partition(":")[0] for label in found} | {"session"} == set(PREFIXES)


def _core(child: Program, core: Path) -> Path:
    try:
        return gcore(child.pid, core)
    finally:
        child.stop()


def test_nothing_of_others_is_taken_for_redis(two_allocators: Core, tmp_path: Path) -> None:
    code = (
        "import json, decimal; y = {i: bytes(i % 300) for i in range(1500)};"
        "x = [{'n': i, 's': f'session {i} of somebody', 'l': [i, str(i)]} for i in range(1500)]"
    )
    env = {"LD_PRELOAD": str(debian_jemalloc()), "PYTHONMALLOC": "malloc"}
    python = _core(python_running(Path("/usr/bin/python3"), code, **env), tmp_path / "python")
    binary = str(program("cpp_kinds", "-ljemalloc"))
    cplusplus = _core(Program([binary, str(tmp_path / "list")]), tmp_path / "cplusplus")
    for core in (two_allocators.core, python, cplusplus):
        contents = contents_of(core)
        recogniser = RedisStructures(contents)
        assert not recogniser.applies() and not RedisKeys(contents).applies()
        # Hardly anything would be if it were asked all the same.
        found = Counter(each.what for each in named(contents, [recogniser]).values())
        assert found.pop(None) > 10_000
        assert sum(found.values()) <= 3, found


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (b"user:17:name", "user:#:name"),
        (b"user:" + b"9" * 300, "user:#"),
        (b"x" * 39 + b"77" + b"y", "x" * 39 + "…"),
        (b"s:0af13c9b22:v2", "s:@:v#"),
        (b"s:facade:decade", "s:facade:decade"),
        (b"u:123e4567-e89b-12d3-a456-426614174000", "u:@"),
        (b"\x00\xff\x01 k\n", "? k?"),
        ("zoë".encode(), "zo?"),
        (b"", ""),
    ],
)
def test_patterns_of_keys(key: bytes, said: str) -> None:
    assert pattern(key) == said


def test_there_are_not_too_many_patterns() -> None:
    patterns = Patterns()
    number = patterns.numberer("")
    words = [f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(3000)]
    patterns.count([number(f"user:{word}".encode()) for word in words])
    patterns.count([number(f"{word}".encode()) for word in words])
    labels = patterns.labels()
    assert len(set(labels)) == DISTINCT_MAX
    assert labels[0] == "user:*"
    assert OTHERS in labels


def test_a_hexadecimal_number_without_letters_is_one_still() -> None:
    patterns = Patterns()
    number = patterns.numberer("")
    found = [number(b"s:12345678"), number(b"s:1234567f"), number(b"t:12345678")]
    assert [patterns.labels()[each] for each in found] == ["s:@", "s:@", "t:#"]


def test_a_table_whose_first_pointer_looks_like_a_fields_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 50 bytes, if it were one: the second and third byte of an address are chance."""
    monkeypatch.setattr(Structures, "has_fields", True)
    entry = 0x7F0000013240
    recogniser = RedisStructures(FakeContents(regions=[(entry, 32)]))

    def what(first: int) -> Optional[str]:
        kind = recogniser.recognise(Region(0x7F0000000000, 64, first.to_bytes(64, "little")))
        return None if kind is None else kind.what

    assert what(entry) is None
    assert what(entry + 64) == "sds"


class Noise:
    """A process whose memory is noise, its regions of any size and full of pointers."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def region(self, address: int) -> Region:
        chance = self._chance
        size = chance.choice((8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 536, 640, 1280, 20480))
        small = (0, 1, 2, 4, 8, 20, 0xFFFFFFFFFFFFFFFF, 1 << 32, address, address + 1)
        near = [0x7F0000001000 + 64 * chance.randrange(64) + chance.choice((0, 1, 3))] * 3
        every = (*small, *near, chance.getrandbits(64))
        data = b"".join(chance.choice(every).to_bytes(8, "little") for _ in range(size // 8))
        return Region(address & -64, size, data)

    def region_at(self, address: int) -> Optional[Region]:
        return self.region(address) if 0x7F0000000000 <= address < 0x7F0000010000 else None

    def read(self, address: int, size: int) -> Optional[bytes]:
        return (
            self._chance.randbytes(size) if size < 1 << 20 and self._chance.random() < 0.9 else None
        )

    def word(self, address: int) -> Optional[int]:
        return self._chance.choice((0, 8, 40, None))

    def in_module(self, address: int) -> bool:
        return self._chance.random() < 0.5

    def variables(self) -> Sequence[Tuple[int, int]]:
        return [(0x400000, 0x401000)]

    def symbol_at(self, address: int) -> Optional[str]:
        return None

    def symbol(self, name: str) -> Optional[int]:
        return None


def test_noise_ends_soon_and_raises_nothing() -> None:
    noise = Noise(5)
    recogniser = RedisStructures(noise)
    assert not recogniser.applies()
    whats = [None, "dict", "hashtable", "hash table", "dictEntry", "rax", "raxNode", "list"]
    whats += ["event loop", "latency histogram", "client", "kvstore", "Lua table", "quicklistNode"]
    for number in range(3000):
        region = noise.region(0x7F0000001000 + 64 * (number % 64))
        recogniser.recognise(region)
        if region.size >= 112:
            for what in whats:
                kind = Kind(f"{what}", "redis", STRUCTURE)
                assert sum(1 for _ in recogniser.holds(region, kind)) < 100_000
        for parse in (packed.sds, packed.short_sds, packed.hash_field, packed.two_strings):
            parse(region.data, region.size)


@pytest.mark.parametrize("size", [32, 40, 48, 56, 64])
def test_a_field_is_one_whenever_it_expires(size: int) -> None:
    """The time, in milliseconds, is its first six bytes, which may look like a header."""
    length = size - 18 - 2 if size - 18 - 2 < 32 else size - 18 - 4
    header = bytes([length << 3 | 4]) if length < 32 else bytes([0, length, 5])
    text = b"f" * length
    for low in range(1 << 16):
        when = (0x18B_0000_0000 + (low << 8) + 0x57).to_bytes(8, "little")
        following = (0x7F00_0000_1001).to_bytes(8, "little")
        data = (when + following + b"\1\0" + header + text).ljust(size, b"\0")
        assert packed.hash_field(data, size) == packed.Sds(18 + len(header), length)


def test_a_time_in_milliseconds_is_no_head_of_an_object() -> None:
    """What a consumer of a stream begins with, though its name follows as a string's would."""
    look = SimpleNamespace(has_fields=False, is_string=lambda address: address == 8192)
    objects = Objects(look)  # type: ignore[arg-type]
    time = 1_795_876_574_464
    assert time & 0xFF == 0
    consumer = Region(4096, 24, struct.pack("<3Q", time, 8192, 12288))
    assert objects.recognise(consumer) is None
    small = Region(4096, 16, struct.pack("<2Q", time, 8192))
    assert objects.recognise(small) == "string object, raw"
