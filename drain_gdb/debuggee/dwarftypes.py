"""What pointers lead to, by debug information.

An entry of ``.debug_info`` does not say what it is in: the way to it is found from the top of
its unit down.  All that is read is counted, and ends somewhere.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from dataclasses import replace
from typing import Dict, Iterator, List, Optional, Tuple

from elftools.dwarf.die import DIE

from drain_gdb.debuggee.dwarf import COMPRESSION, POINTER_SIZE, Dwarf, length_of, name_of
from drain_gdb.debuggee.elf import SHF_COMPRESSED
from drain_gdb.debuggee.elffile import ElfFile
from drain_gdb.debuggee.types import Layout, Pointer

INFO_MAX = 1 << 28
"""Bytes of a section that are looked through, many times over: beyond it takes too long."""
ENTRIES_MAX = 1 << 19
"""Entries that are read in all: some ten seconds of pyelftools."""
ALIKE_MAX = 64
"""Structs of one name that are looked at where several may have it."""
POINTERS_MAX = 1 << 10
DEPTH_MAX = 16
ELEMENTS_MAX = 64
"""Elements of an array within a struct that are looked at."""
SCOPES = {
    "DW_TAG_namespace": "(anonymous namespace)",
    "DW_TAG_structure_type": "",
    "DW_TAG_class_type": "",
    "DW_TAG_union_type": "",
    "DW_TAG_subprogram": "",
}
"""What is part of a full name, and what it is called without a name of its own."""
RECORDS = ("DW_TAG_structure_type", "DW_TAG_class_type")
INNER = ("DW_TAG_inheritance", "DW_TAG_member")
NOT_WITHIN = {"DW_AT_virtuality", "DW_AT_external", "DW_AT_artificial", "DW_AT_bit_size"}
"""What a base has that lies elsewhere, a member of all objects, a table's pointer, a bit field."""
POINTERS = ("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type")
NOTHING_KNOWN = ("DW_TAG_subroutine_type", "DW_TAG_unspecified_type")
CPLUSPLUS = (0x04, 0x1A, 0x21, 0x2B, 0x2C, 0x3A)
"""DW_LANG_C_plus_plus and its later forms (dwarfstd.org/languages.html)."""
DW_OP_ADDR = 0x03
SEVERAL = ("(anonymous namespace)", "{", "main::")
"""What a name has of which every unit may have one of its own."""
ROWS = "vector<"
CONTAINERS = re.compile(r"(vector|list|forward_list|deque|(unordered_)?(multi)?(map|set))<")
"""Containers of the standard library; the first has its elements in a row."""
GCC_NAMES = {
    "unsigned long long": "long long unsigned int",
    "unsigned long": "long unsigned int",
    "unsigned short": "short unsigned int",
    "long long": "long long int",
    "long": "long int",
    "short": "short int",
}
"""How GCC calls types in its names of templates, by what everyone else calls them."""
SAID = re.compile(rf"\b({'|'.join(GCC_NAMES)})(?=[>, *&])")
OF_GCC = re.compile(rf"\b({'|'.join(GCC_NAMES.values())})\b")
PLAIN_NAMES = {theirs: said for said, theirs in GCC_NAMES.items()}


class _EnoughError(Exception):
    """So much was read that no more is to be."""


