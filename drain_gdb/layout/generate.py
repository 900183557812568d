"""Write the layout data from a checkout of jemalloc.

    python3 -m drain_gdb.layout.generate CHECKOUT

CHECKOUT is a clone with tags; its work tree is not touched.  Every commit from 5.0.0 to
its HEAD that changes a header is asked for its structs (:mod:`drain_gdb.layout.probe`),
which needs git, autoconf and gcc, but builds nothing of jemalloc.  Run again on a newer
checkout it adds the commits that came since.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from drain_gdb.errors import DrainError, LayoutError
from drain_gdb.layout.declare import declare
from drain_gdb.layout.model import CONSTANTS, DATA, SCHEMA
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.probe import COMPILER, Checkout, ask

LAYOUTS = Path(__file__).parent / DATA
FIRST = "5.0.0"
ROOTS = (
    "arena_s",
    "arena_bin_s",
    "arena_bin_info_s",
    "base_s",
    "base_block_s",
    "bin_s",
    "bin_info_s",
    "cache_bin_s",
    "cache_bin_array_descriptor_s",
    "cache_bin_info_s",
    "edata_s",
    "emap_s",
    "extent_s",
    "hpa_central_s",
    "hpdata_s",
    "rtree_s",
    "rtree_leaf_elm_s",
    "rtree_metadata_s",
    "tcache_s",
    "tcache_bin_s",
    "tcache_slow_s",
)
"""The structs the walkers reach, in any version; their members by value come along."""
SETS = (
    Parameters(12, 4, 48),
    Parameters(16, 3, 57, lock_bytes=48),
    Parameters(14, 4, 64),
)
"""Build parameters that differ in everything, so that what depends on them shows."""
CHUNK = 32
"""Commits that are asked by one process, in order, before what they say is written."""

Declared = Dict[str, Any]
Asked = Tuple[Declared, Declared]
"""Structs and constants by name, of usual builds and of debug builds."""


class Asker:
    """Asks commits one after the other, compiling only where a header's types changed."""

    def __init__(self, repository: Path, directory: Path) -> None:
        self._directory = directory
        self._checkout = Checkout(repository, directory / "jemalloc")
        self._texts: List[str] = []
        self._asked: Optional[Asked] = None

    def ask(self, commit: str) -> Asked:
        """What ``commit`` says."""
        self._checkout.go(commit)
        texts = [self._checkout.text(SETS[0], debug) for debug in (False, True)]
        if self._asked is None or texts != self._texts:
            self._asked = (self._declared(commit, False), self._declared(commit, True))
            self._texts = texts
        return self._asked

    def _declared(self, commit: str, debug: bool) -> Declared:
        answers = {
            parameters: ask(
                self._checkout.text(parameters, debug), ROOTS, self._directory, COMPILER
            )
            for parameters in SETS
        }
        structs, constants = declare(answers, commit)
        return {**structs, CONSTANTS: constants}


def ask_all(repository: Path, commits: Sequence[str]) -> List[Tuple[str, Optional[Asked]]]:
    """What each of ``commits`` says; None of one whose headers do not compile."""
    found: List[Tuple[str, Optional[Asked]]] = []
    with tempfile.TemporaryDirectory() as directory:
        asker = Asker(repository, Path(directory))
        for commit in commits:
            try:
                found.append((commit, asker.ask(commit)))
            except LayoutError as error:
                print(f"{commit}: {error.message}: {error.hint}", file=sys.stderr)
                found.append((commit, None))
    return found


class Layouts:
    """The layout data while commits are added to it."""

    def __init__(self, content: Dict[str, Any]) -> None:
        self.content = content
        self._usual: Dict[str, int] = {}
        self._debug: Dict[str, int] = {}
        for _, changed, own in content["rows"]:
            self._usual.update(changed)
            self._debug.update(own)

    def add(self, version: str, asked: Asked) -> None:
        """Note ``version``, and a row for it where a struct has another form than before."""
        usual, debug = ({n: self._form(n, d) for n, d in each.items()} for each in asked)
        # A struct that only one kind of build has is of no use, and there is none.
        own = {name: form for name, form in debug.items() if form != usual.get(name)}
        changed = _changes(self._usual, usual)
        changed_own = _changes(self._debug, own)
        if changed or changed_own:
            self.content["rows"].append([version, changed, changed_own])
        self.content["newest"] = version

    def _form(self, name: str, declared: Declared) -> int:
        """The number of the form of ``name`` that is ``declared``, a new one if there is none."""
        forms = self.content["forms"].setdefault(name, [])
        declared = json.loads(json.dumps(declared))
        if declared not in forms:
            forms.append(declared)
        return int(forms.index(declared)) + 1


