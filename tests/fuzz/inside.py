"""The fuzzer itself: of each target in turn, in a process of its own.

What is fuzzed is made ready for it once, for all of them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any, Dict

import atheris

with atheris.instrument_imports(include=["drain_gdb"]):
    from tests.fuzz import seeds, targets

LENGTH_MAX = {
    **{"recording": 1 << 16, "content": 1 << 16, "core": 1 << 13, "walk": 240},
    "statistics": 1 << 15,
}


def main() -> int:
    """What the environment asks for; the first exit status that is not 0."""
    request = json.loads(os.environ["FUZZ_REQUEST"])
    worst = 0
    for target, runs in zip(request["targets"], cycle(request["runs"])):
        child = os.fork()
        if not child:
            _fuzz(target, runs, request)
        _, status = os.waitpid(child, 0)
        print(f"{target}: ended with {os.waitstatus_to_exitcode(status)}", file=sys.stderr)
        worst = worst or os.waitstatus_to_exitcode(status)
    return worst


def _fuzz(target: str, runs: int, request: Dict[str, Any]) -> None:
    """Fuzz until the end of the process."""
    run = targets.TARGETS[target]
    if request["input"] is not None:
        run(Path(request["input"]).read_bytes())
        sys.exit(0)
    folder = Path(request["corpus"] or tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds.SEEDS[target]()):
        (folder / f"seed-{number}").write_bytes(seed)
    options = [
        f"-runs={runs}",
        f"-max_total_time={request['seconds']}",
        f"-seed={request['seed']}",
        f"-max_len={LENGTH_MAX[target]}",
        "-rss_limit_mb=1024",
        "-timeout=20",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
