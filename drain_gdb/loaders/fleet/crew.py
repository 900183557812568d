"""Workers that read the files of a fleet, by Dask; whatever becomes of one, the others go on.

Small files are read several at a time.  Where a worker ends or does not, what it had is read
once more, file by file and nothing beside it: so an error is said of the file that has it.
"""

from __future__ import annotations

import logging
import multiprocessing.resource_tracker
import os
import signal
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import drain_gdb
from drain_gdb.analysis.fleet import Cells, error_cells
from drain_gdb.errors import TargetError, WorkerError
from drain_gdb.loaders.fleet.files import Source
from drain_gdb.loaders.fleet.reading import Asked, Place, read_all, version
from drain_gdb.words import seconds

TOGETHER, TOGETHER_BYTES = 16, 4 << 20
"""Files, and bytes of files, that are read in one task."""
DEPTH = 2
"""Tasks that a worker is given at a time: one waits while another is done."""
LOOK_SECONDS = 5
"""How often is looked for tasks that take too long."""
CONNECT_SECONDS = 10
RESTART_SECONDS, POLL_SECONDS, SETTLE_SECONDS = 60, 0.05, 0.5
"""How long is waited for workers at most, and how often is looked."""
SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": float("inf"),
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.logging.distributed": "critical",
}
"""A worker that ends is told at once, and nothing is measured or shown that nobody looks at."""


class Task(NamedTuple):
    """Files of one system, to be read one after the other."""

    system: Any
    places: Sequence[Place]


class Crew:
    """Workers of the Dask cluster that ``client`` speaks to."""

    def __init__(self, client: Any, asked: Asked) -> None:
        self._client = client
        # What takes too long ends its process, which is one for several threads.
        alone = max(client.nthreads().values()) == 1
        self._asked = replace(asked, ends=alone)
        self._distributed = import_module("distributed")
        self._flying: Dict[Any, Tuple[Task, float]] = {}
        self._again: List[Task] = []

    def read(self, sources: Sequence[Source]) -> Iterator[Tuple[Place, Cells]]:
        """What each file gives, as they are done."""
        threads = self._threads()
        yield from self._run(deque(_tasks(sources, threads)), threads * DEPTH, DEPTH)
        for task in _single(self._again):
            threads = self._await(threads)
            yield from self._run(deque([task]), 1, None)

    def _threads(self) -> int:
        return sum(self._client.nthreads().values())

    def _await(self, threads: int) -> int:
        """Wait for workers that start anew, that nothing be late for them; how many came."""
        if self._threads() < threads:
            end = time.monotonic() + RESTART_SECONDS
            while self._threads() < threads and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            # One that ends while it is being started is not started again.
            time.sleep(SETTLE_SECONDS)
        if not self._threads():
            raise WorkerError("no worker is left", "the same command goes on where it ended")
        return self._threads()

    def _run(
        self, waiting: Deque[Task], most: int, depth: Optional[int]
    ) -> Iterator[Tuple[Place, Cells]]:
        """Do the tasks, so many at a time; what fails is done again, or told without ``depth``."""
        while waiting or self._flying:
            while waiting and len(self._flying) < most:
                self._start(waiting.popleft())
            for future in self._over(depth or 1):
                task, since = self._flying.pop(future)
                if future.status == "finished":
                    yield from zip(task.places, future.result())
                elif depth is None:
                    yield task.places[0], self._failed(future, time.monotonic() - since)
                else:
                    self._again.append(task)

    def _start(self, task: Task) -> None:
        arguments = task.system, task.places, self._asked
        future = self._client.submit(read_all, *arguments, pure=False)
        self._flying[future] = task, time.monotonic()

    def _over(self, depth: int) -> List[Any]:
        """What is done, or is given up."""
        with suppress(self._distributed.TimeoutError):
            self._distributed.wait(
                list(self._flying), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED"
            )
        before = time.monotonic() - (self._asked.limit * depth + RESTART_SECONDS)
        late = [future for future, (_, since) in self._flying.items() if since < before]
        if late:
            self._client.cancel(late, force=True)
        over = [future for future in self._flying if future.status != "pending"]
        return [*over, *(future for future in late if future not in over)]

    def _failed(self, future: Any, took: float) -> Cells:
        """What a file gives whose task has failed, done by itself."""
        if took >= self._asked.limit:
            return _told(f"it took longer than {seconds(self._asked.limit)}")
        error = future.exception() if future.status == "error" else None
        if error is None or type(error).__name__ == "KilledWorker":
            return _told("the worker that read it ended, as when memory is short")
        return error_cells(type(error).__name__, str(error))


def _told(why: str) -> Cells:
    return error_cells(WorkerError.__name__, why)


def _tasks(sources: Sequence[Source], threads: int) -> Iterator[Task]:
    """All files, several at a time where they are small and there are many."""
    number = sum(len(source.places) for source in sources)
    together = max(1, min(TOGETHER, number // (threads * DEPTH)))
    for source in sources:
        some: List[Place] = []
        for place in source.places:
            size = sum(each.size for each in some) + place.size
            if some and (len(some) == together or size > TOGETHER_BYTES):
                yield Task(source.system, some)
                some = []
            some.append(place)
        if some:
            yield Task(source.system, some)


def _single(tasks: Sequence[Task]) -> Iterator[Task]:
    for task in tasks:
        for place in task.places:
            yield Task(task.system, [place])


def _silent() -> Any:
    """Dask, which would tell of each worker that ends."""
    distributed = import_module("distributed")
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


@contextmanager
def local(workers: Optional[int]) -> Iterator[Any]:
    """A client of so many workers of this machine, or one a processor.

    Whoever has no certificate of theirs, which are made for the occasion, speaks to none: what
    is sent to workers is executed.
    """
    distributed, config = _silent(), import_module("dask.config")
    number = workers or len(os.sched_getaffinity(0))
    with config.set(SETTINGS):
        with _uninterrupted():
            cluster = distributed.LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                security=True,
                silence_logs=logging.CRITICAL,
            )
        with cluster, distributed.Client(cluster) as client:
            yield client


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Threads and processes begun meanwhile are never interrupted; this one is, afterwards."""
    # Python starts this one itself when it is first needed, and lets signals in then.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def remote(address: str) -> Iterator[Any]:
    """A client of the scheduler at ``address``; TargetError where that or its workers fail."""
    distributed = _silent()
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise TargetError(f"cannot reach a Dask scheduler at {address}: {error}") from None
    with client:
        _require_ours(client, address)
        try:
            yield client
        except (OSError, CancelledError) as error:
            why = f"{type(error).__name__}, the same command goes on where it ended"
            raise TargetError(f"the scheduler at {address} is gone", why) from None


def _require_ours(client: Any, address: str) -> None:
    """Refuse workers that lack this program, or have another version of it."""
    if not client.nthreads():
        raise TargetError(f"the scheduler at {address} has no workers", "start some: dask worker")
    mend = "install the same drain-gdb there"
    try:
        theirs = set(client.run(version).values())
    except Exception as error:  # noqa: BLE001 - whatever they lack
        raise TargetError(f"the workers of {address} cannot read: {error}", mend) from None
    if theirs != {drain_gdb.__version__}:
        has = ", ".join(sorted(theirs))
        raise TargetError(f"the workers of {address} have drain-gdb {has}", mend)
