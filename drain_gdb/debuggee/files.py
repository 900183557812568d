"""The files a process had mapped: found, held against a root, opened, read."""

from __future__ import annotations

import os
import stat
import weakref
from types import TracebackType
from typing import List, Optional, Type

from drain_gdb.errors import TargetError

MAGIC = b"\x89DRAIN\r\n"
"""How a recording begins."""
TEXT_LOOK = 4096
"""Bytes of a file that are looked at to tell whether it is text."""
LINKS_MAX = 40
"""Symbolic links followed on the way to one file (MAXSYMLINKS of Linux)."""


class File:
    """A regular file, open for reads at any place; nothing else is ever opened.

    Raises :class:`TargetError` where it cannot be.
    """

    def __init__(self, path: str, descriptor: Optional[int] = None) -> None:
        self.path = path
        try:
            self.descriptor = (
                # A pipe that a name leads to would otherwise wait for its writer.
                os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if descriptor is None
                else descriptor
            )
            self._close = weakref.finalize(self, os.close, self.descriptor)
            status = os.fstat(self.descriptor)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "a name with a zero byte"
            raise TargetError(f"cannot open {path}: {why}") from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise TargetError(f"cannot open {path}: it is {kind}")
        self.size = status.st_size

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``; fewer where the file ends before."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        try:
            data = os.pread(self.descriptor, size, offset)
            while len(data) < size:
                more = os.pread(self.descriptor, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise TargetError(f"cannot read {self.path}: {error.strerror}") from None
        return data

    def close(self) -> None:
        """Close it; what nobody refers to any more is closed too."""
        self._close()

    def __enter__(self) -> File:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def is_recording(path: str) -> bool:
    """Whether the file at ``path`` begins as a recording does."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return begins_as_recording(file.read(len(MAGIC)))
    except OSError:
        return False


def begins_as_recording(start: bytes) -> bool:
    """Whether a file begins as a recording does, but for damage to less than half of it."""
    return 2 * sum(a == b for a, b in zip(start, MAGIC)) > len(MAGIC)


def inside(root: str, path: str) -> Optional[str]:
    """Where ``path`` leads when ``root`` is taken for ``/``; None where a link goes in rings.

    Links are resolved within ``root``, and ``..`` does not lead out of it.  What is
    not there is returned as it is.
    """
    done: List[str] = []
    left = [part for part in reversed(path.split("/")) if part]
    links = 0
    while left:
        part = left.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        try:
            link = os.readlink(os.path.join(root, *done, part))
        except (OSError, ValueError):
            done.append(part)
            continue
        links += 1
        if links > LINKS_MAX:
            return None
        if link.startswith("/"):
            done.clear()
        left.extend(each for each in reversed(link.split("/")) if each)
    return os.path.join(root, *done)


def is_text(path: str) -> bool:
    """Whether the file at ``path`` begins as text does: without a zero byte."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return b"\0" not in file.read(TEXT_LOOK)
    except OSError:
        return False
