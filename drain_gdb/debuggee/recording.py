"""A recording: the allocator metadata that one walk read, in a file, and its replay.

The file, integers little-endian:

    magic (8 bytes), version (u32), length of the payload, of the content (u64 each),
    SHA-256 of all of the above and the payload (32 bytes), the payload: the content
    compressed by zlib

    content: length of the head (u32), the head: JSON with the schema, the process,
    the layouts, their settings and, if known, what is resident; the number of ranges (u64);
    address and size of each (u64 each); CRC-32 of each (u32 each), of its address and
    size and its bytes; their bytes

Ranges are apart, in the order in which the walk came to them: where a file is cut off,
what all else hangs from is there.  In version 1 they were ascending, without CRC-32.
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
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import itemgetter
from typing import Dict, Iterator, List, NoReturn, Optional, Sequence, Set, Tuple, Union
from typing import Mapping as MappingOf

from drain_gdb.debuggee.files import MAGIC, begins_as_recording
from drain_gdb.debuggee.homes import without_homes
from drain_gdb.debuggee.protocol import (
    Identity,
    Mapping,
    Module,
    Process,
    Struct,
    Symbol,
    Thread,
)
from drain_gdb.debuggee.residence import Residence, from_value, to_value
from drain_gdb.debuggee.serialize import from_json, to_json
from drain_gdb.errors import OutputError, RecordingError, UnreadableMemory
from drain_gdb.memory import ADDRESS_END

SCHEMA = "drain_gdb.recording/1"
VERSION = 2
VERSIONS = (1, 2)
PREFIX = struct.Struct("<8sIQQ")
DIGEST = 32
CONTENT_MAX = 1 << 31
"""Bytes; the metadata of ten million slabs takes some 1.4 GB."""
HEAD_MAX = 1 << 26
"""With the states of the pages of some hundred GB."""
NEEDED = {"schema", "process", "layouts"}
"""What every head holds."""
OPTIONAL = {"residence", "settings", "identity"}
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
ROW = struct.Struct("<QQ")
HEAD = struct.Struct("<I")
PART = 1 << 14
"""Bytes of a range that have a checksum of their own; longer ones are split."""


class Recorder:
    """Collects the bytes that a walk asks for; hand it to ``Memory(recorder=...)``."""

    def __init__(self) -> None:
        self._pieces: Dict[int, bytes] = {}

    def __call__(self, address: int, data: bytes) -> None:
        """Keep ``data``, which was read at ``address``."""
        known = self._pieces.get(address)
        if known is None or len(known) < len(data):
            self._pieces[address] = data

    def ranges(self) -> List[Tuple[int, bytes]]:
        """``(address, bytes)`` of each range, apart, in the order of the first read of each."""
        read = {address: number for number, address in enumerate(self._pieces)}
        found: List[Tuple[int, int, List[bytes]]] = []
        end = -1
        for address in sorted(self._pieces):
            data = self._pieces[address]
            if address > end:
                found.append((read[address], address, []))
                end = address
            first, start, parts = found[-1]
            found[-1] = min(first, read[address]), start, parts
            if address + len(data) > end:
                parts.append(data[end - address :])
                end = address + len(data)
        return [(start, b"".join(parts)) for _, start, parts in sorted(found, key=itemgetter(0))]


@dataclass(frozen=True)
class Recording:
    """What a file holds.

    Attributes:
        process: as it was seen when it was recorded.
        layouts: the jemallocs found in it, as JSON values.
        starts, sizes, offsets: the ranges, ascending and apart, and where in ``data`` each is.
        residence: what was resident; None where it was not known, or not yet recorded.
        settings: of each jemalloc, as JSON values; none where they were not yet recorded.
        damage: what is wrong with the file, None if nothing: then ranges may be missing,
            and bytes other than they were.
        identity: what tells the process from others; nothing of it was recorded before.

    """

    process: Process
    layouts: Sequence[object]
    starts: Sequence[int]
    sizes: Sequence[int]
    offsets: Sequence[int]
    data: memoryview
    residence: Optional[Residence] = None
    settings: Sequence[object] = ()
    damage: Optional[str] = None
    identity: Identity = field(default_factory=Identity)


class RecordingTarget:
    """A recording as a target: the ranges it holds, and nothing else, can be read."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

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
                offset = self._recording.offsets[row] + at
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

    def threads(self) -> Sequence[Thread]:
        """None: a recording has no registers."""
        return ()

    def auxiliary(self) -> MappingOf[int, int]:
        """Empty: it is not recorded."""
        return {}

    def residence(self) -> Optional[Residence]:
        """What was resident of it when it was recorded."""
        return self._recording.residence

    def settings(self) -> Sequence[object]:
        """The settings of each jemalloc when it was recorded, as JSON values."""
        return self._recording.settings

    def identity(self) -> Identity:
        """What tells the process from others, as far as it was recorded."""
        return self._recording.identity

    def layouts(self) -> Optional[Sequence[object]]:
        """The jemallocs that were found when it was recorded."""
        return self._recording.layouts


