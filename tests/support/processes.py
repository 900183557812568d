"""Processes under test: started, waited for by an event, stopped."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Dict, Iterator, List, NamedTuple, Optional, Sequence

from tests.support.inputs import GDB, LLDB_SERVER

READY_SECONDS = 60
WITHOUT_LIBRARIES = ("-iex", "set auto-solib-add off")
"""Options of gdb, which a core needs no symbols for: some libraries take seconds."""


class Program:
    """A child that prints ``ready`` and then waits for its input to close."""

    def __init__(
        self,
        command: Sequence[str],
        env: Optional[Dict[str, str]] = None,
        ready: str = "ready",
        cwd: Optional[Path] = None,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        self.output = await_line(self.process, ready)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._drain = threading.Thread(target=self._hear, args=(self.process.stdout,), daemon=True)
        self._drain.start()

    def _hear(self, stream: IO[str]) -> None:
        for line in stream:
            self._said.put(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, line: str) -> str:
        """The line that it prints, once it has read ``line``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._said.get(timeout=READY_SECONDS).rstrip("\n")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self._drain.join()


@contextmanager
def standing(pid: int) -> Iterator[None]:
    """All threads of a child stand."""
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def await_line(process: subprocess.Popen[str], wanted: str) -> List[str]:
    """Lines up to the one that holds ``wanted``; fails when the child ends before."""
    assert process.stdout is not None
    watchdog = threading.Timer(READY_SECONDS, process.kill)
    watchdog.start()
    lines: List[str] = []
    try:
        for line in process.stdout:
            lines.append(line)
            if wanted in line:
                return lines
    finally:
        watchdog.cancel()
    process.wait()
    raise AssertionError(f"{process.args} was never ready: {''.join(lines)}")


def gcore(pid: int, core: Path) -> Path:
    """A core of the process as it is, which runs on."""
    done = subprocess.run(
        [GDB, "-batch", "-nx", *WITHOUT_LIBRARIES, "-p", str(pid), "-ex", f"gcore {core}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert core.exists(), done.stdout + done.stderr
    return core


class GdbServer:
    """gdbserver attached to a process, on a free loopback port."""

    def __init__(self, pid: int) -> None:
        self.process = subprocess.Popen(
            ["gdbserver", "--once", "--attach", "127.0.0.1:0", str(pid)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.port = int(await_line(self.process, "Listening on port")[-1].split()[-1])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class LldbServer:
    """lldb-server attached to a process, on a free loopback port."""

    def __init__(self, pid: int) -> None:
        reading, writing = os.pipe()
        command = [LLDB_SERVER, "gdbserver", "--pipe", str(writing), "127.0.0.1:0"]
        self.process = subprocess.Popen([*command, "--attach", str(pid)], pass_fds=[writing])
        os.close(writing)
        with open(reading, encoding="ascii") as said:
            port = said.read().strip("\0\n")
        assert port.isdigit(), "lldb-server was never ready"
        self.port = int(port)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class BinStatistics(NamedTuple):
    """What jemalloc's own statistics say of a size class."""

    slabs: int
    regions: int


def parse_malloc_stats(text: str) -> Dict[int, BinStatistics]:
    """The merged ``bins:`` table of malloc_stats_print(), by region size."""
    lines = text[text.index("\nbins:") :].splitlines()[1:]
    # Each column's number ends where its head does, with or without a rate beside it.
    heads = lines[0].replace("bins:", "     ", 1)
    ends = {}
    for name in ("size", "curregs", "curslabs"):
        at = heads.index(f" {name}")
        ends[name] = at + 1 + len(name)
    found = {}
    for line in lines[1:]:
        if line.startswith("large:"):
            break
        if line.strip() == "---":
            continue
        values = {name: int(line[:end].split()[-1]) for name, end in ends.items()}
        found[values["size"]] = BinStatistics(values["curslabs"], values["curregs"])
    return found
