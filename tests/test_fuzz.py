"""A bounded run of the fuzzer on each of its targets; ``python3 -m tests.fuzz`` runs on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Dict, List

import pytest

from tests.support.inputs import ROOT

RUNS = {"recording": 25, "content": 800, "core": 800, "walk": 40, "statistics": 200}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    """What the fuzzer says of each target; nothing is left behind."""
    folder = tmp_path_factory.mktemp("fuzz")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *RUNS, "--runs", *map(str, RUNS.values())],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
    )
    parts: List[str] = re.split(r"^(\w+): ended with 0$", ran.stderr, flags=re.M)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert not [path for path in folder.iterdir() if path.is_file()]
    return dict(zip(parts[1::2], parts[::2]))


@pytest.mark.parametrize("target", RUNS)
def test_no_input_is_more_than_a_named_error(target: str, said: Dict[str, str]) -> None:
    assert int(re.findall(r"^Done (\d+) runs", said[target], re.M)[0]) >= RUNS[target]
