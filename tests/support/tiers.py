"""Which cases of a test every run has, and which only ``tests/run --long``."""

from __future__ import annotations

from typing import Any, Callable, Iterable, List, TypeVar

import pytest

Case = TypeVar("Case")


def tiered(
    cases: Iterable[Case], is_long: Callable[[str], bool], name: Callable[[Case], str]
) -> List[Any]:
    """``cases`` as parameters called by their names, those marked of whose name it is true."""
    return [
        pytest.param(case, id=name(case), marks=[pytest.mark.long] if is_long(name(case)) else [])
        for case in cases
    ]
