"""Where calls may be counted, and the limits of a count that is given none."""

from __future__ import annotations

REQUESTS, ENTRY, FASTPATH, SLOWPATH, ARENA = "requests", "entry", "fastpath", "slowpath", "arena"
LAYERS = (REQUESTS, ENTRY, FASTPATH, SLOWPATH, ARENA)
HITS_DEFAULT = 100_000
SECONDS_DEFAULT = 60.0
