"""Two moments of a process: what went, what stayed, and how well that can be known."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from array import array
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import pytest

from drain_gdb.analysis.cohort import fates
from drain_gdb.analysis.moment import BinMoment, HeapMoment, Moment, SizeClass
from drain_gdb.analysis.projection import Projection, Step, project
from drain_gdb.analysis.ranges import Range, Share
from drain_gdb.debuggee.coremap import AT_RANDOM
from drain_gdb.debuggee.protocol import Identity, Placed, Process
from drain_gdb.debuggee.recording import DIGEST, PREFIX
from drain_gdb.debuggee.sameness import Look, compare
from examples.redis.server import Redis
from tests.conftest import once
from tests.support.inputs import debian_redis, program
from tests.support.processes import Program, gcore
from tests.support.reports import row, state, sweep_of
from tests.support.runs import Ran, gdb, lldb, shell

DIRECT = ("--debugger", "none", "--stop")
HERE = Path(__file__).parent
Figures = Dict[int, Tuple[int, int]]
"""Size of regions to ``(slabs there are, slabs made so far)``."""


def diff_json(*arguments: object) -> Dict[str, Any]:
    ran = shell("diff", *arguments, "--format", "json")
    assert ran.status == 0, ran
    content = json.loads(ran.out)
    assert content["schema"] == "drain_gdb.diff/1"
    assert isinstance(content, dict)
    return content


def record(pid: int, path: Path) -> Path:
    ran = shell("record", "--pid", pid, "-o", path, *DIRECT)
    assert ran.status == 0, ran
    return path


# -- a program that renews a known half of its slabs ----------------------------------


class Renewing(NamedTuple):
    """Recordings and cores of the program before and after, and jemalloc's figures."""

    before: Path
    freed: Path
    after: Path
    core: Path
    later_core: Path
    other: Path
    figures: List[Figures]
    halves: Dict[str, Any]
    live: Dict[str, Any]


def figures(said: str) -> Figures:
    rows = [list(map(int, part.split())) for part in said.split(",")]
    return {size: (there, made) for size, there, made in rows}


@pytest.fixture(scope="module")
def renewing(tmp_path_factory: pytest.TempPathFactory) -> Renewing:
    def make(folder: Path) -> Renewing:
        child = Program([str(program("renew", "-ljemalloc"))])
        twin = Program([str(program("renew", "-ljemalloc"))])
        try:
            said = [figures(child.ask("look"))]
            before = record(child.pid, folder / "before.drain")
            core = gcore(child.pid, folder / "core")
            said.append(figures(child.ask("free")))
            freed = record(child.pid, folder / "freed.drain")
            halves = diff_json(core, "--pid", child.pid)
            said.append(figures(child.ask("fill")))
            after = record(child.pid, folder / "after.drain")
            live = diff_json(before, "--pid", child.pid)
            later = gcore(child.pid, folder / "later")
            other = record(twin.pid, folder / "other.drain")
        finally:
            child.stop()
            twin.stop()
        return Renewing(before, freed, after, core, later, other, said, halves, live)

    return once(tmp_path_factory, "renewing", make)


def test_is_exact_where_no_slab_was_made(renewing: Renewing) -> None:
    start, freed, _ = renewing.figures
    for report in (diff_json(renewing.before, renewing.freed), renewing.halves):
        assert report["same_process"] is True
        rows = {each["size"]: each for each in report["bins"]}
        for size in (1024, 2048, 512):
            let_go = start[size][0] - freed[size][0]
            assert freed[size][1] == start[size][1]
            found = rows[size]
            assert found["made"] == 0
            assert found["slabs_before"] == start[size][0]
            assert found["released"] == {"value": let_go, "low": let_go, "high": let_go}
            assert found["dsr"]["low"] == found["dsr"]["high"] == let_go / start[size][0]
        assert rows[512]["released"]["value"] == 0
        assert rows[1024]["released"]["value"] == 1250


