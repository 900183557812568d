"""Which files a fleet is: those of folders, patterns and URLs that fsspec knows."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from drain_gdb.errors import MissingDependency, UsageError
from drain_gdb.loaders.fleet.reading import Place

MARKS = (
    *("ETag", "etag", "md5Hash", "checksum"),
    *("mtime", "LastModified", "last_modified", "updated", "modify", "date_time", "CRC", "created"),
)
"""What file systems say of a file that changes with it, the best first."""


class Source(NamedTuple):
    """The files of one argument; ``system`` is None where they are of this machine."""

    system: Any
    places: Sequence[Place]


def find(arguments: Sequence[str], left_out: Sequence[str]) -> List[Source]:
    """The files of each of ``arguments``, every one once, but for those ``left_out``.

    :class:`UsageError` where an argument names none.
    """
    seen = {os.path.abspath(path) for path in left_out}
    return [_source(argument, seen) for argument in arguments]


def _source(argument: str, seen: set[str]) -> Source:
    try:
        system, path = import_module("fsspec.core").url_to_fs(argument)
        local = "file" in _protocols(system)
        found = sorted(_found(system, path), key=lambda each: str(each[0]))
    except ImportError as error:
        raise MissingDependency(f"{argument}: {error}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{argument}: {why}", "give folders, patterns or URLs") from None
    if not found:
        raise UsageError(f"there is no file at {argument}")
    places = []
    for path, info in found:
        name = path if local else system.unstrip_protocol(path)
        if name not in seen:
            seen.add(name)
            places.append(Place(path, name, info.get("size") or 0, _mark(info)))
    return Source(None if local else system, places)


def _protocols(system: Any) -> Sequence[str]:
    return [system.protocol] if isinstance(system.protocol, str) else system.protocol


def _found(system: Any, path: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
    if import_module("fsspec.core").has_magic(path):
        infos = system.glob(path, detail=True)
    elif system.isdir(path):
        infos = system.find(path, detail=True)
    else:
        infos = {path: system.info(path)}
    for name, info in infos.items():
        if info.get("type") == "file":
            yield name, info


def _mark(info: Dict[str, Any]) -> str:
    said = next((f"{key}:{info[key]}" for key in MARKS if info.get(key) is not None), "")
    return f"{info.get('size')} {said}"
