"""A real Redis for a while: on a free loopback port, filled and half emptied."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, Optional, Sequence

READY = "Ready to accept connections"
READY_SECONDS = 60
KEYS = 100_000
RESIDENT_OFF = 0.05
ASK_SECONDS = 0.05


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Connection:
    """Keeps open between commands: Redis has nothing to do once it has answered."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._answers = self._socket.makefile("rb")

    def run(self, commands: Sequence[str]) -> None:
        """Send all ``commands``, wait for an answer to each."""
        self._socket.sendall("".join(f"{command}\r\n" for command in commands).encode())
        for command in commands:
            answer = self._answers.readline()
            if not answer or answer.startswith(b"-"):
                raise RuntimeError(f"{command}: {answer.decode() or 'the connection is closed'}")

    def close(self) -> None:
        """Leave."""
        self._answers.close()
        self._socket.close()


class Redis:
    """A server that allows DEBUG, saves nothing and keeps its timers slow.

    It is ready when the constructor returns.  From Redis 7 on DEBUG is ``guarded``
    by a setting that older servers do not know.  ``preload`` is a library that brings
    the allocator to one that has none of its own.
    """

    def __init__(
        self, binary: Path, folder: Path, guarded: bool = True, preload: Optional[Path] = None
    ) -> None:
        self.port = free_port()
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "hz": "1",
            "dynamic-hz": "no",
            "activerehashing": "no",
            "dir": str(folder),
        }
        if guarded:
            settings["enable-debug-command"] = "local"
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        self.process = subprocess.Popen(
            [str(binary), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(preload)} if preload else None,
        )
        self._ready = threading.Event()
        self._log = threading.Thread(target=self._read_log, daemon=True)
        self._log.start()
        if not self._ready.wait(READY_SECONDS) or self.process.poll() is not None:
            self.stop()
            raise RuntimeError(f"{binary} did not start on port {self.port}")

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if READY in line:
                self._ready.set()
        self._ready.set()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def command(self, *words: str) -> str:
        """What redis-cli prints for a command; RuntimeError where Redis refuses it."""
        done = subprocess.run(
            ["redis-cli", "-e", "-h", "127.0.0.1", "-p", str(self.port), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def connect(self) -> Connection:
        """A connection of its own, for commands that are answered in one line each."""
        return Connection(self.port)

    def populate(self, keys: int = KEYS) -> None:
        """``keys`` values of about 1 KB each."""
        self.command("DEBUG", "POPULATE", str(keys), "key", "1000")

    def delete_odd(self, keys: int = KEYS) -> None:
        """Delete every second of them."""
        script = f"for i=1,{keys - 1},2 do redis.call('del','key:'..i) end return 'done'"
        self.command("EVAL", script, "0")

    def memory(self) -> Dict[str, str]:
        """INFO memory, by key.

        Redis looks at its resident size once a second: it is asked until it has.
        """
        end = time.monotonic() + READY_SECONDS
        while True:
            lines = self.command("INFO", "memory").splitlines()
            found = dict(line.split(":", 1) for line in lines if ":" in line)
            resident = self._resident()
            known = abs(int(found["used_memory_rss"]) - resident) < RESIDENT_OFF * resident
            if known or time.monotonic() > end:
                return found
            time.sleep(ASK_SECONDS)

    def _resident(self) -> int:
        """The resident size now, in bytes, as the kernel says."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.wait()
        self._log.join()


@contextmanager
def half_emptied(
    binary: Path, folder: Path, keys: int = KEYS, guarded: bool = True
) -> Iterator[Redis]:
    """A server for as long as the block, with every second of ``keys`` deleted."""
    server = Redis(binary, folder, guarded)
    try:
        server.populate(keys)
        server.delete_odd(keys)
        yield server
    finally:
        server.stop()
