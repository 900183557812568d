"""Coverage-guided fuzzing of what meets hostile bytes first, by atheris.

    python3 -m tests.fuzz TARGET [--runs N | --seconds N] [--seed N] [--corpus FOLDER]

TARGET is one of

    recording   a compressed recording, sealed with the right checksum and replayed
    content     the same, uncompressed before it is given to the parser
    core        the headers and notes of an ELF core, by all three readers of them
    walk        the walkers, self-check, reports and formats over a damaged heap

An input that raises anything but a named error, prints a control character, reads
without bound or takes more than 1 GiB or 20 s is a failure: it is written to the
current directory and can be given again as --input FILE.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["drain_gdb"]):
    from tests.fuzz import seeds, targets

INSIDE = "DRAIN_GDB_FUZZ_INSIDE"
SEEDS = {
    "recording": seeds.recordings,
    "content": seeds.contents,
    "core": seeds.cores,
    "walk": seeds.damages,
    "statistics": seeds.statistics,
}
LENGTH_MAX = {
    **{"recording": 1 << 16, "content": 1 << 16, "core": 1 << 13, "walk": 240},
    "statistics": 1 << 15,
}


def main() -> int:
    """Fuzz in a process of its own, whose temporary files go with it."""
    if INSIDE in os.environ:
        _fuzz()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, INSIDE: "1", "TMPDIR": folder}
        command = [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]]
        return subprocess.run(command, check=False, env=environment).returncode


def _fuzz() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=targets.TARGETS)
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="kept from run to run")
    parser.add_argument("--input", type=Path, help="only this one")
    args = parser.parse_args()
    run = targets.TARGETS[args.target]
    if args.input is not None:
        run(args.input.read_bytes())
        sys.exit(0)
    folder = args.corpus or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    for number, seed in enumerate(SEEDS[args.target]()):
        (folder / f"seed-{number}").write_bytes(seed)
    options = [
        f"-runs={args.runs}",
        f"-max_total_time={args.seconds}",
        f"-seed={args.seed}",
        f"-max_len={LENGTH_MAX[args.target]}",
        "-rss_limit_mb=1024",
        "-timeout=20",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
