"""``drain-gdb`` in a process of its own, forked from one that has loaded it already.

Starting a Python and loading the commands takes longer than most sweeps of tests do.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Dict, List, Tuple

from tests.support.inputs import ROOT

LOADED = (
    "tabulate",
    "numpy",
    "jinja2",
    "pyarrow.parquet",
    "drain_gdb.loaders.shell",
    "drain_gdb.loaders.launch",
    "drain_gdb.loaders.direct",
    "drain_gdb.commands.diff",
    "drain_gdb.commands.find",
    "drain_gdb.commands.pins",
    "drain_gdb.commands.plan",
    "drain_gdb.commands.record",
    "drain_gdb.commands.report",
    "drain_gdb.commands.slab",
    "drain_gdb.commands.sweep",
    "drain_gdb.debuggee.dwarf",
    "drain_gdb.debuggee.recording",
    "drain_gdb.analysis.holders",
    "drain_gdb.analysis.moment",
    "drain_gdb.analysis.pins_numpy",
    "drain_gdb.analysis.plan",
    "drain_gdb.objects.naming_numpy",
    "drain_gdb.objects.references_numpy",
    "drain_gdb.objects.registry",
    "drain_gdb.objects.survey",
)
ONE_AT_A_TIME = Lock()


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def end() -> None:
        server.communicate()

    atexit.register(end)
    return server


def forked(
    arguments: List[str], env: Dict[str, str], cwd: Path, seconds: float
) -> Tuple[int, str, str]:
    """``(exit status, standard output, standard error)``; it is killed after ``seconds``."""
    with tempfile.TemporaryDirectory() as folder, ONE_AT_A_TIME:
        streams = [str(Path(folder, name)) for name in ("out", "err")]
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        json.dump([arguments, env, str(cwd), streams, int(seconds)], server.stdin)
        server.stdin.write("\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        out, err = (Path(stream).read_text(encoding="utf-8") for stream in streams)
    if status == -signal.SIGALRM:
        raise TimeoutError(f"drain-gdb {' '.join(arguments)} ran on: {out[-1000:]}{err[-1000:]}")
    return status, out, err


def _become(
    arguments: List[str], env: Dict[str, str], cwd: str, streams: List[str], seconds: int
) -> int:
    """In the new process: be ``drain-gdb ARGUMENTS``, ended by an alarm after ``seconds``."""
    signal.alarm(seconds)
    for number, path in enumerate(("/dev/null", *streams)):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["drain-gdb", *arguments]
    try:
        status: int = import_module("drain_gdb.loaders.shell").main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - as an interpreter would
        traceback.print_exc()
        return 1
    return status


def _serve() -> None:
    for module in LOADED:
        import_module(module)
    gc.freeze()
    for line in sys.stdin:
        request: List[Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = _become(*request)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            # To take all that is loaded apart takes longer than many a command.
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
