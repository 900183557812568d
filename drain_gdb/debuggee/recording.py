"""A recording: the allocator metadata that one walk read, in a file, and its replay.

The file, integers little-endian:

    magic (8 bytes), version (u32), length of the payload, of the content (u64 each),
    SHA-256 of all of the above and the payload (32 bytes), the payload: the content
    compressed by zlib

    content: length of the head (u32), the head: JSON with the schema, the process
    and the layouts; the number of ranges (u64); address and size of each (u64 each),
    ascending; their bytes
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from array import array
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Dict, Iterator, List, NoReturn, Optional, Sequence, Set, Tuple

from drain_gdb.debuggee.homes import without_homes
from drain_gdb.debuggee.protocol import Mapping, Module, Process, Struct, Symbol
from drain_gdb.debuggee.serialize import from_json, to_json
from drain_gdb.errors import OutputError, RecordingError, UnreadableMemory

SCHEMA = "drain_gdb.recording/1"
MAGIC = b"\x89DRAIN\r\n"
VERSION = 1
PREFIX = struct.Struct("<8sIQQ")
DIGEST = 32
CONTENT_MAX = 1 << 31
"""Bytes; the metadata of ten million slabs takes some 1.4 GB."""
HEAD_MAX = 1 << 22
RANGES_MAX = 1 << 24
"""More than there are stretches of metadata in a heap of that size."""
PIECE = 1 << 16
ZEROS = bytes(PIECE)
EXPANSION_MAX = 1040
"""zlib makes at most 1032 bytes of one (zlib.net/zlib_tech.html)."""
EXPANSION_BASE = 1 << 10
LEVEL = 6
COUNT = struct.Struct("<Q")
HEAD = struct.Struct("<I")
ADDRESS_END = 1 << 64


class Recorder:
    """Collects the bytes that a walk asks for; hand it to ``Memory(recorder=...)``."""

    def __init__(self) -> None:
        self._pieces: Dict[int, bytes] = {}

    def __call__(self, address: int, data: bytes) -> None:
        """Keep ``data``, which was read at ``address``."""
        known = self._pieces.get(address)
        if known is None or len(known) < len(data):
            self._pieces[address] = data

    def ranges(self) -> Tuple[List[Tuple[int, int]], List[bytes]]:
        """``(address, size)`` of each range, ascending and apart, and their bytes in pieces."""
        ranges: List[Tuple[int, int]] = []
        pieces: List[bytes] = []
        start = end = -1
        for address in sorted(self._pieces):
            data = self._pieces[address]
            if address > end:
                if end > start:
                    ranges.append((start, end - start))
                start = end = address
            if address + len(data) > end:
                pieces.append(data[end - address :])
                end = address + len(data)
        if end > start:
            ranges.append((start, end - start))
        return ranges, pieces


@dataclass(frozen=True)
class Recording:
    """What a file holds.

    Attributes:
        process: as it was seen when it was recorded.
        layouts: the jemallocs found in it, as JSON values.
        starts, sizes: the ranges, ascending and apart.
        data: their bytes, one after the other.
        damage: what is wrong with the file, None if nothing: then ranges may be missing,
            and bytes other than they were.

    """

    process: Process
    layouts: Sequence[object]
    starts: Sequence[int]
    sizes: Sequence[int]
    data: memoryview
    damage: Optional[str] = None


class RecordingTarget:
    """A recording as a target: the ranges it holds, and nothing else, can be read."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._offsets = array("Q", [0])
        for size in recording.sizes:
            self._offsets.append(self._offsets[-1] + size)

    def process(self) -> Process:
        """Who was recorded."""
        found = self._recording
        return replace(
            found.process,
            source="recording",
            debugger="none",
            damage=found.damage or found.process.damage,
        )

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``, which lie in one range if they were recorded."""
        row = bisect_right(self._recording.starts, address) - 1
        if row >= 0:
            at = address - self._recording.starts[row]
            if at + size <= self._recording.sizes[row]:
                offset = self._offsets[row] + at
                return bytes(self._recording.data[offset : offset + size])
        raise UnreadableMemory(address, size, "it was not recorded")

    def modules(self) -> Sequence[Module]:
        """None: a recording needs no files."""
        return ()

    def mappings(self) -> Sequence[Mapping]:
        """None are recorded."""
        return ()

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """None: not known."""
        return None

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """None are recorded."""
        return ()

    def symbol(self, name: str) -> Optional[Symbol]:
        """None are recorded."""
        return None

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """None are recorded."""
        return None

    def thread_pointers(self) -> Sequence[int]:
        """None are recorded: what was found by them is part of the layouts."""
        return ()

    def layouts(self) -> Optional[Sequence[object]]:
        """The jemallocs that were found when it was recorded."""
        return self._recording.layouts


def is_recording(path: str) -> bool:
    """Whether the file at ``path`` begins as a recording does."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def write(
    path: str,
    process: Process,
    layouts: Sequence[object],
    recorder: Recorder,
    *,
    overwrite: bool = False,
) -> int:
    """Write a recording, whole or not at all, readable by its owner; returns its bytes.

    Raises :class:`OutputError`; a file that is there is kept unless ``overwrite``.
    """
    ranges, pieces = recorder.ranges()
    found = {"schema": SCHEMA, "process": to_json(process), "layouts": layouts}
    head = json.dumps(without_homes(found))
    compressor = zlib.compressobj(LEVEL)
    payload = bytearray()
    length = 0
    for part in _content(head.encode(), ranges, pieces):
        payload += compressor.compress(part)
        length += len(part)
    payload += compressor.flush()
    if length > CONTENT_MAX:
        raise OutputError(f"cannot write {path}: {length} bytes of metadata are too many")
    prefix = PREFIX.pack(MAGIC, VERSION, len(payload), length)
    digest = hashlib.sha256(prefix + payload).digest()
    try:
        _place(path, (prefix, digest, bytes(payload)), overwrite)
    except FileExistsError:
        raise OutputError(f"{path} is there already", "add --force to replace it") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return len(prefix) + len(digest) + len(payload)


