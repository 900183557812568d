"""Every failure a user can meet, by name.

An error says what failed (with its address where there is one), why, and what
to try next.  ``exit_status`` is what the shell form of a command returns.
"""

from __future__ import annotations

from typing import Optional

EXIT_DONE = 0
EXIT_USAGE = 1
EXIT_TARGET = 2
EXIT_PARTIAL = 3
EXIT_INTERRUPTED = 130


class DrainError(Exception):
    """Base of all named errors; ``str()`` is the one line the user reads."""

    exit_status = EXIT_TARGET

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(DrainError):
    """The command's words are off."""

    exit_status = EXIT_USAGE


class TargetError(DrainError):
    """The process, core or recording cannot be used."""


class ProcessEnded(TargetError):
    """The process that was looked at is no more, or runs another program."""


class UnreadableMemory(TargetError):
    """``size`` bytes at ``address`` cannot be read from the target.

    ``what`` says just that, ``why`` is the reader's own reason; the message has both.
    """

    def __init__(self, address: int, size: int, why: str = "") -> None:
        self.address = address
        self.size = size
        self.why = why
        self.what = f"cannot read {size} bytes at {address:#x}"
        super().__init__(
            f"{self.what}: {why}" if why else self.what,
            "the core may be truncated or may leave out this mapping",
        )


class RecordingError(TargetError):
    """The recording is damaged, or not one that this program can read."""


class OtherProcess(TargetError):
    """Two moments that are to be compared are of two processes."""


class StatisticsError(TargetError):
    """The file's statistics are cut off, or hold not what is needed."""


class ReportError(TargetError):
    """The file is no report of this program's, or a damaged one."""


class WorkerError(TargetError):
    """What was to read the file ended, or did not end."""


class NoJemalloc(TargetError):
    """The process holds no jemalloc that this program knows."""


class LayoutError(TargetError):
    """jemalloc is there, but its structures could not be located or understood."""


class MissingField(LayoutError):
    """A structure lacks a member that a walker needs."""

    def __init__(self, struct: str, path: str) -> None:
        super().__init__(
            f"struct {struct} has no member {path!r}",
            "this jemalloc is laid out in a way this program does not know yet",
        )


class CountingError(DrainError):
    """Calls cannot be counted as asked."""


class OutputError(DrainError):
    """The report could not be written."""


class MissingDependency(DrainError):
    """A Python package the program needs cannot be imported."""
