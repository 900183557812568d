"""A bounded run of the fuzzer on each of its targets; ``python3 -m tests.fuzz`` runs on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.inputs import ROOT

RUNS = {"recording": 60, "content": 2000, "core": 2000, "walk": 80, "statistics": 200}


@pytest.mark.parametrize("target", RUNS)
def test_no_input_is_more_than_a_named_error(target: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "--runs", str(RUNS[target])],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert int(re.findall(r"^Done (\d+) runs", ran.stderr, re.M)[0]) >= RUNS[target]
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
