"""draincount in gdb on programs that know what they allocate, and on what befalls them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import pytest

from examples.redis import counting
from examples.redis.server import Redis
from tests.conftest import Livelist
from tests.support.inputs import GDB, falkordb_redis, program
from tests.support.processes import GdbServer, Program
from tests.support.runs import GDBINIT, Ran, gdb, shell

SHARED = ("-fno-builtin", "-ljemalloc")
STATIC = ("-fno-builtin", "-l:libjemalloc.a", "-lm", "-ldl", "-lstdc++")
SMALL_MAX = 14336
LONG = pytest.mark.long
PATIENT = "from drain_gdb.hooks import session; session.SECONDS_DEFAULT = 3600.0"
"""On a machine that is busy a hook may take a hundred times what it takes on one that is not."""
BEFORE = ["set debuginfod enabled off", "break window_opens", "break window_closes"]


class Known(NamedTuple):
    """What the program says it did: by bytes of the class, and in all."""

    classes: Dict[int, Tuple[int, int, int]]
    calls: Dict[str, int]
    moved: int
    kept: int


def known(path: Path) -> Known:
    found = Known({}, {}, 0, 0)
    for line in path.read_text().splitlines():
        word, *values = line.split()
        if word == "class":
            size, *counts = map(int, values)
            found.classes[size] = (counts[0], counts[1], counts[2])
        elif word == "calls":
            found.calls[values[0]] = int(values[1])
        elif word in ("moved", "kept"):
            found = found._replace(**{word: int(values[0])})
    return found


def counted(
    *commands: str,
    binary: Optional[Path] = None,
    truth: object = "/dev/null",
    argument: str = "",
    before: Sequence[str] = (),
) -> Ran:
    """gdb at the opening of the program's window, then ``commands``; it writes to ``truth``."""
    run = [*BEFORE, *before, f"run {truth} {argument}"]
    patient = f"python {PATIENT}"
    return gdb(
        patient, *commands, before=run, arguments=[str(binary or program("counted", *SHARED))]
    )


def window(
    tmp_path: Path, *options: str, binary: Optional[Path] = None
) -> Tuple[Dict[str, Any], Known, Ran]:
    """The report of a count of the whole window, and what the program says of it."""
    report, truth = tmp_path / "count.json", tmp_path / "truth"
    ran = counted(
        f"draincount start {' '.join(options)}",
        "continue",
        f"draincount stop --format json --output {report}",
        "print $_drain_status",
        "continue",
        binary=binary,
        truth=truth,
    )
    assert report.exists(), ran
    assert "exited normally" in ran.out
    return json.loads(report.read_text()), known(truth), ran


def differences(report: Dict[str, Any]) -> List[Optional[int]]:
    return [check["difference"] for check in report["checks"]]


@pytest.fixture(scope="module")
def static() -> Path:
    return program("counted", *STATIC)


@pytest.mark.parametrize(
    "options",
    [pytest.param(SHARED, id="shared-stripped"), pytest.param(STATIC, id="static", marks=LONG)],
)
def test_entries_walk_and_requests_equal_what_the_program_did(
    options: Sequence[str], tmp_path: Path
) -> None:
    """Three sources, one of them the program itself; every public function takes part."""
    report, truth, ran = window(tmp_path, "--layer entry", binary=program("counted", *options))
    rows = {row["size"]: row for row in report["classes"]}
    did = {size: counts for size, counts in truth.classes.items() if any(counts)}
    assert {
        size: (row["allocs"], row["frees"], row["resized"])
        for size, row in rows.items()
        if row["allocs"] or row["frees"] or row["resized"]
    } == did
    for size, row in rows.items():
        allocs, frees, resized = truth.classes.get(size, (0, 0, 0))
        assert row["live"] == allocs - frees + resized, size
        assert row["requests"] == (allocs if size <= SMALL_MAX else None), size
    assert [check["status"] for check in report["checks"]] == ["exact", "exact"]
    assert [check["variance"] for check in report["checks"]] == [0, 0]
    assert report["symmetric"] is True
    hooks = report["hooks"]
    assert {name: hooks["calls"][name] for name in truth.calls} == truth.calls
    assert (hooks["moved"], hooks["kept"]) == (truth.moved, truth.kept)
    assert sum(hooks["slabs"].values()) == sum(
        frees for size, (_, frees, _) in truth.classes.items() if size <= SMALL_MAX
    )
    assert len(report["threads"]) == 4
    assert sum(row["allocs"] for row in report["threads"]) == report["totals"]["allocs"]
    assert "$1 = 0" in ran.out
    assert sum(hooks["calls"].values()) + hooks["nested"] < hooks["hits"]


