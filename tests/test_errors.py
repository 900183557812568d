"""What a person meets when something is wrong: one clear line and an exit status."""

from __future__ import annotations

import os
import shutil
import signal
import struct
from pathlib import Path
from typing import List, Optional, Tuple

import pytest

from tests.conftest import Livelist, RedisCore
from tests.support.elfwriter import waiting_i386
from tests.support.inputs import LLDB, debian_redis, program
from tests.support.processes import Program, gcore
from tests.support.runs import Ran, gdb, shell

AARCH64 = 183


def refused(ran: Ran, status: int, *words: str) -> str:
    """Nothing on stdout, one line on stderr that holds ``words``, no traceback."""
    assert ran.status == status, ran
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("drain-gdb: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in ran.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep"], ["give one TARGET"]),
        (["sweep", "core", "--pid", "1"], ["give one TARGET"]),
        (["sweep", "core", "--by", "page"], ["--by", "'page'", "sweep --help"]),
        (["sweep", "core", "--format", "xml"], ["--format", "'xml'"]),
        (["sweep", "core", "--top", "0"], ["--top", "'0'"]),
        (["sweep", "core", "--top", "many"], ["--top", "'many'"]),
        (["sweep", "core", "--sort", "colour"], ["--sort", "'colour'"]),
        (["sweep", "core", "--debugger", "windbg"], ["--debugger", "'windbg'"]),
        (["sweep", "core", "--nonsense"], ["--nonsense"]),
        (["swep", "core"], ["no command 'swep'", "sweep"]),
        (["init", "windbg"], ["'windbg'"]),
    ],
    ids=" ".join,
)
def test_usage(arguments: List[str], words: List[str]) -> None:
    refused(shell(*arguments), 1, *words)


def test_no_arguments_show_the_help() -> None:
    ran = shell()
    assert ran.status == 1
    assert "usage: drain-gdb COMMAND" in ran.out


def test_a_missing_file(tmp_path: Path) -> None:
    refused(shell("sweep", tmp_path / "none"), 2, "cannot open", "No such file")


def test_a_missing_program(livelist: Livelist, tmp_path: Path) -> None:
    ran = shell("sweep", livelist.core, "--exe", tmp_path / "none")
    refused(ran, 2, "cannot open", str(tmp_path / "none"))


def test_a_folder(tmp_path: Path) -> None:
    refused(shell("sweep", tmp_path), 2, "cannot open", "directory")


