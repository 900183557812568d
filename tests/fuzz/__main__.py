"""Coverage-guided fuzzing of what meets hostile bytes first, by atheris.

    python3 -m tests.fuzz TARGET ... [--runs N ... | --seconds N] [--seed N] [--corpus FOLDER]

TARGET is one of the following; of several, each is fuzzed in a process of its own

    recording   a compressed recording, sealed with the right checksum and replayed
    content     the same, uncompressed before it is given to the parser
    core        the headers and notes of an ELF core, by all three readers of them
    walk        the walkers, self-check, reports and formats over a damaged heap
    statistics  the parsers of what malloc_stats_print() prints

An input that raises anything but a named error, prints a control character, reads
without bound or takes more than 1 GiB or 20 s is a failure: it is written to the
current directory and can be given again as --input FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = ("recording", "content", "core", "walk", "statistics")


def main() -> int:
    """Fuzz in a process of its own, whose temporary files go with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument("--runs", type=int, nargs="+", default=[-1], help="of each target")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="kept from run to run")
    parser.add_argument("--input", type=Path, help="only this one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.inside"],
            check=False,
            env={
                **os.environ,
                "FUZZ_REQUEST": json.dumps(vars(args), default=str),
                "TMPDIR": folder,
            },
        )
        return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
