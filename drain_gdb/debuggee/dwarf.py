"""Structs out of debug information, without parsing more of it than is needed.

A struct's name stands once in ``.debug_str``, its offset wherever an entry of
``.debug_info`` has that name (DW_FORM_strp): both are found by a search for bytes,
and pyelftools parses the entry there.  A short name may stand in the entry itself
(DW_FORM_string), and clang names entries by an index into ``.debug_str_offsets``
(DW_FORM_strx): there a search gives the unit, which is parsed.  Of several structs of
one name that in the unit of the variable it is asked for wins, as in a debugger.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from bisect import bisect_right
from functools import cached_property
from importlib import import_module
from typing import IO, Any, Dict, Iterator, List, Optional, Tuple, Union, cast

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

from drain_gdb.debuggee.elf import SHF_COMPRESSED, SHT_NOBITS
from drain_gdb.debuggee.elffile import ElfFile
from drain_gdb.debuggee.protocol import Member, Struct

CODE_MAX = 4
"""Bytes between an entry's start and its name: the abbreviation code, and rarely more."""
HITS_MAX = 1 << 16
CHILDREN_MAX = 1 << 20
SECTION_MAX = 1 << 32
"""Bytes of a compressed section, unpacked."""
ZLIB_RATIO_MAX = 1040
"""zlib makes at most 1032 bytes of one (zlib.net/zlib_tech.html)."""
COMPRESSION = struct.Struct("<IIQQ")
ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD = 1, 2
INDEXED = tuple(f"DW_FORM_strx{size}" for size in ("", "1", "2", "3", "4"))
STRUCTS = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")
NAMED = (*STRUCTS, "DW_TAG_variable")
PEELED = (
    "DW_TAG_typedef",
    "DW_TAG_const_type",
    "DW_TAG_volatile_type",
    "DW_TAG_restrict_type",
    "DW_TAG_atomic_type",
)
POINTER_SIZE = 8
DW_OP_PLUS_UCONST = 0x23
NEEDED = ("info", "abbrev", "str", "line_str", "str_offsets", "addr", "rnglists", "loclists")

Content = Union[bytes, mmap.mmap]