def test_requests_alone_equal_what_the_program_did(tmp_path: Path) -> None:
    """No hook at all; what is freed follows from what is live."""
    report, truth, _ = window(tmp_path)
    did = {size: c for size, c in truth.classes.items() if size <= SMALL_MAX and (c[0] or c[1])}
    found = {row["size"]: (row["allocs"], row["frees"], 0) for row in report["classes"]}
    assert {size: counts for size, counts in found.items() if any(counts)} == did
    assert report["hooks"] is None
    (check,) = report["checks"]
    assert check["status"] == "exact"
    assert check["counted"] == sum(row["regions"] for row in report["arenas"])
    assert sum(row["requests"] for row in report["arenas"]) == report["totals"]["allocs"]


def test_refills_and_flushes_equal_the_bins_own_counters(static: Path, tmp_path: Path) -> None:
    report, _, _ = window(tmp_path, "--layer arena", binary=static)
    assert [check["status"] for check in report["checks"]] == ["exact"] * 3
    assert all(check["counted"] for check in report["checks"])
    for row in report["classes"]:
        if row["passed"] is not None:
            passed = row["passed"]["allocs"], row["passed"]["deallocs"]
            assert (row["allocs"], row["frees"]) == passed, row["size"]


def test_fast_and_slow_path_are_the_entries(static: Path, tmp_path: Path) -> None:
    fast, truth, _ = window(tmp_path, "--layer fastpath", binary=static)
    calls = fast["hooks"]["calls"]
    assert {name: calls[name] for name in truth.calls} == truth.calls
    assert fast["hooks"]["found"] == "entry minus slow path"
    # malloc and the two plain operators new of each round, less those of too many bytes.
    rounds = truth.calls["malloc"] // 8
    assert calls["_Znwm"] == 2 * rounds
    asked = truth.calls["malloc"] + calls["_Znwm"]
    assert fast["totals"]["allocs"] == asked - calls["je_malloc_default"]
    slow, _, _ = window(tmp_path, "--layer slowpath", binary=static)
    assert slow["hooks"]["calls"]["je_malloc_default"] == calls["je_malloc_default"]
    for report in (fast, slow):
        assert [check["status"] for check in report["checks"]] == ["unchecked"] * 2
        assert report["symmetric"] is True
        assert any("calloc" in each for each in report["missing"])


@LONG
def test_the_fast_path_where_debug_information_tells_it(tmp_path: Path) -> None:
    """It is inlined into the functions that Redis calls, which its own copy has more of."""
    redis = Redis(falkordb_redis(), tmp_path)
    try:
        client = redis.connect()
        report = counting.counted(redis, client, "fastpath", tmp_path / "count.json")
        client.close()
    finally:
        redis.stop()
    hooks = report["hooks"]
    assert hooks["found"] == "inlined places by debug information, minus slow path"
    assert {"je_malloc", "je_malloc_with_usize", "je_free_with_usize"} < set(hooks["functions"])
    assert "je_calloc" not in hooks["functions"]
    calls = hooks["calls"]
    entered = calls.get("je_malloc", 0) + calls["je_malloc_with_usize"]
    assert report["totals"]["allocs"] == entered - calls["je_malloc_default"]
    (share,) = (check["share"] for check in report["checks"] if check["share"] is not None)
    assert 0.5 < share < 1


def test_one_size_class_alone(tmp_path: Path) -> None:
    report, truth, _ = window(tmp_path, "--layer entry --size 45")
    (row,) = report["classes"]
    assert (row["size"], row["allocs"], row["frees"]) == (48, *truth.classes[48][:2])
    assert differences(report) == [0, 0]


