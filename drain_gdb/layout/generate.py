"""Write a layout file from a build that carries debug information.

    python3 -m drain_gdb.layout.generate BINARY [-o FILE] [--gdb GDB]

BINARY is a program or library with jemalloc linked in and DWARF.  gdb reads its
structs; every array whose length depends on the build's parameters is written
with that dependence (``PARAMETRIC``), and the result is accepted only if the
model computes back exactly the offsets that gdb showed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import DrainError, LayoutError
from drain_gdb.layout.identify import RTREE_SYMBOLS
from drain_gdb.layout.model import DATA, SCHEMA, Declarations, Model
from drain_gdb.layout.parameters import Parameters
from drain_gdb.layout.versions import VERSION, commits_since, release_of
from drain_gdb.memory import WORD

ROOTS = (
    "arena_s",
    "arena_bin_s",
    "arena_bin_info_s",
    "base_s",
    "bin_s",
    "bin_info_s",
    "cache_bin_s",
    "cache_bin_array_descriptor_s",
    "edata_s",
    "emap_s",
    "extent_s",
    "rtree_s",
    "tcache_s",
    "tcache_bin_s",
    "tcache_slow_s",
)
"""The structs the walkers reach, in any version; their members by value come along."""

MUTEX = "malloc_mutex_s"
"""Its witness has room of its own in debug builds, else it shares the lock's (mutex.h)."""

EXPANDED = frozenset(ROOTS) | {
    "arena_stats_large_s",
    "bin_stats_s",
    "bins_s",
    "cache_bin_stats_s",
    "malloc_bin_stats_s",
    "malloc_large_stats_s",
    "tcache_bin_stats_s",
}
"""Structs whose members are named even where no array in them depends on the build."""

PARAMETRIC: Mapping[Tuple[str, str], Tuple[str, ...]] = {
    ("arena_s", "bins"): ("nbins",),
    ("arena_slab_data_s", "bitmap"): ("bitmap_groups",),
    ("arena_stats_s", "lstats"): ("nsizes-nbins",),
    ("base_s", "avail"): ("nsizes",),
    ("arena_bin_info_s", "bitmap_info"): ("bitmap_info_words",),
    ("bin_info_s", "bitmap_info"): ("bitmap_info_words",),
    ("eset_s", "bitmap"): ("fb_groups(npsizes+1)",),
    ("eset_s", "bins"): ("npsizes+1",),
    ("eset_s", "bin_stats"): ("npsizes+1",),
    ("extents_s", "heaps"): ("npsizes+1",),
    ("extents_s", "nextents"): ("npsizes+1",),
    ("extents_s", "nbytes"): ("npsizes+1",),
    ("extents_s", "bitmap"): ("bitmap_groups(npsizes+1)",),
    ("slab_data_s", "bitmap"): ("bitmap_groups",),
    ("rtree_s", "root"): ("rtree_root",),
    ("tcache_s", "bins"): ("tcache_nbins_max", "nbins+5"),
    ("tcache_s", "bins_small"): ("nbins",),
    ("tcache_s", "bins_large"): ("nsizes-nbins",),
    ("tcache_s", "lg_fill_div"): ("nbins",),
    ("tcache_s", "tbins_small"): ("nbins",),
    ("tcache_s", "tbins_large"): ("nsizes-nbins",),
    ("tcache_slow_s", "bin_fill_ctl_do_not_access_directly"): ("nbins",),
    ("tcache_slow_s", "lg_fill_div"): ("nbins",),
    ("tcache_slow_s", "bin_refilled"): ("nbins",),
    ("tcache_slow_s", "bin_flush_delay_items"): ("nbins",),
}
"""Arrays dimensioned by the build, as arena_stats.h, base.h, eset.h, extent_structs.h,
slab_data.h, rtree.h and tcache_structs.h of 5.0 to 5.3 declare them, with the dimensions
that one version or another gives them; a struct whose members depend on the build (bitmap.h)
counts as an array of words."""

