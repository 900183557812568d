"""A running process, seen through copies that are all but of one moment.

What a walk reads is remembered as pages.  :meth:`MovingTarget.hold` copies them all,
again and again: a page that is the same in two copies has not moved between them.
Those that have moved are copied between two such copies of the rest, by one system
call for a thousand stretches of them.  As long as the rest stays the same around it,
the whole is the process as it was within that one short copy.
"""

from __future__ import annotations

import ctypes
import errno
import time
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import (
    TYPE_CHECKING,
    Callable,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
)
from typing import Mapping as MappingOf

from drain_gdb.debuggee.protocol import Mapping, Module, Motion, Process, Struct, Symbol, Thread
from drain_gdb.debuggee.ptrace import Busy, Stop
from drain_gdb.debuggee.residence import Residence
from drain_gdb.errors import UnreadableMemory
from drain_gdb.memory import Range

if TYPE_CHECKING:  # its packages are not there in a debugger
    from drain_gdb.debuggee.procfs import ProcessTarget

PAGE = 4096
CHUNK = 1 << 16
"""Bytes compared at once; a multiple of the page."""
ROUNDS = 5
"""Copies of everything before the pages seen moving are taken for all that move."""
REFUSED = (errno.EPERM, errno.ENOSYS)
TAKES = 5
"""Copies of what moves before one will do that was broken off in between."""
BROKEN = 1.5
"""Where one took so many times its processor time, it was."""
STOPS = 4
"""Stops before a copy is taken although threads are busy."""
ROOM = 1.25
"""Of what would be copied now so much is made ready for: it may grow until the process stands."""
LG_WINDOW = 21
WINDOW = 1 << LG_WINDOW
"""Bytes of address space that belong to one use: jemalloc's HUGEPAGE, or part of one."""
IOV_MAX = 1024
"""Stretches that one process_vm_readv(2) takes (UIO_MAXIOV, linux/uio.h)."""

Stretch = Tuple[int, int]
"""``(address, size)``, whole pages."""


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t


def room(size: int) -> ctypes.Array[ctypes.c_char]:
    """Memory for a copy of ``size`` bytes, all of it there already."""
    buffer = ctypes.create_string_buffer(1 + size)
    ctypes.memset(buffer, 1, size)
    return buffer


class QuickCopy:
    """A copy of stretches in as few system calls as possible, made ready beforehand.

    Where this system does not allow that call, they are read one by one.  A copy goes to
    ``prepared`` if that has room for it.
    """

    def __init__(
        self,
        live: ProcessTarget,
        stretches: Sequence[Stretch],
        prepared: Optional[ctypes.Array[ctypes.c_char]] = None,
    ) -> None:
        self._stretches = stretches
        self._live = live
        self._size = sum(size for _, size in stretches)
        fits = prepared is not None and self._size < len(prepared)
        self._buffer = prepared if prepared is not None and fits else room(self._size)
        self._calls = []
        at = ctypes.addressof(self._buffer)
        for start in range(0, len(stretches), IOV_MAX):
            part = stretches[start : start + IOV_MAX]
            size = sum(length for _, length in part)
            remote = (_IoVector * len(part))(*(_IoVector(*each) for each in part))
            self._calls.append((_IoVector(at, size), remote, len(part), size))
            at += size

    def take(self) -> bool:
        """Copy; False where not all could be."""
        for local, remote, count, size in self._calls:
            done = _libc.process_vm_readv(self._live.pid, ctypes.byref(local), 1, remote, count, 0)
            if done != size:
                return ctypes.get_errno() in REFUSED and done < 0 and self._take_singly()
        return True

    @property
    def data(self) -> memoryview:
        """All of it, one stretch after the other, as last copied."""
        return memoryview(self._buffer).cast("B")[: self._size]

    def _take_singly(self) -> bool:
        view, at = memoryview(self._buffer), 0
        for address, size in self._stretches:
            try:
                view[at : at + size] = self._live.read(address, size)
            except UnreadableMemory:
                return False
            at += size
        return True

    def pieces(self) -> Iterable[Tuple[int, bytes]]:
        """``(address, bytes)`` of each stretch, as last copied."""
        data, at = memoryview(self._buffer), 0
        for address, size in self._stretches:
            yield address, bytes(data[at : at + size])
            at += size


