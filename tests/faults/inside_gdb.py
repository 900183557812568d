"""Variants of the core that gdb has loaded, read through gdb; run by tests/faults/suite.py."""

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from drain_gdb.loaders.dependencies import NEEDED_DIRECTLY, ensure

ensure(NEEDED_DIRECTLY)

from drain_gdb.debuggee.gdb import GdbTarget
from tests.faults.suite import Input, Suite
from tests.faults.twins import Twin


def main():
    request = json.loads(os.environ["FAULTS_REQUEST"])
    suite = Suite(request["seed"], [Input(Twin(GdbTarget()))])
    counts, bad = suite.run(request["variants"])
    rows = [[kind, outcome, number] for (kind, outcome), number in counts.items()]
    Path(request["result"]).write_text(json.dumps({"counts": rows, "bad": bad}))


main()
