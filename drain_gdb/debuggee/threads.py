"""Threads of a process: where each has its own block of memory, and its stack."""

from __future__ import annotations

import ctypes
import os
from array import array
from contextlib import suppress
from itertools import islice
from typing import Callable, Iterable, Iterator, List, Tuple

from drain_gdb.debuggee.residence import THREAD_STACK, Named
from drain_gdb.errors import UnreadableMemory

GET_ROBUST_LIST = {"x86_64": 274, "aarch64": 100, "riscv64": 100}
"""Its number, by machine (asm/unistd_64.h, asm-generic/unistd.h)."""
PAGE = 4096
BLOCK_MAX = 4096
"""Bytes; struct pthread of glibc and of musl is smaller."""
THREADS_MAX = 1 << 15
"""As many threads as a process has, by far (pid_max, proc(5)); a damaged core may name more."""
STACK_MIN, STACK_MAX = 1 << 14, 1 << 36
"""PTHREAD_STACK_MIN (limits.h); more than any stack."""
ABOVE_MAX = 1 << 24
"""Bytes of a stack above a thread's block: thread-local variables, colours of caches."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def robust_list(thread: int) -> int:
    """The head of a thread's list of robust mutexes (get_robust_list(2)); 0 without one.

    glibc and musl keep it in the thread's own block, struct pthread.
    """
    number = GET_ROBUST_LIST.get(os.uname().machine)
    head, size = ctypes.c_uint64(), ctypes.c_size_t()
    if number is None:
        return 0
    done = _libc.syscall(number, thread, ctypes.byref(head), ctypes.byref(size))
    return head.value if done == 0 else 0


def robust_lists(pid: int) -> List[int]:
    """Those of all threads of the process ``pid`` of this machine."""
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [head for head in map(robust_list, threads) if head]


def stacks(read: Callable[[int, int], bytes], places: Iterable[int]) -> Iterator[Named]:
    """The stacks of threads, ascending; ``places`` lie in the blocks of threads, or beside them.

    A thread's block lies in its stack, and holds the stack's start and size one after the
    other (stackblock, nptl/descr.h of glibc; map_base, pthread_impl.h of musl).  The main
    thread's does not.  Of more than ``THREADS_MAX`` places the first are looked at.
    """
    at = 0
    looked_at = dict.fromkeys(islice(places, THREADS_MAX))
    for start, end in sorted({stack for place in looked_at for stack in _stack(read, place)}):
        if start >= at:
            yield Named(start, end, THREAD_STACK, None)
            at = end


def _stack(read: Callable[[int, int], bytes], place: int) -> Iterator[Tuple[int, int]]:
    words = array("Q")
    first = place & -PAGE
    for page in range(first - BLOCK_MAX, first + BLOCK_MAX + 1, PAGE):
        with suppress(UnreadableMemory):
            words.frombytes(read(page, PAGE))
    found = [
        (size, base)
        for base, size in zip(words, words[1:])
        if (base | size) % PAGE == 0
        and STACK_MIN <= size <= STACK_MAX
        and 0 < base <= place < base + size <= place + ABOVE_MAX
    ]
    # Two other words may look like that, which begin anywhere.
    if found:
        size, base = min(found)
        yield base, base + size
