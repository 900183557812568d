"""What a checkout of jemalloc says of its structs, asked of its own headers.

A small C file that includes jemalloc's internal headers is preprocessed with the
checkout's configuration; of the result only types and constants are kept, compiled
with debug information and read back.  Nothing of jemalloc itself is built.  The same
headers are asked with several sets of build parameters, so that what depends on them
shows.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from elftools.dwarf.die import DIE
from elftools.elf.elffile import ELFFile

from drain_gdb.debuggee.dwarf import Dwarf
from drain_gdb.debuggee.elffile import open_elf
from drain_gdb.debuggee.protocol import Struct
from drain_gdb.errors import LayoutError
from drain_gdb.layout.parameters import WORD_BITS, Parameters

HEADERS = "include/jemalloc/internal"
DEFINES = f"{HEADERS}/jemalloc_internal_defs.h"
CONFIGURE = ("--disable-cxx", "--enable-prof", "--with-lg-page=12", "--with-lg-page-sizes=12,14,16")
"""Profiling adds members; the page sizes are those size_classes.sh of 5.0 and 5.1 prepares."""
INCLUDED = (
    "jemalloc_preamble",
    "jemalloc_internal_includes",
    "hpa",
    "hpdata",
    "psset",
    "tcache_structs",
    "cache_bin",
    "arena_structs",
    "rtree",
)
"""Headers, in order, those that a commit has."""
ASKED = (
    "BIN_SHARDS_MAX",
    "EDATA_ALIGNMENT",
    "LG_SLAB_MAXREGS",
    "MALLOCX_ARENA_LIMIT",
    "NBINS",
    "NPSIZES",
    "NSIZES",
    "RTREE_HEIGHT",
    "RTREE_LEAF_STATE_WIDTH",
    "SC_LG_SLAB_MAXREGS",
    "SC_NBINS",
    "SC_NPSIZES",
    "SC_NSIZES",
    "TCACHE_NBINS_MAX",
)
"""Macros whose values are kept, where a commit has them."""
FIELD = re.compile(r"^#\s*define\s+((?:EXTENT|EDATA)_BITS_\w+)_SHIFT\b", re.MULTILINE)
JUNK = re.compile(r"static const uintptr_t (cache_bin_\w+_junk) =")
LOCK = re.compile(r"(struct __pthread_mutex_s __data;\s*char __size\[)\d+(\])")
TYPE = re.compile(r"\s*(?:__extension__\s+)*(?:typedef|struct|union|enum)\b")
PRAGMA = re.compile(r"^#.*$", re.MULTILINE)
ENUM, VARIABLE = "drain_probe_constants", "drain_probe"
ANSWER, STATE = "DRAIN_", "extent_state_"
COMPILER = ("gcc", "-std=gnu11", "-w")


@dataclass(frozen=True)
class Answer:
    """Structs by name and constants of one configuration.

    ``states`` are the extent states, in order.
    """

    structs: Mapping[str, Struct]
    constants: Mapping[str, int]
    states: Tuple[str, ...]


class Checkout:
    """A work tree of jemalloc of our own, gone through commit by commit."""

    def __init__(self, repository: Path, directory: Path) -> None:
        self.directory = directory
        self._configured = ""
        self._cache = directory.parent / f"{directory.name}.cache"
        subprocess.run(
            ["git", "clone", "-q", "--shared", "--no-checkout", str(repository), str(directory)],
            check=True,
        )

    def go(self, commit: str) -> None:
        """Lay out ``commit``; configure it where a template differs from the commit before."""
        self._git("checkout", "-qf", commit)
        listed = self._git("ls-tree", "-r", commit, "--", "include")
        templates = "\n".join(x for x in listed.splitlines() if x.endswith((".in", ".sh")))
        if templates == self._configured:
            return
        self._configured = ""
        self._git("clean", "-qfdx")
        for command in (
            ["autoconf"],
            ["./configure", f"--cache-file={self._cache}", *CONFIGURE],
        ):
            done = subprocess.run(
                command, cwd=self.directory, capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()
                raise LayoutError(f"{command[0]} fails at {commit}", said[-1] if said else None)
        defines = self.directory / DEFINES
        text = re.sub(
            r"^#define (LG_PAGE|LG_VADDR) .*$",
            r"#ifndef \1\n\g<0>\n#endif",
            defines.read_text(),
            flags=re.MULTILINE,
        )
        defines.write_text(text)
        self._configured = templates

    def text(self, parameters: Parameters, debug: bool) -> str:
        """The types of the commit, as C: equal texts, equal answers."""
        command = [
            *(*COMPILER, "-E", "-P", "-D_GNU_SOURCE", "-D_REENTRANT"),
            "-DJEMALLOC_NO_PRIVATE_NAMESPACE",
            f"-DLG_PAGE={parameters.lg_page}",
            f"-DLG_QUANTUM={parameters.lg_quantum}",
            f"-DLG_VADDR={parameters.lg_vaddr}",
            *(("-DJEMALLOC_DEBUG",) if debug else ()),
            *("-Iinclude", "-x", "c", "-"),
        ]
        done = _run(command, self._source(), self.directory)
        text = LOCK.sub(rf"\g<1>{parameters.lock_bytes}\g<2>", PRAGMA.sub("", done))
        return "".join(types(text)) + f"\nint {VARIABLE};\n"

    def _source(self) -> str:
        headers = self.directory / HEADERS
        lines = [
            f'#include "jemalloc/internal/{name}.h"'
            for name in INCLUDED
            if (headers / f"{name}.h").exists()
        ]
        fields: Dict[str, None] = {}
        for name in ("extent_structs.h", "edata.h", "extent.h"):
            path = headers / name
            if path.exists():
                fields.update(dict.fromkeys(FIELD.findall(path.read_text())))
        lines.append(f"enum {ENUM} {{ {ANSWER}BEGIN,")
        for name in ASKED:
            lines += [f"#ifdef {name}", f"{ANSWER}{name}_ = ({name}),", "#endif"]
        for name in fields:
            short = name.split("_BITS_")[1].lower()
            lines.append(f"{ANSWER}SHIFT_{short} = ({name}_SHIFT),")
            lines.append(f"{ANSWER}WIDTH_{short} = (__builtin_popcountll({name}_MASK)),")
        return "\n".join([*lines, f"{ANSWER}END }};", ""])

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.directory, capture_output=True, text=True, check=True
        )
        return done.stdout


def _run(command: Sequence[str], text: str, directory: Optional[Path] = None) -> str:
    done = subprocess.run(
        command, input=text, cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line]
        raise LayoutError("the probe does not compile", said[0] if said else None)
    return done.stdout


def types(text: str) -> Iterator[str]:
    """The types and asked constants of preprocessed C, one item after the other."""
    start = depth = 0
    for found in re.finditer(r"[{};]|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", text):
        mark = found[0]
        if mark == "{":
            if depth == 0:
                function = text[start : found.start()].rstrip().endswith(")")
            depth += 1
        elif mark == "}":
            depth -= 1
            if depth == 0 and function:
                start = found.end()
        elif mark == ";" and depth == 0:
            item = text[start : found.end()]
            start = found.end()
            junk = JUNK.search(item)
            if junk is not None:
                yield f"enum {{ {ANSWER}{junk[1]} = {item[junk.end() : -1]} }};\n"
            elif TYPE.match(item):
                yield item


def ask(text: str, names: Sequence[str], directory: Path, compiler: Sequence[str]) -> Answer:
    """Compile ``text`` in ``directory`` and read the structs ``names`` and the constants."""
    binary = directory / "probe.so"
    flags = ("-g", "-O0", "-fno-eliminate-unused-debug-types", "-shared", "-nostdlib")
    _run([*compiler, *flags, "-x", "c", "-", "-o", str(binary)], text)
    return _answer(binary, names)


def _answer(binary: Path, names: Sequence[str]) -> Answer:
    elf = open_elf(str(binary))
    assert elf is not None
    dwarf = Dwarf(elf)
    structs: Dict[str, Struct] = {}
    constants: Dict[str, int] = {}
    states: List[str] = []
    with binary.open("rb") as file:
        (unit,) = ELFFile(file).get_dwarf_info().iter_CUs()
        for die in unit.get_top_DIE().iter_children():
            name = _name(die)
            if die.tag == "DW_TAG_structure_type" and name in names and die.has_children:
                structs[name] = dwarf.struct_at(die.offset)
            elif die.tag == "DW_TAG_enumeration_type":
                for child in die.iter_children():
                    name, value = _name(child), child.attributes["DW_AT_const_value"].value
                    if name.startswith(ANSWER):
                        constants[name[len(ANSWER) :].rstrip("_")] = value & (1 << WORD_BITS) - 1
                    elif name.startswith(STATE):
                        states.append(name[len(STATE) :])
    return Answer(structs, constants, tuple(state for state in states if state != "max"))


def _name(die: DIE) -> str:
    return die.attributes["DW_AT_name"].value.decode() if "DW_AT_name" in die.attributes else ""