def write(
    path: str,
    process: Process,
    layouts: Sequence[object],
    recorder: Recorder,
    residence: Optional[Residence] = None,
    settings: Sequence[object] = (),
    identity: Identity = Identity(),  # noqa: B008 - it is frozen
    *,
    overwrite: bool = False,
) -> int:
    """Write a recording, whole or not at all, readable by its owner; returns its bytes.

    Raises :class:`OutputError`; a file that is there is kept unless ``overwrite``.
    """
    found: Dict[str, object] = {
        "schema": SCHEMA,
        "process": to_json(process),
        "layouts": layouts,
        "settings": settings,
        "identity": to_json(identity),
    }
    if residence is not None:
        found["residence"] = to_value(residence)
    head = json.dumps(without_homes(found))
    compressor = zlib.compressobj(LEVEL)
    payload = bytearray()
    length = 0
    ranges = [
        (start + at, data[at : at + PART])
        for start, data in recorder.ranges()
        for at in range(0, len(data), PART)
    ]
    for part in _content(head.encode(), ranges):
        payload += compressor.compress(part)
        length += len(part)
    payload += compressor.flush()
    if length > CONTENT_MAX:
        raise OutputError(f"cannot write {path}: {length} bytes of metadata are too many")
    prefix = PREFIX.pack(MAGIC, VERSION, len(payload), length)
    digest = hashlib.sha256(prefix + payload).digest()
    place(path, (prefix, digest, bytes(payload)), overwrite)
    return len(prefix) + len(digest) + len(payload)


def _content(head: bytes, ranges: Sequence[Tuple[int, bytes]]) -> Iterator[bytes]:
    yield HEAD.pack(len(head)) + head + COUNT.pack(len(ranges))
    yield b"".join(ROW.pack(start, len(data)) for start, data in ranges)
    yield array("I", [_crc(start, data) for start, data in ranges]).tobytes()
    for _, data in ranges:
        yield data


def _crc(start: int, data: Union[bytes, memoryview]) -> int:
    return zlib.crc32(data, zlib.crc32(ROW.pack(start, len(data))))


def place(path: str, parts: Sequence[bytes], overwrite: bool) -> None:
    """Put a file of ``parts`` at ``path``, whole or not at all, readable by its owner.

    Raises :class:`OutputError`; a file that is there is kept unless ``overwrite``.
    """
    try:
        _place(path, parts, overwrite)
    except FileExistsError:
        raise OutputError(f"{path} is there already", "add --force to replace it") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


def _place(path: str, parts: Sequence[bytes], overwrite: bool) -> None:
    """Do so in one step; mkstemp() makes it mode 0600."""
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
            if not begins_as_recording(stored):
                raise RecordingError(f"{path} is not a recording")
            size = os.fstat(file.fileno()).st_size
            length, damage = _declared(path, stored, size)
            # Room is made for all that is asked for.
            payload = file.read(min(size, CONTENT_MAX))
    except OSError as error:
        raise RecordingError(f"cannot open {path}: {error.strerror}") from None
    _, version, _, _ = PREFIX.unpack_from(stored)
    if hashlib.sha256(stored[: PREFIX.size] + payload).digest() != stored[PREFIX.size :]:
        # What it says of its length may be what is damaged.
        length = _most(len(payload))
        damage = damage or "its checksum does not match"
    if damage is None and version not in VERSIONS:
        raise RecordingError(
            f"{path} is a recording of version {version}, this program reads version {VERSION}"
        )
    try:
        content, whole = _unpacked(payload, length)
    except (MemoryError, OSError) as error:
        _damaged(path, str(error) or "it does not fit in memory")
    if damage is None and not whole:
        _damaged(path, "its content is not as long as it says")
    return _parse(path, version, content, damage)


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
    """By the beginning: how long the content may be, and what is damaged."""
    if len(stored) < PREFIX.size + DIGEST:
        _damaged(path, "its beginning is cut off")
    _, _, payload, length = PREFIX.unpack_from(stored)
    there = size - PREFIX.size - DIGEST
    most = _most(there)
    if there != payload:
        return most, f"it has {size} bytes, not the {PREFIX.size + DIGEST + payload} it says"
    if length > most:
        return most, f"{payload} bytes cannot hold the {length} it says"
    return length, None


