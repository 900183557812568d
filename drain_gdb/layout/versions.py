"""jemalloc's version string, and which releases are understood."""

from __future__ import annotations

from typing import Tuple

VERSION = (
    rb"(?<![\w.])\d{1,2}\.\d{1,2}\.\d{1,2}-\d{1,5}-g[0-9a-f]{1,40}"
    rb"(?:missing_version_try_git_fetch_tags)?(?![\w.])"
)
"""JEMALLOC_VERSION as configure.ac builds it: release, commits since, commit."""
OLDEST = (5, 0, 0)
"""The oldest release that is understood: those before keep runs in chunks, not slabs."""
UNVERSIONED = (0, 0, 0)
"""The release of a build whose sources were no git checkout and named no version."""


def release_key(version: str) -> Tuple[int, ...]:
    """``(5, 3, 0)`` of ``5.3.0-0-g54eaed1d8b56...``."""
    return tuple(int(part) for part in release_of(version).split("."))


def commits_since(version: str) -> int:
    """How many commits after its release a version is; 0 for the release itself."""
    return int(version.split("-")[1]) if "-" in version else 0


def release_of(version: str) -> str:
    """``5.3.0`` of ``5.3.0-0-g54eaed1d8b56...``."""
    return version.split("-", 1)[0]


def as_shown(version: str) -> str:
    """``5.3.0-196`` of ``5.3.0-196-ge0f0dcb...``; ``5.3.0`` of the release itself."""
    after = commits_since(version)
    return f"{release_of(version)}-{after}" if after else release_of(version)
