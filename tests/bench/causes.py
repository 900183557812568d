"""What is said of heaps as people report them, against what is so.

    python3 -m tests.bench.causes [NAME ...]

Each program of ``programs/situations.c`` is swept while it runs.  The causes are held
against those that it was made for, RSS against the system's, and each remedy is done for
real, one after the other: what was foretold beside what came.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, List, Tuple

from tabulate import tabulate

from tests.support.situations import SITUATIONS, Running, Situation, running

MIB = 1 << 20
RESTARTS = {
    "huge_pages_off": "thp:never,dirty_decay_ms:0",
    "fewer_arenas": "narenas:2,tcache:false",
}
"""Options of a second start, for remedies that need one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    rows, done = [], []
    for situation in SITUATIONS:
        if names and situation.name not in names:
            continue
        row, remedies = look(situation)
        rows.append(row)
        done += remedies
    heads = ["situation", "options", "RSS MiB", "parts", "causes", "as expected"]
    print(tabulate(rows, heads, disable_numparse=True))
    print()
    heads = ["situation", "remedy", "foretold MiB", "came MiB", "off"]
    print(tabulate(done, heads, disable_numparse=True))
    return 0


def look(situation: Situation) -> Tuple[List[str], List[List[str]]]:
    """A row of what is said, and a row of each remedy."""
    with running(situation.name, situation.options) as program:
        report = program.sweep()
        rss = program.memory()
        parts = sum(part["resident_bytes"] for part in report["account"]["parts"])
        least = 0.05 * report["account"]["resident_bytes"]
        causes = [cause for cause in report["causes"] if cause["bytes"] >= least]
        said = [cause["cause"] for cause in causes]
        expected = list(situation.causes)
        row = [situation.name, situation.options or "-", f"{rss / MIB:.1f}"]
        row += [f"{100 * (parts - rss) / rss:+.2f} %"]
        row += [", ".join(f"{c['cause']} {c['bytes'] / MIB:.1f}" for c in causes)]
        row += ["yes" if said[: len(expected)] == expected else f"NO: {', '.join(expected)}"]
        remedies = [remedy(situation, program, causes, name) for name in situation.remedies]
    return row, remedies


def remedy(
    situation: Situation, program: Running, causes: List[Dict[str, Any]], name: str
) -> List[str]:
    """Do it, and see what comes back to the machine."""
    foretold = next(
        item["bytes"] for cause in causes for item in cause["remedies"] if item["remedy"] == name
    )
    before = freeable(program)
    if name in RESTARTS:
        with running(situation.name, RESTARTS[name]) as again:
            after = freeable(again)
    else:
        if name == "flush_caches":
            program.do("flush")
        program.do("purge")
        after = freeable(program)
    came = before - after
    off = f"{100 * (foretold - came) / came:+.1f} %" if came else "-"
    return [situation.name, name, f"{foretold / MIB:.1f}", f"{came / MIB:.1f}", off]


def freeable(program: Running) -> int:
    """What would come back to the machine if the program ended: what it shares is not."""
    memory = program.memory
    return memory("Private_Clean") + memory("Private_Dirty")


if __name__ == "__main__":
    raise SystemExit(main())
