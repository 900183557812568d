"""All variants: by number, in parallel, counted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import struct
import subprocess
import tempfile
import zlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from tabulate import tabulate

from drain_gdb.debuggee import recording
from drain_gdb.debuggee.elf import PROGRAM_HEADER, PT_LOAD, PT_NOTE, Elf, parse
from drain_gdb.debuggee.elfcore import CoreTarget
from drain_gdb.debuggee.files import File
from drain_gdb.debuggee.protocol import Target
from drain_gdb.debuggee.recording import DIGEST, MAGIC, PREFIX, RecordingTarget
from drain_gdb.errors import DrainError
from tests.faults.attempt import FORMS, OUTCOMES, REFUSED, Outcome, attempt, run
from tests.faults.mutate import (
    Cut,
    Damage,
    DamagedFile,
    DamagedTarget,
    cut_of,
    damage,
    one_word,
)
from tests.faults.twins import BUILDS, Twin, made, of_core, of_recording
from tests.support.inputs import GDB, program
from tests.support.processes import Program, gcore

INSIDE_GDB = Path(__file__).with_name("inside_gdb.py")
RECORDINGS = Path(__file__).parents[1] / "recordings"
OPTIONS = {
    "stripped": ("-ljemalloc",),
    "symbols": ("-Wl,-z,muldefs", "-l:libjemalloc.a", "-lm", "-lstdc++"),
}
"""How livelist is linked, to a jemalloc without symbols or with them."""
MEMORY_MAX = 4 << 30
FILE_SHARE = 0.15
RECORD_SHARE = 0.03
APART = 3
"""By how many kinds an input is ahead of the one before."""
NOTES_FIRST = 0.7
"""How many of the cores that are cut off keep their notes."""
FILE_SIZE_AT = 32
"""Where p_filesz stands in an Elf64_Phdr (elf.h)."""
REFUSED_MOST = 0.05
"""The share of single words that may be refused."""
FILES = "the file: "
CUT, HEADERS, CONTENT = (FILES + what for what in ("cut off", "headers and notes", "content"))

Counts = Counter[Tuple[str, str]]


def limit_memory() -> None:
    """Let this process fail where damage makes it ask for more than ``MEMORY_MAX`` bytes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))


def fresh_cores(folder: Path) -> Iterator[Tuple[str, Path]]:
    """Cores of livelist, linked in each of the ``OPTIONS``."""
    for name, options in OPTIONS.items():
        child = Program([str(program("livelist", *options)), str(folder / "lists")])
        try:
            yield name, gcore(child.pid, folder / f"{name}.core")
        finally:
            child.stop()


@dataclass(frozen=True)
class Input:
    """A twin, the file around it where there is one, and its name."""

    twin: Twin
    path: Optional[Path] = None
    name: str = ""


def inputs(only: str, cores: Sequence[Tuple[str, Path]]) -> List[Input]:
    """Every heap whose name holds the words ``only``."""
    makers: Dict[str, Callable[[], Input]] = {}
    for build in BUILDS:
        makers[f"made by hand, {build}"] = partial(_made, build)
    for path in sorted(RECORDINGS.glob("*.drain")):
        makers[f"{path.stem}, recording"] = partial(_recorded, path, False)
        makers[f"{path.stem}, all memory"] = partial(_recorded, path, True)
    for name, path in cores:
        makers[f"{name}, core"] = partial(_core, path)
    return [replace(make(), name=name) for name, make in makers.items() if only in name]


def _made(build: str) -> Input:
    return Input(made(build))


def _recorded(path: Path, filled: bool) -> Input:
    return Input(of_recording(path, filled), None if filled else path)


def _core(path: Path) -> Input:
    return Input(of_core(path), path)