def _changes(state: Dict[str, int], new: Dict[str, int]) -> Dict[str, int]:
    """Bring ``state`` to ``new``; what changed, 0 for what is gone."""
    gone = {name: 0 for name, form in state.items() if form and name not in new}
    changes = {name: form for name, form in new.items() if state.get(name, 0) != form}
    state.update({**changes, **gone})
    return dict(sorted({**changes, **gone}.items()))


class Repository:
    """The checkout as it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *arguments: str) -> str:
        """The output of a git command."""
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise LayoutError(
                f"{self.path} is not a clone of jemalloc with tags", said[-1] if said else None
            )
        return done.stdout.strip()

    def version(self, commit: str) -> str:
        """The version that jemalloc's configure gives ``commit``, its hash cut short."""
        return self.git("describe", "--long", "--abbrev=8", "--match", "[0-9]*", commit)

    def since(self, version: str) -> List[str]:
        """The commits after ``version`` that may change a layout, oldest first."""
        start = version.rsplit("-g", 1)[-1]
        between = f"{start}..HEAD"
        listed = self.git("rev-list", "--reverse", "--topo-order", between, "--", "include")
        return listed.splitlines()

    def releases(self) -> List[str]:
        """The releases from the first on, newest first."""
        order = ("--sort=-version:refname", "--merged", "HEAD", "--contains", FIRST)
        return self.git("tag", *order).splitlines()


def generate(repository: Repository, content: Dict[str, Any], jobs: int) -> Iterator[int]:
    """Add to ``content`` what came since; yields how many commits are still to be asked."""
    commits = repository.since(content["newest"] or FIRST)
    if not content["newest"]:
        commits.insert(0, repository.git("rev-parse", f"{FIRST}^{{commit}}"))
    content["releases"] = repository.releases()
    layouts = Layouts(content)
    chunks = [commits[at : at + CHUNK] for at in range(0, len(commits), CHUNK)]
    left = len(commits)
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(ask_all, [repository.path] * len(chunks), chunks):
            for commit, asked in found:
                if asked is not None:
                    layouts.add(repository.version(commit), asked)
            left -= len(found)
            yield left


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        prog="python3 -m drain_gdb.layout.generate",
        description="Write the layout data from a checkout of jemalloc.",
    )
    parser.add_argument("checkout", type=Path, help="a clone of jemalloc with tags")
    parser.add_argument("-o", "--output", type=Path, default=LAYOUTS, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    content: Dict[str, Any] = {
        "schema": SCHEMA,
        "newest": "",
        "releases": [],
        "forms": {},
        "rows": [],
    }
    if args.output.exists():
        content = json.loads(args.output.read_text(encoding="utf-8"))
    try:
        for left in generate(Repository(args.checkout.resolve()), content, args.jobs):
            args.output.write_text(dump(content), encoding="utf-8")
            print(f"at {content['newest']}, {left} commits left", flush=True)
    except DrainError as error:
        print(f"generate: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def dump(content: Dict[str, Any]) -> str:
    """JSON with one member or row a line."""
    structs = []
    for name, forms in sorted(content["forms"].items()):
        shown = ",\n      ".join(_form(form) for form in forms)
        structs.append(f"    {json.dumps(name)}: [\n      {shown}\n    ]")
    rows = ",\n".join(f"    {json.dumps(row)}" for row in content["rows"])
    head = {key: value for key, value in content.items() if key not in ("forms", "rows")}
    top = json.dumps(head, indent=2)[:-2]
    body = ",\n".join(structs)
    return f'{top},\n  "forms": {{\n{body}\n  }},\n  "rows": [\n{rows}\n  ]\n}}\n'


def _form(declared: Declared) -> str:
    parts = []
    for key, value in declared.items():
        if key in ("members", "union"):
            lines = ",\n".join(f"        {json.dumps(entry)}" for entry in value)
            parts.append(f"{json.dumps(key)}: [\n{lines}\n      ]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{" + ", ".join(parts) + "}"


if __name__ == "__main__":
    sys.exit(main())
