"""What can stand where somebody types: options, their values, files, expressions."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Iterator, List, Sequence

from drain_gdb.commands.base import Command
from drain_gdb.commands.session import Session

FILE, EXPRESSION = "file", "expression"
"""What a debugger completes by itself."""
FILES = ("FILE", "DIR", "MOMENT", "TARGET")
"""How the values are called that are names of files."""


@dataclass(frozen=True)
class Completion:
    """What a word can become.

    Attributes:
        words: it may become one of these.
        kind: it is a ``FILE`` or an ``EXPRESSION``; empty where ``words`` are all.

    """

    words: Sequence[str] = ()
    kind: str = ""


def complete(command: Command, before: Sequence[str], word: str, session: Session) -> Completion:
    """What ``word`` can become, typed after ``command`` and the words ``before``."""
    parser = command.parser(command.name)
    option, equals, value = word.partition("=")
    if equals and option.startswith("--"):
        found = _values(_named(parser, option), session)
        words = [f"{option}={each}" for each in found.words if each.startswith(value)]
        return Completion(words, found.kind)
    asking = [action for action in _named(parser, *before[-1:]) if action.nargs != 0]
    if not asking and word.startswith("-"):
        return Completion([each for each in _options(parser, before) if each.startswith(word)])
    found = _values(asking or _positional(parser, before), session)
    words = [each for each in found.words if each.startswith(word)]
    if not (asking or found.words or found.kind):
        words = [each for each in _options(parser, before) if each.startswith(word)]
    return Completion(words, found.kind)


def _named(parser: argparse.ArgumentParser, *words: str) -> List[argparse.Action]:
    """The options that one of ``words`` is."""
    return [action for action in parser._actions if set(words) & set(action.option_strings)]


def _options(parser: argparse.ArgumentParser, before: Sequence[str]) -> Iterator[str]:
    """The long names of the options that were not given yet."""
    given = _named(parser, *before)
    for action in parser._actions:
        if action.option_strings and action not in given:
            yield action.option_strings[-1]


def _positional(
    parser: argparse.ArgumentParser, before: Sequence[str]
) -> Sequence[argparse.Action]:
    """What the next word is that belongs to no option."""
    there = 0
    taken = False
    for word in before:
        if taken or word.startswith("--"):
            named = _named(parser, word)
            taken = not taken and any(action.nargs != 0 for action in named)
            continue
        there += not word.startswith("-")
    awaited = [action for action in parser._actions if not action.option_strings]
    if awaited and awaited[-1].nargs == "+":
        return awaited[min(there, len(awaited) - 1) :][:1]
    return awaited[there : there + 1]


def _values(actions: Sequence[argparse.Action], session: Session) -> Completion:
    """What the value of the first of ``actions`` can be."""
    for action in actions:
        if action.choices is not None:
            return Completion([str(choice) for choice in action.choices])
        if action.metavar in FILES:
            return Completion(kind=FILE)
        if action.dest == "operands":
            return Completion(kind=EXPRESSION)
        known = {"arena": session.arenas, "size": session.sizes}
        return Completion([str(value) for value in known.get(action.dest, ())])
    return Completion()
