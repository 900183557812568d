"""Language servers: started, given a file to look at, and left waiting."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any, Dict, Optional

ANSWER_SECONDS = 60
FUNCTIONS = 400


class LanguageServer:
    """A server on its standard input and output that has looked at a file (LSP 3.17)."""

    def __init__(self, command: Path, workspace: Path) -> None:
        self.process = subprocess.Popen(
            [str(command), "server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        watchdog = threading.Timer(ANSWER_SECONDS, self.process.kill)
        watchdog.start()
        try:
            self._look(workspace)
        finally:
            watchdog.cancel()

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _look(self, workspace: Path) -> None:
        file = {"uri": (workspace / "a.py").as_uri()}
        text = "".join(
            f"def f{n}(a: int) -> int:\n    return a + {n}\n\n\nclass C{n}:\n    x = f{n}(1)\n"
            for n in range(FUNCTIONS)
        )
        root = {"rootUri": workspace.as_uri(), "processId": None}
        capabilities = {"textDocument": {"diagnostic": {}}}
        self._ask(1, "initialize", {**root, "capabilities": capabilities})
        self._send({"method": "initialized", "params": {}})
        opened = {**file, "languageId": "python", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": opened}})
        self._ask(2, "textDocument/diagnostic", {"textDocument": file})

    def _ask(self, number: int, method: str, params: Dict[str, Any]) -> None:
        """Send a request and wait for its answer; what the server asks is answered with null."""
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._receive()
            assert message is not None, "the server has ended"
            if "method" not in message and message.get("id") == number:
                return
            if "method" in message and "id" in message:
                items = (message.get("params") or {}).get("items")
                answer = None if items is None else [None] * len(items)
                self._send({"id": message["id"], "result": answer})

    def _send(self, message: Dict[str, Any]) -> None:
        assert self.process.stdin is not None
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def _receive(self) -> Optional[Dict[str, Any]]:
        assert self.process.stdout is not None
        size = 0
        for line in self.process.stdout:
            if line == b"\r\n":
                found: Dict[str, Any] = json.loads(self.process.stdout.read(size))
                return found
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        return None
