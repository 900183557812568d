"""Small sound inputs to start from."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

from drain_gdb.debuggee import recording
from drain_gdb.debuggee.corenotes import NT_AUXV, NT_FILE, NT_PRPSINFO
from drain_gdb.debuggee.elf import ET_CORE, HEADER, PROGRAM_HEADER, PT_LOAD, PT_NOTE
from drain_gdb.debuggee.recording import DIGEST, PREFIX, Recorder
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.printed import END
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.serialize import to_value
from drain_gdb.memory import Memory
from tests.support.fakeheap import ACTIVE, DIRTY, FakeHeap
from tests.support.inputs import ROOT

X86_64 = 62
NT_PRSTATUS = 1
PROGRAM = "/opt/none/server"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
AT_PHDR, AT_PHENT, AT_PHNUM = 3, 4, 5


def heap() -> FakeHeap:
    """A few slabs, other extents and thread caches."""
    fake = FakeHeap(arenas=(0, 3), shards=2)
    slabs = [fake.slab(1, range(0, 256, 1 + n), arena=3 * (n % 2)) for n in range(12)]
    fake.slab(3, [0], gap=1 << 31)
    fake.extent(5, ACTIVE, fake.parameters.nbins)
    fake.extent(7, DIRTY, arena=3)
    fake.cache(0, {1: slabs[:3]}, {1: [slabs[4]]})
    fake.cache(3, {1: slabs[6:8]})
    return fake


def record(path: Path) -> None:
    """Write a recording of that heap."""
    target = heap().target()
    (found,), _ = find_heaps(target, lambda: Memory(target.read))
    recorder = Recorder()
    walk(Memory(target.read, recorder=recorder), found.layout)
    recording.write(str(path), target.process(), [to_value(found.layout)], recorder)


def recordings() -> Iterator[bytes]:
    """What a recording holds behind its beginning: its content, compressed."""
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "file")
        yield (Path(folder) / "file").read_bytes()[PREFIX.size + DIGEST :]


def contents() -> Iterator[bytes]:
    """The beginning of the same, uncompressed: its head and its ranges, as of version 1."""
    for packed in recordings():
        content = zlib.decompress(packed)
        (head,) = struct.unpack_from("<I", content)
        (count,) = struct.unpack_from("<Q", content, 4 + head)
        table = 12 + head + 16 * count
        yield content[:table] + content[table + 4 * count :][:4096]
        yield content[: 4 + head] + struct.pack("<QQQ", 1, 4096, 64) + bytes(range(64))


def _note(kind: int, data: bytes) -> bytes:
    head = struct.pack("<III", 5, len(data), kind) + b"CORE\0\0\0\0"
    return head + data + bytes(-len(data) % 4)


def cores() -> Iterator[bytes]:
    """A core with a little memory of its program, and one with none."""
    program, start = PROGRAM.encode() + b"\0", 0x5555_5555_4000
    library, there = LIBRARY.encode() + b"\0", 0x7F00_0000_0000
    files = struct.pack("<QQ", 2, 4096)
    files += struct.pack("<QQQ", start, start + 8192, 0)
    files += struct.pack("<QQQ", there, there + (1 << 20), 0)
    auxiliary = [(AT_PHDR, start + 64), (AT_PHENT, 56), (AT_PHNUM, 3), (0, 0)]
    notes = _note(NT_PRPSINFO, bytes(56) + b"server --port 1".ljust(80, b"\0"))
    notes += _note(NT_PRSTATUS, bytes(336))
    notes += _note(NT_AUXV, b"".join(struct.pack("<QQ", *pair) for pair in auxiliary))
    notes += _note(NT_FILE, files + program + library)
    for with_memory in (True, False):
        segments: List[Tuple[int, int, int, bytes]] = [
            (PT_NOTE, 4, 0, notes),
            (PT_LOAD, 6, start, bytes(range(256)) * 4 if with_memory else b""),
            (PT_LOAD, 4, there, b""),
        ]
        offset = HEADER.size + len(segments) * PROGRAM_HEADER.size
        table = body = b""
        for kind, flags, address, data in segments:
            at = offset + len(body)
            size = len(data) if kind == PT_NOTE else 8192
            table += PROGRAM_HEADER.pack(kind, flags, at, address, 0, len(data), size, 1)
            body += data
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        fields = (ident, ET_CORE, X86_64, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
        yield HEADER.pack(*fields) + table + body


def damages() -> Iterator[bytes]:
    """Instructions for the walkers' target: a field and what to write there."""
    for number in range(40):
        yield struct.pack("<BHBQ", number % 24, number * 7, number % 8, 1 << number)


def statistics() -> Iterator[bytes]:
    """The first kilobytes of real outputs, closed so that they are whole, and what is around."""
    for path in sorted((ROOT / "tests" / "statistics").glob("*.txt")):
        lines = path.read_text().splitlines(keepends=True)
        yield "".join([*lines[:90], END]).encode()
    tree = {"bins": [{"curregs": 1, "curslabs": 1}], "lextents": [{"curlextents": 1}]}
    sizes = {"bin": [{"size": 8, "nregs": 512, "slab_size": 4096}], "lextent": [{"size": 16384}]}
    whole = {"arenas": {"page": 4096, **sizes}, "stats.arenas": {"merged": tree, "0": tree}}
    yield json.dumps({"jemalloc": whole}).encode()


SEEDS: Dict[str, Callable[[], Iterator[bytes]]] = {
    "recording": recordings,
    "content": contents,
    "core": cores,
    "walk": damages,
    "statistics": statistics,
}
