"""A live process read without a stop, or stopped for a copy and let go, whatever happens."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple
from typing import Mapping as Map

import pytest

from drain_gdb.analysis.report import Sweep, Tolerance
from drain_gdb.debuggee.motion import LG_WINDOW, PAGE, ROUNDS, MovingTarget, merged
from drain_gdb.debuggee.procfs import ProcessTarget
from drain_gdb.debuggee.protocol import Mapping, Motion, Process
from drain_gdb.debuggee.ptrace import stopped
from drain_gdb.errors import TargetError, UnreadableMemory
from drain_gdb.jemalloc import find, moving
from drain_gdb.jemalloc.heap import Heap
from drain_gdb.jemalloc.walk import walk
from drain_gdb.loaders.direct import Direct
from drain_gdb.memory import Memory
from drain_gdb.render.recorded import line
from drain_gdb.render.style import Style
from drain_gdb.render.text import render
from tests.conftest import Livelist
from tests.support.inputs import ROOT, program
from tests.support.load import Load
from tests.support.processes import Program
from tests.support.reports import MISMATCH, row, state, sweep_of
from tests.support.runs import shell

# -- a server under load ----------------------------------------------------------


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    under_load = Load(tmp_path)
    try:
        yield under_load
    finally:
        under_load.stop()


SWEEPS = 5
"""Where others have the processors too, one sweep in some may not keep up."""


@pytest.mark.parametrize("how", ["in motion", "stopped for a copy"])
def test_a_redis_under_load(how: str, load: Load) -> None:
    """It only grows, so its slabs lie between what it counts itself before and after."""
    for _ in range(SWEEPS):
        before = load.slabs()
        ran, report = load.sweep(*(["--stop"] if how != "in motion" else []))
        after = load.slabs()
        assert before < after, "the load has ended"
        assert before <= report["verification"]["slabs_walked"] <= after
        assert before <= report["verification"]["slabs_recorded"] <= after
        if ran.status == 0:
            break
    assert ran.status == 0, report["verification"]
    if how == "in motion":
        assert report["process"]["in_motion"]["copies"] >= 1
        assert report["verification"]["tolerance"]["within"]
    else:
        assert report["verification"]["status"] == "exact"
        assert "drain-gdb: the process was stopped for 0." in ran.err


# -- threads that allocate without rest -------------------------------------------


@pytest.fixture
def churn() -> Iterator[Program]:
    child = Program([str(program("churn", "-ljemalloc")), "3", "10000"])
    try:
        yield child
    finally:
        child.stop()


def _steady(churn: Program, report: Dict[str, Any]) -> bool:
    """Whether there are about as many slabs as jemalloc's statistics said there were."""
    said = int(churn.output[-1].split()[1])
    found: int = report["verification"]["slabs_walked"]
    return 0.75 * said < found < 1.25 * said


@pytest.mark.long
def test_a_busy_process_is_exact_where_it_is_stopped(churn: Program) -> None:
    for _ in range(SWEEPS):
        ran = shell("sweep", "--pid", churn.pid, "--debugger", "none", "--format", "json", "--stop")
        report = json.loads(ran.out)
        assert _steady(churn, report)
        assert "drain-gdb: the process was stopped for 0." in ran.err
        if report["verification"]["status"] == "exact":
            assert ran.status == 0
            break
    else:
        pytest.fail("no sweep was exact")
    assert "t" not in _states(churn.pid)


@pytest.mark.long
def test_a_busy_process_in_motion_says_how_far_it_is_off(churn: Program) -> None:
    ran = shell("sweep", "--pid", churn.pid, "--debugger", "none", "--format", "json")
    report = json.loads(ran.out)
    tolerance = report["verification"]["tolerance"]
    assert _steady(churn, report)
    assert (ran.status == 0) == tolerance["within"]
    most = moving.ATTEMPTS + moving.FINDS + moving.PROOFS
    assert 1 <= report["process"]["in_motion"]["copies"] <= most
    assert (report["verification"]["status"] == "exact") == (tolerance["reached"] == 0)


# -- copies -----------------------------------------------------------------------


