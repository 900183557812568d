"""Thousands of damaged cores and recordings, each held against the truth.

    python3 -m tests.faults [--variants N] [--words N] [--seed S] [--only NAME] [--jobs N]
                            [--gdb N] [--number N]

Each variant takes a heap whose truth is known (recordings of every layout, cores made
anew, heaps written by hand), damages a structure of it or the file around it, and runs
drainsweep or drainrecord on it, in one of its forms.  It must end within bounds on reads,
bytes, time and memory, with exit status 0, 2 or 3, one line for a failure, no control
character, and must not say "exact" where the slabs or their live regions are not the
twin's.  Printed are the outcomes by kind of damage:

    refused              a named error, exit status 2
    mismatch or partial  a report that says so, exit status 3
    exact, and equal     the damage hit nothing that counts: the report is true
    not verifiable       a build without statistics, and nothing contradicts itself
    not knowable         the damaged bytes are as the allocator itself may leave them, so
                         that no reader could tell: tests/faults/legal.py has the proof
    WRONG, FAILED        there must be none; each is printed with its number, which
                         --number repeats

Then single words are overwritten of what all else hangs from: bin_infos, arenas and their
table, root and leaves.  Of these less than a twentieth may be refused.

The same seed gives the same variants of the same inputs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import List

from tests.faults.suite import (
    OPTIONS,
    REFUSED_MOST,
    Counts,
    Suite,
    fresh_cores,
    inputs,
    limit_memory,
    refused_share,
    table,
    through_gdb,
)
from tests.support.inputs import program


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=2_000, help="so many single words")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", default="", metavar="NAME", help="inputs so named")
    parser.add_argument("--core", type=Path, action="append", default=[], help="another core")
    parser.add_argument("--gdb", type=int, default=400, help="so many of them through a gdb")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--number", type=int, help="only this variant, with all it printed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cores = [*fresh_cores(Path(folder)), *((path.name, path) for path in args.core)]
        found = inputs(args.only, cores)
        # What is one of the single words is repeated with --variants 0.
        suite = Suite(args.seed, found, words=not args.variants)
        if args.number is not None:
            print(suite.explain(args.number))
            return 0
        counts: Counts = Counter()
        bad: List[str] = []
        for name, path in cores[: len(OPTIONS)] if args.gdb else []:
            binary = program("livelist", *OPTIONS[name])
            more, worse = through_gdb(args.seed, args.gdb // len(OPTIONS), binary, path)
            counts, bad = counts + more, bad + worse
        limit_memory()
        more, worse = suite.run(args.variants - sum(counts.values()), args.jobs)
        counts, bad = counts + more, bad + worse
        words, worse = Suite(args.seed, found, words=True).run(args.words, args.jobs)
    print(table(counts), table(words), sep="\n\n")
    if refused_share(words) >= REFUSED_MOST:
        worse.append(f"FAILED: {refused_share(words):.1%} of single words are refused")
    for line in bad + worse:
        print(line)
    return 1 if bad or worse else 0


if __name__ == "__main__":
    sys.exit(main())