def test_the_truth_lies_within_the_bounds_where_slabs_were_made_again(renewing: Renewing) -> None:
    start, freed, end = renewing.figures
    for report in (diff_json(renewing.before, renewing.after), renewing.live):
        rows = {each["size"]: each for each in report["bins"]}
        renewed = rows[1024]
        let_go = start[1024][0] - freed[1024][0]
        assert renewed["made"] == end[1024][1] - start[1024][1] == let_go
        assert renewed["slabs_after"] == end[1024][0]
        assert renewed["released"]["low"] <= let_go == renewed["released"]["high"]
        assert renewed["pinned"]["low"] == start[1024][0] - let_go <= renewed["pinned"]["high"]
        assert renewed["dsr"]["low"] <= let_go / start[1024][0] == renewed["dsr"]["high"]
        assert rows[2048]["released"] == {"value": 1250, "low": 1250, "high": 1250}
        assert rows[512]["released"]["high"] == 0


def test_cores_say_the_same_as_recordings(renewing: Renewing) -> None:
    cores = diff_json(renewing.core, renewing.later_core, "--seconds", "10")
    recordings = diff_json(renewing.before, renewing.after)
    assert cores["same_process"] is True
    assert "random bytes" in cores["same_process_by"]
    assert cores["seconds"] == 10
    for each in cores, recordings:
        each["bins"] = [r for r in each["bins"] if r["size"] in (512, 1024, 2048)]
    assert cores["bins"] == recordings["bins"]


def test_a_trend_is_of_the_first_cohort(renewing: Renewing) -> None:
    report = diff_json(renewing.before, renewing.freed, renewing.after)
    first, middle, last = report["moments"]
    assert first["cohort"] is None
    assert 2500 <= middle["cohort"]["released"]["low"] < 2520
    assert last["cohort"] == report["cohort"]
    assert 0 < middle["seconds"] < last["seconds"] == report["seconds"]
    shown = shell("diff", renewing.before, renewing.freed, renewing.after)
    assert shown.status == 0
    assert max(map(len, shown.out.splitlines())) <= 100
    assert "before.drain" in shown.out and "after.drain" in shown.out


def test_another_process_is_refused_unless_forced(renewing: Renewing) -> None:
    refused = shell("diff", renewing.before, renewing.other)
    assert refused.status == 2
    assert "not of the same process" in refused.err
    assert "--force" in refused.err
    assert not refused.out
    forced = shell("diff", renewing.before, renewing.other, "--force")
    assert forced.status == 0
    assert "FORCED" in forced.out
    content = diff_json(renewing.before, renewing.other, "--force")
    assert content["same_process"] is False
    assert content["forced"] is True


def test_a_foreign_core_is_refused(renewing: Renewing, small_core: Path) -> None:
    for moments in ((renewing.core, small_core), (small_core, renewing.after)):
        refused = shell("diff", *moments)
        assert refused.status == 2
        assert "random bytes" in refused.err
        assert "the program is another file" in refused.err


def test_the_later_moment_does_not_come_first(renewing: Renewing) -> None:
    refused = shell("diff", renewing.after, renewing.before)
    assert refused.status == 1
    assert "taken before" in refused.err


def test_in_a_debugger_one_moment_is_compared_with_what_is_there(
    renewing: Renewing, tmp_path: Path
) -> None:
    for number, run in enumerate((gdb, lldb)):
        out = tmp_path / f"{number}.json"
        words = f"draindiff {renewing.before} --seconds 5 --format json --output {out}"
        binary = program("renew", "-ljemalloc")
        load = f"target create --core {renewing.later_core} {binary}"
        if run is gdb:
            gdb(words, arguments=[str(binary), str(renewing.later_core)])
        else:
            lldb(words, before=[load])
        report = json.loads(out.read_text())
        assert report["same_process"] is True
        assert "random bytes" in report["same_process_by"]
        rows = {each["size"]: each for each in report["bins"]}
        assert rows[2048]["released"] == {"value": 1250, "low": 1250, "high": 1250}