def test_one_side_alone_is_refused_or_labelled(static: Path, tmp_path: Path) -> None:
    half = tmp_path / "counted-without-flush"
    strip = ["objcopy", "-N", "je_tcache_bin_flush_small", str(static), str(half)]
    subprocess.run(strip, check=True)
    ran = counted("draincount start --layer arena", "maint info breakpoints", binary=half)
    assert "can be counted on the side of allocations alone" in ran.err
    assert "tcache_bin_flush_small" in ran.err
    assert "je_arena" not in ran.out
    ran = counted(
        "draincount start --layer arena --asymmetric",
        "continue",
        "echo REPORT\\n",
        "draincount stop",
        "echo END\\n",
        binary=half,
    )
    shown = ran.out.split("REPORT\n")[1].split("END\n")[0]
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) > 10
    assert [line for line in lines if not line.endswith("[asymmetric: allocations only]")] == []


# -- breakpoints ---------------------------------------------------------------------------


def said(ran: Ran) -> str:
    """What was printed, without the ends of lines."""
    return " ".join(ran.out.split())


def own_numbers(listing: str) -> List[int]:
    return [int(number) for number in re.findall(r"^(-\d+) +breakpoint ", listing, re.M)]


def test_breakpoints_are_as_before() -> None:
    """Listed to nobody, numbered apart, gone afterwards; the user's own go on."""
    ran = counted(
        "break malloc if $rdi == 1001",
        "echo A\\n",
        "info breakpoints",
        "echo B\\n",
        "draincount start --layer entry",
        "echo C\\n",
        "info breakpoints",
        "echo D\\n",
        "maint info breakpoints",
        "break abort",
        "delete $bpnum",
        "continue",
        "draincount stop",
        "echo E\\n",
        "info breakpoints",
        "echo F\\n",
        "maint info breakpoints",
        "echo G\\n",
        "continue",
    )
    parts = re.split(r"^[A-G]\n", ran.out, flags=re.M)
    before, while_counting, after = parts[1], parts[3], parts[5]
    assert while_counting == before
    assert len(own_numbers(parts[4])) == 33
    assert "Breakpoint 4 at" in parts[4]
    hits = re.compile(r"\tbreakpoint already hit .*\n")
    assert hits.sub("", after) == hits.sub("", before) != ""
    assert own_numbers(parts[6]) == []
    assert "exited normally" in parts[7]


def test_the_users_breakpoint_at_the_same_place_stops(tmp_path: Path) -> None:
    report = tmp_path / "count.json"
    ran = counted(
        "break *((char *) &valloc)",
        "draincount start --layer entry",
        "continue",
        "continue",
        "delete 3",
        "continue",
        f"draincount stop --format json --output {report}",
        "delete",
        "continue",
    )
    assert ran.out.count("Breakpoint 3, ") == 2
    assert differences(json.loads(report.read_text())) == [0, 0]


# -- limits, and the user --------------------------------------------------------------------


def test_a_limit_of_hits() -> None:
    """The process stands after exactly so many; the price came first; then it runs on freely."""
    ran = counted(
        "draincount start --layer entry --hits 500",
        "print $_drain_status",
        "maint info breakpoints",
        "continue",
        "continue",
    )
    assert "the limit of 500 hits is reached" in said(ran)
    # Of each of the four threads one return may have been waited for.
    hits = re.findall(r"hooks: 33 functions \(by name\), (\d+) hits", ran.out)
    assert [int(number) in range(500, 505) for number in hits] == [True]
    assert "a hit takes" in ran.err
    assert "$1 = 0" in ran.out
    assert "Breakpoint -" not in ran.out
    assert own_numbers(ran.out) == []
    assert "exited normally" in ran.out


def test_a_limit_of_time() -> None:
    ran = counted(
        "draincount start --layer entry --for 0.5",
        "maint info breakpoints",
        "draincount start --for 0.2",
        argument="spin",
    )
    assert "the limit of 0.5 s is reached" in said(ran)
    assert "without hooks" in ran.out
    assert ran.out.count("symmetric: both sides") == 2
    assert own_numbers(ran.out) == []


def test_a_limit_while_the_user_continues() -> None:
    ran = counted(
        "python from drain_gdb.hooks import session; session.HITS_DEFAULT = 300",
        "draincount start --layer entry",
        "continue",
        "draincount show",
        "continue",
        "continue",
    )
    assert "the limit of 300 hits is reached, the hooks are removed" in ran.err
    assert "the limit of 300 hits is reached" in said(ran)
    assert "exited normally" in ran.out