class Suite:
    """Variants of ``found``, each made of ``seed`` and its number alone.

    Damage is of every kind, to files too, or, where ``words``, to one word each.  Inputs
    take turns, and so do the kinds for each of them.
    """

    def __init__(self, seed: str, found: Sequence[Input], words: bool = False) -> None:
        self._seed = seed
        self._inputs = found
        self._damage = one_word if words else damage
        self._file_share = 0.0 if words else FILE_SHARE

    def run(self, variants: int, jobs: int = 1) -> Tuple[Counts, List[str]]:
        """The outcomes by kind of damage; a line for each that must not be."""
        counts: Counts = Counter()
        bad: List[str] = []
        with ExitStack() as stack:
            each: Iterator[Tuple[int, str, Outcome]] = map(self.one, range(variants))
            if jobs > 1:
                pool = stack.enter_context(get_context("fork").Pool(jobs, _adopt, (self,)))
                each = pool.imap_unordered(_one, range(variants), 50)
            for number, kind, outcome in each:
                counts[kind, outcome.kind] += 1
                if outcome.kind in OUTCOMES[-2:]:
                    bad.append(f"{outcome.kind} {number} ({kind}): {outcome.why}")
        return counts, bad

    def _picked(self, number: int) -> Tuple[Input, int, random.Random]:
        """The input of a variant, whose turn it is among kinds of damage, and its chances."""
        rounds, row = divmod(number, len(self._inputs))
        # Each input begins with other kinds, so that few rounds see them all.
        turn = rounds + APART * row
        return self._inputs[row], turn, random.Random(f"{self._seed}:{number}")

    def one(self, number: int) -> Tuple[int, str, Outcome]:
        """The number, the kind of damage and the outcome of one variant."""
        taken, turn, chance = self._picked(number)
        form = chance.randrange(len(FORMS))
        if taken.path is not None and chance.random() < self._file_share:
            if taken.path.suffix == ".drain":
                return (number, *_damaged_recording(taken, form, chance))
            return (number, *_damaged_core(taken, form, chance))
        hit = self._damage(taken.twin, turn, chance)
        if chance.random() < RECORD_SHARE:
            form = len(FORMS)
        damaged: Target = DamagedTarget(taken.twin.target, hit)  # type: ignore[assignment]
        return number, hit.kind, attempt(taken.twin, hit, lambda: damaged, form)

    def explain(self, number: int) -> str:
        """What one variant is, and all that its command printed."""
        taken, turn, chance = self._picked(number)
        form = chance.randrange(len(FORMS))
        lines = [taken.name]
        if taken.path is not None and chance.random() < self._file_share:
            return "\n".join([*lines, "the file is damaged", str(self.one(number))])
        hit = self._damage(taken.twin, turn, chance)
        lines += [hit.kind, hit.words, str({hex(at): new.hex() for at, new in hit.patches.items()})]
        target: Target = DamagedTarget(taken.twin.target, hit)  # type: ignore[assignment]
        done = run(lambda: target, form, 1 << 60, 1 << 60)
        text = run(lambda: target, 0, 1 << 60, 1 << 60)
        lines += [f"exit status {done.status}", done.line, *done.notes, text.out]
        return "\n".join([*lines, str(self.one(number))])


_adopted: List[Suite] = []


def _adopt(suite: Suite) -> None:
    """Keep ``suite``, which a forked worker has already, for :func:`_one`."""
    _adopted[:] = [suite]


def _one(number: int) -> Tuple[int, str, Outcome]:
    try:
        return _adopted[0].one(number)
    except DrainError as error:
        # It could not be sent to the other process as it is.
        raise RuntimeError(f"the suite itself failed at {number}: {error}") from None


# -- damaged files -----------------------------------------------------------------------


def _damaged_core(taken: Input, form: int, chance: random.Random) -> Tuple[str, Outcome]:
    """A core cut off anywhere, or with its headers or notes changed."""
    assert taken.path is not None
    with File(str(taken.path)) as whole:
        elf = parse(whole.path, whole.size, whole.read)
        places = [(0, 64), (elf.program_headers, 56 * len(elf.segments))]
        places += [(s.offset, s.file_size) for s in elf.segments if s.kind == PT_NOTE]
        cut = cut_of(whole.size, places, chance)
        kind = HEADERS if cut.patches else CUT
        if kind == CUT and chance.random() < NOTES_FIRST:
            cut = Cut(whole.size, tuple(_cut_segments(elf, cut.size)))
    with DamagedFile(str(taken.path), cut) as file:
        return kind, _file_outcome(taken.twin, lambda: CoreTarget(file), form)


