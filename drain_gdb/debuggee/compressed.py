"""Compressed cores, as systemd-coredump and others write them, unpacked to read them.

They are unpacked once, as a stream, into a temporary file that has no name and whose
zeros take no room.  How much may come out is what the core's own headers say it holds.
"""

from __future__ import annotations

import gzip
import lzma
import os
import tempfile
import zlib
from contextlib import ExitStack
from importlib import import_module
from typing import IO, BinaryIO, Callable, Iterator, Optional, cast

from drain_gdb.debuggee.elf import HEADER, PROGRAM_HEADER, SECTION_HEADER, parse
from drain_gdb.debuggee.files import File
from drain_gdb.errors import TargetError

CHUNK = 1 << 20
BLOCK = 1 << 16
ZEROS = bytes(BLOCK)
WINDOW_MAX = 1 << 30
"""Bytes that a decompressor may look back for (and hold)."""
UNPACKED_MAX = 1 << 42
"""Bytes of a core that does not say how many it has: one of more than 65,534 segments
says it at its end."""
SLACK = 1 << 20
"""Bytes behind what the headers describe."""
DAMAGED = (zlib.error, lzma.LZMAError, RuntimeError, gzip.BadGzipFile, MemoryError)
"""What the decompressors raise; lz4's is a RuntimeError, and so is made what zstd's is."""

Progress = Callable[[int], None]


def unpack(path: str, kind: str, progress: Progress) -> File:
    """The core in the file at ``path``, which is compressed as ``kind`` says.

    One that is cut off is unpacked as far as it goes.  Raises :class:`TargetError`
    where it is damaged, more comes out than the core says it has, or there is no room.
    """
    folder = _folder()
    with ExitStack() as stack:
        packed = stack.enter_context(_opened(path))
        try:
            # Without a name, the file goes when it is closed, by whatever end.
            unpacked = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            descriptor = unpacked.fileno()
            _copy(path, STREAMS[kind](packed), descriptor, progress)
            return File(path, os.dup(descriptor))
        except OSError as error:
            raise TargetError(
                f"cannot unpack {path} in {folder}: {error.strerror or error}",
                "set TMPDIR to a directory with more room",
            ) from None


def _folder() -> str:
    """Where large temporary files go: TMPDIR, else /var/tmp, for /tmp may be in memory."""
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return tempfile.gettempdir()


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise TargetError(f"cannot open {path}: {error.strerror}") from None


def _copy(path: str, chunks: Iterator[bytes], descriptor: int, progress: Progress) -> None:
    at, limit = 0, UNPACKED_MAX
    bounded = False
    try:
        for chunk in chunks:
            if at == 0 and chunk[:4] != b"\x7fELF"[: len(chunk)]:
                raise TargetError(f"{path} is compressed, but holds no ELF core file")
            for start in range(0, len(chunk), BLOCK):
                block = chunk[start : start + BLOCK]
                if block != ZEROS[: len(block)]:
                    _write(descriptor, block, at + start)
            at += len(chunk)
            os.ftruncate(descriptor, at)
            progress(len(chunk))
            if not bounded:
                said = _says_it_has(path, descriptor, at)
                bounded, limit = said is not None, limit if said is None else said
            if at > limit:
                raise TargetError(
                    f"{path} is damaged: more than the {limit} bytes come out that its core"
                    " says it has"
                )
    except EOFError:
        return
    except DAMAGED as error:
        raise TargetError(f"{path} is damaged: {error}", "copy it anew") from None


def _write(descriptor: int, block: bytes, at: int) -> None:
    done = 0
    while done < len(block):
        done += os.pwrite(descriptor, block[done:], at + done)


def _says_it_has(path: str, descriptor: int, size: int) -> Optional[int]:
    """How many bytes the core has by its headers; None while they are not all there."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(descriptor, min(length, size), offset) if offset < size else b""

    start = read(0, HEADER.size)
    if len(start) < HEADER.size:
        return None
    fields = HEADER.unpack(start)
    table, sections, count, section_count = fields[5], fields[6], fields[10], fields[12]
    if table + count * PROGRAM_HEADER.size > size:
        return None
    elf = parse(path, size, read)
    if len(elf.segments) != count:
        return None
    return int(max(elf.end, sections + section_count * SECTION_HEADER.size)) + SLACK


# -- streams ----------------------------------------------------------------------


def _read(stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        chunk = stream.read(CHUNK)
        if not chunk:
            return
        yield chunk


def _of_gzip(packed: BinaryIO) -> Iterator[bytes]:
    yield from _read(cast(IO[bytes], gzip.GzipFile(fileobj=packed)))


def _of_lz4(packed: BinaryIO) -> Iterator[bytes]:
    yield from _read(cast(IO[bytes], import_module("lz4.frame").LZ4FrameFile(packed)))


def _of_zstd(packed: BinaryIO) -> Iterator[bytes]:
    zstandard = import_module("zstandard")
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
    try:
        yield from _read(decompressor.stream_reader(packed, read_across_frames=True))
    except zstandard.ZstdError as error:
        raise RuntimeError(str(error)) from None


def _of_xz(packed: BinaryIO) -> Iterator[bytes]:
    """Stream after stream; what lzma itself opens has no bound on memory."""
    data = packed.read(CHUNK)
    while data:
        decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=WINDOW_MAX)
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                data = packed.read(CHUNK)
                if not data:
                    return
            yield decompressor.decompress(data, CHUNK)
            data = b""
        data = (decompressor.unused_data or packed.read(CHUNK)).lstrip(b"\0")


STREAMS = {"gzip": _of_gzip, "lz4": _of_lz4, "xz": _of_xz, "zstd": _of_zstd}
"""By the names of :func:`drain_gdb.debuggee.corefile.compression`."""
