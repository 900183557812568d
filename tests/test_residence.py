"""What is resident: by smaps and pagemap, by a core, and of a recording; whose memory is."""

from __future__ import annotations

import os
import struct
from collections import Counter
from itertools import count, repeat
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import pytest

from drain_gdb.analysis.causes import OWN_STATISTICS
from drain_gdb.debuggee import coremap, smaps
from drain_gdb.debuggee.corenotes import Notes, notes_of
from drain_gdb.debuggee.elf import NOTE_HEADER, PROGRAM_HEADER, parse
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.foreign import Gap, named
from drain_gdb.debuggee.protocol import Mapping, Module, Section
from drain_gdb.debuggee.residence import (
    ABSENT,
    FORKED,
    OF_FILE,
    PAGEMAP,
    PRIVATE,
    SMAPS,
    SWAPPED,
    Residence,
    from_value,
    to_value,
)
from drain_gdb.debuggee.threads import THREADS_MAX, stacks
from drain_gdb.debuggee.vfile import read_file
from drain_gdb.errors import RecordingError, UnreadableMemory
from tests.support.handmade import PAGE, area, residence

START = 0x7F00_0000_0000
ENTRY = 8
HERE, SWAP, OF_A_FILE, ALONE = 0x80, 0x40, 0x20, 0x01
"""Bits 63, 62, 61 and 56 of an entry of pagemap, in its top byte."""


