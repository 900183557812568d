"""A recording: the allocator metadata that one walk read, in a file, and its replay.

The file, integers little-endian:

    magic (8 bytes), version (u32), length of the payload, of the content (u64 each),
    SHA-256 of all of the above and the payload (32 bytes), the payload: the content
    compressed by zlib

    content: length of the head (u32), the head: JSON with the schema, the process,
    the layouts, their settings and, if known, what is resident; the number of ranges (u64);
    address and size of each (u64 each), ascending; their bytes
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
from typing import Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

from drain_gdb.debuggee.homes import without_homes
from drain_gdb.debuggee.protocol import Mapping, Module, Process, Struct, Symbol
from drain_gdb.debuggee.residence import Residence, from_value, to_value
from drain_gdb.debuggee.serialize import from_json, to_json
from drain_gdb.errors import OutputError, RecordingError, UnreadableMemory

SCHEMA = "drain_gdb.recording/1"
MAGIC = b"\x89DRAIN\r\n"
VERSION = 1
PREFIX = struct.Struct("<8sIQQ")
DIGEST = 32
CONTENT_MAX = 1 << 31
"""Bytes; the metadata of ten million slabs takes some 1.4 GB."""
HEAD_MAX = 1 << 26
"""With the states of the pages of some hundred GB."""
NEEDED = {"schema", "process", "layouts"}
"""What every head holds."""
OPTIONAL = {"residence", "settings"}
"""What newer ones may hold."""
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
        residence: what was resident; None where it was not known, or not yet recorded.
        settings: of each jemalloc, as JSON values; none where they were not yet recorded.

    """

    process: Process
    layouts: Sequence[object]
    starts: Sequence[int]
    sizes: Sequence[int]
    data: memoryview
    residence: Optional[Residence] = None
    settings: Sequence[object] = ()


class RecordingTarget:
    """A recording as a target: the ranges it holds, and nothing else, can be read."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._offsets = array("Q", [0])
        for size in recording.sizes:
            self._offsets.append(self._offsets[-1] + size)

    def process(self) -> Process:
        """Who was recorded."""
        return replace(self._recording.process, source="recording", debugger="none")

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

    def residence(self) -> Optional[Residence]:
        """What was resident of it when it was recorded."""
        return self._recording.residence

    def settings(self) -> Sequence[object]:
        """The settings of each jemalloc when it was recorded, as JSON values."""
        return self._recording.settings

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
    residence: Optional[Residence] = None,
    settings: Sequence[object] = (),
    *,
    overwrite: bool = False,
) -> int:
    """Write a recording, whole or not at all, readable by its owner; returns its bytes.

    Raises :class:`OutputError`; a file that is there is kept unless ``overwrite``.
    """
    ranges, pieces = recorder.ranges()
    found: Dict[str, object] = {
        "schema": SCHEMA,
        "process": to_json(process),
        "layouts": layouts,
        "settings": settings,
    }
    if residence is not None:
        found["residence"] = to_value(residence)
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
    """The recording at ``path``.

    Raises :class:`RecordingError` where it is damaged, of another version, or none.
    """
    try:
        with open(path, "rb") as file:
            stored = file.read(PREFIX.size + DIGEST)
            if not stored.startswith(MAGIC):
                raise RecordingError(f"{path} is not a recording")
            length = _declared(path, stored, os.fstat(file.fileno()).st_size)
            payload = file.read()
    except OSError as error:
        raise RecordingError(f"cannot open {path}: {error.strerror}") from None
    if hashlib.sha256(stored[: PREFIX.size] + payload).digest() != stored[PREFIX.size :]:
        _damaged(path, "its checksum does not match")
    try:
        content = _unpacked(payload, length)
    except (zlib.error, MemoryError, OSError) as error:
        _damaged(path, str(error) or "it does not fit in memory")
    if content is None:
        _damaged(path, "its content is not as long as it says")
    return _parse(path, memoryview(content))


def _unpacked(payload: bytes, length: int) -> Optional[mmap.mmap]:
    """The ``length`` bytes that ``payload`` unpacks to; None where they are more or less.

    They are unpacked piece by piece; what is zero takes no memory.
    """
    content = mmap.mmap(-1, length or 1)
    inflater = zlib.decompressobj()
    at, rest = 0, payload
    while not inflater.eof:
        piece = inflater.decompress(rest, PIECE)
        if at + len(piece) > length or not (piece or inflater.eof):
            return None
        if piece != ZEROS[: len(piece)]:
            content[at : at + len(piece)] = piece
        at += len(piece)
        rest = inflater.unconsumed_tail
    return None if at != length or inflater.unused_data else content


def _declared(path: str, stored: bytes, size: int) -> int:
    """The length of the content that the file's beginning ``stored`` declares."""
    if len(stored) < PREFIX.size + DIGEST:
        _damaged(path, "its beginning is cut off")
    _, version, payload, length = PREFIX.unpack_from(stored)
    if version != VERSION:
        raise RecordingError(
            f"{path} is a recording of version {version}, this program reads version {VERSION}"
        )
    if size != PREFIX.size + DIGEST + payload:
        _damaged(path, f"it has {size} bytes, not the {PREFIX.size + DIGEST + payload} it says")
    if max(payload, length) > CONTENT_MAX or length > EXPANSION_BASE + EXPANSION_MAX * payload:
        _damaged(path, f"{payload} bytes cannot hold the {length} it says")
    return int(length)


def _parse(path: str, content: memoryview) -> Recording:
    try:
        (length,) = HEAD.unpack_from(content)
        if length > HEAD_MAX:
            _damaged(path, f"a head of {length} bytes is too long")
        at = HEAD.size + length
        head = json.loads(bytes(content[HEAD.size : at]))
        (count,) = COUNT.unpack_from(content, at)
    except (struct.error, ValueError, RecursionError):
        _damaged(path, "its head cannot be read")
    at += COUNT.size
    if count > min((len(content) - at) // 16, RANGES_MAX):
        _damaged(path, f"it has no room for {count} ranges")
    table = array("Q", bytes(content[at : at + 16 * count]))
    starts, sizes = table[0::2], table[1::2]
    at += 16 * count
    end = 0
    for start, size in zip(starts, sizes):
        if start < end or not size or start + size > ADDRESS_END:
            _damaged(path, "its ranges overlap")
        end = start + size
    if sum(sizes) != len(content) - at:
        _damaged(path, "its ranges are not as long as their bytes")
    if not isinstance(head, dict) or head.keys() - OPTIONAL != NEEDED:
        _damaged(path, "its head is not as it should be")
    if head["schema"] != SCHEMA:
        raise RecordingError(f"{path} has the schema {str(head['schema'])[:40]!r}, not {SCHEMA}")
    if not isinstance(head["layouts"], list) or not head["layouts"]:
        _damaged(path, "it holds no layout")
    process = from_json(Process, head["process"], "process")
    residence = from_value(head["residence"]) if "residence" in head else None
    settings = head.get("settings", [])
    if not isinstance(settings, list):
        _damaged(path, "its settings are none")
    return Recording(process, head["layouts"], starts, sizes, content[at:], residence, settings)


def _damaged(path: str, why: str) -> NoReturn:
    raise RecordingError(f"the recording {path} is damaged: {why}", "copy it anew")
