"""How long something takes."""

from __future__ import annotations

import time
from typing import Callable

ROUNDS = 3


def best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of ``ROUNDS`` runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)