def _content(
    head: bytes, ranges: Sequence[Tuple[int, int]], pieces: Sequence[bytes]
) -> Iterator[bytes]:
    yield HEAD.pack(len(head)) + head + COUNT.pack(len(ranges))
    yield array("Q", [number for each in ranges for number in each]).tobytes()
    yield from pieces


def _place(path: str, parts: Sequence[bytes], overwrite: bool) -> None:
    """Put a file of ``parts`` at ``path`` in one step; mkstemp() makes it mode 0600."""
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with open(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if not overwrite:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def read(path: str) -> Recording:
    """The recording at ``path``; what there is of one that is damaged.

    Raises :class:`RecordingError` where nothing can be made of it, or it is of another
    version, or none.
    """
    try:
        with open(path, "rb") as file:
            stored = file.read(PREFIX.size + DIGEST)
            if not stored.startswith(MAGIC):
                raise RecordingError(f"{path} is not a recording")
            length, damage = _declared(path, stored, os.fstat(file.fileno()).st_size)
            payload = file.read(CONTENT_MAX)
    except OSError as error:
        raise RecordingError(f"cannot open {path}: {error.strerror}") from None
    if damage is None:
        digest = hashlib.sha256(stored[: PREFIX.size] + payload).digest()
        damage = None if digest == stored[PREFIX.size :] else "its checksum does not match"
    try:
        content, whole = _unpacked(payload, length)
    except (MemoryError, OSError) as error:
        _damaged(path, str(error) or "it does not fit in memory")
    if damage is None and not whole:
        _damaged(path, "its content is not as long as it says")
    return _parse(path, memoryview(content), damage)


def _unpacked(payload: bytes, length: int) -> Tuple[memoryview, bool]:
    """What ``payload`` unpacks to, at most ``length`` bytes, and whether that is just all of it.

    It is unpacked piece by piece; what is zero takes no memory.
    """
    content = mmap.mmap(-1, length or 1)
    inflater = zlib.decompressobj()
    at, rest = 0, payload
    with suppress(zlib.error):
        while not inflater.eof:
            piece = inflater.decompress(rest, PIECE)
            if at + len(piece) > length or not (piece or inflater.eof):
                break
            if piece != ZEROS[: len(piece)]:
                content[at : at + len(piece)] = piece
            at += len(piece)
            rest = inflater.unconsumed_tail
    whole = inflater.eof and at == length and not inflater.unused_data
    return memoryview(content)[:at], whole


def _declared(path: str, stored: bytes, size: int) -> Tuple[int, Optional[str]]:
    """How long the content may be by the file's beginning ``stored``, and what is damaged there."""
    if len(stored) < PREFIX.size + DIGEST:
        _damaged(path, "its beginning is cut off")
    _, version, payload, length = PREFIX.unpack_from(stored)
    if version != VERSION:
        raise RecordingError(
            f"{path} is a recording of version {version}, this program reads version {VERSION}"
        )
    there = size - PREFIX.size - DIGEST
    most = min(CONTENT_MAX, EXPANSION_BASE + EXPANSION_MAX * there)
    if there != payload:
        return most, f"it has {size} bytes, not the {PREFIX.size + DIGEST + payload} it says"
    if length > most:
        return most, f"{payload} bytes cannot hold the {length} it says"
    return length, None


def _parse(path: str, content: memoryview, damage: Optional[str]) -> Recording:
    try:
        (length,) = HEAD.unpack_from(content)
        if length > HEAD_MAX:
            _damaged(path, f"a head of {length} bytes is too long")
        at = HEAD.size + length
        head = json.loads(bytes(content[HEAD.size : at]))
        (count,) = COUNT.unpack_from(content, at)
    except (struct.error, ValueError, RecursionError):
        _damaged(path, damage or "its head cannot be read")
    at += COUNT.size
    if count > min((len(content) - at) // 16, RANGES_MAX):
        _damaged(path, damage or f"it has no room for {count} ranges")
    if not isinstance(head, dict) or head.keys() != {"schema", "process", "layouts"}:
        _damaged(path, "its head is not as it should be")
    if head["schema"] != SCHEMA:
        raise RecordingError(f"{path} has the schema {str(head['schema'])[:40]!r}, not {SCHEMA}")
    if not isinstance(head["layouts"], list) or not head["layouts"]:
        _damaged(path, "it holds no layout")
    process = from_json(Process, head["process"], "process")
    table = array("Q", bytes(content[at : at + 16 * count]))
    starts, sizes, data, why = _ranges(table[0::2], table[1::2], content[at + 16 * count :])
    damage = damage or why
    if damage is not None and not starts:
        _damaged(path, damage)
    return Recording(process, head["layouts"], starts, sizes, data, damage)


Ranges = Tuple[Sequence[int], Sequence[int], memoryview, Optional[str]]


def _ranges(starts: array[int], sizes: array[int], data: memoryview) -> Ranges:
    """The ranges that can be, their bytes, and what is wrong with them, None if nothing."""
    odd = _contradicting(starts, sizes)
    excess = sum(sizes) - len(data)
    if not odd and not excess:
        return starts, sizes, data, None
    lengths = list(sizes)
    fitting = [row for row in odd if excess and 0 < lengths[row] - excess < 1 << 63]
    fitting = [row for row in fitting if not _meets_next(starts, row, lengths[row] - excess)]
    if len(fitting) == 1:
        # With its size as it must have been, all others are as long as their bytes.
        lengths[fitting[0]] -= excess
    ends = list(accumulate(lengths))
    kept = [row for row in range(len(starts)) if row not in odd and ends[row] <= len(data)]
    parts = [data[ends[row] - lengths[row] : ends[row]] for row in kept]
    return (
        array("Q", [starts[row] for row in kept]),
        array("Q", [sizes[row] for row in kept]),
        memoryview(b"".join(parts)),
        "its ranges overlap" if odd else "its ranges are not as long as their bytes",
    )


def _contradicting(starts: Sequence[int], sizes: Sequence[int]) -> Set[int]:
    """The rows of ranges that are none, or not apart from others, or not in their order."""
    odd = {row for row, size in enumerate(sizes) if not size or starts[row] + size > ADDRESS_END}
    end, last = 0, -1
    for row, (start, size) in enumerate(zip(starts, sizes)):
        if row not in odd:
            if start < end:
                odd |= {last, row}
            end, last = start + size, row
    rest = [row for row in range(len(starts)) if row not in odd]
    if any(starts[a] + sizes[a] > starts[b] for a, b in zip(rest, rest[1:])):
        return set(range(len(starts)))
    return odd


def _meets_next(starts: Sequence[int], row: int, size: int) -> bool:
    return row + 1 < len(starts) and starts[row] + size > starts[row + 1]


def _damaged(path: str, why: str) -> NoReturn:
    raise RecordingError(f"the recording {path} is damaged: {why}", "copy it anew")
