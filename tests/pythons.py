"""The wheel and the zip file in each Python there is: ``python3 -m tests.pythons``.

Each gets a clean virtual environment with the wheel and its extras, and then looks at a
recording and at a core, makes the completions, and has the manual page and the version.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List

from tabulate import tabulate

from tests.support.inputs import ROOT, program
from tests.support.processes import Program, gcore

OLDEST = (3, 9)
FOLDERS = ("/usr/bin", "/usr/local/bin", "~/.pyenv/versions/*/bin")
RECORDING = ROOT / "tests/recordings/jemalloc-5.3.0.drain"
SHELLS = ("bash", "zsh", "fish")


def interpreters() -> Dict[str, Path]:
    """Every Python that the package is for, by its version; of each version one."""
    found: Dict[str, Path] = {}
    for pattern in FOLDERS:
        folder = Path(pattern).expanduser()
        for path in sorted(Path("/").glob(f"{folder.relative_to('/')}/python3.*")):
            minor = path.name.partition(".")[2]
            if minor.isdigit() and (3, int(minor)) >= OLDEST and f"3.{minor}" not in found:
                found[f"3.{minor}"] = path
    return dict(sorted(found.items(), key=lambda each: int(each[0][2:])))


def _said(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, cwd="/"
    ).stdout


def _checks(command: List[object], core: Path) -> Iterator[str]:
    """How ``drain-gdb`` does, as ``command`` starts it, in a word each."""
    for target, reader in ((RECORDING, "none"), (core, "none"), (core, "gdb")):
        said = _said(*command, "sweep", target, "--debugger", reader, "--format", "json")
        yield json.loads(said)["verification"]["status"]
    yield _said(*command, "--version").split()[-1]


def main() -> int:
    """Print what came of each."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = Program([str(program("explicit", "-ljemalloc"))])
        core = gcore(child.pid, folder / "core")
        child.stop()
        _said(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        for version, python in interpreters().items():
            place = folder / version
            _said(python, "-m", "venv", place)
            _said(place / "bin/pip", "install", "--quiet", f"{wheel}[completion,direct]")
            command: List[object] = [place / "bin/drain-gdb"]
            done = list(_checks(command, core))
            lines = [_said(*command, "completion", shell).count("\n") for shell in SHELLS]
            assert (place / "share/man/man1/drain-gdb.1").is_file()
            rows.append([_said(python, "-V").split()[1], *done, *lines])
    heads = ["Python", "recording", "core, none", "core, gdb", "version", *SHELLS]
    print(tabulate(rows, heads, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