class Kernel:
    """What a kernel would say of a few mappings."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self._pages: Dict[int, int] = {}
        self.memory: Dict[int, bytes] = {}

    def mapping(
        self, start: int, flags: List[int], rss: int, name: str = "", mode: str = "rw-p", **kb: int
    ) -> None:
        """A mapping: the top bytes of its entries, its Rss in pages."""
        sizes = {"MMUPageSize": 4, "Rss": rss * 4, "Anonymous": rss * 4, "Swap": 0, **kb}
        self.lines.append(f"{start:x}-{start + len(flags) * PAGE:x} {mode} 00000000 00:00 0 {name}")
        self.lines += [f"{field}: {size:>9} kB" for field, size in sizes.items()]
        self.lines.append("VmFlags: rd wr mr mw me ac")
        for number, flag in enumerate(flags):
            self._pages[start // PAGE + number] = flag

    def text(self, name: str) -> bytes:
        assert name == "smaps"
        return ("\n".join(self.lines) + "\n").encode()

    def pages(self, offset: int, size: int) -> bytes:
        entries = range(offset // ENTRY, (offset + size) // ENTRY)
        return b"".join(struct.pack("<Q", self._pages.get(e, 0) << 56) for e in entries)

    def read(self, address: int, size: int) -> bytes:
        if address not in self.memory:
            raise UnreadableMemory(address, size, "nothing is there")
        return self.memory[address][:size]

    def look(self, paged: bool = True, modules: Tuple[Module, ...] = ()) -> Residence:
        found = smaps.residence(self.text, self.pages if paged else None, self.read, modules, ())
        assert found is not None
        return found


def test_states_of_pages_are_the_kernels() -> None:
    kernel = Kernel()
    flags = [HERE | ALONE, HERE | OF_A_FILE, HERE | OF_A_FILE | ALONE, SWAP, 0]
    kernel.mapping(START, flags, 3, "/bin/server", Swap=4)
    found = kernel.look()
    assert found.pages == bytes([PRIVATE, OF_FILE, OF_FILE, SWAPPED, ABSENT])
    (made,) = found.areas
    assert (made.kind, made.name, made.resident) == ("file", "/bin/server", 3 * PAGE)
    assert (made.copied, made.swapped) == (PAGE, PAGE)
    assert (found.source, found.exact) == (PAGEMAP, True)


@pytest.mark.parametrize(
    ("rss", "expected"),
    [(1, [PRIVATE, ABSENT, ABSENT]), (3, [PRIVATE, FORKED, FORKED])],
    ids=["the zero page", "shared with a fork"],
)
def test_rss_tells_the_zero_page_from_shared_ones(rss: int, expected: List[int]) -> None:
    kernel = Kernel()
    kernel.mapping(START, [HERE | ALONE, HERE, HERE], rss)
    assert list(kernel.look().pages) == expected


def test_where_there_are_both_what_they_hold_tells() -> None:
    kernel = Kernel()
    kernel.mapping(START, [HERE, HERE, HERE, HERE], 2)
    kernel.memory = {START + n * PAGE: bytes(PAGE) for n in (0, 2)}
    kernel.memory.update({START + n * PAGE: b"x" * PAGE for n in (1, 3)})
    assert list(kernel.look().pages) == [ABSENT, FORKED, ABSENT, FORKED]


def test_without_pagemap_sums_are_known() -> None:
    kernel = Kernel()
    kernel.mapping(START, [HERE] * 4, 3)
    found = kernel.look(paged=False)
    assert (found.source, found.exact, found.pages) == (SMAPS, False, b"")
    assert found.areas[0].resident == 3 * PAGE


def test_what_has_nothing_resident_is_not_looked_at() -> None:
    kernel = Kernel()
    kernel.mapping(START, [0] * 3, 0)
    found = kernel.look()
    assert (found.pages, found.areas[0].first, found.source) == (b"", None, PAGEMAP)


def test_mappings_are_what_they_are_called() -> None:
    kernel = Kernel()
    names = {
        "[heap]": ("heap", None),
        "[stack]": ("stack", None),
        "": ("anonymous", None),
        "[anon:jemalloc_pg]": ("anonymous", "jemalloc_pg"),
        "/memfd:buffers (deleted)": ("shared", "/memfd:buffers"),
        "/dev/shm/segment": ("shared", "/dev/shm/segment"),
        "/srv/two words (deleted)": ("file", "/srv/two words"),
        "[vdso]": ("file", "[vdso]"),
    }
    for number, name in enumerate(names):
        kernel.mapping(START + 2 * number * PAGE, [HERE | ALONE], 1, name)
    assert [(each.kind, each.name) for each in kernel.look().areas] == list(names.values())


def test_variables_end_where_their_module_does() -> None:
    """Other memory may have grown together with them."""
    kernel = Kernel()
    kernel.mapping(START, [HERE | ALONE], 1, "/lib/libj.so")
    kernel.mapping(START + PAGE, [HERE | ALONE] * 5, 5)
    module = Module("/lib/libj.so", (Section(".bss", START + 100, START + 3 * PAGE - 100),))
    kinds = [(each.kind, each.size // PAGE) for each in kernel.look(modules=(module,)).areas]
    assert kinds == [("file", 1), ("bss", 2), ("anonymous", 3)]
    kinds = [(each.kind, each.size // PAGE) for each in kernel.look().areas]
    assert kinds == [("file", 1), ("bss", 5)]


def test_a_block_of_a_thread_leads_to_its_stack() -> None:
    size = 64 * PAGE
    block = START + size - 0x900
    page = bytearray(PAGE)
    struct.pack_into("<QQ", page, block % PAGE + 0x690, START, size)
    memory = {block & -PAGE: bytes(page)}

    def read(address: int, length: int) -> bytes:
        if address not in memory:
            raise UnreadableMemory(address, length, "nothing is there")
        return memory[address]

    assert [(n.start, n.end, n.kind) for n in stacks(read, [block, START - (1 << 40)])] == [
        (START, START + size, "thread_stack")
    ]
    # Other words beside it may look like a larger one, whose end is anywhere.
    struct.pack_into("<QQ", page, 16, START - (1 << 32), 1 << 34)
    struct.pack_into("<QQ", page, 64, START - 16 * PAGE, size + 32 * PAGE)
    memory[block & -PAGE] = bytes(page)
    assert [(n.start, n.end) for n in stacks(read, [block])] == [(START, START + size)]
    # The main thread's own has none: zeros.
    struct.pack_into("<QQ", page, block % PAGE + 0x690, 0, 0)
    struct.pack_into("<QQ", page, 64, 0, 0)
    memory[block & -PAGE] = bytes(page)
    assert list(stacks(read, [block])) == []


def test_a_core_that_names_threads_without_end_is_not_followed() -> None:
    """Each place is looked at once, and of many no more than a process has threads."""
    asked: Counter[int] = Counter()

    def read(address: int, length: int) -> bytes:
        asked[address] += 1
        raise UnreadableMemory(address, length, "nothing is there")

    around = 3
    assert list(stacks(read, repeat(START))) == []
    assert sum(asked.values()) == around
    asked.clear()
    assert list(stacks(read, count(START, 4 * PAGE))) == []
    assert sum(asked.values()) == around * THREADS_MAX


# -- whose memory it is -----------------------------------------------------------


def whose(memory: Dict[int, bytes], pages: int, *paths: str, start: int = START) -> List[object]:
    """What is said of a gap of so many pages, all of them there; zeros where not of ``memory``."""

    def read(address: int, size: int) -> bytes:
        return memory.get(address, b"").ljust(size, b"\0")[:size]

    found = residence(area(start, "p" * pages))
    gap = Gap(found.areas[0], start, start + pages * PAGE)
    return [
        (each.start - start, each.end - start, each.name)
        for each in named(read, found, [gap], paths)
    ]


def pool(szind: int, size: int = 1 << 14) -> bytes:
    offset_max = size - 16 * (szind + 1)
    return struct.pack("<QQQQIIII", 7, START + 64, START, START, 3, szind, 64, offset_max)


def test_cpythons_arenas_are_known_by_their_pools() -> None:
    arenas = {START + n * (1 << 14): pool(n % 32) for n in range(64)}
    assert whose(arenas, 512) == [(0, 1 << 20, "CPython's arenas")]
    older = {START + n * (1 << 14): pool(5, PAGE) for n in range(16)}
    assert whose(older, 64) == [(0, 1 << 18, "CPython's arenas")]
    assert whose({START: pool(70)}, 64) == []


def test_glibcs_heaps_are_known_by_their_heads() -> None:
    heap = struct.pack("<QQQQ", START + 32, 0, 0x21000, 0x30000)
    assert whose({START: heap}, 64) == [(0, 0x30000, "glibc's heaps")]
    assert whose({START + PAGE: heap}, 64) == []


def test_glibcs_large_chunks_are_known_by_their_sizes() -> None:
    chunks = {
        START: struct.pack("<QQ", 0, 0x20002),
        START + 0x20000: struct.pack("<QQ", 0, 0x10002),
    }
    assert whose(chunks, 64) == [(0, 0x30000, "glibc's large chunks")]
    assert whose({START: struct.pack("<QQ", 0, 0x90002)}, 64) == []


def test_another_allocators_library_is_named() -> None:
    assert whose({}, 64, "/usr/lib/libmimalloc.so.2.0") == [(0, 64 * PAGE, "libmimalloc.so.2.0")]
    assert whose({}, 64, "/usr/lib/libc.so.6") == []
    assert whose({}, 4, "/usr/lib/libmimalloc.so.2.0") == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/lib/jvm/java-17/lib/server/libjvm.so", "the Java virtual machine"),
        ("/usr/bin/node", "V8"),
        ("/usr/lib/libnode.so.108", "V8"),
        ("/usr/lib/libruby-3.1.so.3.1.2", "Ruby"),
        ("/opt/dotnet/shared/Microsoft.NETCore.App/8.0.0/libcoreclr.so", ".NET"),
        ("/usr/lib/erlang/erts-13.1.5/bin/beam.smp", "Erlang"),
        ("/usr/sbin/mysqld", "InnoDB"),
        ("/usr/sbin/php-fpm8.2", "PHP"),
        ("/usr/lib/apache2/libphp8.2.so", "PHP"),
        ("/usr/lib/x86_64-linux-gnu/libluajit-5.1.so.2.1.0", "LuaJIT"),
    ],
)
def test_what_maps_memory_for_itself_is_named(path: str, name: str) -> None:
    assert whose({}, 64, "/usr/lib/libc.so.6", path) == [(0, 64 * PAGE, name)]
    assert name in OWN_STATISTICS
    assert whose({}, 64, f"{path}x/libz.so.1") == []


def test_gos_heap_is_known_by_its_place() -> None:
    assert whose({}, 64, start=0xC000000000) == [(0, 64 * PAGE, "Go's heap")]


# -- behind gdbserver -------------------------------------------------------------


def test_a_servers_files_are_read_by_its_protocol() -> None:
    content = bytes(range(256)) * 200
    sent: List[bytes] = []

    def send(packet: bytes) -> bytes:
        sent.append(packet)
        if packet.startswith(b"vFile:open:"):
            return b"F5" if b"/proc/7/smaps".hex().encode() in packet else b"F-1,2"
        if packet.startswith(b"vFile:pread:5,"):
            count, offset = (int(number, 16) for number in packet.split(b",")[1:])
            part = content[offset : offset + min(count, 1000)]
            escaped = b"".join(
                b"}" + bytes([b ^ 0x20]) if b in b"}$#*" else bytes([b]) for b in part
            )
            return b"F%x;" % len(part) + escaped
        return b"F0"

    assert read_file(send, "/proc/7/smaps") == content
    assert sent[-1] == b"vFile:close:5"
    with pytest.raises(OSError, match="does not open /proc/8/smaps"):
        read_file(send, "/proc/8/smaps")


# -- cores ------------------------------------------------------------------------

PT_LOAD, PT_NOTE = 1, 4
READ, WRITE, EXECUTE = 4, 2, 1
OFFSET_AT = 8
"""Where p_offset stands in an Elf64_Phdr (elf.h)."""


def written_core(path: Path, segments: List[Tuple[int, int, bytes]], by_kernel: bool) -> Path:
    """A core of ``(address, flags, content)``, its zero pages holes.

    The kernel writes the notes first, gdb last.
    """
    offset = PAGE
    headers, places = [], []
    for address, flags, content in segments:
        headers.append((PT_LOAD, flags, offset, address, 0, len(content), len(content), PAGE))
        places.append(offset)
        offset += len(content)
    note = (PT_NOTE, 0, 64 if by_kernel else offset, 0, 0, 0, 0, 4)
    headers.insert(0, note)
    with path.open("wb") as file:
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        file.write(
            struct.pack(
                "<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0
            )
        )
        for header in headers:
            file.write(struct.pack("<IIQQQQQQ", *header))
        for place, (_, _, content) in zip(places, segments):
            for at in range(0, len(content), PAGE):
                if any(content[at : at + PAGE]):
                    file.seek(place + at)
                    file.write(content[at : at + PAGE])
        file.truncate(offset)
    return path


def resident(path: Path) -> Residence:
    with File(str(path)) as file:
        elf = parse(file.path, file.size, file.read)

        def read(address: int, size: int) -> bytes:
            raise UnreadableMemory(address, size, "it is not asked for")

        found = coremap.of_core(file, elf, notes_of(elf, file), read, ())
    assert found is not None
    return found


FULL, EMPTY = b"x" * PAGE, bytes(PAGE)


def test_holes_of_a_kernels_core_were_not_resident(tmp_path: Path) -> None:
    content = FULL + EMPTY + FULL + EMPTY * 3
    core = written_core(tmp_path / "core", [(START, READ | WRITE, content)], by_kernel=True)
    # A page of zeros that was there is no hole.
    with core.open("r+b") as file:
        file.seek(PAGE + 4 * PAGE)
        file.write(EMPTY)
    found = resident(core)
    assert list(found.pages) == [PRIVATE, ABSENT, PRIVATE, ABSENT, PRIVATE, ABSENT]
    assert (found.source, found.exact) == ("core", True)


def test_without_holes_what_is_not_zero_was_resident(tmp_path: Path) -> None:
    content = FULL + EMPTY + FULL + EMPTY * 3
    core = written_core(tmp_path / "core", [(START, READ | WRITE, content)], by_kernel=True)
    copied = tmp_path / "copied"
    copied.write_bytes(core.read_bytes())
    found = resident(copied)
    assert list(found.pages) == [PRIVATE, ABSENT, PRIVATE, ABSENT, ABSENT, ABSENT]
    assert not found.exact


def test_of_a_large_core_some_pages_stand_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coremap, "PIECE", 2 * PAGE)
    monkeypatch.setattr(coremap, "LOOKED_MAX", 8 * PAGE)
    content = (FULL + EMPTY) * 8
    core = written_core(tmp_path / "core", [(START, READ | WRITE, content)], by_kernel=False)
    found = resident(core)
    assert found.pages == bytes([PRIVATE, ABSENT] * 8)
    assert not found.exact


@pytest.mark.parametrize("at", [0, 7, 8, PAGE // 2, PAGE - 1])
def test_one_byte_makes_a_page_resident(tmp_path: Path, at: int) -> None:
    """Of a core that holds all pages, those are resident that are not all zeros."""
    touched = bytes(at) + b"\1" + bytes(PAGE - 1 - at)
    content = (EMPTY + touched) * 50 + FULL
    core = written_core(tmp_path / "core", [(START, READ | WRITE, content)], by_kernel=False)
    core.write_bytes(core.read_bytes())  # a copy without holes
    found = resident(core)
    assert not found.exact
    assert found.pages == bytes([ABSENT, PRIVATE] * 50 + [PRIVATE])


def test_pages_are_looked_at_once_however_many_segments_claim_them(tmp_path: Path) -> None:
    places = [(START + 4 * n * PAGE, READ | WRITE, FULL * 2) for n in range(3)]
    core = written_core(tmp_path / "core", places, by_kernel=True)
    with core.open("r+b") as file:
        for number in range(2, 4):
            file.seek(64 + number * PROGRAM_HEADER.size + OFFSET_AT)
            file.write(struct.pack("<Q", PAGE))
    found = resident(core)
    assert [area.resident for area in found.areas] == [2 * PAGE, None, None]
    assert found.pages == bytes([PRIVATE] * 2)


def test_of_what_a_core_has_lost_nothing_is_known(tmp_path: Path) -> None:
    places = [(START + 4 * n * PAGE, READ | WRITE, FULL + EMPTY + FULL) for n in range(2)]
    core = written_core(tmp_path / "core", places, by_kernel=True)
    os.truncate(core, core.stat().st_size - 1)
    assert [area.resident for area in resident(core).areas] == [2 * PAGE, None]


def test_pages_of_files_that_a_core_has_besides_are_no_copies(tmp_path: Path) -> None:
    """What is mapped read-only was written to only where the dynamic linker relocates."""
    flags = (READ | WRITE, READ, READ | EXECUTE, READ)
    starts = [START + 4 * number * PAGE for number in range(len(flags))]
    places = [(start, flag, FULL * 2) for start, flag in zip(starts, flags)]
    core = written_core(tmp_path / "core", places, by_kernel=False)
    paths = ("/lib/libj.so", "/lib/libj.so", "/lib/libj.so", "/lib/modules")
    mappings = tuple(Mapping(path, at, at + 2 * PAGE, 0) for at, path in zip(starts, paths))
    text = Section(".text", starts[2], starts[2] + 2 * PAGE)
    relocated = Section(".data.rel.ro", starts[1], starts[1] + PAGE)
    module = Module("/lib/libj.so", (relocated, text))
    with File(str(core)) as file:
        elf = parse(file.path, file.size, file.read)
        found = coremap.of_core(file, elf, Notes(mappings=mappings), file.read, [module])
    assert found is not None
    assert [each.resident for each in found.areas] == [2 * PAGE, 2 * PAGE, None, None]


@pytest.mark.parametrize("page", [0, 1, PAGE // 2, PAGE + 1, 1 << 20])
def test_pages_of_no_machine_are_not_looked_at(tmp_path: Path, page: int) -> None:
    core = written_core(tmp_path / "core", [(START, READ | WRITE, FULL)], by_kernel=True)
    with File(str(core)) as file:
        elf = parse(file.path, file.size, file.read)
        notes = Notes(auxiliary={coremap.AT_PAGESZ: page})
        assert coremap.of_core(file, elf, notes, file.read, ()) is None


def test_notes_are_bounded_however_many_segments_claim_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = written_core(tmp_path / "core", [(START, READ | WRITE, FULL)] * 8, by_kernel=True)
    note = NOTE_HEADER.pack(0, 0, 1)
    with core.open("r+b") as file:
        for number in range(9):
            header = (PT_NOTE, 0, PAGE, 0, 0, 4 * len(note), 0, 4)
            file.seek(64 + number * PROGRAM_HEADER.size)
            file.write(PROGRAM_HEADER.pack(*header))
        file.seek(PAGE)
        file.write(note * 4)
    with File(str(core)) as opened:
        elf = parse(opened.path, opened.size, opened.read)
        assert len(list(elf.notes())) == 9 * 4
        monkeypatch.setattr("drain_gdb.debuggee.elf.NOTES_MAX", 10)
        assert len(list(elf.notes())) == 10


# -- recordings -------------------------------------------------------------------


def test_residence_comes_back_as_it_was() -> None:
    made = residence(area(START, "p.s"), area(START + 8 * PAGE, "ffw", "file", "/bin/server"))
    assert from_value(to_value(made)) == made


def _set(key: str, value: object) -> Callable[[Dict[str, object]], None]:
    return lambda stored: stored.update({key: value})


@pytest.mark.parametrize(
    "spoil",
    [
        _set("page", 3000),
        _set("source", "guess"),
        _set("pages", "no base64"),
        _set("pages", ""),
        _set("pages", to_value(residence(area(START, "p")))["pages"]),
        lambda stored: stored["areas"][0].update(kind="strange"),  # type: ignore[index]
        lambda stored: stored["areas"][1].update(start=START),  # type: ignore[index]
        lambda stored: stored["areas"][0].update(first=5),  # type: ignore[index]
    ],
)
def test_impossible_residence_is_refused(spoil: Callable[[Dict[str, object]], None]) -> None:
    stored = to_value(residence(area(START, "p.s"), area(START + 8 * PAGE, "pp")))
    spoil(stored)
    with pytest.raises(RecordingError):
        from_value(stored)


def test_ones_own_pages_add_up_to_rss() -> None:
    """The kernel's sum, of this very process."""
    with open("/proc/self/mem", "rb", buffering=0) as memory:

        def read(address: int, size: int) -> bytes:
            try:
                return os.pread(memory.fileno(), size, address)
            except OSError as error:
                raise UnreadableMemory(address, size, str(error)) from None

        found = smaps.of_process(os.getpid(), read, ())
    assert found is not None
    said = Path("/proc/self/smaps_rollup").read_text().split("Rss:")[1].split()[0]
    total = sum(each.resident or 0 for each in found.areas)
    assert total == pytest.approx(int(said) * 1024, rel=0.005)
