"""A fleet: reports of many processes with figures of their own, recordings, and what is broken."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

from drain_gdb.loaders.api import open_snapshot
from drain_gdb.render import machine, pins
from tests.support.inputs import ROOT

RECORDINGS = sorted((ROOT / "tests" / "recordings").glob("*.drain"))
WORST = 700
"""The host whose slabs waste most."""
CLASS = 0
"""Which of the size classes wastes most, in all hosts."""
BROKEN = 4
PINNED = 2


def template(recording: Path = RECORDINGS[-1]) -> Dict[str, Any]:
    """The report of a recording, as the shell prints it."""
    with open_snapshot(recording) as snapshot:
        report: Dict[str, Any] = json.loads(machine.as_json(snapshot.sweeps()))
    return report


def of_host(report: Dict[str, Any], number: int) -> Dict[str, Any]:
    """The report of another host: more waste the nearer its number is to that of the worst."""
    other = copy.deepcopy(report)
    waste = (1 << 30) - abs(number - WORST) * (1 << 20)
    other["process"]["pid"] = number
    for place, row in enumerate(other["bins"]):
        row["waste_bytes"] = waste if place == CLASS else 0
    other["totals"]["waste_bytes"] = waste
    return other


def write(folder: Path, hosts: int, recordings: int) -> List[str]:
    """A fleet of so many reports and recordings, and what is broken; names of all its files."""
    report, made = template(), {}
    for number in range(hosts):
        made[f"host{number:04}/sweep.json"] = json.dumps(of_host(report, number))
    with open_snapshot(RECORDINGS[0]) as snapshot:
        found = pins.as_json(snapshot.pins())
    made.update({f"pins{number}/pins.json": found for number in range(PINNED)})
    made["cut/sweep.json"] = json.dumps(report)[:4000]
    made["odd/sweep.json"] = json.dumps({**report, "bins": [{"index": "many"}]})
    made["text/notes.txt"] = "nothing of any allocator"
    for name, text in made.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    for number in range(recordings + 1):
        recording = RECORDINGS[number % len(RECORDINGS)]
        name = "cut/moment.drain" if number == recordings else f"moments/{number:04}.drain"
        made[name] = ""
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recording, place)
        if number == recordings:
            place.write_bytes(place.read_bytes()[:5000])
    return sorted(made)
