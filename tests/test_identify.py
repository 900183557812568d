"""A jemalloc is recognised by what it is: with somebody else's version, or none, or no names."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from drain_gdb.debuggee import contents
from drain_gdb.debuggee.plain import BytesTarget
from drain_gdb.debuggee.protocol import Module, Section
from drain_gdb.errors import LayoutError, NoJemalloc
from drain_gdb.jemalloc.find import find_heaps
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.layout.identify import NAMES, OLD_NAMES, Identified, identify
from drain_gdb.memory import Memory
from tests.support.elfwriter import without_section_headers
from tests.support.fakeheap import MESSAGES, RODATA, VERSION, FakeHeap
from tests.support.inputs import program
from tests.support.processes import Program, gcore
from tests.support.readers import OTHERS, REFERENCE
from tests.support.real import STATIC, strip
from tests.support.runs import comparable
from tests.support.tiers import tiered

OTHER = b"1.4.2-12-gabcdef0"
NEWER = b"5.3.0-196-ge0f0dcb33a44b8e9f5e9c2c8e5a4dc9b0bf1a4c6"
READERS = {reader.name: reader for reader in (REFERENCE, *OTHERS) if "newer" not in reader.name}


def _identified(*texts: bytes) -> Optional[Identified]:
    target = FakeHeap(texts=texts).target()
    return identify(Memory(target.read), target.modules()[0], [])


def _heap(*texts: bytes) -> Heap:
    fake = FakeHeap(texts=texts)
    fake.slab(0, [0])
    target = fake.target()
    heaps, refused = find_heaps(target, lambda: Memory(target.read))
    assert not refused
    return heaps[0]


def test_a_version_of_somebody_else_is_only_a_text() -> None:
    found = _identified(OTHER, *MESSAGES, NEWER, b"padding" * 100, VERSION.encode())
    assert found is not None
    assert found.versions == (NEWER.decode(), VERSION, OTHER.decode())
    assert found.version == NEWER.decode()
    assert _heap(OTHER, *MESSAGES, VERSION.encode()).layout.version == VERSION
    assert _heap(OTHER, *MESSAGES).layout.version is None


def test_messages_without_a_version_suffice() -> None:
    heap = _heap(*MESSAGES)
    assert heap.layout.evidence == "40 of its messages"
    assert heap.verification.status == "exact"


def test_names_of_statistics_suffice() -> None:
    heap = _heap(*NAMES)
    assert heap.layout.evidence == "6 names of its statistics"
    assert heap.verification.status == "exact"


def test_size_classes_suffice() -> None:
    """Where all texts are gone, as from a program that encrypts its own."""
    heap = _heap(b"nothing of it")
    assert heap.layout.evidence.startswith("its size classes at 0x")
    assert heap.verification.status == "exact"


def test_a_program_that_mentions_a_jemalloc_has_none() -> None:
    texts = (*MESSAGES[:3], *NAMES[:3], VERSION.encode())
    assert _identified(*texts) is None
    data = b"\0".join(texts)
    module = Module("/bin/reader", (Section("", RODATA, RODATA + len(data), constant=True),))
    target = BytesTarget({RODATA: data}, [module])
    with pytest.raises(NoJemalloc, match="its 1 files holds jemalloc's messages"):
        find_heaps(target, lambda: Memory(target.read))


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        ([OTHER, *MESSAGES, b"4.5.0-0-gabc", *OLD_NAMES], "4.5.0"),
        ([OTHER, *MESSAGES, *OLD_NAMES], "4 or older"),
        ([*MESSAGES, *OLD_NAMES[:2], *NAMES[1:3]], "4 or older"),
    ],
)
def test_an_older_jemalloc_is_refused_by_its_own_names(texts: List[bytes], named: str) -> None:
    found = _identified(*texts)
    assert found is not None
    assert found.refused is not None
    with pytest.raises(LayoutError, match=f"jemalloc {named} in .* is not supported"):
        _heap(*texts)


def test_a_program_that_asks_an_older_one_by_name_is_read() -> None:
    assert _heap(*MESSAGES, *OLD_NAMES, *NAMES).verification.status == "exact"


def test_texts_are_found_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each, wherever a piece ends."""
    monkeypatch.setattr(contents, "BULK_CHUNK", 1024)
    data = b"\0".join([bytes(100), *MESSAGES, NEWER, bytes(100)])
    for before in range(1024):
        target = BytesTarget({0: bytes(before) + data})
        section = Section("", 0, before + len(data), constant=True)
        found = identify(Memory(target.read), Module("/bin/large", (section,)), [])
        assert found is not None
        assert (found.evidence, found.version) == ("40 of its messages", NEWER.decode())


def _variants(folder: Path) -> Dict[str, Path]:
    """A stripped program as it comes, with other names of sections, and without any."""
    plain = strip(program("described", *STATIC), folder / "plain")
    names = {".rodata": ".bolt.org.rodata", ".data": ".values", ".bss": ".zeros"}
    renaming = [f"--rename-section={old}={new}" for old, new in names.items()]
    renamed = folder / "renamed"
    subprocess.run(["objcopy", *renaming, str(plain), str(renamed)], check=True)
    without = without_section_headers(plain, folder / "without")
    return {path.name: path for path in (plain, renamed, without)}


VARIANTS = ("plain", "renamed", "without")
SOURCES = [f"{source}-{variant}" for source in ("core", "live") for variant in VARIANTS]

LONG = ("core-plain", "live-plain", "live-renamed")


@pytest.mark.parametrize("which", tiered(SOURCES, LONG.__contains__, str))
def test_names_of_sections_do_not_matter(which: str, tmp_path: Path) -> None:
    """Every reader: the allocator is found by what sections and segments are."""
    source, variant = which.split("-")
    binary = _variants(tmp_path)[variant]
    child = Program([str(binary)])
    try:
        live = ("--pid", child.pid)
        target = live if source == "live" else (gcore(child.pid, tmp_path / "core"),)
        reports = [comparable(reader.sweep(*target)) for reader in READERS.values()]
    finally:
        child.stop()
    for report in reports:
        assert report["verification"]["status"] == "exact"
        assert report["allocator"]["layout_source"] == "discovered"
        assert report["allocator"]["version"] == VERSION
        rows = [row for row in report["bins"] if row["size"] == 112]
        assert [row["live"] for row in rows] == [2000]
    assert all(report == reports[0] for report in reports)