def _cut_segments(elf: Elf, end: int) -> Iterator[Tuple[int, bytes]]:
    """What of a core's program headers is different where its segments end before ``end``.

    The kernel writes notes first, so that they are never cut off; gcore writes them last.
    """
    for number, segment in enumerate(elf.segments):
        if segment.kind == PT_LOAD and segment.offset + segment.file_size > end:
            at = elf.program_headers + number * PROGRAM_HEADER.size + FILE_SIZE_AT
            yield at, struct.pack("<Q", max(0, end - segment.offset))


def _damaged_recording(taken: Input, form: int, chance: random.Random) -> Tuple[str, Outcome]:
    """A recording cut off anywhere, with bytes changed, or with its content changed and sealed."""
    assert taken.path is not None
    data = taken.path.read_bytes()
    kind = chance.choice((CUT, HEADERS, CONTENT))
    if kind == CONTENT:
        data = _resealed(data, chance)
    else:
        cut = cut_of(len(data), [(0, PREFIX.size + DIGEST), (0, len(data))], chance)
        kind = HEADERS if cut.patches else CUT
        with DamagedFile(str(taken.path), cut) as damaged:
            data = damaged.read(0, cut.size)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return kind, _file_outcome(
            taken.twin, lambda: RecordingTarget(recording.read(file.name)), form
        )


def _resealed(data: bytes, chance: random.Random) -> bytes:
    """Some bytes of the content changed or cut off behind its head, with a right checksum."""
    content = bytearray(zlib.decompress(data[PREFIX.size + DIGEST :]))
    (head,) = struct.unpack_from("<I", content)
    (count,) = struct.unpack_from("<Q", content, 4 + head)
    table = 4 + head
    for _ in range(chance.choice((1, 2, 5))):
        start, end = chance.choice(((table, table + 8 + 20 * count), (table, len(content) - 8)))
        at = chance.randrange(start, end)
        content[at : at + 4] = chance.randbytes(4)
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    packed = zlib.compress(bytes(content), 1)
    prefix = PREFIX.pack(MAGIC, recording.VERSION, len(packed), len(content))
    return prefix + hashlib.sha256(prefix + packed).digest() + packed


def _file_outcome(twin: Twin, opened: Callable[[], Target], form: int) -> Outcome:
    return attempt(twin, Damage("", holes=[(0, 1)]), opened, form)


def through_gdb(seed: str, variants: int, program: Path, core: Path) -> Tuple[Counts, List[str]]:
    """Variants of a core that a gdb reads, all in one gdb."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        request = {"seed": f"{seed} {core.name}", "variants": variants, "result": str(result)}
        done = subprocess.run(
            [GDB, "-batch", "-nx", str(program), str(core), "-x", str(INSIDE_GDB)],
            env={**os.environ, "FAULTS_REQUEST": json.dumps(request)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.exists(), done.stderr
        found = json.loads(result.read_text())
    counts: Counts = Counter({(kind, outcome): n for kind, outcome, n in found["counts"]})
    return counts, [f"through gdb: {line}" for line in found["bad"]]


def refused_share(counts: Counts) -> float:
    """The share of variants of which there is no report."""
    return sum(n for (_, o), n in counts.items() if o == REFUSED) / max(1, sum(counts.values()))


def table(counts: Counts) -> str:
    """The outcomes by kind of damage, and in all."""
    kinds = sorted({kind for kind, _ in counts}, key=lambda kind: (kind.startswith(FILES), kind))
    rows: List[List[object]] = [
        [kind, sum(counts[kind, o] for o in OUTCOMES), *(counts[kind, o] for o in OUTCOMES)]
        for kind in kinds
    ]
    totals = [sum(n for (_, o), n in counts.items() if o == outcome) for outcome in OUTCOMES]
    rows.append(["all", sum(counts.values()), *totals])
    return str(tabulate(rows, ["what was damaged", "variants", *OUTCOMES], tablefmt="simple"))