class _Window:
    """A stretch of a mapped file as a stream, for pyelftools; nothing is copied."""

    def __init__(self, data: Content, start: int, size: int) -> None:
        self.data = data
        self.start = start
        self.size = size
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes from the current place."""
        end = self.size if size < 0 else min(self._at + size, self.size)
        found = self.data[self.start + self._at : self.start + end]
        self._at = max(self._at, end)
        return found

    def seek(self, at: int, whence: int = 0) -> int:
        """Go to ``at``, counted as in io.IOBase.seek()."""
        self._at = at + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """The current place."""
        return self._at

    def find(self, wanted: bytes, start: int, end: int) -> int:
        """The first place of ``wanted`` between two places; -1 if there is none."""
        found = self.data.find(wanted, self.start + start, self.start + min(end, self.size))
        return found - self.start if found >= 0 else -1


class Dwarf:
    """The debug information of one file."""

    def __init__(self, file: ElfFile) -> None:
        self._windows = dict(_windows(file))
        self._described: Dict[int, Struct] = {}
        self._indexed: Dict[int, Dict[int, List[int]]] = {}

    @cached_property
    def _dwarf(self) -> DWARFInfo:
        sections: Dict[str, Any] = {
            f"debug_{name}_sec": DebugSectionDescriptor(
                cast(IO[bytes], window), f".debug_{name}", None, window.size, 0
            )
            for name, window in self._windows.items()
        }
        absent = ("aranges", "frame", "loc", "ranges", "line", "pubtypes", "pubnames", "sup")
        for name in (*absent, "types", *NEEDED):
            sections.setdefault(f"debug_{name}_sec", None)
        config = DwarfConfig(True, "x64", POINTER_SIZE)
        return DWARFInfo(config=config, eh_frame_sec=None, gnu_debugaltlink_sec=None, **sections)

    @cached_property
    def _units(self) -> List[int]:
        """Where each unit begins."""
        info, found, at = self._windows["info"], [], 0
        while at + 12 <= info.size:
            found.append(at)
            info.seek(at)
            length, long_length = struct.unpack("<IQ", info.read(12))
            at += 12 + long_length if length == 0xFFFFFFFF else 4 + length
        return found

    def struct(self, name: str, variable: str) -> Optional[Struct]:
        """Struct ``name`` as the unit of ``variable`` knows it; None where it is not described.

        Damaged debug information counts as none.
        """
        if "info" not in self._windows or "abbrev" not in self._windows:
            return None
        try:
            die = self._definition(name, variable)
            return None if die is None else self._describe(die)
        except Exception:  # noqa: BLE001 - pyelftools fails in any way on damaged input
            return None

    def struct_at(self, offset: int) -> Struct:
        """The struct whose entry is at ``offset`` of ``.debug_info``."""
        return self._describe(self._die(offset))

    def _definition(self, name: str, variable: str) -> Optional[DIE]:
        """The complete struct ``name``, of the unit that defines ``variable`` if it has one."""
        for unit in self._homes(variable):
            for die in self._named(name, *self._bounds(unit)):
                if _is_definition(die):
                    return die
        return next(filter(_is_definition, self._named(name, 0, self._windows["info"].size)), None)

    @cached_property
    def _homes_known(self) -> Dict[str, List[int]]:
        return {}

    def _homes(self, variable: str) -> List[int]:
        """The units that define ``variable``; its declarations elsewhere do not count."""
        known = self._homes_known
        if variable not in known:
            known[variable] = [
                die.cu.cu_offset
                for die in self._named(variable, 0, self._windows["info"].size)
                if die.tag == "DW_TAG_variable" and "DW_AT_declaration" not in die.attributes
            ]
        return known[variable]

    def _bounds(self, unit: int) -> Tuple[int, int]:
        """Where the unit that begins at ``unit`` begins and ends."""
        after = bisect_right(self._units, unit)
        return unit, (
            self._units[after] if after < len(self._units) else self._windows["info"].size
        )

    def _named(self, name: str, start: int, end: int) -> Iterator[DIE]:
        """Every entry between two places of ``.debug_info`` that has that name."""
        info = self._windows["info"]
        for wanted in self._spellings(name):
            at = info.find(wanted, start, end)
            for _ in range(HITS_MAX):
                if at < 0:
                    break
                yield from self._entries(name, at)
                at = info.find(wanted, at + 1, end)
        yield from self._by_index(name, start, end)

    def _by_index(self, name: str, start: int, end: int) -> Iterator[DIE]:
        """Every entry of units between two places that has that name by DW_FORM_strx."""
        offsets = self._windows.get("str_offsets")
        if offsets is None:
            return
        for wanted in self._strings(name.encode() + b"\0"):
            at = offsets.find(wanted, 0, offsets.size)
            for _ in range(HITS_MAX):
                if at < 0:
                    break
                base = self._bases[bisect_right(self._bases, at) - 1] if self._bases else at + 1
                unit = self._unit_of_base.get(base)
                if unit is not None and start <= unit < end and (at - base) % 4 == 0:
                    for offset in self._entries_of(unit).get((at - base) // 4, ()):
                        yield self._die(offset)
                at = offsets.find(wanted, at + 1, offsets.size)

    @cached_property
    def _bases(self) -> List[int]:
        """Where the offsets of each contribution to ``.debug_str_offsets`` begin."""
        offsets, found, at = self._windows["str_offsets"], [], 0
        while at + 8 <= offsets.size:
            offsets.seek(at)
            (length,) = struct.unpack("<I", offsets.read(4))
            found.append(at + 8)
            at += 4 + length
        return found

    @cached_property
    def _unit_of_base(self) -> Dict[int, int]:
        """The unit that each contribution belongs to."""
        found = {}
        for unit in self._units:
            top = self._dwarf.get_CU_at(unit).get_top_DIE()
            base = top.attributes.get("DW_AT_str_offsets_base")
            if base is not None:
                found[int(base.value)] = unit
        return found

    def _entries_of(self, unit: int) -> Dict[int, List[int]]:
        """The structs and variables of a unit by the index of their name."""
        if unit not in self._indexed:
            found: Dict[int, List[int]] = {}
            at, end = self._dwarf.get_CU_at(unit).cu_die_offset, self._bounds(unit)[1]
            while at < end:
                die = self._die(at)
                at += die.size
                name = die.attributes.get("DW_AT_name")
                if die.tag in NAMED and name is not None and name.form in INDEXED:
                    found.setdefault(name.raw_value, []).append(die.offset)
            self._indexed[unit] = found
        return self._indexed[unit]

    def _strings(self, text: bytes) -> Iterator[bytes]:
        """Each offset of ``text`` in ``.debug_str``, as its bytes.

        It need not follow a zero byte: linkers let strings share their ends.
        """
        strings = self._windows.get("str")
        at = -1 if strings is None else strings.find(text, 0, strings.size)
        for _ in range(HITS_MAX):
            if strings is None or not 0 <= at < 1 << 32:
                return
            yield struct.pack("<I", at)
            at = strings.find(text, at + 1, strings.size)

    def _spellings(self, name: str) -> Iterator[bytes]:
        """The bytes by which an entry may say its name: a string's offset, or the string."""
        text = name.encode() + b"\0"
        yield from self._strings(text)
        yield text

    def _entries(self, name: str, at: int) -> Iterator[DIE]:
        """The entry whose name attribute is at ``at``, if there is one.

        A code of two bytes may be read from its second byte on, and what happens to equal a
        name's offset may be anything: so there can be several, of which those that contradict
        themselves are left out.
        """
        for start in range(at - 1, at - 1 - CODE_MAX, -1):
            try:
                die = self._die(start)
                found = die.attributes.get("DW_AT_name")
                if found is None or found.offset != at or found.value != name.encode():
                    continue
                sound = self._ends_where_it_says(die)
            except Exception:  # noqa: BLE001 - no entry begins there
                continue
            if sound:
                yield die

    def _ends_where_it_says(self, die: DIE) -> bool:
        """Whether the entries below ``die`` end at its sibling, where it names one (GCC does)."""
        sibling = die.attributes.get("DW_AT_sibling")
        if die.tag not in STRUCTS or sibling is None:
            return die.tag in NAMED
        end = die.offset + die.size
        for child in self._below(die):
            end = child.offset + child.size
        return bool(end == _unit_of(die).cu_offset + sibling.raw_value)

    def _die(self, offset: int) -> DIE:
        unit = self._dwarf.get_CU_at(self._units[bisect_right(self._units, offset) - 1])
        if offset < unit.cu_die_offset:
            raise ValueError(offset)
        unit.get_top_DIE()
        return DIE(unit, cast(IO[bytes], self._windows["info"]), offset)

    def _below(self, die: DIE) -> Iterator[DIE]:
        """All entries below ``die``, the null entry at their end too."""
        at, depth = die.offset + die.size, 0
        for _ in range(CHILDREN_MAX if die.has_children else 0):
            child = DIE(die.cu, cast(IO[bytes], self._windows["info"]), at)
            at += child.size
            yield child
            depth += -1 if child.is_null() else bool(child.has_children)
            if depth < 0:
                return

    def _children(self, die: DIE) -> Iterator[DIE]:
        """The entries directly below ``die``."""
        depth = 0
        for child in self._below(die):
            if child.is_null():
                depth -= 1
                continue
            if depth == 0:
                yield child
            depth += bool(child.has_children)

    # -- types --------------------------------------------------------------------

    def _type(self, die: DIE) -> Optional[DIE]:
        """The type of ``die``, typedefs and qualifiers taken off; None for void."""
        for _ in range(CHILDREN_MAX):
            found = self._said_type(die)
            if found is None or found.tag not in PEELED:
                return found
            die = found
        return None

    def _said_type(self, die: DIE) -> Optional[DIE]:
        """The type of ``die`` as it is said; None for void."""
        reference = die.attributes.get("DW_AT_type")
        if reference is None:
            return None
        if reference.form == "DW_FORM_ref_addr":
            return self._die(reference.raw_value)
        if reference.form in ("DW_FORM_ref_sig8", "DW_FORM_GNU_ref_alt"):
            return die.get_DIE_from_attribute("DW_AT_type")
        return self._die(_unit_of(die).cu_offset + reference.raw_value)

    def _element(self, die: DIE) -> Tuple[DIE, Optional[int]]:
        """The element type of a member's or array's type, and how many there are."""
        count: Optional[int] = None
        found = self._type(die)
        while found is not None and found.tag == "DW_TAG_array_type":
            for child in self._children(found):
                if child.tag == "DW_TAG_subrange_type":
                    count = (1 if count is None else count) * length_of(child)
            found = self._type(found)
        if found is None:
            raise ValueError("a member without a type")
        return found, count

    def _size(self, die: DIE) -> int:
        """Bytes of a type."""
        if "DW_AT_byte_size" in die.attributes:
            return int(die.attributes["DW_AT_byte_size"].value)
        if die.tag == "DW_TAG_enumeration_type":
            inner = self._type(die)
            return POINTER_SIZE if inner is None else self._size(inner)
        return POINTER_SIZE

    def _align(self, die: DIE) -> int:
        """Bytes that a type is aligned to, by gdb's rules (type_align(), gdbtypes.c)."""
        if "DW_AT_alignment" in die.attributes:
            return int(die.attributes["DW_AT_alignment"].value)
        if die.tag in STRUCTS:
            return self._describe(die).align
        return self._size(die)

    def _describe(self, die: DIE) -> Struct:
        """A struct or union, nested ones included."""
        if die.offset not in self._described:
            members = tuple(
                self._member(child)
                for child in self._children(die)
                if child.tag == "DW_TAG_member" and "DW_AT_external" not in child.attributes
            )
            align = max([1, *(member.align for member in members)])
            if "DW_AT_alignment" in die.attributes:
                align = int(die.attributes["DW_AT_alignment"].value)
            name = name_of(die)
            union = die.tag == "DW_TAG_union_type"
            self._described[die.offset] = Struct(name, self._size(die), align, members, union)
        return self._described[die.offset]

    def _member(self, die: DIE) -> Member:
        element, count = self._element(die)
        return Member(
            name=name_of(die),
            offset=self._offset(die, element),
            size=self._size(element) * (1 if count is None else count),
            align=self._align(element),
            count=count,
            type=self._describe(element) if element.tag in STRUCTS else None,
        )

    def _offset(self, die: DIE, element: DIE) -> int:
        """Bytes from the start of the struct to a member; of a bit field to its first byte."""
        attributes = die.attributes
        if "DW_AT_data_bit_offset" in attributes:
            return int(attributes["DW_AT_data_bit_offset"].value) // 8
        location = attributes.get("DW_AT_data_member_location")
        at = 0 if location is None else _constant(location.value)
        if "DW_AT_bit_offset" in attributes:
            # Counted from the most significant bit of the storage unit (DWARF 3, 5.6.6).
            storage = attributes.get("DW_AT_byte_size")
            bits = 8 * (self._size(element) if storage is None else int(storage.value))
            bits -= int(attributes["DW_AT_bit_offset"].value)
            return at + (bits - int(attributes["DW_AT_bit_size"].value)) // 8
        return at


