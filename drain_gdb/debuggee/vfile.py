"""Files of the machine that a gdbserver runs on, by its remote protocol (vFile packets).

See "Host I/O Packets" in gdb's manual.  Offsets are 31 bits wide there (require_int(),
gdbserver/hostio.cc), too few for pagemap.
"""

from __future__ import annotations

import re
from typing import Callable

Send = Callable[[bytes], bytes]
"""Sends a packet and returns the reply, as it came."""

COUNT = 0x3C00
"""Bytes asked for at once: what fits into a packet of gdbserver's (16 KiB)."""
_OPENED = re.compile(rb"F([0-9a-f]+)$")
_READ = re.compile(rb"F([0-9a-f]+);(.*)$", re.DOTALL)
_ESCAPED = re.compile(rb"\}(.)", re.DOTALL)


def read_file(send: Send, path: str) -> bytes:
    """All of the file at ``path``, which need not say how long it is; OSError."""
    opened = _OPENED.match(send(b"vFile:open:" + path.encode().hex().encode() + b",0,0"))
    if opened is None:
        raise OSError(f"the server does not open {path}")
    parts = bytearray()
    while True:
        reply = _READ.match(send(b"vFile:pread:%b,%x,%x" % (opened[1], COUNT, len(parts))))
        part = b"" if reply is None else _ESCAPED.sub(_plain, reply[2])
        if reply is None or len(part) != int(reply[1], 16):
            raise OSError(f"the server does not read all of {path}")
        if not part:
            send(b"vFile:close:" + opened[1])
            return bytes(parts)
        parts += part


def _plain(escaped: re.Match[bytes]) -> bytes:
    return bytes([escaped[1][0] ^ 0x20])
