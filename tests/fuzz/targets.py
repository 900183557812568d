"""What is fuzzed: functions of bytes that may raise named errors, and nothing else.

Each is bounded: more reads than any input of its size may cost are a failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Callable, Dict

from drain_gdb.analysis.report import Selection, Sweep
from drain_gdb.analysis.statistics import sweep_statistics
from drain_gdb.analysis.sweep import VIEWS, sweep
from drain_gdb.debuggee import corefile, corenotes, recording
from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.recording import MAGIC, PREFIX, RecordingTarget
from drain_gdb.errors import DrainError
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.printed import parse
from drain_gdb.memory import Memory
from drain_gdb.render import machine, text
from drain_gdb.render.style import Style
from tests.faults.mutate import Damage, DamagedTarget
from tests.faults.twins import Twin
from tests.faults.twins import of_recording as of_recording_file
from tests.fuzz.seeds import LIBRARY, PROGRAM, record

READS_MAX = 1 << 20
BYTES_MAX = 1 << 36
CONTENT_MAX = 1 << 24
DAMAGE = struct.Struct("<BHBQ")
KEPT, FLIPPED, ADDED, PLACED, LOST = range(5)


class TooMuch(AssertionError):
    """More was read than any input may cost."""


def _swept(target: Target, view: int) -> None:
    """Everything drainsweep does with a target."""
    reads = size = 0

    def read(address: int, length: int) -> bytes:
        nonlocal reads, size
        reads, size = reads + 1, size + length
        if reads > READS_MAX or size > BYTES_MAX:
            raise TooMuch(f"{reads} reads, {size} bytes")
        return target.read(address, length)

    heaps, _ = find_heaps(target, lambda: Memory(read))
    for heap in heaps:
        report = sweep(heap, target.process(), Selection(VIEWS[view % len(VIEWS)]))
        _shown(report)


def _shown(report: Sweep) -> None:
    """Every way of showing a report, none of which may steer a terminal."""
    shown = [text.render(report, Style()), machine.as_json([report])]
    shown += [machine.as_csv(report), machine.as_info(report)]
    for each in shown:
        assert all(line.isprintable() for line in each.split("\n"))


def of_recording(data: bytes) -> None:
    """A recording whose content is ``data``, compressed; it is sealed anew, then replayed.

    It is one of version 1, whose ranges have no checksums that would have to be right.
    """
    inflater = zlib.decompressobj()
    try:
        length = len(inflater.decompress(data, CONTENT_MAX))
    except zlib.error:
        length = len(data)
    prefix = PREFIX.pack(MAGIC, 1, len(data), length)
    with tempfile.NamedTemporaryFile(dir=_quick_folder()) as file:
        file.write(prefix + hashlib.sha256(prefix + data).digest() + data)
        file.flush()
        with contextlib.suppress(DrainError):
            _swept(RecordingTarget(recording.read(file.name)), length)


def of_content(data: bytes) -> None:
    """A recording whose content, uncompressed, is ``data``."""
    of_recording(zlib.compress(data, 1))


def of_core(data: bytes) -> None:
    """A core whose file is ``data``."""
    with tempfile.NamedTemporaryFile(dir=_quick_folder()) as file:
        file.write(data)
        file.flush()
        for look in (corefile.machine_of, corenotes.read_notes, _direct):
            with contextlib.suppress(DrainError):
                look(file.name)


def _direct(path: str) -> None:
    with File(path) as file:
        _swept(CoreTarget(file, sysroot=_root()), 0)


def of_walk(data: bytes) -> None:
    """A heap with fields changed as ``data`` says, an instruction each 12 bytes."""
    twin = _twin()
    kinds = sorted(twin.spots)
    damage = Damage("fuzzed")
    for kind, index, deed, value in DAMAGE.iter_unpack(data[: len(data) // 12 * 12]):
        spots = twin.spots[kinds[kind % len(kinds)]]
        spot = spots[index % len(spots)]
        old = int.from_bytes(twin.target.read(spot.address, spot.size), "little")
        if deed % 5 == LOST:
            damage.holes.append((spot.address & -4096, (spot.address & -4096) + 4096))
            continue
        other = spots[value % len(spots)].address
        new = {KEPT: value, FLIPPED: old ^ value, ADDED: old + value, PLACED: other}[deed % 5]
        damage.patches[spot.address] = (new % (1 << 8 * spot.size)).to_bytes(spot.size, "little")
    target: Target = DamagedTarget(twin.target, damage)  # type: ignore[assignment]
    with contextlib.suppress(DrainError):
        _swept(target, len(data))


def of_statistics(data: bytes) -> None:
    """Text that malloc_stats_print() may have printed."""
    with contextlib.suppress(DrainError):
        report = sweep_statistics(parse(data.decode("utf-8", "replace")), Selection())
        _shown(report)


@cache
def _twin() -> Twin:
    """A small heap whose layout is known."""
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "made.drain")
        return of_recording_file(Path(folder) / "made.drain", filled=True)


@cache
def _quick_folder() -> str:
    """Memory, where there is a file system in it."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


@cache
def _root() -> str:
    """Where the files are that the seeds name, and no others."""
    root = tempfile.mkdtemp()
    for path, real in ((PROGRAM, "/bin/true"), (LIBRARY, LIBRARY)):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        shutil.copyfile(real, root + path)
    return root


TARGETS: Dict[str, Callable[[bytes], None]] = {
    "recording": of_recording,
    "content": of_content,
    "core": of_core,
    "walk": of_walk,
    "statistics": of_statistics,
}