def test_no_core_but_text(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_text("nothing to see here\n" * 10)
    refused(shell("sweep", file), 2, "is not an ELF core file")


def test_no_core_but_a_program() -> None:
    refused(shell("sweep", debian_redis()), 2, "not a core", "--exe")


def test_no_such_process() -> None:
    refused(shell("sweep", "--pid", 2**22 + 1), 2, "cannot attach to process", "No such process")


def test_no_debugger(livelist: Livelist) -> None:
    ran = shell("sweep", livelist.core, env={"DRAIN_GDB_GDB": "no-such-gdb"})
    refused(ran, 2, "no-such-gdb is not installed", "apt-get install gdb")


def test_a_debugger_that_fails(livelist: Livelist) -> None:
    ran = shell("sweep", livelist.core, env={"DRAIN_GDB_GDB": "/bin/false"})
    refused(ran, 2, "/bin/false ended with status 1")


DYING = {
    "itself": "kill -{0} $$",
    "below-a-script": "sh -c 'kill -{0} $$'; exit $?",
}


@pytest.mark.parametrize("how", DYING)
@pytest.mark.parametrize(
    "end", [signal.SIGSEGV, pytest.param(signal.SIGKILL, marks=pytest.mark.long)], ids=str
)
def test_a_debugger_that_dies_of_a_core(
    how: str, end: signal.Signals, livelist: Livelist, tmp_path: Path
) -> None:
    """By a signal, itself or below a wrapper of it."""
    dying = tmp_path / "dying-lldb"
    dying.write_text(f"#!/bin/sh\n{DYING[how].format(end.name[3:])}\n")
    dying.chmod(0o755)
    env = {"DRAIN_GDB_LLDB": str(dying)}
    sweep = ("sweep", livelist.core, "--format", "info")
    # Asked for, it is not replaced behind one's back.
    ran = shell(*sweep, "--debugger", "lldb", env=env)
    refused(ran, 2, f"{dying} was ended by {end.name}; read it with --debugger none")
    ran = shell(*sweep, env=env)
    said = f"drain-gdb: {dying} was ended by {end.name}, read directly (--debugger none)\n"
    assert ran == (0, shell(*sweep, "--debugger", "none").out, said)


def test_a_debugger_that_dies_of_a_process(livelist: Livelist, tmp_path: Path) -> None:
    """What it did to the process nobody knows: the next step is the user's."""
    dying = tmp_path / "dying-gdb"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dying.chmod(0o755)
    ran = shell("sweep", "--pid", livelist.pid, env={"DRAIN_GDB_GDB": str(dying)})
    refused(ran, 2, "was ended by SIGSEGV; read it with --debugger none")


def test_a_core_of_another_architecture(livelist: Livelist, tmp_path: Path) -> None:
    core = tmp_path / "core"
    shutil.copyfile(livelist.core, core)
    with core.open("r+b") as file:
        file.seek(18)
        file.write(struct.pack("<H", AARCH64))
    refused(shell("sweep", core), 2, "aarch64", "gdb-multiarch")
    ran = gdb("drainsweep", arguments=[str(program("livelist", "-ljemalloc")), str(core)])
    assert "drainsweep: the core is of the architecture aarch64" in ran.err


@pytest.mark.parametrize(
    ("width", "order", "machine", "named"),
    [
        (1, 1, struct.pack("<H", 3), "a 32-bit little-endian machine (i386)"),
        (1, 2, struct.pack(">H", 20), "a 32-bit big-endian machine (ppc)"),
        (2, 2, struct.pack(">H", 22), "a 64-bit big-endian machine (s390x)"),
    ],
)
def test_a_core_of_another_width_or_byte_order(
    width: int, order: int, machine: bytes, named: str, tmp_path: Path
) -> None:
    core = tmp_path / "core"
    head = b"\x7fELF" + bytes([width, order, 1]) + bytes(9)
    core.write_bytes(head + bytes(2) + machine + bytes(4096))
    refused(shell("sweep", core), 2, f"{named}, which is not supported", "64-bit little-endian")


@pytest.mark.parametrize("reader", ["gdb", "lldb", "none"])
def test_a_32_bit_process(reader: str, tmp_path: Path) -> None:
    try:
        child = Program([str(waiting_i386(tmp_path / "waiting"))])
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    try:
        ran = shell(
            *("sweep", "--pid", child.pid, "--debugger", reader),
            env={"DRAIN_GDB_LLDB": LLDB},
        )
    finally:
        child.stop()
    refused(ran, 2, "i386", "is not supported; this program reads 64-bit little-endian")


def test_the_wrong_program(stripped_redis: RedisCore) -> None:
    ran = shell("sweep", stripped_redis.core, "--exe", "/bin/ls")
    refused(ran, 2, "ls is not the program of this process", "redis")


def test_a_rebuilt_program(tmp_path: Path) -> None:
    """The file at the program's path is no longer the one that ran."""
    built = tmp_path / "server"
    shutil.copyfile(program("livelist", "-ljemalloc"), built)
    built.chmod(0o755)
    child = Program([str(built), str(tmp_path / "lists")])
    try:
        core = gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()
    other = bytearray(built.read_bytes())
    note = other.index(b"GNU\0", other.index(b"\x03\0\0\0GNU\0") + 4)
    other[note + 4] ^= 0xFF
    built.unlink()
    built.write_bytes(other)
    ran = shell("sweep", core)
    # jemalloc is in the library, which is still the same: the program does not matter.
    assert ran.status == 0, ran


@pytest.fixture
def own_library(tmp_path: Path) -> Tuple[Path, Path]:
    """A jemalloc of our own to spoil, and a core of a process that ran it."""
    library = tmp_path / "libjemalloc.so.2"
    shutil.copyfile("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", library)
    child = Program(
        [str(program("livelist", "-ljemalloc")), str(tmp_path / "lists")],
        {"LD_LIBRARY_PATH": str(tmp_path)},
    )
    try:
        return library, gcore(child.pid, tmp_path / "core")
    finally:
        child.stop()


def test_an_upgraded_library(own_library: Tuple[Path, Path]) -> None:
    """The file of the library that holds jemalloc was replaced after the crash."""
    library, core = own_library
    assert shell("sweep", core).status == 0
    changed = bytearray(library.read_bytes())
    note = changed.index(b"\x03\0\0\0GNU\0")
    changed[note + 8] ^= 0xFF
    library.unlink()
    library.write_bytes(changed)
    refused(shell("sweep", core), 2, "is not the file this process ran", "upgrade")


def test_a_missing_library_is_named(own_library: Tuple[Path, Path]) -> None:
    library, core = own_library
    library.unlink()
    refused(shell("sweep", core), 2, "no jemalloc", str(library), "sysroot")


def test_a_process_without_jemalloc() -> None:
    child = Program(["/bin/sh", "-c", "echo ready; read line"])
    try:
        ran = shell("sweep", "--pid", child.pid)
    finally:
        child.stop()
    refused(ran, 2, "no jemalloc in this process")


@pytest.mark.parametrize("other", ["tcmalloc", "mimalloc"])
def test_another_allocator_is_named(other: str) -> None:
    libraries = {"tcmalloc": "libtcmalloc_minimal.so.4", "mimalloc": "libmimalloc.so.2.0"}
    child = Program(["/bin/sh", "-c", "echo ready; read line"], {"LD_PRELOAD": libraries[other]})
    try:
        ran = shell("sweep", "--pid", child.pid)
    finally:
        child.stop()
    refused(ran, 2, "no jemalloc in this process", f"it uses {other} (/")


@pytest.mark.parametrize(
    ("flags", "name"), [(("-DEXPORTS", "-rdynamic"), "mozjemalloc"), ((), "mimalloc")]
)
def test_an_allocator_that_is_linked_with_the_program_is_named(
    flags: Tuple[str, ...], name: str
) -> None:
    binary = program("own_allocator", *flags)
    child = Program([str(binary)])
    try:
        ran = shell("sweep", "--pid", child.pid)
    finally:
        child.stop()
    refused(ran, 2, "no jemalloc in this process", f"{name} is part of {binary}")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_a_truncated_core(livelist: Livelist, tmp_path: Path, share: float) -> None:
    """gcore writes notes last: refused, and the reason is said, in one line."""
    core = tmp_path / "core"
    shutil.copyfile(livelist.core, core)
    os.truncate(core, int(livelist.core.stat().st_size * share))
    ran = shell("sweep", core, "--format", "json")
    assert (ran.status, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()
    assert "is truncated" in line
    assert "Traceback" not in line


def test_an_arena_or_size_that_is_not_there(livelist: Livelist) -> None:
    refused(shell("sweep", livelist.core, "--arena", 4000), 1, "no arena 4000", "0, 1")
    refused(shell("sweep", livelist.core, "--size", 15000), 1, "15000", "14336")


def test_sorting_by_a_column_that_the_view_lacks(livelist: Livelist) -> None:
    refused(shell("sweep", livelist.core, "--sort", "arena"), 1, "no column arena", "waste_bytes")


def test_a_report_that_cannot_be_written(livelist: Livelist, tmp_path: Path) -> None:
    ran = shell("sweep", livelist.core, "--output", tmp_path / "none" / "report")
    refused(ran, 2, "cannot write", "No such file")


@pytest.mark.parametrize(
    ("commands", "line"),
    [
        (["drainsweep"], "drainsweep: there is no process and no core here; "),
        (["drainsweep --by page"], "drainsweep: argument --by: invalid choice: 'page'"),
        (["drainsweep 17"], "drainsweep: unrecognized arguments: 17"),
    ],
    ids=["nothing-loaded", "bad-choice", "stray-word"],
)
def test_in_gdb(commands: List[str], line: str) -> None:
    ran = gdb(*commands)
    assert line in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_running_process_is_refused() -> None:
    """In non-stop mode other threads may run while the user is at the prompt."""
    ran = gdb(
        "set non-stop on",
        "break moved",
        "run",
        "continue&",
        "drainsweep",
        "interrupt -a",
        "kill",
        arguments=[str(program("waiter", "-ljemalloc"))],
    )
    assert "drainsweep: the process is running" in ran.err, ran


def _gdb_status(core: Optional[Path]) -> str:
    arguments = [] if core is None else [str(program("livelist", "-ljemalloc")), str(core)]
    return gdb("drainsweep --format info", "print $_drain_status", arguments=arguments).out


def test_gdb_scripts_can_ask_how_it_went(livelist: Livelist) -> None:
    assert "$1 = 0" in _gdb_status(livelist.core)
