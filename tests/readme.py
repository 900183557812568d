"""What the README shows of the commands, made from a real Redis: ``python3 -m tests.readme``.

Between ``<!-- COMMAND -->`` and the end of the block below it stands what COMMAND printed; a
line ``[...]`` in it stands for lines that are left out.  ``--check`` says how much of that is
printed today, figures aside; without it the blocks and the pictures are made anew.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from difflib import SequenceMatcher
from io import StringIO
from pathlib import Path
from typing import Iterator, List, Tuple

from rich.console import Console
from rich.text import Text

from examples.redis.server import Redis
from tests.support.browser import WIDE, browser
from tests.support.inputs import ROOT, debian_redis
from tests.support.processes import gcore

README = ROOT / "README.md"
PICTURES = ROOT / "examples" / "pictures"
BLOCK = re.compile(r"(?<=<!-- )(drain-gdb [^\n]*)( -->\n```\n)(.*?)(?=```\n)", re.S)
LEFT_OUT = "[...]"
FONT = re.compile(r"@font-face \{.*?\}\s*", re.S)
COLUMNS = 100
TALL = 1480
SHOWN = 28
"""Lines of a report in the picture of a terminal."""


def words(text: str) -> List[str]:
    """What ``text`` says whatever the figures, the width of lines and the length of bars are."""
    text = re.sub(r"\b[0-9a-f]*\d[\w,.]*|[^\x00-\x7f]|[KMG]iB\b|\bB\b", " ", text)
    return re.findall(r"[A-Za-z]+", text)


def parts(block: str) -> List[str]:
    """The pieces of ``block`` between the lines that are left out."""
    return [part for part in re.split(rf"^{re.escape(LEFT_OUT)}\n", block, flags=re.M) if part]


def kept(block: str, said: str) -> str:
    """What of ``said`` the pieces of ``block`` are: from a line like their first, as many lines."""
    lines = said.splitlines(keepends=True)
    at, found = 0, []
    for part in parts(block):
        first, *others = part.splitlines()
        alike = [SequenceMatcher(None, words(first), words(line)).ratio() for line in lines[at:]]
        at += alike.index(max(alike))
        found.append("".join(lines[at : at + 1 + len(others)]).rstrip("\n") + "\n")
        at += 1 + len(others)
    end = f"{LEFT_OUT}\n" if block.endswith(f"{LEFT_OUT}\n") else ""
    return f"{LEFT_OUT}\n".join(found) + end


class Commands:
    """Answers commands on the files of a Redis that was filled and half emptied.

    There are ``full.drain``, a recording of it before every second key was deleted, and of it
    after that ``core.1234`` and ``stats.txt``.
    """

    def __init__(self, folder: Path, redis: Redis) -> None:
        self._folder = folder
        redis.populate()
        self.said(f"drain-gdb record --pid {redis.pid} -o full.drain")
        redis.delete_odd()
        gcore(redis.pid, folder / "core.1234")
        (folder / "stats.txt").write_text(redis.command("MEMORY", "MALLOC-STATS"))

    def said(self, command: str) -> str:
        """What a command of drain-gdb prints."""
        program, *arguments = shlex.split(command)
        assert program == "drain-gdb"
        done = subprocess.run(
            [sys.executable, "-m", "drain_gdb", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return done.stdout


def blocks(readme: str, commands: Commands) -> Iterator[Tuple[str, str, str]]:
    """``(command, block, block as it would be now)`` of each in the README."""
    for match in BLOCK.finditer(readme):
        yield match[1], match[3], kept(match[3], commands.said(match[1]))


def likeness(block: str, now: str) -> float:
    """How much of the words of two texts is the same, in their order."""
    return SequenceMatcher(None, words(block), words(now), autojunk=False).ratio()


def in_a_terminal(folder: Path, command: str) -> str:
    """What ``command`` prints to a terminal, with its colours."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        arguments = [sys.executable, "-m", "drain_gdb", *shlex.split(command)[1:]]
        child = subprocess.Popen(
            arguments, stdout=theirs, stderr=subprocess.DEVNULL, cwd=folder, env=environment
        )
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = screen.read(1 << 16)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            said += piece
        assert child.wait() == 0
    return said.decode().replace("\r\n", "\n")


def draw(folder: Path) -> None:
    """The pictures: a terminal with a sweep, and the page of the same core."""
    lines = in_a_terminal(folder, "drain-gdb sweep core.1234").splitlines()[:SHOWN]
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(["$ drain-gdb sweep core.1234", "", *lines])))
    picture = console.export_svg(title="drain-gdb sweep core.1234")
    # Nothing is fetched to look at it.
    (PICTURES / "terminal.svg").write_text(FONT.sub("", picture), encoding="utf-8")
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": WIDE[0], "height": TALL})
        page.goto((folder / "page.html").as_uri())
        page.locator("[data-map][data-ready]").first.wait_for()
        page.screenshot(path=PICTURES / "page.png")


def main() -> int:
    """Make them, or say how they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    readme = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = Redis(debian_redis(), folder)
        try:
            commands = Commands(folder, redis)
            for command, block, now in blocks(readme, commands):
                print(f"{likeness(block, now):.3f}  {command}")
                readme = readme.replace(block, now)
            if not args.check:
                commands.said("drain-gdb report core.1234 -o page.html")
                draw(folder)
                README.write_text(readme, encoding="utf-8")
        finally:
            redis.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
