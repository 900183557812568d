"""Make a permanent case: a recording of livelist on a jemalloc, and what is true of it.

    python3 -m tests.recordings.make NAME LIBJEMALLOC

Writes NAME.drain and NAME.json beside this file.  Program and library are copied to
/opt first, so that no path of the machine is recorded.  The JSON holds the report
as it was then and, from the program itself, how many regions of small classes it
and libc hold, how many are in thread caches, and the allocator's own counts by bin.
Look at the difference before you commit it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.conftest import read_lists
from tests.support.inputs import program
from tests.support.processes import Program
from tests.support.runs import shell, sweep_json

HERE = Path(__file__).parent
SMALL_MAX = 14336


def main() -> int:
    name, library = sys.argv[1], Path(sys.argv[2])
    place = Path("/opt") / name
    place.mkdir()
    try:
        shutil.copyfile(library, place / "libjemalloc.so.2")
        shutil.copy(program("livelist", "-ljemalloc"), place / "livelist")
        with tempfile.TemporaryDirectory() as folder:
            lists_file = Path(folder) / "lists"
            command = [str(place / "livelist"), str(lists_file)]
            child = Program(command, {"LD_LIBRARY_PATH": str(place)})
            try:
                drain = HERE / f"{name}.drain"
                ran = shell("record", "--pid", child.pid, "-o", drain, "--force")
                assert ran.status == 0, ran
            finally:
                child.stop()
            lists = read_lists(lists_file)
    finally:
        shutil.rmtree(place)
    held = [size for _, size in lists.live + lists.libc if size <= SMALL_MAX]
    truth = {
        "live": len(held),
        "cached": len([size for _, size in lists.cached if size <= SMALL_MAX]),
        "bins": {size: list(stats) for size, stats in lists.bins.items() if stats.slabs},
    }
    case = {"truth": truth, "report": sweep_json(drain)}
    (HERE / f"{name}.json").write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
