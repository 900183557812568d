"""Declarations out of what several sets of build parameters show of the same structs.

A struct is gone through with all its variants side by side.  What is the same in all of
them is written as a number; an array whose length is not is written by the name of the
dimension (:data:`~drain_gdb.layout.parameters.DIMENSIONS`) that has just those lengths.
Nothing is accepted but what :class:`~drain_gdb.layout.model.Model` lays out again
exactly as every variant showed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from drain_gdb.debuggee.protocol import Member, Struct
from drain_gdb.errors import LayoutError
from drain_gdb.layout.model import Declarations, Model
from drain_gdb.layout.parameters import DIMENSIONS, WORD_BITS, Parameters
from drain_gdb.layout.probe import Answer
from drain_gdb.memory import WORD

CACHE_LINE = 64
"""What jemalloc aligns to beyond what types ask for (JEMALLOC_ALIGNED)."""
GLIBC_SIZE = "__size"
"""The member by which glibc states the size of a type that is its own (pthreadtypes.h)."""
ELSEWHERE = ("rtree_leaf_elm_s", "rtree_metadata_s")
"""Structs that constants are read from, and no walk needs."""
TOLD = ("bins_s", "cache_bin_stats_s", "tcache_bin_stats_s")
"""Structs whose only member a walk asks for by its name."""
NAMES = {
    "BIN_SHARDS_MAX": "bin_shards_max",
    "LG_SLAB_MAXREGS": "lg_slab_maxregs",
    "MALLOCX_ARENA_LIMIT": "arenas_max",
    "NBINS": "nbins",
    "NPSIZES": "npsizes",
    "NSIZES": "nsizes",
    "RTREE_HEIGHT": "rtree_height",
    "SC_LG_SLAB_MAXREGS": "lg_slab_maxregs",
    "SC_NBINS": "nbins",
    "SC_NPSIZES": "npsizes",
    "SC_NSIZES": "nsizes",
    "TCACHE_NBINS_MAX": "tcache_nbins_max",
    "cache_bin_preceding_junk": "leading_junk",
    "cache_bin_trailing_junk": "trailing_junk",
}
"""Constants by jemalloc's name, and by ours."""

Declared = Dict[str, Any]