CACHE_LINE = 64
FLEXIBLE = 0
CANDIDATES = tuple(
    Parameters(lg_page, lg_quantum, lg_vaddr)
    for lg_page, lg_quantum, lg_vaddr in itertools.product((12, 13, 14, 16), (3, 4, 5), (48, 57))
)


def read_structs(binary: Path, gdb: str) -> Dict[str, Any]:
    """What the gdb adapter says of ``ROOTS`` and ``MUTEX`` in ``binary``, as plain data."""
    script = (
        f"python import sys; sys.path.insert(0, {str(DATA.parents[2])!r}); "
        "from drain_gdb.debuggee.gdb import print_structs; "
        f"print_structs({RTREE_SYMBOLS!r}, {(*ROOTS, MUTEX)!r})"
    )
    done = subprocess.run(
        [gdb, "-batch", "-nx", "-ex", script, str(binary)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        said = done.stderr.strip().splitlines()
        raise LayoutError(
            f"gdb found no jemalloc structures in {binary}",
            said[-1] if said else "it needs a build with debug information",
        )
    content = json.loads(lines[-1])
    assert isinstance(content, dict)
    return content


def _struct(content: Mapping[str, Any]) -> Struct:
    members = tuple(
        Member(**{**m, "type": _struct(m["type"]) if m["type"] else None})
        for m in content["members"]
    )
    return Struct(**{**content, "members": members})


def _parametric(struct: Struct) -> bool:
    return any(
        (struct.name, member.name) in PARAMETRIC
        or (member.type is not None and _parametric(member.type))
        for member in struct.members
    )


def _opaque(struct: Struct) -> bool:
    if struct.name in EXPANDED or _parametric(struct):
        return False
    return bool(struct.name) or len(struct.members) == 1


def _alignment(start: int, member: Member) -> int:
    """What ``member``, which follows byte ``start``, is aligned by.

    Beyond what types ask for jemalloc aligns to cache lines (JEMALLOC_ALIGNED).
    """
    if -(-start // member.align) * member.align == member.offset:
        return member.align
    return CACHE_LINE


def _dimension(struct: Struct, member: Member, parameters: Parameters) -> Optional[str]:
    """The name of the dimension of an array that depends on the build."""
    for name in PARAMETRIC.get((struct.name, member.name), ()):
        if parameters.dimension(name) == _length(member):
            return name
    return None


def _length(member: Member) -> int:
    """Elements of an array; words of a struct that counts as an array of words."""
    return member.size // WORD if member.count is None else member.count


def _declare(struct: Struct, named: Dict[str, Any], parameters: Parameters) -> Dict[str, Any]:
    """The declaration of ``struct``; structs it names are added to ``named``."""
    entries: List[Any] = []
    end = 0
    for member in struct.members:
        start, end = 0 if struct.union else end, member.offset + member.size
        parametric = _dimension(struct, member, parameters)
        each = member.size if not member.count else member.size // member.count
        inner = member.type
        kind: Any
        if parametric is not None and member.count is None:
            entries.append([member.name, [WORD, WORD], parametric])
            continue
        if inner is None or _opaque(inner):
            kind = [each if inner is None else inner.size, member.align]
        elif inner.name:
            named.setdefault(inner.name, None)
            if named[inner.name] is None:
                named[inner.name] = _declare(inner, named, parameters)
            kind = inner.name
        else:
            kind = _declare(inner, named, parameters)
        entry = [member.name, kind]
        count = member.count if parametric is None else parametric
        aligned = _alignment(start, member)
        if aligned > member.align:
            entry += [count, aligned]
        elif count is not None:
            entry.append(count)
        entries.append(entry)
    return {"union" if struct.union else "members": entries}


def _arrays(struct: Struct) -> Iterator[Tuple[Tuple[str, ...], int]]:
    """The arrays that depend on the build: the names each may have, its length."""
    for member in struct.members:
        if (struct.name, member.name) in PARAMETRIC and member.count != FLEXIBLE:
            yield PARAMETRIC[struct.name, member.name], _length(member)
        if member.type is not None:
            yield from _arrays(member.type)


def find_parameters(structs: Mapping[str, Struct]) -> Parameters:
    """The one candidate whose dimensions are those of ``structs``."""
    seen = {pair for struct in structs.values() for pair in _arrays(struct)}
    fitting = [
        p
        for p in CANDIDATES
        if all(any(p.dimension(name) == length for name in names) for names, length in seen)
    ]
    if len(fitting) != 1:
        raise LayoutError(f"{len(fitting)} sets of build parameters fit the arrays {seen}")
    return fitting[0]


def _check(shown: Struct, computed: Struct, where: str) -> None:
    """Every member the model names lies where gdb showed it."""
    if (shown.size, shown.align) != (computed.size, computed.align):
        raise LayoutError(f"{where}: the model's size or alignment differs from gdb's")
    for ours in computed.members:
        theirs = next((m for m in shown.members if m.name == ours.name), None)
        if theirs is None or (theirs.offset, theirs.size) != (ours.offset, ours.size):
            if ours.name:
                raise LayoutError(f"{where}.{ours.name}: the model's offset differs from gdb's")
        elif ours.type is not None and theirs.type is not None and ours.name:
            _check(theirs.type, ours.type, f"{where}.{ours.name}")


def generate(binary: Path, gdb: str = "gdb") -> Dict[str, Any]:
    """The content of the layout file for the jemalloc in ``binary``."""
    content = read_structs(binary, gdb)
    structs = {name: _struct(shown) for name, shown in content["structs"].items()}
    mutex = structs.pop(MUTEX)
    parameters = find_parameters(structs)
    named: Dict[str, Any] = {}
    for name, struct in structs.items():
        named[name] = _declare(struct, named, parameters)
    match = re.search(VERSION, binary.read_bytes())
    if match is None:
        raise LayoutError(f"{binary} holds no jemalloc version string")
    version = match[0].decode("ascii")
    source = {
        "file": binary.name,
        "build_id": content["build_id"],
        "lg_page": parameters.lg_page,
        "lg_quantum": parameters.lg_quantum,
        "lg_vaddr": parameters.lg_vaddr,
        "debug": mutex.offset("witness") > 0,
    }
    model = Model(Declarations(version, named, source), parameters)
    for name, struct in structs.items():
        computed = model.struct(name)
        assert computed is not None
        _check(struct, computed, name)
    return {
        "schema": SCHEMA,
        "version": version,
        "source": source,
        "structs": {name: named[name] for name in sorted(named)},
    }


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        prog="python3 -m drain_gdb.layout.generate",
        description="Write a layout file from a jemalloc build with debug information.",
    )
    parser.add_argument("binary", type=Path)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="default: drain_gdb/layout/data/VERSION[-debug].json",
    )
    parser.add_argument("--gdb", default="gdb", help="the gdb to read it with")
    args = parser.parse_args()
    try:
        content = generate(args.binary, args.gdb)
    except DrainError as error:
        print(f"generate: {error}", file=sys.stderr)
        return error.exit_status
    output = args.output or DATA / _file_name(content)
    output.write_text(_dump(content), encoding="utf-8")
    print(f"wrote {output}")
    return 0


def _file_name(content: Mapping[str, Any]) -> str:
    version, kind = content["version"], "-debug" if content["source"]["debug"] else ""
    after = commits_since(version)
    return release_of(version) + (f"-{after}" if after else "") + kind + ".json"


def _dump(content: Dict[str, Any]) -> str:
    """JSON with one member a line."""
    structs = []
    for name, declared in content["structs"].items():
        parts = []
        for key, value in declared.items():
            lines = ",\n".join(f"      {json.dumps(entry)}" for entry in value)
            parts.append(f'"{key}": [\n{lines}\n    ]')
        structs.append(f"    {json.dumps(name)}: {{{', '.join(parts)}}}")
    head = {key: value for key, value in content.items() if key != "structs"}
    top = json.dumps(head, indent=2)[:-2]
    return top + ',\n  "structs": {\n' + ",\n".join(structs) + "\n  }\n}\n"


if __name__ == "__main__":
    sys.exit(main())
