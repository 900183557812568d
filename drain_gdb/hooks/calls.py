"""Where a call's arguments and result are, by the calling convention."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple

from drain_gdb.errors import CountingError
from drain_gdb.memory import WORD

CALLERS = 16
"""Frames of a thread that are looked at for a call in flight."""


class Registers(NamedTuple):
    """Where an architecture's calling convention keeps things.

    Attributes:
        link: the register of the return address; None where it is on the stack.
        popped: bytes that the return takes off the stack.
    """

    arguments: Tuple[str, ...]
    stack_pointer: str
    link: Optional[str]
    result: str
    popped: int


X86_64 = Registers(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), "rsp", None, "rax", WORD)
AARCH64 = Registers(tuple(f"x{number}" for number in range(8)), "sp", "x30", "x0", 0)
REGISTERS = {
    **dict.fromkeys(("i386:x86-64", "x86_64"), X86_64),
    **dict.fromkeys(("aarch64", "arm64"), AARCH64),
}
"""System V ABI and AAPCS64, by gdb's and lldb's names of the architectures."""


def registers_of(architecture: str) -> Registers:
    """Those of ``architecture``; CountingError where they are not known here."""
    if architecture not in REGISTERS:
        raise CountingError(
            f"hooks do not know where {architecture} passes arguments",
            "they know x86-64 and aarch64; --layer requests needs no hooks",
        )
    return REGISTERS[architecture]
