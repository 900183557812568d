"""One file for machines without pip: ``python3 -m drain_gdb.loaders.zipapp -o drain-gdb.pyz``.

It runs as ``./drain-gdb.pyz``, and ``./drain-gdb.pyz init gdb`` prints what loads it into a
debugger.  It carries the libraries that are Python alone, as they are installed here.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipapp
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import List

PACKAGE = Path(__file__).resolve().parents[1]
CARRIED = ("Jinja2", "MarkupSafe", "pyelftools", "Pygments", "tabulate")
"""What a command cannot do without, or looks best with; MarkupSafe is Jinja2's."""
COMPILED = ".so"
EXECUTABLE = 0o111
LEFT_OUT = ("__pycache__", "*.pyc", "man")


def build(output: Path) -> List[str]:
    """Make the file; the names of libraries that are not installed here."""
    missing = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(PACKAGE, root / PACKAGE.name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        shutil.copy(PACKAGE / "__main__.py", root)
        for name in CARRIED:
            try:
                _carry(name, root)
            except PackageNotFoundError:
                missing.append(name)
        zipapp.create_archive(root, output, interpreter="/usr/bin/env python3", compressed=True)
    output.chmod(output.stat().st_mode | EXECUTABLE)
    return missing


def _carry(name: str, root: Path) -> None:
    """Copy a library with its licence, but for its programs and what is compiled."""
    for file in distribution(name).files or ():
        own = ".." not in file.parts and "__pycache__" not in file.parts and file.suffix != COMPILED
        if own and file.parts[0] != "bin":
            place = root / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), place)


def main() -> int:
    """Make the file that the command line names."""
    parser = argparse.ArgumentParser(description="Make drain-gdb.pyz, which needs no pip.")
    parser.add_argument("-o", "--output", type=Path, default=Path("drain-gdb.pyz"), metavar="FILE")
    args = parser.parse_args()
    for name in build(args.output):
        print(f"left out, as it is not installed here: {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