def _unit_of(die: DIE) -> CompileUnit:
    return cast(CompileUnit, die.cu)


def name_of(die: DIE) -> str:
    """What an entry is called; empty where it has no name."""
    name = die.attributes.get("DW_AT_name")
    return "" if name is None else name.value.decode("utf-8", "replace")


def _is_definition(die: DIE) -> bool:
    """Whether it is a struct with members (gdb, too, takes one without for none)."""
    return (
        die.tag in STRUCTS and "DW_AT_declaration" not in die.attributes and bool(die.has_children)
    )


def length_of(subrange: DIE) -> int:
    """Elements of one dimension of an array; 0 for a flexible one."""
    for name, more in (("DW_AT_count", 0), ("DW_AT_upper_bound", 1)):
        bound = subrange.attributes.get(name)
        if bound is not None and isinstance(bound.value, int):
            # A bound of -1, as of an array of no elements, may be written without its sign.
            return 0 if bound.value >= (1 << 32) - 1 else max(0, bound.value + more)
    return 0


def _constant(value: Any) -> int:
    """A member's location: a number or, before DWARF 3, an expression that adds one."""
    if isinstance(value, int):
        return value
    operation, *digits = value
    if operation != DW_OP_PLUS_UCONST:
        raise ValueError("a member whose place is computed")
    return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(digits))


