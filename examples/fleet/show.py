"""What the questions beside this file have for answers, of the tables in a folder.

    drain-gdb fleet /srv/moments -o DIR/fleet.parquet
    python3 -m examples.fleet.show DIR

Each is plain SQL: ``cd DIR && duckdb < hosts.sql`` is the same.  Needs duckdb.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict, List

import duckdb

HERE = Path(__file__).parent
QUESTIONS = ("hosts", "classes", "causes", "groups", "errors")


def answers(folder: Path) -> Dict[str, duckdb.DuckDBPyRelation]:
    """By question its answer; without groups where there is no such table."""
    os.chdir(folder)
    asked: List[str] = [*QUESTIONS]
    if not Path("fleet-groups.parquet").exists():
        asked.remove("groups")
    return {name: duckdb.sql((HERE / f"{name}.sql").read_text()) for name in asked}


def main() -> None:
    """Show them all."""
    for name, answer in answers(Path(sys.argv[1])).items():
        print(f"{name}:")
        answer.show(max_width=160)


if __name__ == "__main__":
    main()