@dataclass
class Copy:
    """Blocks of memory, ascending and apart, and how they were come by."""

    starts: List[int]
    blocks: List[bytearray]
    motion: Motion

    def read(self, address: int, size: int) -> bytes:
        """The first of ``size`` bytes at ``address``, as many as the copy holds of them."""
        row = bisect_right(self.starts, address) - 1
        if row < 0:
            return b""
        at = address - self.starts[row]
        return bytes(memoryview(self.blocks[row])[at : at + size])

    def put(self, address: int, data: bytes) -> None:
        """Replace bytes that the copy holds."""
        row = bisect_right(self.starts, address) - 1
        at = address - self.starts[row]
        self.blocks[row][at : at + len(data)] = data

    def pieces(self) -> Iterable[Tuple[int, bytes]]:
        """``(address, bytes)`` of each block."""
        return zip(self.starts, map(bytes, self.blocks))

    def moved_since(self, earlier: Copy) -> Set[int]:
        """The pages that differ from those of ``earlier``, a copy that has all these blocks."""
        moved: Set[int] = set()
        known = dict(zip(earlier.starts, earlier.blocks))
        for start, block in zip(self.starts, self.blocks):
            before = known[start]
            if block == before:
                continue
            for at in range(0, len(block), CHUNK):
                if block[at : at + CHUNK] != before[at : at + CHUNK]:
                    for page in range(at, min(at + CHUNK, len(block)), PAGE):
                        if block[page : page + PAGE] != before[page : page + PAGE]:
                            moved.add(start + page)
        return moved


class Buffers:
    """Room for copies, used again: to get it anew takes as long as to read into it."""

    def __init__(self) -> None:
        self._spare: Dict[int, List[bytearray]] = {}

    def take(self, size: int) -> bytearray:
        """As many bytes, which may be anything."""
        spare = self._spare.get(size)
        return spare.pop() if spare else bytearray(size)

    def give(self, copies: Sequence[Copy]) -> None:
        """Of what was given before nothing is kept but ``copies``, which nobody reads any more."""
        self._spare = {}
        for copy in copies:
            for block in copy.blocks:
                self._spare.setdefault(len(block), []).append(block)