def test_the_random_bytes_of_a_process_are_not_recorded(tmp_path: Path) -> None:
    """They protect its stack: the first eight, but for one, are the canary of each frame."""
    child = Program([str(program("explicit", "-ljemalloc"))])
    try:
        vector = Path(f"/proc/{child.pid}/auxv").read_bytes()
        address = dict(struct.iter_unpack("<QQ", vector))[AT_RANDOM]
        with open(f"/proc/{child.pid}/mem", "rb") as memory:
            memory.seek(address)
            secret = memory.read(16)
        stored = record(child.pid, tmp_path / "one.drain").read_bytes()
    finally:
        child.stop()
    content = zlib.decompress(stored[PREFIX.size + DIGEST :])
    assert hashlib.sha256(secret).hexdigest().encode() in content
    for text in (content, stored):
        assert not any(part in text for part in (secret, secret[1:8], secret.hex().encode()))


def test_old_recordings_are_still_compared() -> None:
    old = HERE / "recordings" / "jemalloc-5.2.1.drain"
    report = diff_json(old, old)
    assert report["same_process"] is True
    cohort = report["cohort"]
    assert cohort["made"] is None
    assert cohort["released"] == {"value": 0, "low": 0, "high": cohort["slabs"]}
    others = shell("diff", old, HERE / "recordings" / "jemalloc-5.3.0.drain")
    assert others.status == 2
    assert "not of the same process" in others.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["diff"], "give two moments"),
        (["diff", "a"], "give two moments"),
        (["diff", "a", "b", "--debugger", "gdb"], "reads files itself"),
        (["diff", "a", "b", "--now"], "--pid PID"),
        (["diff", "--pid", "1"], "at least one MOMENT"),
        (["diff", "a", "b", "--seconds", "0"], "invalid seconds value"),
    ],
)
def test_misuse_is_named(words: List[str], why: str) -> None:
    ran = shell(*words)
    assert ran.status == 1
    assert why in ran.err


def test_a_file_that_is_not_there_is_named() -> None:
    ran = shell("diff", "/nowhere/a.drain", "/nowhere/b.drain")
    assert ran.status == 2
    assert "/nowhere/a.drain" in ran.err


# -- Redis ----------------------------------------------------------------------------


class Emptied(NamedTuple):
    """Reports on a Redis whose odd keys, then all keys were deleted."""

    odd: Dict[str, Any]
    flushed: Dict[str, Any]
    trend: Ran
    told: Dict[str, Any]


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Emptied:
    def make(folder: Path) -> Emptied:
        server = Redis(debian_redis(), folder)
        try:
            server.populate()
            full = record(server.pid, folder / "full.drain")
            before = folder / "before.txt"
            before.write_text(server.command("MEMORY", "MALLOC-STATS"))
            server.delete_odd()
            odd = diff_json(full, "--pid", server.pid)
            half = record(server.pid, folder / "half.drain")
            server.command("FLUSHALL")
            flushed = diff_json(half, "--pid", server.pid)
            trend = shell("diff", full, half, "--pid", server.pid)
            after = folder / "after.txt"
            after.write_text(server.command("MEMORY", "MALLOC-STATS"))
            told = diff_json(before, after)
        finally:
            server.stop()
        return Emptied(odd, flushed, trend, told)

    return once(tmp_path_factory, "emptied-redis", make)


def test_odd_deletions_drain_nothing_and_a_flush_nearly_all(emptied: Emptied) -> None:
    odd, flushed = emptied.odd["cohort"], emptied.flushed["cohort"]
    assert odd["slabs"] == pytest.approx(26_716, abs=60)
    assert 0 <= odd["dsr"]["low"] <= odd["dsr"]["high"] < 0.001
    assert flushed["dsr"]["low"] > 0.98
    kilobyte = {each["size"]: each for each in emptied.flushed["bins"]}[1024]
    assert kilobyte["dsr"]["low"] == kilobyte["dsr"]["high"] > 0.99
    parts = {each["part"]: each["change"] for each in emptied.flushed["account"]}
    assert parts["live"] < -40 << 20


