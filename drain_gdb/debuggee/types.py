"""The types of a file's objects, as far as they tell what pointers lead to."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from typing import Optional, Protocol, Tuple

from drain_gdb.debuggee.elffile import ElfFile, open_elf
from drain_gdb.debuggee.loaded import debug_path, open_module
from drain_gdb.debuggee.protocol import Module

INFO = ".debug_info"


@dataclass(frozen=True)
class Pointer:
    """A pointer in an object.

    Attributes:
        offset: bytes from the object's start.
        member: how it is got at, such as ``room.door``; what is in a container of the standard
            library goes by the container's name.
        to: the number of the type that it points at.
        container: the type of the container that has it, None for none.
        end: of a container of elements in a row the offset of the pointer to their end.

    """

    offset: int
    member: str
    to: int
    container: Optional[str] = None
    end: Optional[int] = None


@dataclass(frozen=True)
class Layout:
    """A type.

    Attributes:
        name: in full; empty for what is no struct or class.
        cplusplus: whether it is written in C++.
        size: bytes.
        pointers: those in it, of nested ones and bases too, at places that never change.

    """

    name: str
    cplusplus: bool
    size: int
    pointers: Tuple[Pointer, ...]


class TypeReader(Protocol):
    """The types that a file describes.

    Attributes:
        limited: why not all of it was looked at; None where it was.

    """

    limited: Optional[str]

    def struct_named(self, name: str) -> Optional[Layout]:
        """The class or struct of that full name; None where there is none, or several."""

    def variable(self, name: str, address: int) -> Optional[Layout]:
        """The type of the variable of that full name at ``address`` of the process."""

    def layout(self, number: int) -> Layout:
        """The type that a pointer leads to."""


def open_types(module: Module) -> Optional[TypeReader]:
    """What a file of a process says of types; None without debug information, or its reader."""
    own = open_module(module)
    if own is None:
        return None
    with closing(own.file.file):
        if own.file.section(INFO) is not None:
            return _reader(own.file, own.bias)
    path = debug_path(module.build_id)
    separate = None if path is None else open_elf(path)
    if separate is None:
        return None
    with closing(separate.file):
        if separate.build_id != module.build_id or separate.section(INFO) is None:
            return None
        return _reader(separate, own.bias)


def _reader(file: ElfFile, bias: int) -> Optional[TypeReader]:
    try:
        found: TypeReader = import_module("drain_gdb.debuggee.dwarftypes").Types(file, bias)
    except ImportError:
        return None
    return found
