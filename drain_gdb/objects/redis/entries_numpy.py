"""The entries of tables of dicts and the patterns of their keys, with NumPy.

The same as :mod:`drain_gdb.objects.redis.entries` and what follows it in
:mod:`drain_gdb.objects.redis.owner`, where there are many: memory is read a long run at a time,
and what is rare in it is left to the plain loops.
"""

from __future__ import annotations

from random import Random
from typing import Any, Callable, Iterator, List, NamedTuple, Tuple

from drain_gdb.memory import ADDRESS_END, WORD
from drain_gdb.objects.fast import numpy, view
from drain_gdb.objects.recogniser import Contents
from drain_gdb.objects.redis.dictionary import Table
from drain_gdb.objects.redis.entries import SLOTS_AT_ONCE, Chains
from drain_gdb.objects.redis.entry import NORMAL, ODD_KEY, TAGS
from drain_gdb.objects.redis.packed import SDS_FORMS, SDS_HEADS, SDS_TYPE
from drain_gdb.objects.redis.patterns import LOOKED_AT, MASK
from drain_gdb.objects.redis.values import EXPIRY, SIZE

RUN = 1 << 22
"""Bytes that are looked at together."""
TOGETHER = 1 << 10
"""Places that are read together."""
UNREADABLE = -1 << 62
GAP = 1 << 12
"""Bytes between two of them that are read along."""
BEFORE = 32
"""Bytes before a text in which its header lies."""
BEHIND = LOOKED_AT + 2 * BEFORE + SIZE + EXPIRY
"""Bytes from a key on that are looked at."""
COLUMNS = LOOKED_AT // WORD
FACTORS = tuple(Random(1).getrandbits(64) | 1 for _ in range(COLUMNS))
"""What the words of a text are multiplied by: texts of one sum are one text."""


def entries(contents: Contents, table: Table) -> Tuple[Any, Any]:
    """Entry and key, as in :data:`~drain_gdb.objects.redis.entries.Entry`, of a dict's table."""
    np: Any = numpy()
    chains, left = Chains(contents), table.used
    places: List[Any] = [np.empty(0, "u8")]
    keys: List[Any] = [np.empty(0, "u8")]
    for at in range(0, table.slots, SLOTS_AT_ONCE):
        number = min(SLOTS_AT_ONCE, table.slots - at)
        data = contents.read(table.address + at * WORD, number * WORD) or b""
        pointers = view(data, "<u8")
        pointers = np.sort(pointers[pointers != 0])
        while len(pointers) and left > 0:
            found, keyed, pointers = _step(contents, chains, pointers)
            places.append(found[:left])
            keys.append(keyed[:left])
            left -= len(found)
    return np.concatenate(places), np.concatenate(keys)


def either(entries: Any, keys: Any) -> bytes:
    """What tables point at: the entry, or the key itself; as words."""
    np: Any = numpy()
    found: bytes = np.where(entries != 0, entries, keys).tobytes()
    return found


def _step(contents: Contents, chains: Chains, pointers: Any) -> Tuple[Any, Any, Any]:
    """What ``pointers`` point at, entries and keys, and what comes next in the chains, sorted."""
    np: Any = numpy()
    tags = pointers & np.uint64(TAGS)
    odd = pointers[tags & np.uint64(ODD_KEY) != 0]
    entries, keys, following = [np.zeros(len(odd), "u8")], [odd], [np.empty(0, "u8")]
    normal = pointers[tags == 0]
    unreadable: List[int] = []
    for batch in _batches(contents, normal, 0, NORMAL, unreadable):
        words = view(batch.data, "<u8")
        first = batch.offsets // WORD
        entries.append(normal[batch.chosen])
        keys.append(words[first])
        third = words[first + 2]
        following.append(third[third != 0])
    rest = pointers[(tags != 0) & (tags & np.uint64(ODD_KEY) == 0)]
    behind: List[int] = []
    rare = list(chains.step(sorted([*rest.tolist(), *normal[unreadable].tolist()]), behind))
    entries.append(np.array([each[0] for each in rare], "u8"))
    keys.append(np.array([each[1] for each in rare], "u8"))
    following.append(np.array(behind, "u8"))
    return np.concatenate(entries), np.concatenate(keys), np.sort(np.concatenate(following))


class _Batch(NamedTuple):
    """Some of many addresses: their numbers, memory, and where in it they are."""

    chosen: Any
    data: bytes
    offsets: Any