def _most(payload: int) -> int:
    """The most bytes that so many of a payload can unpack to."""
    return min(CONTENT_MAX, EXPANSION_BASE + EXPANSION_MAX * payload)


def _parse(path: str, version: int, content: memoryview, damage: Optional[str]) -> Recording:
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
    sums = 0 if version == 1 else 4 * count
    if count > min((len(content) - at) // 16, RANGES_MAX) or at + 16 * count + sums > len(content):
        _damaged(path, damage or f"it has no room for {count} ranges")
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
    identity = from_json(Identity, head.get("identity", {}), "identity")
    table = array("Q", bytes(content[at : at + 16 * count]))
    at += 16 * count
    crcs = array("I", bytes(content[at : at + sums]))
    ranges, why = _ranges(table, crcs, content[at + sums :])
    damage = damage or why
    if damage is not None and not ranges:
        _damaged(path, damage)
    starts, sizes, offsets = (array("Q", [each[i] for each in ranges]) for i in range(3))
    return Recording(
        process=process,
        layouts=head["layouts"],
        starts=starts,
        sizes=sizes,
        offsets=offsets,
        data=content[at + sums :],
        residence=residence,
        settings=settings,
        damage=damage,
        identity=identity,
    )


Range = Tuple[int, int, int]
"""Address, size, and where in the data its bytes are."""


def _ranges(
    table: Sequence[int], crcs: Sequence[int], data: memoryview
) -> Tuple[List[Range], Optional[str]]:
    """The ranges that can be, ascending, and what is wrong with the others."""

    def matches(each: Range, crc: int) -> bool:
        start, size, at = each
        return _possible(each, len(data)) and _crc(start, data[at : at + size]) == crc

    starts, sizes = table[0::2], list(table[1::2])
    found = list(zip(starts, sizes, accumulate(sizes, initial=0)))
    excess = sum(sizes) - len(data)
    why = "its ranges are not as long as their bytes" if excess else None
    odd = next((row for row, pair in enumerate(zip(found, crcs)) if not matches(*pair)), None)
    if excess and odd is not None and sizes[odd] > excess:
        # If it is the size that is damaged, the others are where this leaves them.
        sizes[odd] -= excess
        found = list(zip(starts, sizes, accumulate(sizes, initial=0)))
    kept = [each for each in found if _possible(each, len(data))]
    if odd is not None:
        why = why or "checksums of its ranges do not match"
        kept = [each for each, crc in zip(found, crcs) if matches(each, crc)]
    elif not crcs and _clashing(kept):
        why = why or "its ranges overlap"
        wrong = _clashing(kept)
        kept = [each for each in kept if each not in wrong]
    kept.sort()
    clashing = _clashing(kept)
    if clashing or len(kept) < len(found):
        why = why or "its ranges overlap"
    return _joined([each for each in kept if each not in clashing] if clashing else kept), why


def _joined(ranges: Sequence[Range]) -> List[Range]:
    """Ranges, ascending, as long as they were before they were split."""
    found: List[Range] = []
    for start, size, at in ranges:
        if found and found[-1][0] + found[-1][1] == start and found[-1][2] + found[-1][1] == at:
            found[-1] = found[-1][0], found[-1][1] + size, found[-1][2]
        else:
            found.append((start, size, at))
    return found


def _possible(each: Range, length: int) -> bool:
    start, size, offset = each
    return size > 0 and start + size <= ADDRESS_END and offset + size <= length


def _clashing(ranges: Sequence[Range]) -> Set[Range]:
    """Those of a list of ranges that do not end before the next one begins, and the next ones."""
    pairs = zip(ranges, ranges[1:])
    return {each for a, b in pairs if a[0] + a[1] > b[0] for each in (a, b)}


def _damaged(path: str, why: str) -> NoReturn:
    raise RecordingError(f"the recording {path} is damaged: {why}", "copy it anew")