class Types(Dwarf):
    """:class:`~drain_gdb.debuggee.types.TypeReader` of debug information.

    ``bias`` is how far above its link-time addresses the file is loaded.
    """

    def __init__(self, file: ElfFile, bias: int) -> None:
        self.limited: Optional[str] = None
        large = next(filter(None, (_too_large(file, name) for name in ("info", "str"))), None)
        if large is not None:
            self.limited = f"its {large} is larger than {INFO_MAX >> 20} MiB"
        else:
            super().__init__(file)
        self._bias = bias
        self._left = ENTRIES_MAX
        self._kids: Dict[int, List[Tuple[int, DIE]]] = {}
        self._layouts: Dict[int, Layout] = {}
        self._aliases: Dict[int, str] = {}

    def struct_named(self, name: str) -> Optional[Layout]:
        """The class or struct of that full name; None where there is none, or several."""
        if self.limited is not None:
            return None
        try:
            die = self._struct_named(name)
            return None if die is None else self.layout(die.offset)
        except Exception:  # noqa: BLE001 - pyelftools fails in any way on damaged input
            return None

    def variable(self, name: str, address: int) -> Optional[Layout]:
        """The type of the variable of that full name at ``address`` of the process."""
        if self.limited is not None:
            return None
        try:
            types = self._variable(name, address - self._bias)
            layouts = {self.layout(each.offset) for each in types}
            return layouts.pop() if len(layouts) == 1 else None
        except Exception:  # noqa: BLE001 - as above
            return None

    def layout(self, number: int) -> Layout:
        """The type that a pointer leads to; without members where it cannot be told."""
        if number not in self._layouts:
            # For a type that holds itself.
            self._layouts[number] = Layout("", False, 0, ())
            try:
                self._layouts[number] = self._lay_out(self._complete(self._die(number)))
            except Exception:  # noqa: BLE001 - as above
                return self._layouts[number]
        return self._layouts[number]

    def _die(self, offset: int) -> DIE:
        if self.limited is not None:
            raise _EnoughError
        self._left -= 1
        if self._left < 0:
            self.limited = f"more than {ENTRIES_MAX} entries of it were to be read"
            raise _EnoughError
        return super()._die(offset)

    # -- by name ------------------------------------------------------------------

    def _struct_named(self, name: str) -> Optional[DIE]:
        found: List[DIE] = []
        wanted = ALIKE_MAX if any(part in name for part in SEVERAL) else 1
        for spelled in _spelled(name):
            for die in self._definitions(spelled):
                found.append(die)
                if len(found) >= wanted:
                    break
        sizes = {self._size(die) for die in found}
        return found[0] if len(sizes) == 1 else None

    def _definitions(self, name: str) -> Iterator[DIE]:
        """The complete structs of that full name."""
        last = _last(name)
        for die in self._named(last, 0, self._windows["info"].size):
            whole = die.tag in RECORDS and "DW_AT_declaration" not in die.attributes
            if whole and self._full_name(die) == name:
                yield die

    def _variable(self, name: str, address: int) -> List[DIE]:
        """The types that a variable may have: one, if its place is said."""
        declared = []
        for die in self._named(_last(name), 0, self._windows["info"].size):
            if die.tag != "DW_TAG_variable":
                continue
            location = die.attributes.get("DW_AT_location")
            kind = self._type(die)
            if kind is None:
                continue
            if location is None:
                declared.append((die, kind))
            elif _place(location.value) == address:
                return [kind]
        return [kind for die, kind in declared if self._full_name(die) == name]

    def _complete(self, die: DIE) -> DIE:
        """The definition of a struct of which only its name may be known here."""
        if "DW_AT_declaration" not in die.attributes:
            return die
        return next(self._definitions(self._full_name(die)), die)

    def _full_name(self, die: DIE) -> str:
        """The name of a type, with what it is in; of one without that of its typedef."""
        name = name_of(die)
        return "::".join([*self._scope(die), name]) if name else self._aliases.get(die.offset, "")

    def _type(self, die: DIE) -> Optional[DIE]:
        found = super()._type(die)
        if found is not None and found.tag in RECORDS and "DW_AT_name" not in found.attributes:
            self._note_alias(die, found)
        return found

    def _note_alias(self, die: DIE, nameless: DIE) -> None:
        """Note the typedef by which ``die`` names a struct that has no name."""
        step: Optional[DIE] = self._said_type(die)
        while step is not None and step.offset != nameless.offset:
            if step.tag == "DW_TAG_typedef":
                self._aliases[nameless.offset] = name_of(step)
            step = self._said_type(step)

    def _scope(self, die: DIE) -> List[str]:
        """What an entry is in, the outermost first."""
        parts: List[str] = []
        within = die.cu.get_top_DIE()
        for _ in range(DEPTH_MAX):
            kids = self._children_of(within)
            row = bisect_right([at for at, _ in kids], die.offset) - 1
            if row < 0:
                raise ValueError("an entry in nothing")
            at, within = kids[row]
            if at == die.offset:
                return parts
            if within.tag in SCOPES:
                parts.append(name_of(within) or SCOPES[within.tag])
        raise ValueError("too deep")

    def _children_of(self, die: DIE) -> List[Tuple[int, DIE]]:
        """The entries directly below ``die``, by place."""
        if die.offset not in self._kids:
            self._kids[die.offset] = [(child.offset, child) for child in self._children(die)]
        return self._kids[die.offset]

    def _children(self, die: DIE) -> Iterator[DIE]:
        """The entries directly below ``die``, stepped over where they say where they end."""
        at, depth, base = die.offset + die.size, 0, die.cu.cu_offset
        while die.has_children:
            child = self._die(at)
            at += child.size
            if child.is_null():
                depth -= 1
                if depth < 0:
                    return
                continue
            if depth == 0:
                yield child
            if child.has_children:
                sibling = child.attributes.get("DW_AT_sibling")
                if sibling is not None and base + sibling.raw_value > at:
                    at = base + sibling.raw_value
                else:
                    depth += 1

    # -- what is in it ------------------------------------------------------------

    def _lay_out(self, die: DIE) -> Layout:
        name = self._full_name(die) if die.tag in RECORDS else ""
        pointers = []
        for each in self._pointers(die, 0, "", DEPTH_MAX):
            pointers.append(each)
            if len(pointers) >= POINTERS_MAX:
                break
        language = die.cu.get_top_DIE().attributes.get("DW_AT_language")
        cplusplus = language is not None and language.value in CPLUSPLUS
        return Layout(_tidy(name), cplusplus, self._size(die), tuple(pointers))

    def _pointers(self, die: DIE, at: int, member: str, depth: int) -> Iterator[Pointer]:
        """The pointers in a type that lies ``at`` bytes from the start."""
        if die.tag in POINTERS:
            to = self._type(die)
            if to is not None and to.tag not in NOTHING_KNOWN:
                yield Pointer(at, member, to.offset)
        elif die.tag == "DW_TAG_array_type" and depth:
            yield from self._of_elements(die, at, member, depth)
        elif die.tag in RECORDS and depth:
            die = self._complete(die)
            container = self._container(die)
            own = self._of_members(die, at, "" if container else member, depth)
            if container is None:
                yield from own
            else:
                yield from _contained(list(own), container, member)

    def _of_elements(self, die: DIE, at: int, member: str, depth: int) -> Iterator[Pointer]:
        element = self._type(die)
        count = 1
        for child in self._children(die):
            if child.tag == "DW_TAG_subrange_type":
                count *= length_of(child)
        if element is not None:
            size = self._size(element)
            for number in range(min(count, ELEMENTS_MAX)):
                yield from self._pointers(element, at + number * size, member, depth - 1)

    def _of_members(self, die: DIE, at: int, member: str, depth: int) -> Iterator[Pointer]:
        for child in self._children(die):
            if child.tag not in INNER or not NOT_WITHIN.isdisjoint(child.attributes):
                continue
            kind = self._type(child)
            if kind is None:
                continue
            said = name_of(child)
            # What the standard library calls its own says nothing to others.
            own = "" if said.startswith("_") else said
            path = f"{member}.{own}" if member and own else member or own
            yield from self._pointers(kind, at + self._offset(child, kind), path, depth - 1)

    def _container(self, die: DIE) -> Optional[str]:
        """The name of a container of the standard library."""
        if CONTAINERS.match(name_of(die)) is None:
            return None
        full = self._full_name(die)
        return _tidy(full) if full.startswith("std::") else None


