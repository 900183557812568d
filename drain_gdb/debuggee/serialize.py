"""Frozen dataclasses as JSON values and back, strictly.

Only what the declared types allow comes back: every member once, no others,
integers of at most 64 bits.  A member that has a default may be missing: files from
before it was added lack it.
"""

from __future__ import annotations

import collections.abc
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from typing import (
    Any,
    Dict,
    NoReturn,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from drain_gdb.errors import RecordingError

INTEGER_END = 1 << 64
NAME_SHOWN = 40
Record = TypeVar("Record")


def to_json(record: Any) -> Dict[str, Any]:
    """The dataclass ``record`` and those in it as JSON objects."""
    return asdict(record)


def from_json(kind: Type[Record], value: object, where: str) -> Record:
    """The dataclass ``kind`` that :func:`to_json` made ``value`` of.

    Raises :class:`RecordingError` that names the member, below ``where``, that is
    missing, unknown or of another type.  Only one that has a default may be missing:
    older recordings lack it.
    """
    known: Any = kind
    types = _types(known)
    if not isinstance(value, dict):
        _refuse(where, "is no object")
    for name, optional in _members(known).items():
        if name not in value and not optional:
            _refuse(f"{where}.{name}", "is missing")
    for name in value:
        if name not in types:
            _refuse(where, f"has the unknown member {name[:NAME_SHOWN]!r}")
    return kind(**{n: _restored(types[n], value[n], f"{where}.{n}") for n in value})


@cache
def _types(kind: Any) -> Dict[str, Any]:
    """The members of a dataclass and their types, which take longer to learn than all the rest."""
    return get_type_hints(kind)


@cache
def _members(kind: Any) -> Dict[str, bool]:
    """The members of a dataclass, and whether each has a default; none of anything else."""
    return {
        field.name: field.default is not MISSING or field.default_factory is not MISSING
        for field in (fields(kind) if is_dataclass(kind) else ())
    }


def _restored(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Union:
        if value is None and type(None) in inner:
            return None
        return _restored(_chosen(inner, value), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            _refuse(where, "is no list")
        return tuple(_restored(inner[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            _refuse(where, "is no object")
        return {key: _restored(inner[1], each, f"{where}[...]") for key, each in value.items()}
    if kind in (int, bool, str):
        if type(value) is not kind:
            _refuse(where, f"is no {kind.__name__}")
        if kind is int and not 0 <= value < INTEGER_END:
            _refuse(where, "is no 64-bit number")
        return value
    return from_json(kind, value, where)


def _chosen(kinds: Tuple[Any, ...], value: object) -> Any:
    """Of alternative dataclasses the one with the members of ``value``; else the first."""
    for kind in kinds:
        members = _members(kind)
        needed = {name for name, optional in members.items() if not optional}
        if isinstance(value, dict) and needed <= value.keys() <= members.keys():
            return kind
    return kinds[0]


def _refuse(where: str, why: str) -> NoReturn:
    raise RecordingError(f"the recording is not understood: {where} {why}")
