"""Recognisers that other distributions add."""

from __future__ import annotations

from pathlib import Path
from typing import List

import pytest

from drain_gdb.objects.recogniser import Kind, Region
from drain_gdb.objects.registry import recognisers
from tests.support.fakecontents import FakeContents

FRAMES = """
from drain_gdb.objects.recogniser import STRUCTURE, Kind

class Frames:
    name = "frames"
    keys = ()

    def __init__(self, contents):
        self.wanted = True

    def applies(self):
        return self.wanted

    def by_word(self, index, word, size):
        return None

    def recognise(self, region):
        if region.data[:4] == b"BAD!":
            raise ValueError("bad frame")
        return Kind("frame", self.name, STRUCTURE) if region.data[:4] == b"FRAM" else None

    def holds(self, region, kind):
        yield 4096, Kind("pixels", self.name, STRUCTURE)

class Elsewhere(Frames):
    name = "elsewhere"

    def __init__(self, contents):
        self.wanted = False

class Shy(Frames):
    def __init__(self, contents):
        raise RuntimeError("no")
"""
POINTS = """[drain_gdb.recognisers]
elsewhere = frames_of_others:Elsewhere
frames = frames_of_others:Frames
gone = frames_of_others:Gone
missing = no_such_module_at_all:Frames
shy = frames_of_others:Shy

[console_scripts]
frames = frames_of_others:main
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frames_of_others.py").write_text(FRAMES)
    info = tmp_path / "frames_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frames-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def _region(data: bytes) -> Region:
    return Region(1 << 20, 64, data.ljust(64, b"\0"))


@pytest.mark.usefixtures("installed")
def test_others_add_theirs_and_what_is_broken_is_told() -> None:
    notes: List[str] = []
    found = recognisers(FakeContents(), notes.append)
    (frames,) = [each for each in found if each.name == "frames"]
    assert "elsewhere" not in [each.name for each in found]
    assert frames.recognise(_region(b"FRAM")) == Kind("frame", "frames", "structure")
    assert list(frames.holds(_region(b"FRAM"), Kind("frame", "frames", "structure"))) == [
        (4096, Kind("pixels", "frames", "structure"))
    ]
    assert [note.split(":")[:2] for note in notes] == [
        ["recogniser gone", " AttributeError"],
        ["recogniser missing", " ModuleNotFoundError"],
        ["recogniser shy", " RuntimeError"],
    ]


@pytest.mark.usefixtures("installed")
def test_one_that_fails_is_not_asked_again() -> None:
    notes: List[str] = []
    found = recognisers(FakeContents(), notes.append)
    (frames,) = [each for each in found if each.name == "frames"]
    notes.clear()
    assert frames.recognise(_region(b"BAD!")) is None
    assert notes == ["recogniser frames: ValueError: bad frame; not asked again"]
    assert frames.recognise(_region(b"FRAM")) is None
    assert len(notes) == 1
