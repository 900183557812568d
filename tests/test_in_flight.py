"""Processes stopped inside jemalloc: told so, and off by no more than what is on its way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from tests.support.inputs import program
from tests.support.runs import gdb

SIZE, COUNT = 320, 6400
BATCH = 200
"""Most regions that one refill or flush moves: TCACHE_NSLOTS_SMALL_MAX (tcache.c, 5.3.0)."""
STAGES = {
    "refill": ("je_edata_heap_remove_first", "je_arena_cache_bin_fill_small"),
    "flush": ("je_arena_dalloc_bin_locked_handle_newly_nonempty", "je_tcache_bin_flush_small"),
    "slab": ("je_emap_register_interior", "arena_slab_alloc"),
    "purge": ("je_pages_purge_forced", "pac_decay_to_limit"),
}
"""Where each stage is stopped, and a caller on the way there."""


UNDER_WAY = {
    "refill": "bin locked",
    "flush": "bin locked",
    "slab": "slab made or let go",
    "purge": "purge of dirty extents",
}


def stopped_in(stage: str, folder: Path) -> List[Tuple[int, Dict[str, Any]]]:
    """What the program held, and the reports, before the stage and inside it.

    The exit status is the one of a mismatch where there is one.
    """
    place, caller = STAGES[stage]
    binary = program("inflight", "-l:libjemalloc.a", "-lm", "-lstdc++")
    ran = gdb(
        "break ready",
        f"run {stage}",
        'printf "held %ld\\n", (long) held',
        f"drainsweep --format json --output {folder}/before",
        f"break {place}",
        "python stacks = iter(lambda: gdb.execute('backtrace', to_string=True), None)",
        f"python any({caller!r} in s or gdb.execute('continue') for s in stacks)",
        'printf "held %ld\\n", (long) held',
        f"drainsweep --format json --output {folder}/inside",
        "print $_drain_status",
        f"drainsweep --output {folder}/text",
        "kill",
        arguments=[str(binary)],
    )
    held = [int(number) for number in re.findall(r"^held (\d+)$", ran.out, re.M)]
    assert len(held) == 2, ran
    reports = [json.loads((folder / name).read_text()) for name in ("before", "inside")]
    assert f"$1 = {3 if reports[1]['verification']['status'] == 'mismatch' else 0}" in ran.out
    return list(zip(held, reports))


def live_of(report: Dict[str, Any]) -> int:
    return int(next(row["live"] for row in report["bins"] if row["size"] == SIZE))


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_stopped_inside_the_allocator(stage: str, tmp_path: Path) -> None:
    (held, before), (held_inside, inside) = stopped_in(stage, tmp_path)
    assert before["verification"]["status"] == "exact"
    assert before["verification"]["in_flight"] == []
    assert live_of(before) == held
    found = inside["verification"]
    assert [(each["arena"], each["what"]) for each in found["in_flight"]] == [(0, UNDER_WAY[stage])]
    moving = abs(live_of(inside) - held_inside)
    # No more regions than by which the allocator's own count is behind or ahead.
    assert moving <= abs(found["regions_walked"] - found["regions_recorded"]) <= BATCH
    assert (found["status"] == "mismatch") == (stage != "purge")
    text = (tmp_path / "text").read_text()
    assert "in flight: the process seems stopped inside jemalloc (arena 0" in text
    assert text.index("in flight: ") < text.index("DSR, live")