def merged(stretches: Iterable[Stretch]) -> List[Stretch]:
    """The pages of ``stretches``, each once, ascending, adjacent ones joined."""
    found: List[Stretch] = []
    for address, size in sorted(stretches):
        end = -(-(address + size) // PAGE) * PAGE
        start = address & -PAGE
        if found and start <= sum(found[-1]):
            first = found[-1][0]
            found[-1] = (first, max(sum(found[-1]), end) - first)
        else:
            found.append((start, end - start))
    return found


def _without(stretches: Iterable[Stretch], closed: Sequence[Range]) -> Iterator[Stretch]:
    """What of ``stretches`` lies outside all of ``closed``; both ascend."""
    for address, size in stretches:
        at, end = address, address + size
        row = max(bisect_right(closed, (at, at)) - 1, 0)
        for first, last in closed[row:]:
            if first >= end:
                break
            if at < first:
                yield at, first - at
            at = max(at, last)
        if at < end:
            yield at, end - at


def _unbroken(quick: QuickCopy) -> Tuple[bool, float]:
    """Whether all could be copied, and how many seconds that took: without others in between.

    A copy in the midst of which another program had the processor is of two moments.
    """
    for _ in range(TAKES):
        start, used = time.perf_counter(), time.process_time()
        complete = quick.take()
        took = time.perf_counter() - start
        if took < BROKEN * (time.process_time() - used):
            break
    return complete, took


Stopper = Callable[[], ContextManager[Stop]]


class MovingTarget:
    """A live process that is not stopped, or, by ``stopper``, for its copies alone.

    Attributes:
        busy: of a process that is stopped, the threads that are to go on before the copy.
        missed: reads since the last copy of what it does not hold.
        stopped_seconds: how long the process has been stopped, all in all.
        spare: a copy that was compared with the one that is held, and is not needed.

    """

    def __init__(
        self,
        live: ProcessTarget,
        stopper: Optional[Stopper] = None,
        buffers: Optional[Buffers] = None,
    ) -> None:
        self._live = live
        self._buffers = buffers or Buffers()
        self.spare: Optional[Copy] = None
        self._stopper = stopper
        self._constant = [(m.start, m.end) for m in live.unwritable()]
        self._starts = [start for start, _ in self._constant]
        self._wanted: List[Stretch] = []
        self._copied: List[Stretch] = []
        self._windows: Set[int] = set()
        self._closed: Sequence[Range] = []
        self._moving: Set[int] = set()
        self._copies = 0
        self.held: Optional[Copy] = None
        self.busy: Optional[Busy] = None
        self.missed = 0
        self.stopped_seconds = 0.0

    @property
    def stops(self) -> bool:
        """Whether the process is stopped for each copy."""
        return self._stopper is not None

    # -- copies -------------------------------------------------------------------

    @property
    def windows(self) -> Set[int]:
        """The numbers of the windows that were read since the last copy."""
        return {
            number
            for address, size in self._wanted
            for number in range(address >> LG_WINDOW, (address + size - 1 >> LG_WINDOW) + 1)
        }

    @property
    def wanted(self) -> List[Stretch]:
        """What was read since the last copy."""
        return merged(self._wanted)

    def want(self, stretches: Iterable[Stretch]) -> None:
        """Have the next copy hold ``stretches``, as if they had been read."""
        self._wanted.extend(stretches)

    def quick(self, stretches: Sequence[Stretch]) -> QuickCopy:
        """A copy of the process itself, to be taken as often as is wanted."""
        return QuickCopy(self._live, stretches)

    def hold(self, windows: Iterable[int] = ()) -> None:
        """Take a copy of all that was read since the last one, for the reads from now on.

        With it goes what the process has touched of ``windows``.
        """
        self._copies += 1
        self._windows = set(windows)
        # The pages that guard a stack may have been used before.
        self._closed = self._live.closed() if self._windows else []
        self._wanted = merged(self._wanted)
        self.held = self._in_motion() if self._stopper is None else self._stopped(self._stopper)
        self._wanted = []
        self.missed = 0

    def _touched(self) -> Iterator[Tuple[Stretch, Sequence[Stretch]]]:
        """Each window of which the kernel says what of it was touched, and that."""
        for number in self._windows:
            window = number << LG_WINDOW, WINDOW
            touched = self._live.touched(*window)
            if touched is not None:
                yield window, list(_without(touched, self._closed))

    def _stopped(self, stopper: Stopper) -> Copy:
        """A copy of the process while it stands; what it has not touched is zero."""
        touched = [stretch for _, stretches in self._touched() for stretch in stretches]
        likely = sum(size for _, size in merged([*self._wanted, *touched]))
        prepared = room(int(likely * ROOM))
        for left in reversed(range(1 if self.busy is None else STOPS)):
            copy = self._stopped_once(stopper, prepared, not left)
            if copy is not None:
                break
        assert copy is not None
        return copy

    def _stopped_once(
        self, stopper: Stopper, prepared: ctypes.Array[ctypes.c_char], last: bool
    ) -> Optional[Copy]:
        """None where threads stay busy, unless this is the ``last`` stop."""
        pieces: Optional[Iterable[Tuple[int, bytes]]] = None
        with stopper() as stop:
            if self.busy is None or stop.step_out(self.busy) or last:
                windows = list(self._touched())
                touched = [stretch for _, stretches in windows for stretch in stretches]
                self._copied = merged([*self._wanted, *touched])
                quick = QuickCopy(self._live, self._copied, prepared)
                pieces = quick.pieces() if quick.take() else self._everything().pieces()
        self.stopped_seconds += stop.seconds
        if pieces is None:
            return None
        blocks = merged([*self._copied, *(window for window, _ in windows)])
        motion = Motion(self._copies, 0, 0, True)
        copy = Copy([at for at, _ in blocks], [bytearray(size) for _, size in blocks], motion)
        for address, data in pieces:
            copy.put(address, data)
        return copy

    def _in_motion(self) -> Copy:
        """A copy that is as good as of one moment, or nearly so."""
        touched = [stretch for _, stretches in self._touched() for stretch in stretches]
        self._copied = merged([*self._wanted, *touched])
        earlier = self._everything()
        for number in range(ROUNDS):
            quick = self._moving_ones()
            complete, took = _unbroken(quick)
            later = self._everything()
            fresh = later.moved_since(earlier) - self._moving
            self._moving |= fresh
            if (complete and not fresh) or number == ROUNDS - 1:
                break
            earlier = later
        moved = 0
        for address, data in quick.pieces() if complete else ():
            earlier.put(address, data)
            moved += len(data)
        settled = complete and not fresh
        self.spare = later
        return replace(earlier, motion=Motion(self._copies, moved, round(took * 1e6), settled))

    def _moving_ones(self) -> QuickCopy:
        """The copy of the pages seen moving, of those that are still wanted."""
        inside = (page for page in self._moving if self._copies_page(page))
        return QuickCopy(self._live, merged((page, PAGE) for page in inside))

    def _copies_page(self, page: int) -> bool:
        row = bisect_right(self._copied, (page, PAGE << 40)) - 1
        return row >= 0 and page < sum(self._copied[row])

    def _everything(self) -> Copy:
        """All that is to be copied, read once; what is gone is left out from now on."""
        starts: List[int] = []
        blocks: List[bytearray] = []
        for address, size in self._copied:
            block = self._buffers.take(size)
            if self._live.fill(address, block):
                starts.append(address)
                blocks.append(block)
        self._copied = [(start, len(block)) for start, block in zip(starts, blocks)]
        return Copy(starts, blocks, Motion(self._copies, 0, 0, True))

    # -- the target protocol ------------------------------------------------------

    def process(self) -> Process:
        """Who is being looked at, and how what is held was come by."""
        motion = None if self.stops or self.held is None else self.held.motion
        return replace(self._live.process(), in_motion=motion)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``, of the copy where it holds them."""
        found = b"" if self.held is None else self.held.read(address, size)
        if len(found) == size:
            self._wanted.append((address, size))
            return found
        at, left = address + len(found), size - len(found)
        data = self._live.read(at, left)
        row = bisect_right(self._starts, at) - 1
        if row < 0 or at + left > self._constant[row][1]:
            self.missed += 1
            self._wanted.append((address, size))
        return found + data

    def modules(self) -> Sequence[Module]:
        """The program and its libraries, those whose file could be opened."""
        return self._live.modules()

    def mappings(self) -> Sequence[Mapping]:
        """The files mapped into the process."""
        return self._live.mappings()

    def mapped(self) -> Optional[Sequence[Tuple[int, int]]]:
        """All of the address space in use."""
        return self._live.mapped()

    def symbols(self, *endings: str) -> Sequence[Symbol]:
        """Variables whose name ends with one of ``endings``."""
        return self._live.symbols(*endings)

    def symbol(self, name: str) -> Optional[Symbol]:
        """The variable ``name``."""
        return self._live.symbol(name)

    def struct(self, name: str, near: Symbol) -> Optional[Struct]:
        """Struct ``name`` as debug information around ``near`` describes it."""
        return self._live.struct(name, near)

    def thread_pointers(self) -> Sequence[int]:
        """The thread pointer of each thread, where it is known."""
        return self._live.thread_pointers()

    def threads(self) -> Sequence[Thread]:
        """The threads at this moment, as far as the system tells."""
        return self._live.threads()

    def auxiliary(self) -> MappingOf[int, int]:
        """As the kernel has it."""
        return self._live.auxiliary()

    def residence(self) -> Optional[Residence]:
        """What of the process is resident at this moment."""
        return self._live.residence()

    def layouts(self) -> Optional[Sequence[object]]:
        """None: what the process holds is to be found."""
        return None
