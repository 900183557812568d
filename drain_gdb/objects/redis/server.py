"""What a Redis has besides its data: event loop, latency histograms, clients' buffers.

Sources: ae.h, ae_epoll.c, hdr_histogram.h and kvstore.c of Redis 6.0 to 8.2, of Valkey 7.2
to 8.1.
"""

from __future__ import annotations

from itertools import product
from typing import Iterator, Optional, Tuple

from drain_gdb.objects.recogniser import Region
from drain_gdb.objects.redis.keyspace import store
from drain_gdb.objects.redis.places import fits
from drain_gdb.objects.redis.structures import Structures

Held = Iterator[Tuple[int, str]]
EVENTS_AT = (2, 3, 4)
"""The words of an event loop that may point at its events, by release."""
FILE_EVENT, FIRED_EVENT = 32, 8
EPOLL_AFTER = 4
"""So many words behind that pointer is the one to what epoll needs."""
FILES_MAX = 1 << 24
RATIO, COUNTS, COUNTED_AT = 9, 10, 12
"""The words of a histogram: conversion ratio, how many counts, where they are."""
ONE = 0x3FF0000000000000
"""The ratio of every histogram here, 1.0."""
BUFFER_MIN = 1 << 10


class Server:
    """Says of a region whether it is one of these, and what it points at."""

    def __init__(self, look: Structures) -> None:
        self._look = look

    def is_loop(self, region: Region) -> bool:
        """Highest file and how many there may be, then more, events and fired events."""
        return self._loop(region) is not None

    def _loop(self, region: Region) -> Optional[int]:
        """The word of an event loop that points at its events."""
        words = region.words
        for files, at in product({words[0] >> 32, words[2] & 0xFFFFFFFF}, EVENTS_AT):
            if not 0 < files < FILES_MAX:
                continue
            events = self._is_array(words[at], files * FILE_EVENT)
            if events and self._is_array(words[at + 1], files * FIRED_EVENT):
                return at
        return None

    def _is_array(self, address: int, size: int) -> bool:
        region = self._look.start(address)
        return region is not None and fits(region.size, size)

    def loop_parts(self, region: Region) -> Held:
        """The tables of an event loop."""
        at = self._loop(region)
        if at is None:
            return
        words = region.words
        yield words[at], "file events"
        yield words[at + 1], "fired events"
        epoll = self._look.start(words[at + EPOLL_AFTER], 16)
        if epoll is not None:
            yield epoll.address, "epoll state"
            yield epoll.words[1], "epoll events"

    def is_histogram(self, region: Region) -> bool:
        """Bounds, precision, counts so far, a ratio of 1, and as many counts as it says."""
        words = region.words
        counts = words[COUNTS] & 0xFFFFFFFF
        return words[RATIO] == ONE and self._is_array(words[COUNTED_AT], counts * 8)

    def counts(self, region: Region) -> Held:
        """What a histogram has counted."""
        yield region.words[COUNTED_AT], "counts of a latency histogram"

    def buffers(self, region: Region) -> Held:
        """What a client has for its answers, and other large things of its own."""
        for word in region.words:
            other = self._look.start(word, BUFFER_MIN)
            if other is not None:
                yield word, "buffer of a client"

    def dicts(self, region: Region) -> Held:
        """The array of a store of dicts."""
        found = store(self._look.contents, region)
        if found:
            for word in region.words:
                array = self._look.start(word)
                if array is not None and found[0] in array.words:
                    yield word, "dicts of a kvstore"
