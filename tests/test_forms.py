"""What is told by the form alone: text, pointers, zeros."""

from __future__ import annotations

import random
from collections import Counter
from typing import Optional

import pytest

from drain_gdb.objects.pointers import Pointers, plain
from drain_gdb.objects.recogniser import LARGE_LOOK, Region
from drain_gdb.objects.registry import forms
from drain_gdb.objects.text import SHOWN, Text, pattern
from drain_gdb.objects.zeros import Zeros
from tests.conftest import Core, RedisCore
from tests.support.fakecontents import FakeContents
from tests.support.kinds import contents_of, named

PLACE = 0x7F0000000000


def _region(data: bytes, size: int) -> Region:
    return Region(PLACE, size, data.ljust(size, b"\0"))


def _text(data: bytes, size: int = 64) -> Optional[str]:
    kind = Text(FakeContents()).recognise(_region(data, size))
    return None if kind is None else kind.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user:1", "user:#"),
        ("user:1234567890123456", "user:#"),
        ("session 17 of 3", "session # of #"),
        ("550e8400-e29b-41d4-a716-446655440000", "@"),
        ("id=550E8400-E29B-41D4-A716-446655440000;", "id=@;"),
        ("sess:3f2a9c7d1b", "sess:@"),
        ("0x7f001234abcd", "#x@"),
        ("deadline of the feature", "deadline of the feature"),
        ("item_abc12345678", "item_abc#"),
        ("item_abc1", "item_abc#"),
        ("a\tb\nc", "a b c"),
        ("Wörtchen 5", "Wörtchen #"),
        ("имя 77", "имя #"),
        ("x" * 24, "x" * 24),
        ("x" * 25, "x" * 23 + "…"),
        ("one two three four five six", "one two three four five…"),
        # Cut short after it was masked: all of these are one pattern.
        ("1111111111111111111111111111111111:tail", "#:tail"),
        ("zero\u200bwidth", None),
    ],
)
def test_patterns(text: str, said: Optional[str]) -> None:
    assert pattern(text) == said


def test_numbers_of_any_length_are_one_pattern() -> None:
    numbers = [10**power for power in range(30)]
    assert {pattern(f"order:{n}:items of it") for n in numbers} == {"order:#:items of it"}
    rng = random.Random(7)
    texts = [f"token={rng.getrandbits(128):032x}&x={rng.getrandbits(128):032x}" for _ in range(500)]
    assert Counter(map(pattern, texts)).most_common(1)[0][1] > 490


def test_text_is_told_from_other_bytes() -> None:
    assert _text(b"user:17:name") == 'text "user:#:name"'
    assert _text("имя пользователя".encode()) == 'text "имя пользователя"'
    assert _text(b"x" * 64) == f'text "{"x" * (SHOWN - 1)}…"'
    # Without a zero it must fill half of the region.
    assert _text(b"of Rust, and more text of it, long\xff\xfe\x01") is not None
    assert _text(b"of Rust\x80\xff\xff\xff") is None
    assert _text(b"0123456789\xff\xff") is None
    assert _text(b"short") is None
    assert _text(b"\x00text behind") is None
    assert _text(b"caf\xe9 in Latin-1, no UTF-8 at all") is None
    assert _text(b"\x1b[31mred text") is None
    assert _text(b"'" * 64) is None, "a filling"
    # A letter that lies across the end of what is looked at.
    assert _text(b"x" * 511 + "é".encode() * 300, 1280) is not None
    rng = random.Random(3)
    assert not any(_text(rng.randbytes(64)) for _ in range(20_000))


def test_zeros() -> None:
    zeros = Zeros(FakeContents())

    def said(region: Region) -> Optional[str]:
        kind = zeros.recognise(region)
        return None if kind is None else kind.what

    assert said(_region(b"", 8)) == "zeros"
    assert said(_region(b"", LARGE_LOOK)) == "zeros"
    assert said(Region(PLACE, 1 << 20, bytes(LARGE_LOOK))) == "zeros in the first 64 KiB"
    assert said(_region(b"\0" * 63 + b"\1", 64)) is None
    assert said(_region(b"\1", 64)) is None


def _pointers(*words: int) -> Optional[str]:
    contents = FakeContents(
        regions=[(PLACE + n * 64, 64) for n in range(100)],
        symbols=[(0x400000, 0x400100, "on_close"), (0x400100, 0x400200, "_ZN4Base5closeEv")],
        modules=[(0x400000, 0x410000)],
    )
    data = b"".join(word.to_bytes(8, "little") for word in words)
    kind = Pointers(contents).recognise(_region(data, 64))
    return None if kind is None else kind.what


def test_pointers() -> None:
    assert _pointers(PLACE, 0, PLACE + 640) == "pointers, all to live regions"
    assert _pointers(PLACE, PLACE + 65, 0x400800, PLACE + 8) == "pointers, most to live regions"
    assert _pointers(PLACE, 0x400800, 0x400800) == "pointers, some to live regions"
    assert _pointers(0x400800) == "pointers, none to live regions"
    assert _pointers(PLACE, 17) is None
    assert _pointers(PLACE, 0x7E0000000000) is None, "to nothing"
    assert _pointers(PLACE, 1 << 63) is None
    assert _pointers() is None


def test_structs_are_called_by_their_functions() -> None:
    assert _pointers(17, 0x400000, 99) == "struct with on_close pointer"
    assert _pointers(17, PLACE, 0x400100) == "struct with Base::close pointer"
    assert _pointers(17, 0x400055) is None, "an address to return to"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("main", "main"),
        ("_ZN7Session4openEv", "Session::open"),
        (
            "_ZN4core3ptr42drop_in_place$LT$alloc..string..String$GT$17h0123456789abcdefE",
            "core::ptr::drop_in_place<alloc::string::String>",
        ),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_RNvMs_NtCs6sirJ9RUytl_13polars_python8optflagsNtB4_5Flags", "polars_python::optflags"),
        ("_R", "a function"),
        ("_R9999999999999", "a function"),
    ],
)
def test_names_of_functions(name: str, said: str) -> None:
    assert plain(name).startswith(said)


@pytest.mark.long
def test_what_is_shown_of_real_heaps(stripped_redis: RedisCore, two_allocators: Core) -> None:
    """Patterns, short, of printable characters, each of many regions where there are many keys."""
    for core in (stripped_redis.core, two_allocators.core):
        contents = contents_of(core)
        found = named(contents, [], forms(contents))
        said = Counter(each.what for each in found.values() if each.kind)
        texts = Counter({what: n for what, n in said.items() if what.startswith("text")})
        assert all(what.isprintable() and len(what) <= SHOWN + 7 for what in texts)
        assert not any(character.isdigit() for what in texts for character in what)
        if core == stripped_redis.core:
            assert sum(texts.values()) > 40_000
            assert len(texts) < 1000