def test_one_event_is_no_rate(emptied: Emptied) -> None:
    """Next to nothing went in the first step, nearly all in the second."""
    said = " ".join(emptied.trend.out.split())
    assert emptied.trend.status == 0
    assert "no projection: no steady rate: " in said
    assert " drained in step 1 of 2" in said
    assert "one event between them" in emptied.flushed["projection"]["assumes"]


def test_statistics_tell_sums_and_bounds(emptied: Emptied) -> None:
    told = emptied.told
    assert told["same_process"] is None
    assert told["cohort"]["dsr"] is None
    rows = {each["size"]: each for each in told["bins"]}
    assert rows[1024]["slabs_before"] == pytest.approx(25_000, abs=20)
    assert rows[1024]["released"]["low"] > 24_900
    assert rows[1024]["released"]["low"] <= rows[1024]["released"]["high"]
    assert told["projection"]["half_life_seconds"] is None


# -- the bounds, on bins that are made up ----------------------------------------------


class Bin:
    """A bin whose slabs have names, so that what became of each is known."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._free = list(range(64))
        self.slabs: Dict[int, int] = {}
        self.made = 0

    def step(self) -> None:
        if self.slabs and self._chance.random() < 0.5:
            address = self._chance.choice(list(self.slabs))
            del self.slabs[address]
            self._free.append(address)
        elif self._free:
            address = self._free.pop(self._chance.randrange(len(self._free)))
            self.made += 1
            self.slabs[address] = self.made

    def moment(self, drainable: List[int], hidden: int = 0) -> Moment:
        seen = sorted(self.slabs)[hidden:]
        place = BinMoment(
            array("Q", seen),
            array("Q", [each for each in drainable if each in seen]),
            self.made,
            0x1000,
            unseen=len(self.slabs) - len(seen),
        )
        heap = HeapMoment(1, [SizeClass(64, 4096)], {(0, 0, 0): place}, not hidden, True)
        report = sweep_of(row(64, state(1, 64, 64, 1)))
        return Moment("a", None, (heap,), (report,))


@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("steps", [0, 3, 40, 400])
def test_the_truth_is_never_outside_the_bounds(steps: int, hidden: int) -> None:
    for seed in range(100):
        chance = random.Random(seed)
        bin_ = Bin(chance)
        for _ in range(60):
            bin_.step()
        before, cohort = bin_.moment([]), dict(bin_.slabs)
        for _ in range(steps):
            bin_.step()
        drainable = [each for each in bin_.slabs if chance.random() < 0.3]
        after = bin_.moment(drainable, min(hidden, len(bin_.slabs)))
        ids = set(cohort.values())
        kept = {address for address, name in bin_.slabs.items() if name in ids}
        fate = fates(before, after)[64]
        released = len(cohort) - len(kept)
        pinned = len(kept - set(drainable))
        assert fate.slabs == len(cohort)
        assert fate.gone is not None and fate.pinned is not None
        assert fate.released.low <= released <= fate.released.high
        assert fate.pinned.low <= pinned <= fate.pinned.high
        assert fate.gone.low <= len(cohort) - pinned <= fate.gone.high
        new = len(set(bin_.slabs.values()) - ids)
        assert new - fate.new.high <= min(hidden, len(bin_.slabs))
        if not hidden:
            assert fate.new.low <= new <= fate.new.high
        if fate.made == 0 and not hidden:
            assert fate.released == Range(released, released, released)


# -- one process or two ---------------------------------------------------------------


def look(**parts: Any) -> Look:
    process = Process("recording", parts.pop("pid", 7), "a", "/a", "none", None)
    roots = parts.pop("roots", (0x1000,))
    return Look(process, Identity(**parts), roots)


def test_what_tells_one_process_from_another() -> None:
    assert compare(look(), look()).same is True
    assert compare(look(pid=None), look()).same is None
    assert compare(look(random="a"), look(random="a", pid=7)).same is True
    for one, other, why in (
        (look(random="a"), look(random="b"), "random bytes"),
        (look(started=1, boot="a"), look(started=2, boot="a"), "started at other times"),
        (look(started=1, boot="a"), look(started=1, boot="b"), "machine was started anew"),
        (look(program=Placed("a", 1)), look(program=Placed("b", 1)), "another file"),
        (look(allocators=(Placed("a", 1),)), look(allocators=(Placed("a", 2),)), "another address"),
        (look(roots=(1,)), look(roots=(2,)), "lie elsewhere"),
        (look(pid=7), look(pid=8), "the numbers 7 and 8"),
        (look(random="a", pid=7), look(random="a", pid=8), "a fork of the other"),
    ):
        found = compare(one, other)
        assert found.same is False
        assert why in found.why


# -- the projection -------------------------------------------------------------------


def test_a_projection_is_that_of_the_rates_of_the_classes() -> None:
    half = Share(0.5, 0.5, 0.5)
    assert project([(100, 10, half)], 60).half_life_seconds == pytest.approx(60)
    quarter = project([(100, 10, Share(0.25, 0.25, 0.5))], 60)
    assert quarter.half_life_seconds == pytest.approx(144.6, abs=0.1)
    assert quarter.earliest_seconds == pytest.approx(60)
    never = Share(0.0, 0.0, 0.0)
    assert project([(100, 10, never)], 60).half_life_seconds is None
    # What stays is more than half of it.
    assert project([(49, 10, half), (51, 10, never)], 60).half_life_seconds is None
    assert project([(51, 10, half), (49, 10, never)], 60).half_life_seconds is not None
    assert not project([(100, 10, half)], None).known
    assert not project([(0, 10, half)], 60).known


def _steady(*shares: float, slabs: int = 1000) -> Projection:
    """A trend of a moment a minute with these cohort DSRs, after the first."""
    trend = [Step(60.0 * n, share) for n, share in enumerate((0.0, *shares))]
    last = Share(shares[-1], shares[-1], shares[-1])
    return project([(100, slabs, last)], 60.0 * len(shares), trend)


def test_two_moments_tell_no_rate_from_an_event() -> None:
    found = _steady(0.5)
    assert found.half_life_seconds == pytest.approx(60)
    assert found.steady is None
    assert "one event" in found.assumes


@pytest.mark.parametrize(
    ("shares", "steady"),
    [
        ((0.5, 0.75), True),
        ((0.4, 0.75), True),
        ((0.0, 0.0), True),
        # All goes in one step, before or after a time in which nothing does.
        ((0.0, 0.99), False),
        ((0.99, 0.99), False),
        ((0.1, 0.2, 0.9), False),
        # What came back to life drains at no rate.
        ((0.5, 0.3, 0.6), False),
    ],
)
def test_a_trend_is_projected_where_its_steps_agree(
    shares: Tuple[float, ...], steady: bool
) -> None:
    found = _steady(*shares)
    assert found.steady is steady
    assert found.known is steady
    assert ("no steady rate" in found.assumes) is not steady


def test_few_slabs_drain_by_chance() -> None:
    """Two and four of a thousand may well be one rate, 200 and 600 not."""
    assert _steady(0.002, 0.006).steady
    assert _steady(0.001, 0.006).steady
    assert not _steady(0.1, 0.6).steady


def test_a_projection_needs_the_times_of_all_moments_and_a_cohort() -> None:
    half = Share(0.5, 0.5, 0.5)
    trend = [Step(0.0, 0.0), Step(None, 0.3), Step(60.0, 0.5)]
    assert "when it was" in project([(100, 10, half)], 60, trend).assumes
    assert not project([(100, 10, None)], 60).known
