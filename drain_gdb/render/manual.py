"""A manual page (man(7)) from a parser with a subparser for each command."""

from __future__ import annotations

import argparse
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple


def manual(
    parser: argparse.ArgumentParser, version: str, summary: str, ends: Mapping[str, str]
) -> str:
    """The page of ``parser``: its commands, their options and examples.

    ``ends`` are further sections by their titles; in them, and in descriptions, an indented
    line stands as it is.
    """
    commands = _commands(parser)
    name = parser.prog
    lines = [f'.TH {name.upper()} 1 "" "{name} {version}" "User Commands"']
    lines += [".SH NAME", f"{_escaped(name)} \\- {_escaped(summary)}", ".SH SYNOPSIS"]
    for command in commands.values():
        lines += [f".B {_escaped(command.prog)}", _operands(command), ".br"]
    lines += [".SH DESCRIPTION", *_prose(parser.description or ""), ".SH COMMANDS"]
    for command in commands.values():
        lines += [f".SS {_escaped(command.prog)}", *_command(command)]
    for title, text in ends.items():
        lines += [f'.SH "{title}"', *_prose(text)]
    return "\n".join([*lines, ""])


def _commands(parser: argparse.ArgumentParser) -> Dict[str, argparse.ArgumentParser]:
    found: Dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def _escaped(text: str) -> str:
    """As troff prints it: hyphens that can be copied, no escapes, no requests."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _prose(text: str) -> Iterator[str]:
    """Paragraphs, which are filled, and indented lines, which are not."""
    shown: List[str] = []
    for line in text.splitlines():
        if line.startswith(" "):
            shown.append(line)
            continue
        yield from _as_it_is(shown)
        shown = []
        yield _escaped(line) if line else ".PP"
    yield from _as_it_is(shown)


def _as_it_is(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from (".PP", ".nf", *(_escaped(line) for line in lines), ".fi")


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from _prose(parser.description or "")
    for action in parser._actions:
        if action.help is not argparse.SUPPRESS:
            yield from (".TP", _named(action), _escaped(_help(parser, action)))
    if parser.epilog:
        yield ".PP"
        yield from _prose(parser.epilog)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    words = {"prog": parser.prog, "default": action.default}
    return (action.help or "") % words


def _value(action: argparse.Action) -> str:
    """How the value of ``action`` is called; empty where it takes none."""
    if action.nargs == 0:
        return ""
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _parts(action: argparse.Action) -> Tuple[str, str]:
    options = ", ".join(f"\\fB{_escaped(each)}\\fR" for each in action.option_strings)
    value = _value(action)
    return options, f"\\fI{_escaped(value)}\\fR" if value else ""


def _named(action: argparse.Action) -> str:
    return " ".join(filter(None, _parts(action)))


def _operands(parser: argparse.ArgumentParser) -> str:
    """What stands behind the command's name."""
    words = []
    for action in parser._actions:
        options, value = _parts(action)
        if action.option_strings and action.required:
            words.append(f"{options.rpartition(', ')[2]} {value}")
        elif not action.option_strings:
            several = " ..." if action.nargs in ("*", "+") else ""
            words.append(f"[{value}]{several}" if action.nargs in ("?", "*") else value + several)
    return " ".join([*words, "[options]"])
