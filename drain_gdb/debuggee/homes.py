"""Paths without the home directories they lead through.

A recording is made to be shared; under which user, and in which folder of theirs, a
program lay is nobody's business.
"""

from __future__ import annotations

import os
import pwd
import re
from typing import Any, List, Match

USER_MIN = 1000
"""The first user id of a person (UID_MIN, login.defs(5)); root is one as well."""
NOBODY = 65534
APART = r"\s:;,()'\""
"""What ends a path within a sentence."""


def without_homes(value: Any) -> Any:
    """The JSON value ``value``, each path in a home directory cut down to its file's name."""
    # Of the machine that a core is from, this one knows no users.
    homes = "|".join([*map(re.escape, _homes()), "/root", "/home/"])
    paths = re.compile(rf"(?:{homes})(?:(?<=/home/)[^/]+)?(/[^\0]*)?")
    within = re.compile(rf"(?:{homes})(?:(?<=/home/)[^/{APART}]+)?(/[^{APART}]*)?(?![^{APART}])")
    return _cut(value, paths, within)


def _homes() -> List[str]:
    """The home directories of this machine's people, and of who runs this."""
    people = [user.pw_dir for user in pwd.getpwall() if _is_person(user.pw_uid)]
    known = {os.path.normpath(path) for path in (os.path.expanduser("~"), *people)}
    return sorted((path for path in known if path.startswith("/") and path != "/"), reverse=True)


def _is_person(user: int) -> bool:
    return user == 0 or (user >= USER_MIN and user != NOBODY)


def _cut(value: Any, paths: re.Pattern[str], within: re.Pattern[str]) -> Any:
    if isinstance(value, dict):
        return {name: _cut(each, paths, within) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cut(each, paths, within) for each in value]
    if not isinstance(value, str):
        return value
    whole = paths.fullmatch(value)
    return within.sub(_name, value) if whole is None else _name(whole)


def _name(match: Match[str]) -> str:
    """The file's name; nothing of a home directory itself."""
    return os.path.basename(match[1] or "") or "~"
