"""Recordings: the same report from the file, and nothing in it but metadata."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import struct
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import pytest

from drain_gdb.analysis.report import Selection, Sweep
from drain_gdb.analysis.sweep import sweep
from drain_gdb.commands.base import Context
from drain_gdb.commands.record import RecordCommand
from drain_gdb.debuggee import recording
from drain_gdb.debuggee.files import is_recording
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.recording import DIGEST, MAGIC, PREFIX, Recorder, RecordingTarget
from drain_gdb.errors import DrainError, LayoutError, OutputError, RecordingError, UnreadableMemory
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.walk import walk
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.records import Layout
from drain_gdb.layout.serialize import from_value, to_value
from drain_gdb.memory import CACHE_PAGE, Memory
from drain_gdb.render.style import Style
from tests.conftest import Livelist, RedisCore
from tests.faults.twins import Row, rows_of
from tests.support.elfwriter import without_rest
from tests.support.fakeheap import ACTIVE, BSS, DIRTY, METADATA, FakeHeap
from tests.support.inputs import ROOT, program
from tests.support.processes import Program
from tests.support.runs import Ran, gdb, of_heap, shell, sweep_json, sweeps
from tests.support.tiers import tiered

PT_LOAD = 1
LEAF = 2 << 20
MARK = "Q7#kZ!w~"
USUAL = Parameters(12, 4, 48)
NONE = ("--debugger", "none")
STATIC = ("-l:libjemalloc.a", "-lm")


def report_of(heap: Heap) -> Sweep:
    return sweep(heap, BytesTarget({}).process(), Selection("slab"))


def recorded(target: BytesTarget, layout: Layout, path: Path) -> Heap:
    """The heap as walked while it was recorded to ``path``."""
    recorder = Recorder()
    heap = walk(Memory(target.read, recorder=recorder), layout)
    recording.write(str(path), target.process(), [to_value(layout)], recorder)
    return heap


def replayed(path: Path) -> Heap:
    target = RecordingTarget(recording.read(str(path)))
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return heap


@cache
def usual() -> Tuple[BytesTarget, Layout]:
    """A heap of the usual build, and its layout."""
    target = filled(USUAL).target()
    return target, layout_of(target)


def layout_of(target: BytesTarget) -> Layout:
    """The layout of the one jemalloc in ``target``."""
    (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    return heap.layout


def filled(parameters: Parameters) -> FakeHeap:
    """A heap with all there is, whose metadata is not in one piece."""
    fake = FakeHeap(parameters, arenas=(0, 2), shards=2)
    slabs = [fake.slab(1, [0, 1, 5], arena=2 * (i % 2), gap=(i == 9) << 31) for i in range(30)]
    fake.metadata.data += bytes(3 * CACHE_PAGE)
    for _ in range(300):
        fake.slab(0, [3, 4])
        if len(fake.metadata.data) % 1152 == 0:
            fake.metadata.data += bytes(128)
    fake.extent(5, ACTIVE, parameters.nbins)
    fake.extent(7, DIRTY, arena=2)
    size = fake.bins[1][0]
    fake.cache(0, {1: [slabs[0], slabs[0] + size]}, requests=9)
    fake.cache(2, {1: [slabs[1]]}, stashed={1: [slabs[1] + 5 * size]})
    return fake


class PagedTarget(BytesTarget):
    """Bytes by the page they begin in, some of which are short or missing."""

    def read(self, address: int, size: int) -> bytes:
        found = b""
        for base in range(address & -CACHE_PAGE, address + size, CACHE_PAGE):
            start, end = max(address, base), min(address + size, base + CACHE_PAGE)
            found += self.ranges.get(base, b"")[start - base : end - base]
            if len(found) != end - address:
                raise UnreadableMemory(address, size, "a hole")
        return found


def damaged_by(target: BytesTarget, seed: int) -> BytesTarget:
    """The same with holes: whole pages, and ends inside of pages."""
    chance = random.Random(seed)
    ranges: Dict[int, bytes] = {}
    for start, data in target.ranges.items():
        pages = -(-len(data) // CACHE_PAGE)
        used = [p for p in range(pages) if any(data[p * CACHE_PAGE : (p + 1) * CACHE_PAGE])]
        lost = set(chance.choices(used, k=chance.randrange(4) if start == METADATA else 0))
        if start == BSS and chance.random() < 0.2:
            lost.add(chance.choice(used))
        if start == METADATA:
            first = chance.randrange(len(used))
            lost |= set(used[first : first + chance.randrange(6)])
        for page in range(pages):
            piece = data[page * CACHE_PAGE : (page + 1) * CACHE_PAGE]
            cut = chance.randrange(0, CACHE_PAGE, 8) if chance.random() < 0.3 else 0
            if page not in lost:
                ranges[start + page * CACHE_PAGE] = piece
            elif cut:
                ranges[start + page * CACHE_PAGE] = piece[:cut]
    return PagedTarget(ranges, target.module_list)


@pytest.mark.parametrize(
    "parameters",
    [USUAL, Parameters(16, 4, 48), Parameters(12, 3, 57), Parameters(12, 4, 64)],
    ids=["usual", "64k-pages", "57-bit-addresses", "64-bit-addresses"],
)
def test_a_heap_comes_back_whole(parameters: Parameters, tmp_path: Path) -> None:
    target = filled(parameters).target()
    layout = layout_of(target)
    heap = recorded(target, layout, tmp_path / "file")
    again = replayed(tmp_path / "file")
    assert again.layout == layout
    assert heap.verification.status == "exact"
    assert report_of(again) == report_of(heap)


@pytest.mark.parametrize("seed", tiered(range(60), lambda seed: int(seed) >= 15, str))
def test_what_could_not_be_read_still_cannot(seed: int, tmp_path: Path) -> None:
    whole, layout = usual()
    target = damaged_by(whole, seed)
    try:
        heap = recorded(target, layout, tmp_path / "file")
    except (UnreadableMemory, LayoutError):
        assert not (tmp_path / "file").exists()
        return
    assert report_of(replayed(tmp_path / "file")) == report_of(heap)


def test_only_what_was_asked_for_is_recorded(tmp_path: Path) -> None:
    """Neither the rest of a page nor what lies between two extents."""
    data = bytearray(b"\xee" * (8 * CACHE_PAGE))
    told: Dict[int, bytes] = {}
    memory = Memory(
        BytesTarget({0x10000: bytes(data)}).read, recorder=lambda at, got: told.update({at: got})
    )
    memory.u64(0x10100)
    memory.records([0x11000, 0x11080, 0x12000], 0x80)
    memory.block(0x14000, 24)
    sizes = {at: len(got) for at, got in told.items()}
    assert sizes == {0x10100: 8, 0x11000: 0x100, 0x12000: 0x80, 0x14000: 24}


def test_overlapping_reads_are_kept_once() -> None:
    recorder = Recorder()
    for start, end in ((8, 16), (0, 4), (12, 20), (8, 12), (20, 24), (2, 3), (30, 31)):
        recorder(start, bytes(range(start, end)))
    expected = [(start, bytes(range(start, end))) for start, end in ((8, 24), (0, 4), (30, 31))]
    assert recorder.ranges() == expected


# -- real processes -----------------------------------------------------------------


def record(core: Path, folder: Path) -> Path:
    file = folder / "file.drain"
    ran = shell("record", core, "-o", file)
    assert ran.status == 0, ran
    assert ran.err == ""
    assert len(ran.out.splitlines()) == 1
    assert ran.out.startswith(f"{file}: ")
    assert "; verified" in ran.out
    assert "stopped" not in ran.out
    return file


def as_recording(report: Dict[str, Any]) -> Dict[str, Any]:
    return {**report, "process": {**report["process"], "source": "recording", "debugger": "none"}}


def without_gdb(folder: Path, *arguments: object) -> Ran:
    """The shell form where no debugger can be started or imported."""
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "gdb.py").write_text("raise ImportError('gdb was imported')\n")
    paths = f"{hidden}{os.pathsep}{ROOT}"
    return shell(*arguments, env={"PATH": str(hidden), "PYTHONPATH": paths})


@pytest.mark.parametrize(
    "source", tiered(("stripped_redis", "livelist", "dwarf_redis"), "stripped_redis".__ne__, str)
)
def test_the_report_is_the_same(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Livelist | RedisCore = request.getfixturevalue(source)
    file = record(found.core, tmp_path)
    assert file.stat().st_size < found.core.stat().st_size / 20
    ways = ("bin", "arena", "slab")
    *by_gdb, text = sweeps(
        found.core, tmp_path, *(f"--by {by} --format json" for by in ways), "--format text"
    )
    for by, expected in zip(ways, by_gdb):
        ran = without_gdb(tmp_path, "sweep", file, "--by", by, "--format", "json")
        assert (ran.status, ran.err) == (0, "")
        assert json.loads(ran.out) == as_recording(json.loads(expected.out))
    shown = without_gdb(tmp_path, "sweep", file, "--debugger", "none").out
    assert shown.split() == text.out.replace("core of", "recording of", 1).split()


def test_a_live_process(livelist: Livelist, tmp_path: Path) -> None:
    file = tmp_path / "file"
    ran = shell("record", "--pid", livelist.pid, "-o", file)
    assert (ran.status, ran.err) == (0, ""), ran
    stopped = float(ran.out.split("the process was stopped for ")[1].split(" s")[0])
    assert 0 < stopped < 60
    status = Path(f"/proc/{livelist.pid}/status").read_text()
    assert "TracerPid:\t0" in status
    replay, core = sweep_json(file, "--by", "slab"), sweep_json(livelist.core, "--by", "slab")
    assert replay["process"].pop("taken_at") is not None
    assert core["process"].pop("taken_at") is None
    # A core knows less of what was resident.
    accounts = [report["account"]["source"] for report in (replay, core)]
    assert accounts == ["pagemap", "core"]
    assert of_heap(replay) == of_heap(as_recording(core))


def test_typed_into_gdb(livelist: Livelist, tmp_path: Path) -> None:
    file = tmp_path / "file"
    ran = gdb(
        f"drainrecord {file}",
        f"drainrecord {file}",
        f"drainrecord --force --quiet {file}",
        "print $_drain_status",
        arguments=["-p", str(livelist.pid)],
    )
    (line,) = (line for line in ran.out.splitlines() if line.startswith(str(file)))
    assert "the process is still stopped" in line
    assert ran.err.count(f"drainrecord: {file} is there already; add --force") == 1
    assert "$1 = 0" in ran.out
    assert sweep_json(file)["process"]["pid"] == livelist.pid


def test_a_recording_of_a_recording_is_the_same(livelist: Livelist, tmp_path: Path) -> None:
    first = record(livelist.core, tmp_path)
    second = tmp_path / "second"
    assert without_gdb(tmp_path, "record", first, "-o", second).status == 0
    assert sweep_json(second) == sweep_json(first)
    assert recording.read(str(first)).data == recording.read(str(second)).data


def test_a_core_with_a_part_missing_gives_the_same_partial_report(
    livelist: Livelist, tmp_path: Path
) -> None:
    whole = recording.read(str(record(livelist.core, tmp_path)))
    extents = [at for at, size in zip(whole.starts, whole.sizes) if 128 <= size < LEAF]
    lost = 0
    for share in (0.5, 0.9, 0.98):
        at = extents[int(share * len(extents))]
        core = without_rest(livelist.core, tmp_path / "core", at & -CACHE_PAGE)
        direct = shell("sweep", core, *NONE, "--by", "slab", "--format", "json")
        ran = shell("record", core, *NONE, "--force", "-o", tmp_path / "partial")
        assert ran.status == direct.status
        if direct.status == 3:
            report = json.loads(direct.out)
            lost += report["coverage"]["slabs_unreadable"]
            assert "PARTIAL" in ran.out
            replay = shell("sweep", tmp_path / "partial", "--by", "slab", "--format", "json")
            assert replay.status == 3
            assert json.loads(replay.out) == as_recording(report)
    assert lost


# -- nobody's data leaks ------------------------------------------------------------


def _content(file: Path) -> bytes:
    return zlib.decompress(file.read_bytes()[PREFIX.size + DIGEST :])


def _windows(size: int) -> List[bytes]:
    """Every run of ``size`` bytes of memory that is full of the mark."""
    mark = MARK.encode() * 2
    return [mark[at : at + size] for at in range(len(MARK))]


@pytest.mark.parametrize("linked", [STATIC, ("-ljemalloc",)], ids=["static", "shared"])
def test_no_byte_of_the_program_is_recorded(linked: Tuple[str, ...], tmp_path: Path) -> None:
    child = Program([str(program("secret", *linked)), MARK])
    try:
        file = tmp_path / "file"
        ran = shell("record", "--pid", child.pid, "-o", file)
        pages = _pages_of(recording.read(str(file)), child.pid)
    finally:
        child.stop()
    assert ran.status == 0, ran
    content = _content(file)
    assert len(content) > 1 << 20
    for window in _windows(4):
        assert window not in content
        assert window in pages
    assert MARK.encode() not in file.read_bytes()


def _pages_of(found: recording.Recording, pid: int) -> bytes:
    """The pages, whole, that hold recorded bytes: what a recording by page would leak."""
    bases = set()
    for start, size in zip(found.starts, found.sizes):
        bases |= {start & -CACHE_PAGE, start + size - 1 & -CACHE_PAGE}
    pages = []
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for base in sorted(bases):
            memory.seek(base)
            pages.append(memory.read(CACHE_PAGE))
    return b"".join(pages)


def test_a_walk_led_astray_is_not_recorded(tmp_path: Path) -> None:
    """An extent of an arena that is not there: its pointer may lead anywhere."""
    fake = FakeHeap(arenas=(0, 3))
    for _ in range(20):
        fake.slab(1, [0])
    fake.slab(1, [0], arena=3)
    fake.bss.put(fake.arena_table + 8 * 3, "<Q", 0)
    told: List[str] = []
    context = Context(fake.target, told.append, told.append, Style())
    with pytest.raises(RecordingError, match=r"nothing is recorded: .* arena 3"):
        RecordCommand().invoke([str(tmp_path / "file")], context)
    assert told == []
    assert list(tmp_path.iterdir()) == []


# -- the file -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "file.drain"
    fake = FakeHeap()
    fake.slab(1, [0, 5])
    target = fake.target()
    layout = layout_of(target)
    recorded(target, layout, path)
    return path


def refused(path: Path, *words: str) -> str:
    with pytest.raises(RecordingError) as caught:
        replayed(path)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
    return line


def test_the_file_is_its_owners(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def named(path: Path, true: Sequence[Row]) -> bool:
    """Whether a damaged recording is swept all the same, says so, and is never called exact.

    Else it is refused by name.
    """
    try:
        target = RecordingTarget(recording.read(str(path)))
        (heap,), _ = find_heaps(target, lambda: Memory(target.read))
    except DrainError as error:
        assert any(words in str(error) for words in (str(path), "recording", "cannot read"))
        assert "\n" not in str(error)
        return False
    report = sweep(heap, target.process(), Selection())
    assert not report.sound
    assert "which is damaged" in report.coverage.missing[-1]
    # But where nothing that counts was hit.
    assert heap.verification.status != "exact" or rows_of(heap) == true
    return True


def test_damage_at_any_byte_is_named(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    true = rows_of(replayed(file))
    copy = tmp_path / "copy"
    chance = random.Random(1)
    places = [*range(PREFIX.size + DIGEST + 16), *range(len(whole) - 8, len(whole))]
    swept = {}
    for at in [*places, *(chance.randrange(len(whole)) for _ in range(80))]:
        changed = bytearray(whole)
        changed[at] ^= 1 << chance.randrange(8)
        copy.write_bytes(changed)
        swept[at] = named(copy, true)
    # With its beginning damaged a recording is all there.
    assert all(swept[at] for at in range(PREFIX.size + DIGEST))


def test_a_length_that_is_damaged_costs_nothing(file: Path, tmp_path: Path) -> None:
    """Whatever bit of it, even where what is left is a length that could be."""
    whole = file.read_bytes()
    true = recording.read(str(file)).data
    copy = tmp_path / "copy"
    for bit in range(64):
        changed = bytearray(whole)
        changed[PREFIX.size - 8 + bit // 8] ^= 1 << bit % 8
        copy.write_bytes(changed)
        found = recording.read(str(copy))
        assert found.damage is not None
        assert found.data == true


def test_truncation_at_any_length_is_named(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    true = rows_of(replayed(file))
    copy = tmp_path / "copy"
    chance = random.Random(2)
    lengths = [*range(PREFIX.size + DIGEST + 16), len(whole) - 1]
    for length in [*lengths, *(chance.randrange(len(whole)) for _ in range(50))]:
        copy.write_bytes(whole[:length])
        named(copy, true)
    for more in (whole[:-1], whole[:-4], whole + b"\0"):
        copy.write_bytes(more)
        assert named(copy, true)


def test_damage_costs_the_ranges_it_hit(tmp_path: Path) -> None:
    """A byte of an extent, the address of a range; a size follows from those of the others."""
    file = ROOT / "tests" / "recordings" / "jemalloc-5.3.0.drain"
    whole = recording.read(str(file))
    true = rows_of(replayed(file))
    content = _content(file)
    (head,) = struct.unpack_from("<I", content)
    (count,) = struct.unpack_from("<Q", content, 4 + head)
    table, data = 12 + head, 12 + head + 20 * count
    at = next(at for size, at in zip(whole.sizes, whole.offsets) if size == 128)
    row = (count - 2) * 16
    for place, costs in ((data + at + 8, 1), (table + row, 1), (table + row + 8, 0)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        path = _sealed(tmp_path / "copy", zlib.compress(bytes(changed)), len(changed), version=2)
        found = recording.read(str(path))
        assert len(found.starts) == len(whole.starts) - costs
        assert found.damage is not None
        assert named(path, true)
        assert set(rows_of(replayed(path))) <= set(true)


def test_a_recording_without_its_end_is_swept_as_far_as_it_goes(
    livelist: Livelist, tmp_path: Path
) -> None:
    """What all else hangs from was read first, and stands first."""
    file = record(livelist.core, tmp_path)
    true = rows_of(replayed(file))
    whole = file.read_bytes()
    copy = tmp_path / "copy"
    copy.write_bytes(whole[: len(whole) * 3 // 4])
    assert named(copy, true)
    rows = rows_of(replayed(copy))
    assert 0 < len(rows) < len(true)
    places = {row[0]: row[1:5] for row in true}
    assert all(places[row[0]] == row[1:5] for row in rows)


def test_recordings_of_version_1_are_read(file: Path, tmp_path: Path) -> None:
    whole = recording.read(str(file))
    (head,) = struct.unpack_from("<I", _content(file))
    content = _content(file)[: 4 + head] + struct.pack("<Q", len(whole.starts))
    content += _ranges(*zip(whole.starts, whole.sizes))
    for size, at in zip(whole.sizes, whole.offsets):
        content += whole.data[at : at + size]
    old = _sealed(tmp_path / "old", zlib.compress(content), len(content), version=1)
    assert recording.read(str(old)).damage is None
    assert rows_of(replayed(old)) == rows_of(replayed(file))
    assert replayed(old).verification == replayed(file).verification


@pytest.mark.parametrize(("at", "status"), [(0, 3), (8, 3), (15, 3), (30, 3), (60, 2), (-1, 3)])
def test_damage_in_the_shell(file: Path, tmp_path: Path, at: int, status: int) -> None:
    copy = tmp_path / "copy"
    changed = bytearray(file.read_bytes())
    changed[at] ^= 1
    copy.write_bytes(changed)
    ran = shell("sweep", copy)
    if status == 2:
        one_line(ran, 2, str(copy))
    else:
        assert (ran.status, ran.err) == (3, "")
        assert "PARTIAL: missing: part of the file, which is damaged" in ran.out
    copy.write_bytes(file.read_bytes()[: max(at, 0)])
    one_line(shell("sweep", copy), 2, str(copy))


def one_line(ran: Ran, status: int, *words: str) -> None:
    assert ran.status == status, ran
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    for word in words:
        assert word in line
    assert "internal error" not in line


def _sealed(path: Path, payload: bytes, length: int, version: int = 1) -> Path:
    prefix = PREFIX.pack(MAGIC, version, len(payload), length)
    path.write_bytes(prefix + hashlib.sha256(prefix + payload).digest() + payload)
    return path


def test_a_later_version_is_named(tmp_path: Path) -> None:
    refused(_sealed(tmp_path / "file", b"", 0, version=3), "version 3", "reads version 2")


def test_a_bomb_does_not_go_off(tmp_path: Path) -> None:
    payload = zlib.compress(bytes(100 << 20), 9)
    refused(_sealed(tmp_path / "file", payload, 1 << 40), "cannot hold")
    refused(_sealed(tmp_path / "file", payload, 1000), "not as long as it says")
    refused(_sealed(tmp_path / "file", payload + b"more", 100 << 20), "not as long as it says")
    refused(_sealed(tmp_path / "file", b"no zlib", 100), "damaged")


def _head(**changes: object) -> bytes:
    process = {"source": "core", "pid": 1, "name": None, "executable": None}
    head: Dict[str, object] = {
        "schema": recording.SCHEMA,
        "process": {**process, "debugger": "gdb", "taken_at": None},
        "layouts": [{}],
    }
    return json.dumps({**head, **changes}).encode()


def _ranges(*ranges: Tuple[int, int]) -> bytes:
    return struct.pack(f"<{2 * len(ranges)}Q", *(number for each in ranges for number in each))


@pytest.mark.parametrize(
    ("head", "count", "rest", "why"),
    [
        (b"{", 0, b"", "head cannot be read"),
        (b"\xff", 0, b"", "head cannot be read"),
        (b"[" * 100000, 0, b"", "head cannot be read"),
        (b"[]", 0, b"", "head is not as it should be"),
        (_head(more=1), 0, b"", "head is not as it should be"),
        (_head(schema="drain_gdb.recording/2"), 0, b"", "recording/2"),
        (_head(layouts=[]), 0, b"", "no layout"),
        (_head(layouts={}), 0, b"", "no layout"),
        (_head(process=7), 0, b"", "process is no object"),
        (_head(process={"pid": 1}), 0, b"", "process.source is missing"),
        (_head(), 0, b"", "layout.source is missing"),
        (_head(), 1 << 60, b"", "no room"),
        (_head(), 1, _ranges((0, 8)), "not as long"),
        (_head(), 2, _ranges((0, 8), (4, 8)) + bytes(16), "overlap"),
        (_head(), 1, _ranges((0, 0)), "overlap"),
        (_head(), 1, _ranges(((1 << 64) - 4, 8)) + bytes(8), "overlap"),
    ],
)
def test_a_content_made_up_is_named(
    head: bytes, count: int, rest: bytes, why: str, tmp_path: Path
) -> None:
    content = struct.pack("<I", len(head)) + head + struct.pack("<Q", count) + rest
    refused(_sealed(tmp_path / "file", zlib.compress(content), len(content)), why)


def _spoilt(change: Callable[[Dict[str, Any]], None]) -> str:
    fake = FakeHeap()
    fake.slab(1, [0])
    target = fake.target()
    layout = layout_of(target)
    value = json.loads(json.dumps(to_value(layout)))
    assert from_value(value) == layout
    change(value)
    with pytest.raises(RecordingError) as caught:
        from_value(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("member", "value", "why"),
    [
        ("more", 1, "layout has the unknown member 'more'"),
        ("source", "guessed", "source of a layout"),
        ("module", None, "layout.module is no str"),
        ("notes", [1], "layout.notes[0] is no str"),
        ("parameters.lg_page", 60, "build parameters"),
        ("parameters.lg_vaddr", 1 << 40, "build parameters"),
        ("parameters.lg_vaddr", True, "lg_vaddr is no int"),
        ("rtree.bits", [40, 20], "rtree"),
        ("rtree.root", -1, "root is no 64-bit number"),
        ("rtree.root", 1 << 64, "root is no 64-bit number"),
        ("extent.size", 1 << 40, "extent"),
        ("extent.size", 12, "extent"),
        ("extent.bits", 126, "extent"),
        ("extent.nfree.width", 1 << 40, "fields of e_bits"),
        ("bin.stats", {}, "counters"),
        ("bin.stats.nmalloc", 1 << 30, "bin"),
        ("arena.bins", 1 << 40, "arena"),
        ("arena.table_size", 1 << 40, "table of arenas"),
        ("arena.large_count", 1 << 40, "large size classes"),
        ("arena.large_size", 0, "large size class"),
        ("counters.base_mutex", 1 << 40, "counters"),
        ("counters.arena.internal.size", 3, "counters"),
        ("tcache.nbins_max", 1 << 40, "thread cache"),
        ("tcache.bin_size", 1 << 40, "thread cache"),
    ],
)
def test_an_impossible_layout_is_named(member: str, value: object, why: str) -> None:
    def change(layout: Dict[str, Any]) -> None:
        *path, last = member.split(".")
        for name in path:
            layout = layout[name]
        layout[last] = value

    assert why in _spoilt(change)


def test_a_missing_member_is_named() -> None:
    assert "layout.rtree is missing" in _spoilt(lambda layout: layout.pop("rtree"))


def test_a_file_that_is_there_is_kept(livelist: Livelist, file: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    one_line(shell("record", livelist.core, "-o", there), 2, "is there already", "--force")
    one_line(shell("record", file, "-o", there), 2, "is there already", "--force")
    assert there.read_text() == "mine"
    assert shell("record", file, "-o", there, "--force").status == 0
    assert is_recording(str(there))
    with pytest.raises(OutputError, match="is there already"):
        recording.write(str(there), BytesTarget({}).process(), [], Recorder())


def test_a_file_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    one_line(shell("record", file, "-o", tmp_path / "none" / "file"), 2, "no directory")
    one_line(shell("record", file, "-o", tmp_path, "--force"), 2, "is a directory")
    one_line(shell("record", file), 1, "-o")


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--exe", sys.executable], 1, "leave --exe out"),
        (["--debugger", "gdb"], 1, "gdb cannot read a recording"),
        (["--pid", "1"], 1, "give one TARGET"),
    ],
    ids=["exe", "gdb", "pid"],
)
def test_what_a_recording_does_not_take(
    file: Path, options: List[str], status: int, words: str
) -> None:
    one_line(shell("sweep", file, *options), status, words)


def test_memory_that_was_not_recorded(file: Path) -> None:
    target = RecordingTarget(recording.read(str(file)))
    for address in (0, BSS - 8, METADATA - 1, (1 << 64) - 8):
        with pytest.raises(UnreadableMemory, match="it was not recorded"):
            target.read(address, 8)