def _contained(own: List[Pointer], container: str, member: str) -> Iterator[Pointer]:
    """The pointers of a container, by its name."""
    if not _last(container).startswith(ROWS):
        yield from (replace(each, member=member, container=container) for each in own)
    elif len(own) > 1:
        yield replace(own[0], member=member, container=container, end=own[1].offset)


def _too_large(file: ElfFile, name: str) -> Optional[str]:
    """The name of a section of debug information if it is too large, unpacked."""
    header = file.section(f".debug_{name}")
    if header is None:
        return None
    size = header.size
    if header.flags & SHF_COMPRESSED:
        start = file.file.read(header.offset, COMPRESSION.size)
        if len(start) == COMPRESSION.size:
            size = COMPRESSION.unpack(start)[2]
    return header.name if size > INFO_MAX else None


def _place(location: object) -> Optional[int]:
    """The link-time address that a variable is said to have always."""
    if not isinstance(location, list) or len(location) != 1 + POINTER_SIZE:
        return None
    return struct.unpack("<Q", bytes(location[1:]))[0] if location[0] == DW_OP_ADDR else None


def _last(name: str) -> str:
    """The last part of a full name: what the entry itself is called."""
    depth, start = 0, 0
    for at, letter in enumerate(name):
        depth += (letter in "<(") - (letter in ">)")
        if depth == 0 and name.startswith("::", at):
            start = at + 2
    return name[start:]


def _spelled(name: str) -> Iterator[str]:
    """A full name as debug information may spell it."""
    spaced = re.sub(r">(?=>)", "> ", name)
    other = SAID.sub(lambda found: GCC_NAMES[found[1]], spaced)
    yield spaced
    if other != spaced:
        yield other


def _tidy(name: str) -> str:
    """A name of debug information as the type says it of itself at run time."""
    return OF_GCC.sub(lambda found: PLAIN_NAMES[found[1]], name.replace(" >", ">"))