def _batches(
    contents: Contents, addresses: Any, before: int, behind: int, unreadable: List[int]
) -> Iterator[_Batch]:
    """Ascending ``addresses``, with so many bytes ``before`` and ``behind`` each.

    The numbers of those where not all of it can be read go to ``unreadable``.
    """
    np: Any = numpy()
    number = len(addresses)
    breaks = np.flatnonzero(np.diff(addresses) > GAP) + 1
    starts = np.union1d(np.arange(0, number, TOGETHER), breaks).astype("i8")
    ends = np.append(starts[1:], number)[: len(starts)]
    bases = addresses[starts] - np.uint64(before) & np.uint64(-WORD & ADDRESS_END - 1)
    sizes = addresses[ends - 1] - bases + np.uint64(behind + WORD - 1) & np.uint64(
        ADDRESS_END - WORD
    )
    parts: List[bytes] = []
    first, size = 0, 0
    shifts: List[int] = []
    for row, (base, length) in enumerate(zip(bases.tolist(), sizes.tolist())):
        data = contents.fetch(base, length)
        if data is None:
            unreadable.extend(range(starts[row], ends[row]))
        parts.append(data or b"")
        shifts.append(base - size if data else UNREADABLE)
        size += length if data else 0
        if size >= RUN or row + 1 == len(bases):
            counts = ends[first : row + 1] - starts[first : row + 1]
            known = np.repeat(np.array(shifts, "i8"), counts)
            chosen = np.flatnonzero(known != UNREADABLE)
            offsets = addresses[chosen + starts[first]].astype("i8") - known[chosen]
            yield _Batch(chosen + starts[first], b"".join(parts), offsets)
            parts, shifts, first, size = [], [], row + 1, 0


def patterns(
    contents: Contents,
    places: Any,
    keys: Any,
    number: Callable[[bytes], int],
    plain: Callable[[List[Tuple[int, int, int]]], Iterator[bytes]],
) -> Any:
    """The numbers of the patterns of the keys of entries.

    ``plain`` gives the texts of those of which too little can be read, or that are in entries.
    """
    np: Any = numpy()
    found = np.zeros(len(places), "u4")
    order = np.argsort(np.where(keys != 0, keys, places), kind="stable")
    own = order[keys[order] == 0]
    order = order[keys[order] != 0]
    unreadable: List[int] = []
    sorted_keys = keys[order]
    for batch in _batches(contents, sorted_keys, BEFORE, BEHIND, unreadable):
        data = np.frombuffer(batch.data, "u1")
        said = _numbers(data, sorted_keys[batch.chosen], batch.offsets, number)
        found[order[batch.chosen]] = said
    rest = np.concatenate([own, order[unreadable]])
    texts = plain([(int(places[at]), int(keys[at]), 0) for at in rest.tolist()])
    found[rest] = np.fromiter(map(number, texts), "u4", len(rest))
    return found


def _numbers(data: Any, keys: Any, at: Any, number: Callable[[bytes], int]) -> Any:
    """The numbers of the patterns of the keys ``at`` offsets of ``data``."""
    np: Any = numpy()
    at = np.where(keys & np.uint64(1) == 0, _embedded(data, at), at)
    lengths = np.where(at > 0, np.minimum(_lengths(data, at), LOOKED_AT), 0)
    width = -(-max(int(lengths.max()), 1) // WORD) * WORD
    columns = np.arange(width)
    texts = np.frombuffer(MASK, "u1")[data[at[:, None] + columns]]
    texts[columns >= lengths[:, None]] = 0
    factors = np.array(FACTORS[: width // WORD], "u8")
    sums = (texts.view("<u8") * factors).sum(axis=1, dtype="u8")
    _, firsts, groups = np.unique(sums, return_index=True, return_inverse=True)
    known = [
        number(data[start : start + length].tobytes())
        for start, length in zip(at[firsts].tolist(), lengths[firsts].tolist())
    ]
    return np.array(known, "u4")[groups]


def _lengths(data: Any, at: Any) -> Any:
    """How long the texts are that begin ``at`` offsets, by the headers before them."""
    np: Any = numpy()
    kinds = data[at - 1]
    lengths = (kinds >> 3).astype("i8")
    for head, kind, _ in SDS_FORMS:
        some = np.flatnonzero(kinds & SDS_TYPE == kind)
        if len(some):
            width = np.dtype(f"<u{(head - 1) // 2}")
            digits = data[(at[some] - head)[:, None] + np.arange(width.itemsize)]
            said = np.ascontiguousarray(digits).view(width)[:, 0]
            lengths[some] = np.minimum(said.astype("u8"), LOOKED_AT).astype("i8")
    return lengths


def _embedded(data: Any, at: Any) -> Any:
    """Where the texts begin of keys that objects at these offsets have in themselves.

    The same as embedded_key(); 0 where it has none.
    """
    np: Any = numpy()
    flags = data[at + 4] & 3
    counted = (data[at + 4] >> 2) | data[at + 5] | data[at + 6] | data[at + 7]
    heads = at + SIZE + np.where(flags == 3, EXPIRY, 0)
    sizes = data[heads].astype("i8")
    kinds = np.full(256, 255, "u1")
    for size, kind in SDS_HEADS.items():
        kinds[size] = kind
    right = (flags != 0) & (counted != 0) & (kinds[sizes] != 255)
    sizes = np.where(right, sizes, 0)
    right &= data[heads + sizes] & SDS_TYPE == kinds[sizes]
    return np.where(right, heads + 1 + sizes, 0)
