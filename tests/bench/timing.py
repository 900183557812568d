"""How long something takes."""

from __future__ import annotations

import time
from typing import Callable

ROUNDS = 3


def best(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of ``ROUNDS`` runs."""
    times = []
    for _ in range(ROUNDS):
        start = clock()
        action()
        times.append(clock() - start)
    return min(times)