def test_the_pages_that_were_touched() -> None:
    with mmap.mmap(-1, 16 * PAGE) as own:
        for page in (2, 3, 7):
            own[page * PAGE] = 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(own))
        touched = ProcessTarget(os.getpid()).touched(start, 16 * PAGE)
    assert touched == [(start + 2 * PAGE, 2 * PAGE), (start + 7 * PAGE, PAGE)]


def test_a_guard_page_that_was_used_before_is_no_part_of_a_copy() -> None:
    """Nothing can be read there, though the kernel says that it was touched."""
    with mmap.mmap(-1, 8 * PAGE) as own:
        for page in range(8):
            own[page * PAGE] = page + 1
        start = ctypes.addressof(ctypes.c_char.from_buffer(own))
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        live = ProcessTarget(os.getpid())
        target = MovingTarget(live)
        assert mprotect(start + 5 * PAGE, PAGE, 0) == 0
        try:
            closed = live.closed()
            touched = live.touched(start, 8 * PAGE)
            target.hold({start >> LG_WINDOW, start + 8 * PAGE >> LG_WINDOW})
        finally:
            assert mprotect(start + 5 * PAGE, PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        assert (start + 5 * PAGE, start + 6 * PAGE) in closed
        assert touched == [(start, 8 * PAGE)]
        assert target.held is not None
        assert target.held.read(start + 4 * PAGE, 1) == b"\5"
        assert target.held.read(start + 6 * PAGE, 1) == b"\7"
        assert target.held.read(start + 5 * PAGE, 1) == b""


class OwnMemory:
    """This process as a live one, whose pages change when it is read as a test likes."""

    PAGES = 64

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._buffer = ctypes.create_string_buffer((self.PAGES + 2) * PAGE)
        self.start = -(-ctypes.addressof(self._buffer) // PAGE) * PAGE
        self.reads = 0
        self.changes: Dict[int, int] = {}
        self.hot: List[int] = []

    def write(self, page: int, value: int) -> None:
        ctypes.memset(self.start + page * PAGE, value & 0xFF, PAGE)

    def read(self, address: int, size: int) -> bytes:
        if address + size > self.start + self.PAGES * PAGE:
            raise UnreadableMemory(address, size)
        self.reads += 1
        data = ctypes.string_at(address, size)
        for page in self.hot:
            self.write(page, self.reads)
        if self.reads in self.changes:
            self.write(self.changes[self.reads], 255)
        return data

    def fill(self, address: int, block: bytearray) -> bool:
        try:
            block[:] = self.read(address, len(block))
        except UnreadableMemory:
            return False
        return True

    def unwritable(self) -> List[Mapping]:
        return []

    def process(self) -> Process:
        return Process("live", self.pid, "own", None, "none", None)


@pytest.fixture
def own() -> Tuple[OwnMemory, MovingTarget]:
    memory = OwnMemory()
    target = MovingTarget(memory)  # type: ignore[arg-type]
    target.read(memory.start, memory.PAGES * PAGE)
    return memory, target


def _motion(target: MovingTarget) -> Motion:
    motion = target.process().in_motion
    assert motion is not None
    return motion


def test_nothing_moves(own: Tuple[OwnMemory, MovingTarget]) -> None:
    memory, target = own
    target.hold()
    assert _motion(target) == Motion(1, 0, _motion(target).microseconds, True)
    memory.write(3, 7)
    assert target.read(memory.start + 3 * PAGE, 8) == bytes(8), "the copy is what is read"
    target.hold()
    assert target.read(memory.start + 3 * PAGE, 8) == bytes([7] * 8)


def _reading(memory: OwnMemory, *pages: int) -> MovingTarget:
    """A target of which these pages have been read."""
    target = MovingTarget(memory)  # type: ignore[arg-type]
    for page in pages:
        target.read(memory.start + page * PAGE, PAGE)
    return target


def test_what_moves_is_read_again(own: Tuple[OwnMemory, MovingTarget]) -> None:
    """Two pages apart change at every read, one more while all is copied a second time."""
    memory, _ = own
    target = _reading(memory, 5, 40, 50)
    memory.hot = [5, 50]
    memory.changes = {memory.reads + 4: 40}
    target.hold()
    motion = _motion(target)
    assert motion.settled
    assert motion.moved_bytes == 3 * PAGE
    hot = [target.read(memory.start + page * PAGE, PAGE) for page in (5, 50)]
    assert hot[0] == hot[1] != bytes(PAGE), "both are of one moment"
    assert target.read(memory.start + 40 * PAGE, 1) == b"\xff"
    assert target.missed == 0


def test_what_never_settles_is_called_so(own: Tuple[OwnMemory, MovingTarget]) -> None:
    memory, target = own
    memory.changes = {memory.reads + at: at + 4 for at in range(1, 3 * ROUNDS)}
    target.hold()
    assert not _motion(target).settled
    assert _motion(target).moved_bytes > 0
    for page in range(memory.PAGES):
        data = target.read(memory.start + page * PAGE, PAGE)
        assert data in (bytes(PAGE), b"\xff" * PAGE), "as it was before or after"
    assert target.read(memory.start + 5 * PAGE, 1) == b"\xff", "it moved first"


def test_what_is_gone_is_left_out(own: Tuple[OwnMemory, MovingTarget]) -> None:
    """A stretch that cannot be read any more is no part of the copy; the others are."""
    memory, _ = own
    target = _reading(memory, 2, 30, 63)
    memory.PAGES = 40
    memory.hot = [2]
    target.hold()
    assert _motion(target).settled
    assert target.read(memory.start + 30 * PAGE, PAGE) == bytes(PAGE)
    assert target.missed == 0
    with pytest.raises(UnreadableMemory):
        target.read(memory.start + 63 * PAGE, PAGE)


def test_what_the_copy_lacks_is_read_and_counted(own: Tuple[OwnMemory, MovingTarget]) -> None:
    memory = own[0]
    target = MovingTarget(memory)  # type: ignore[arg-type]
    target.read(memory.start, PAGE)
    target.hold()
    assert target.held is not None
    held = sum(map(len, target.held.blocks))
    memory.write(0, 9)
    memory.PAGES += 1
    data = target.read(memory.start, held + 8)
    assert data[:8] == bytes(8)
    assert target.missed == 1
    target.hold()
    assert target.read(memory.start, held + 8)[:8] == bytes([9] * 8)
    assert target.missed == 0


def test_stretches_are_merged_to_pages() -> None:
    assert merged([(PAGE * 3 + 5, 10), (10, 20), (PAGE - 1, 2), (PAGE * 9, PAGE)]) == [
        (0, 2 * PAGE),
        (3 * PAGE, PAGE),
        (9 * PAGE, PAGE),
    ]


# -- attempts ---------------------------------------------------------------------


def test_a_layout_that_was_not_proven_is_looked_for_again(
    livelist: Livelist, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found while all moved, a wrong one may be off by less than the right one."""
    find_heap, times = find.find_heap, []

    def wrong_at_first(*given: Any) -> Heap:
        heap = find_heap(*given)
        times.append(heap)
        if len(times) > 1:
            return heap
        elsewhere = replace(heap.layout.bin, stats=dict.fromkeys(heap.layout.bin.stats, 0))
        return walk(given[1](), replace(heap.layout, bin=elsewhere))

    monkeypatch.setattr(find, "find_heap", wrong_at_first)
    target = MovingTarget(ProcessTarget(livelist.pid))
    (heap,), _ = find.find_heaps(target, lambda: Memory(target.read, mapped=target.mapped()))
    assert len(times) == 2
    assert heap.verification.status == "exact"


def _found(
    target: MovingTarget, monkeypatch: pytest.MonkeyPatch, differences: List[float]
) -> List[Heap]:
    """The heaps that are chosen where the walks are off by ``differences``, in their order."""
    left = iter(differences)
    monkeypatch.setattr(moving, "difference", lambda _: next(left))
    monkeypatch.setattr(find, "_believed", lambda _: True)
    heaps, _ = find.find_heaps(target, lambda: Memory(target.read, mapped=target.mapped()))
    return heaps


def _is_whole(target: MovingTarget, heaps: List[Heap]) -> None:
    """What is held gives the same walk again, with no look at the process."""
    target.missed = 0
    again = walk(Memory(target.read, mapped=target.mapped()), heaps[0].layout)
    assert target.missed == 0
    assert len(again.slabs) == len(heaps[0].slabs) > 1000
    assert again.verification.status == "exact"


def test_the_best_of_several_copies(livelist: Livelist, monkeypatch: pytest.MonkeyPatch) -> None:
    target = MovingTarget(ProcessTarget(livelist.pid))
    off = [0.5, 0.0024, 0.0023, 0.0012, 0.0022, 0.0026, 0.0027]
    heaps = _found(target, monkeypatch, off)
    assert _motion(target).copies == 3, "the third copy was off the least"
    _is_whole(target, heaps)


def test_what_two_copies_agree_on_is_no_movement(
    livelist: Livelist, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MovingTarget(ProcessTarget(livelist.pid))
    _found(target, monkeypatch, [0.5, 0.4, 0.002, 0.002])
    assert _motion(target).copies == 2


def test_three_copies_far_off_are_enough(
    livelist: Livelist, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MovingTarget(ProcessTarget(livelist.pid))
    heaps = _found(target, monkeypatch, [0.5, 0.009, 0.008, 0.007])
    assert _motion(target).copies == 3
    _is_whole(target, heaps)


def test_where_it_is_stopped_no_copy_is_too_far_off(
    livelist: Livelist, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MovingTarget(ProcessTarget(livelist.pid), partial(stopped, livelist.pid))
    heaps = _found(target, monkeypatch, [0.5, 0.009, 0.008, 0.007, 0])
    assert "t" not in _states(livelist.pid)
    assert target.process().in_motion is None
    assert target.stopped_seconds > 0
    _is_whole(target, heaps)


# -- what is said of it -----------------------------------------------------------


def _swept(reached: float, motion: Motion) -> Sweep:
    report = sweep_of(row(16, state(4, 256, 16, 500)), verification=MISMATCH)
    process = replace(report.process, source="live", in_motion=motion)
    return replace(report, process=process, tolerance=Tolerance(0.001, reached))


def test_nearly_right_is_said_to_be_so() -> None:
    near = _swept(0.00042, Motion(3, 3 * 4096, 250, True))
    text = " ".join(render(near, Style()).split())
    assert "NOT VERIFIED" not in text
    assert "verified nearly: 10 slabs and 7 regions walked" in text
    said = "in copy 3, the best, 12.0 KiB moved meanwhile, and were read again within 0.25 ms"
    assert said in text
    assert "off by 0.042 %, within the tolerance of 0.1 %" in text
    assert near.sound
    assert "verified nearly (read in motion)" in line([near], "x", 1, 0.2, None, Style())


def test_too_far_off_is_not_verified() -> None:
    far = _swept(0.2, Motion(10, 4096, 250, False))
    text = " ".join(render(far, Style()).split())
    assert "NOT VERIFIED" in text
    assert "and more moved around them" in text
    assert "off by 20 %, beyond the tolerance of 0.1 %" in text
    assert "--stop" in text
    assert not far.sound
    assert "NOT VERIFIED" in line([far], "x", 1, 0.2, None, Style())


# -- the stop ---------------------------------------------------------------------

RUNNING = """
import os, threading
def run():
    while True:
        os.write(1, b'.' * 512)
for _ in range(3):
    threading.Thread(target=run, daemon=True).start()
run()
"""
PIPE = 1 << 17


def _states(pid: int) -> List[str]:
    """Of each thread of a process (proc(5))."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found


class Running:
    """A process of four threads that write without end; reading on shows that it runs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", RUNNING], stdout=subprocess.PIPE)
        self.pid = self.process.pid
        while len(_states(self.pid)) < 4:
            self.read_on()

    def stands(self) -> bool:
        """Whether every thread is in a tracing stop."""
        return set(_states(self.pid)) == {"t"}

    def read_on(self) -> None:
        """Read more than a pipe holds; hangs (and the test fails) if nothing writes."""
        assert self.process.stdout is not None
        watchdog = signal.alarm(60)
        try:
            left = 2 * PIPE
            while left > 0:
                left -= len(self.process.stdout.read1(PIPE))  # type: ignore[attr-defined]
        finally:
            signal.alarm(watchdog)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def running() -> Iterator[Running]:
    process = Running()
    try:
        yield process
    finally:
        process.stop()


def test_every_thread_stands_and_runs_on(running: Running) -> None:
    for _ in range(3):
        with stopped(running.pid):
            assert running.stands()
        running.read_on()
        assert not running.stands()


def test_busy_threads_go_on_and_the_others_stand(running: Running) -> None:
    asked: List[Map[int, int]] = []
    with stopped(running.pid) as stop:

        def busy(threads: Map[int, int]) -> Set[int]:
            asked.append(threads)
            return {running.pid} if len(asked) < 4 else set()

        assert stop.step_out(busy)
        assert running.stands()
    assert [len(threads) for threads in asked] == [4, 1, 1, 1, 4]
    running.read_on()


def test_busy_threads_do_not_go_on_for_long(running: Running) -> None:
    with stopped(running.pid) as stop:
        assert not stop.step_out(set)
        assert running.stands()
    running.read_on()


def test_nobody_sees_a_signal(running: Running) -> None:
    """Its parent would be told of a SIGSTOP, by waitpid() or SIGCHLD."""
    with stopped(running.pid):
        pass
    seen = os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
    assert seen is None
    running.read_on()


def test_after_an_error_it_runs_on(running: Running) -> None:
    with pytest.raises(ZeroDivisionError), stopped(running.pid):
        raise ZeroDivisionError
    running.read_on()


HOLDING = """
import sys, time
from drain_gdb.debuggee.ptrace import stopped
with stopped(int(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
"""


def _holder(pid: int) -> subprocess.Popen[bytes]:
    """Another process that has stopped ``pid`` and waits."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_however_we_end_it_runs_on(running: Running, end: signal.Signals) -> None:
    with _holder(running.pid) as holder:
        assert running.stands()
        holder.send_signal(end)
        holder.wait()
    running.read_on()


def test_one_that_is_traced_already(running: Running) -> None:
    with _holder(running.pid) as holder:
        said = f"process {holder.pid} is tracing it already"
        with pytest.raises(TargetError, match=said), stopped(running.pid):
            pass
        assert running.stands(), "it is the other's still"
        holder.communicate()
    running.read_on()


def test_one_that_was_stopped_before_stays_so(running: Running) -> None:
    os.kill(running.pid, signal.SIGSTOP)
    os.waitpid(running.pid, os.WUNTRACED)
    with stopped(running.pid) as stop:
        assert not stop.step_out(set), "it is not for us to wake it"
        assert running.stands()
    # It is woken to stop again by itself, as job control asks.
    deadline = time.monotonic() + 60
    while set(_states(running.pid)) != {"T"}:
        assert time.monotonic() < deadline, "it runs on, though it was stopped"
    os.kill(running.pid, signal.SIGCONT)
    running.read_on()


SIGNALS = 200


def test_no_signal_is_lost() -> None:
    """Each is on its way while the process is being stopped; of this kind every one counts."""
    with subprocess.Popen(
        [str(program("counter"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        for _ in range(SIGNALS):
            os.kill(child.pid, signal.SIGRTMIN)
            with stopped(child.pid):
                pass
        said, _ = child.communicate()
    assert int(said) == SIGNALS


def test_what_reads_contents_has_it_stand(running: Running) -> None:
    """As long as it is looked at, and with the registers of its threads."""
    direct = Direct(None, running.pid, None, None, stop=False, stands=True)
    target = direct.open()
    assert running.stands()
    threads = target.threads()
    listed = set(map(int, os.listdir(f"/proc/{running.pid}/task")))
    assert {thread.id for thread in threads} == listed
    for thread in threads:
        assert thread.stack_pointer in thread.registers
        assert target.read(thread.stack_pointer, 8)
    assert (direct.release() or 0) > 0
    running.read_on()


def test_one_that_is_not_there() -> None:
    with pytest.raises(TargetError, match="No such process"), stopped(2**22 + 1):
        pass