def _windows(file: ElfFile) -> Iterator[Tuple[str, _Window]]:
    """The sections of debug information, by the name after ``.debug_``."""
    mapped: Optional[mmap.mmap] = None
    for name in NEEDED:
        header = file.section(f".debug_{name}")
        if header is None or header.kind == SHT_NOBITS or not header.size:
            continue
        if header.offset + header.size > file.file.size:
            continue
        if header.flags & SHF_COMPRESSED:
            data = _unpacked(file.content(header))
            if data is not None:
                yield name, _Window(data, 0, len(data))
            continue
        if mapped is None:
            mapped = mmap.mmap(file.file.descriptor, 0, access=mmap.ACCESS_READ)
        yield name, _Window(mapped, header.offset, header.size)


def _unpacked(data: bytes) -> Optional[bytes]:
    """A compressed section's content (Elf64_Chdr); None where it is damaged or too large."""
    if len(data) < COMPRESSION.size:
        return None
    kind, _, size, _ = COMPRESSION.unpack_from(data)
    packed = data[COMPRESSION.size :]
    if size > SECTION_MAX:
        return None
    try:
        if kind == ELFCOMPRESS_ZLIB and size <= ZLIB_RATIO_MAX * len(packed):
            return zlib.decompressobj().decompress(packed, size)
        if kind == ELFCOMPRESS_ZSTD:
            return _unpacked_zstd(packed, size)
    except (zlib.error, MemoryError):
        return None
    return None


def _unpacked_zstd(packed: bytes, size: int) -> Optional[bytes]:
    """None too where this Python cannot: debug information is then not there."""
    try:
        zstandard = import_module("zstandard")
    except ImportError:
        return None
    try:
        data: bytes = zstandard.ZstdDecompressor().stream_reader(packed).read(size)
    except zstandard.ZstdError:
        return None
    return data