@dataclass
class Variants:
    """The same structs as several sets of parameters lay them out."""

    parameters: Sequence[Parameters]
    named: Dict[str, Declared] = field(default_factory=dict)

    def dimension(self, lengths: Sequence[int], what: str) -> Any:
        """``lengths`` as one number, or the name of the dimension that has them."""
        if len(set(lengths)) == 1:
            return lengths[0]
        for name, of in DIMENSIONS.items():
            if [of(p) for p in self.parameters] == list(lengths):
                return name
        raise LayoutError(
            f"{what} depends on the build as no known dimension does: {list(lengths)}",
            f"with {', '.join(map(str, self.parameters))}; add it to DIMENSIONS",
        )

    def declare(self, structs: Sequence[Struct]) -> Declared:
        """The declaration of one struct; structs it names are added to ``named``."""
        first = structs[0]
        if any(_names(struct) != _names(first) for struct in structs):
            raise LayoutError(f"{first.name} has other members in other builds")
        entries: List[Any] = []
        ends = [0] * len(structs)
        for members in zip(*(s.members for s in structs)):
            starts = [0] * len(structs) if first.union else ends
            entries.append(self._entry(f"{first.name}.{members[0].name}", members, starts))
            ends = [m.offset + m.size for m in members]
        declared: Declared = {"union" if first.union else "members": entries}
        if first.align > max([1, *(m.align for m in first.members)]):
            declared["align"] = first.align
        return declared

    def _entry(self, what: str, members: Sequence[Member], starts: Sequence[int]) -> List[Any]:
        first = members[0]
        counts = [m.count for m in members]
        count: Any = counts[0]
        if count is not None:
            count = self.dimension([c or 0 for c in counts], what)
        each = [m.size if not m.count else m.size // m.count for m in members]
        types = [m.type for m in members if m.type is not None]
        kind: Any
        if not types or _opaque(types):
            kind = [each[0], first.align]
            if len(set(each)) > 1:
                if count is not None:
                    raise LayoutError(f"{what} is an array of structs whose size differs")
                lock = any(m.name == GLIBC_SIZE for m in types[0].members)
                unit = 1 if lock else WORD
                kind = [unit, first.align]
                count = self.dimension([size // unit for size in each], what)
        elif types[0].name:
            if types[0].name not in self.named:
                self.named[types[0].name] = self.declare(types)
            kind = types[0].name
        else:
            kind = self.declare(types)
        aligned = self._alignment(what, members, starts)
        entry = [first.name, kind]
        if aligned > first.align:
            return [*entry, count, aligned]
        return entry if count is None else [*entry, count]

    def _alignment(self, what: str, members: Sequence[Member], starts: Sequence[int]) -> int:
        """What a member that follows byte ``starts`` is aligned by."""
        for align in (members[0].align, CACHE_LINE):
            if all(-(-s // align) * align == m.offset for s, m in zip(starts, members)):
                return align
        raise LayoutError(f"{what} does not follow the member before it")


def _opaque(types: Sequence[Struct]) -> bool:
    """Whether a struct is written by its size alone.

    So are glibc's own, those with one member that is no array, as atomics and heads of
    lists, but for those ``TOLD``, and those that have other members in another build.
    """
    if GLIBC_SIZE in _names(types[0]) or any(_names(t) != _names(types[0]) for t in types):
        return True
    if any((m.type is None) != (n.type is None) for t in types for m, n in _pairs(t, types[0])):
        return True
    (only, *more) = types[0].members or (None,)
    return (
        types[0].name not in TOLD
        and not more
        and (only is None or (only.type is None and only.count is None))
    )


def _names(struct: Struct) -> List[str]:
    return [member.name for member in struct.members]


def _pairs(one: Struct, other: Struct) -> List[Tuple[Member, Member]]:
    return list(zip(one.members, other.members))


def declare(answers: Mapping[Parameters, Answer], version: str) -> Tuple[Declared, Declared]:
    """The structs, by name, and the constants of one commit."""
    variants = Variants(list(answers))
    shown = list(answers.values())
    for name in sorted(set().union(*(answer.structs for answer in shown))):
        if name not in variants.named and name not in ELSEWHERE:
            if any(name not in answer.structs for answer in shown):
                raise LayoutError(f"{name} is there in some builds only")
            variants.named[name] = variants.declare([a.structs[name] for a in shown])
    constants = _constants(variants, shown)
    declarations = Declarations(version, False, variants.named, {}, constants, None)
    for parameters, answer in answers.items():
        check(declarations, parameters, answer)
    return variants.named, constants


def check(declarations: Declarations, parameters: Parameters, answer: Answer) -> None:
    """Raise :class:`LayoutError` where the model differs from what a compiler showed."""
    model = Model(declarations, parameters)
    for name, struct in answer.structs.items():
        if name not in ELSEWHERE:
            computed = model(name)
            if computed is None:
                raise LayoutError(f"{declarations.version}: {name} is missing")
            _compare(struct, computed, f"{declarations.version}, {parameters}: {name}")


def _compare(shown: Struct, computed: Struct, where: str) -> None:
    """Every member the model names lies where the compiler put it."""
    if shown.size != computed.size:
        raise LayoutError(f"{where}: {computed.size} bytes in the model, {shown.size} in truth")
    for ours, theirs in zip(computed.members, shown.members):
        if (theirs.name, theirs.offset, theirs.size) != (ours.name, ours.offset, ours.size):
            raise LayoutError(f"{where}.{ours.name}: the model differs from the compiler")
        if ours.type is not None and theirs.type is not None:
            _compare(theirs.type, ours.type, f"{where}.{ours.name}")


def _constants(variants: Variants, shown: Sequence[Answer]) -> Declared:
    first = shown[0].constants
    found: Declared = {}
    for name, ours in NAMES.items():
        if name in first:
            found[ours] = variants.dimension([a.constants[name] for a in shown], name)
    found["states"] = list(shown[0].states)
    found["e_bits"] = _packed(variants, shown)
    found["leaf_tags"] = _leaf_tags(shown[0])
    tags = sum(width for _, width in found["leaf_tags"])
    found["extent_alignment"] = first.get("EDATA_ALIGNMENT", 1 << tags)
    # Only where addresses are wide does a leaf element have its tags in a word of their own.
    wide = next(a for p, a in zip(variants.parameters, shown) if not p.compact_leaf)
    members = {m.name for m in wide.structs["rtree_leaf_elm_s"].members}
    found["leaf_metadata"] = "le_metadata" in members
    return found


def _packed(variants: Variants, shown: Sequence[Answer]) -> List[Tuple[str, Any]]:
    """The fields of e_bits from bit 0 on, each with its width.

    The serial number of 5.0 to 5.2 fills what is left, and is left out.
    """
    first = shown[0].constants
    names = [name[len("SHIFT_") :] for name in first if name.startswith("SHIFT_")]
    names.sort(key=lambda name: first[f"SHIFT_{name}"])
    fields: List[Tuple[str, Any]] = []
    at = [0] * len(shown)
    for name in names:
        if at != [a.constants[f"SHIFT_{name}"] for a in shown]:
            raise LayoutError(f"bits are left out before {name} of e_bits")
        widths = [a.constants[f"WIDTH_{name}"] for a in shown]
        at = [start + width for start, width in zip(at, widths)]
        if at != [WORD_BITS] * len(shown):
            fields.append((name, variants.dimension(widths, f"the width of {name} in e_bits")))
    return fields


def _leaf_tags(answer: Answer) -> List[Tuple[str, int]]:
    """What stands below the address in a leaf word, from bit 0 on (rtree.h)."""
    metadata: Optional[Struct] = answer.structs.get("rtree_metadata_s")
    members = {m.name for m in metadata.members} if metadata is not None else set()
    tags = [("slab", 1)]
    if "is_head" in members:
        tags.append(("is_head", 1))
    if "RTREE_LEAF_STATE_WIDTH" in answer.constants:
        tags.append(("state", answer.constants["RTREE_LEAF_STATE_WIDTH"]))
    return tags