def test_a_process_that_runs_is_to_be_stopped_first() -> None:
    ran = counted(
        "draincount start --layer entry",
        "continue &",
        "draincount stop",
        "python gdb.execute('interrupt')",
        argument="spin",
    )
    assert "stop every thread first: interrupt -a" in ran.err
    assert "counted at the entry layer" not in ran.out


def test_ctrl_c_ends_a_count_cleanly() -> None:
    """The interrupt of a terminal, to gdb, while it lets the process run."""
    commands = [
        *BEFORE,
        "run /dev/null spin",
        f"source {GDBINIT}",
        "draincount start --layer entry --for 1000",
        "maint info breakpoints",
        "print $_drain_status",
    ]
    options = [word for command in commands for word in ("-ex", command)]
    process = subprocess.Popen(
        [GDB, "-batch", "-nx", "-q", *options, str(program("counted", *SHARED))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "a hit takes" in line:
            break
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    process.wait()
    assert "; interrupted" in out.replace("\n ", "")
    assert "symmetric: both sides" in out
    assert own_numbers(out) == []
    assert "$1 = 0" in out


def test_ctrl_c_that_reaches_a_hook_before_its_own_code(tmp_path: Path) -> None:
    """gdb hands it to whatever code of Python's comes next, and stops there."""
    early = tmp_path / "early.py"
    early.write_text(
        "from drain_gdb.hooks.gdb import _Hook\n"
        "stop = _Hook.stop\n"
        "def interrupted(hook):\n"
        "    if hook._owner.hits == 300:\n"
        "        raise KeyboardInterrupt\n"
        "    return stop(hook)\n"
        "_Hook.stop = interrupted\n"
    )
    ran = counted(
        f"source {early}",
        "draincount start --layer entry --for 1000",
        "maint info breakpoints",
        argument="spin",
    )
    assert "; interrupted" in said(ran)
    assert "symmetric: both sides" in ran.out
    assert own_numbers(ran.out) == []


def test_a_stop_before_the_limit_ends_nothing() -> None:
    start = "draincount start --layer entry --hits 1000000"
    ran = counted(start, "draincount show", "maint info breakpoints", "draincount stop")
    assert "the process stopped before the limit" in ran.err
    assert "; it goes on" in said(ran)
    assert ran.out.count("every check holds") == 2
    assert len(own_numbers(ran.out)) >= 33


# -- what befalls the process --------------------------------------------------------------


@pytest.mark.parametrize("how", ["fork", pytest.param("vfork", marks=LONG)])
def test_a_child_is_not_counted_and_not_hurt(how: str, tmp_path: Path) -> None:
    """The program itself fails where its child did."""
    report = tmp_path / "count.json"
    ran = counted(
        "draincount start --layer entry",
        "continue",
        f"draincount stop --format json --output {report}",
        "continue",
        argument=how,
    )
    assert "exited normally" in ran.out
    assert differences(json.loads(report.read_text())) == [0, 0]


@pytest.mark.parametrize(
    ("argument", "commands", "reason"),
    [
        ("exit", ["continue"], "the process exited with 3"),
        pytest.param("exec", ["continue"], "the process runs another program", marks=LONG),
        ("", ["detach"], "the process was detached from, or killed"),
        ("", ["kill"], "the process was detached from, or killed"),
        pytest.param(
            *("fork", ["set follow-fork-mode child", "continue"], "or gdb follows its child"),
            marks=LONG,
        ),
    ],
    ids=["exit", "exec", "detach", "kill", "follow-child"],
)
def test_the_end_of_the_process_ends_the_count(
    argument: str, commands: Sequence[str], reason: str
) -> None:
    ran = counted(
        "draincount start --layer entry",
        *commands,
        "maint info breakpoints",
        "echo SHOWN\\n",
        "draincount show",
        "print $_drain_status",
        argument=argument,
    )
    assert reason in ran.err
    assert "Cannot insert" not in ran.err + ran.out
    before, after = ran.out.split("SHOWN\n")
    assert own_numbers(before) == []
    assert "no walk at the end" in after
    assert "NOT EQUAL" not in after
    assert "$1 = 3" in after
    if argument in ("exit", "exec"):
        assert "calls: free 432, malloc 192" in after


def test_info_keys_while_hooks_count_and_after(tmp_path: Path) -> None:
    sweep = "drainsweep --format info"
    ran = counted(
        sweep,
        "draincount start",
        sweep,
        "draincount stop",
        "draincount start --layer entry",
        "continue",
        sweep,
        "draincount stop",
        sweep,
        "continue",
        truth=tmp_path / "truth",
    )
    reports = [part.split("[", 1)[0] for part in ran.out.split("mem_drainability_ratio:")[1:]]
    assert len(reports) == 4
    assert all("fastpath" not in report for report in reports[:2])
    truth = known(tmp_path / "truth")
    for report in reports[2:]:
        keys = dict(line.split(":") for line in report.splitlines()[1:] if line.startswith("mem_"))
        # malloc and two operators new a round; free and its operator, two sized ones.
        rounds = truth.calls["malloc"] // 8
        assert (
            int(keys["mem_drainprof_malloc_fastpath_calls"]) == truth.calls["malloc"] + 2 * rounds
        )
        assert int(keys["mem_drainprof_free_fastpath_calls"]) == truth.calls["free"] + 5 * rounds


def test_behind_gdbserver(tmp_path: Path) -> None:
    child = Program([str(program("counted", *SHARED)), "/dev/null", "spin"])
    server = GdbServer(child.pid)
    try:
        ran = gdb(
            f"target remote 127.0.0.1:{server.port}",
            "draincount start --layer entry --hits 100",
            "maint info breakpoints",
            "detach",
            before=["set debuginfod enabled off"],
        )
    finally:
        server.stop()
        child.stop()
    assert ", 100 hits" in ran.out
    assert "symmetric: both sides" in ran.out
    assert own_numbers(ran.out) == []


# -- refusals ----------------------------------------------------------------------------


REFUSALS = {
    "show": (["draincount show"], "nothing has been counted; begin with: draincount start"),
    "stop": (["draincount stop"], "nothing has been counted; begin with: draincount start"),
    "no action": (["draincount"], "the following arguments are required: action"),
    "no hook": (["draincount start --hits 5"], "--layer requests sets no hook"),
    "show a layer": (
        ["draincount show --layer entry"],
        "draincount show takes no --layer; start does",
    ),
    "stop for": (["draincount stop --for 5"], "draincount stop takes no --for; start does"),
    "no time": (["draincount start --for 0"], "invalid seconds value: '0'"),
    "no allocator": (["draincount start --allocator x"], "there is no allocator 'x'"),
    "no layer": (
        ["draincount start --layer slowpath"],
        "the slowpath layer cannot be counted",
    ),
    "no interrupt": (
        [
            "handle SIGINT nostop pass",
            "draincount start --layer entry",
            "handle SIGINT stop nopass",
        ],
        "handle SIGINT stop nopass, or give --hits",
    ),
    "twice": (["draincount start"] * 2, "counted already; end that with: draincount stop"),
    "no process": (["kill", "draincount start"], "there is no process and no core here"),
}
"""What is typed, in a gdb that has counted nothing, and what is said of it."""


@pytest.fixture(scope="module")
def refused() -> Dict[str, str]:
    """What one gdb says of each."""
    commands: List[str] = []
    for name, (typed, _) in REFUSALS.items():
        commands += [f"python gdb.write('[{name}]', gdb.STDERR)", *typed]
    ran = counted(*commands)
    parts = re.split(r"\[([a-z ]+)\]", ran.err)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, refused: Dict[str, str]) -> None:
    assert REFUSALS[name][1] in refused[name]
    assert "Traceback" not in refused[name]


def test_a_core_is_refused(livelist: Livelist) -> None:
    ran = gdb(
        "draincount start --layer entry",
        arguments=[str(program("livelist", "-ljemalloc")), str(livelist.core)],
    )
    assert "draincount: this is a core: nothing is called in it any more" in ran.err


def test_non_stop_mode_takes_no_hooks_but_counts_requests() -> None:
    ran = gdb(
        "draincount start --layer entry",
        "draincount start",
        "draincount stop",
        before=["set debuginfod enabled off", "set non-stop on", "break main", "run /dev/null"],
        arguments=[str(program("counted", *SHARED))],
    )
    assert "in non-stop mode a limit would stop one thread" in ran.err
    assert "without hooks" in ran.out


def test_the_shell_does_not_offer_it() -> None:
    assert "count" not in re.findall(r"^  (\w+) ", shell("--help").out, re.M)
    ran = shell("count", "start", "--pid", 1)
    assert ran.status == 1
    assert "no command 'count'" in ran.err
