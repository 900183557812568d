"""All that can read a target, each as the shell form starts it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any, Callable, Dict, Tuple

from tests.support.inputs import GDB, LLDB, newer_debuggers
from tests.support.runs import Ran, shell, sweep_json


@dataclass(frozen=True)
class Reader:
    """One of them.

    Attributes:
        name: in the names of tests.
        debugger: of ``--debugger``.
        program: the debugger to start.
        live: what a live process needs beside ``--pid`` to be seen at rest.

    """

    name: str
    debugger: str
    program: Callable[[], str] = lambda: ""
    live: Tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """With its version."""
        return f"{self.debugger} {_version(self.program())}" if self.program() else self.debugger

    def shell(self, *arguments: object) -> Ran:
        """``drain-gdb ARGUMENTS`` with this reader."""
        return shell(*arguments, *self._options(arguments), env=self._env())

    def sweep(self, *arguments: object) -> Dict[str, Any]:
        """The report of a sweep of every slab, which must succeed."""
        return sweep_json(*arguments, "--by", "slab", *self._options(arguments), env=self._env())

    def _options(self, arguments: Tuple[object, ...]) -> Tuple[str, ...]:
        return ("--debugger", self.debugger, *(self.live if "--pid" in arguments else ()))

    def _env(self) -> Dict[str, str]:
        return {f"DRAIN_GDB_{self.debugger.upper()}": self.program()}


@cache
def _version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", said.stdout.replace(os.path.basename(program), ""))
    assert found is not None, said
    return found[0]


REFERENCE = Reader("gdb", "gdb", lambda: GDB)
OTHERS = (
    Reader("newer-gdb", "gdb", lambda: str(newer_debuggers() / "gdb")),
    Reader("lldb", "lldb", lambda: LLDB),
    Reader("newer-lldb", "lldb", lambda: str(newer_debuggers() / "lldb")),
    Reader("none", "none", live=("--stop",)),
)
LLDBS = tuple(reader for reader in OTHERS if reader.debugger == "lldb")
