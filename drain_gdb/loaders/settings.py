"""What people can choose once for all commands of a debugger's session."""

from __future__ import annotations

import argparse
from typing import Callable, Dict, Mapping, NamedTuple, Sequence

from drain_gdb.commands.base import Command, Context
from drain_gdb.commands.session import Preferences
from drain_gdb.errors import EXIT_DONE, UsageError

THROUGH, DIRECTLY = READERS = ("debugger", "none")
"""What reads: the debugger itself; no debugger, as with ``--debugger none``."""
CHOICE, NUMBER, SWITCH, THREEFOLD = "choice", "number", "switch", "threefold"
SWITCHES = {"on": True, "off": False}
UNLIMITED = "unlimited"


class Setting(NamedTuple):
    """One of them.

    Attributes:
        kind: one of ``CHOICES``, a number or unlimited, on or off, on or off or auto.
        summary: what it decides, in a few words.

    """

    name: str
    kind: str
    summary: str
    explanation: str
    initial: object


SETTINGS: Sequence[Setting] = (
    Setting(
        "reader",
        CHOICE,
        "what reads the process or core for the drain commands",
        "debugger: this debugger. none: the core file, or the memory of the process on this"
        " machine, is read directly, which is faster.",
        THROUGH,
    ),
    Setting(
        "top",
        NUMBER,
        "how many rows of a table the drain commands show",
        "As if --top were given with every command that has it.",
        None,
    ),
    Setting(
        "colour",
        THREEFOLD,
        "whether reports of the drain commands are coloured",
        "auto: on a terminal, if the debugger's own colours are on and NO_COLOR is not set.",
        None,
    ),
    Setting(
        "contents",
        SWITCH,
        "whether the drain commands show what objects hold",
        "As if --contents were given with every command that has it.",
        False,
    ),
)


def preferences_of(values: Mapping[str, object]) -> Preferences:
    """What the ``values`` of the settings mean, by their names."""
    top, colour = values["top"], values["colour"]
    return Preferences(
        directly=values["reader"] == DIRECTLY,
        top=top if isinstance(top, int) and top > 0 else None,
        colour=None if colour is None else bool(colour),
        contents=bool(values["contents"]),
    )


def _number(text: str) -> object:
    value = 0 if text == UNLIMITED else int(text)
    if value < 0:
        raise ValueError
    return value or None


def _reader(text: str) -> object:
    return READERS[READERS.index(text)]


PARSERS: Dict[str, Callable[[str], object]] = {
    CHOICE: _reader,
    NUMBER: _number,
    SWITCH: lambda text: SWITCHES[text],
    THREEFOLD: lambda text: None if text == "auto" else SWITCHES[text],
}
WORDS = {
    CHOICE: " or ".join(READERS),
    NUMBER: f"a number or {UNLIMITED}",
    SWITCH: "on or off",
    THREEFOLD: "on, off or auto",
}


def _shown(setting: Setting, value: object) -> str:
    if value is None:
        return UNLIMITED if setting.kind == NUMBER else "auto"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


class SettingsCommand(Command):
    """For debuggers whose own settings cannot be added to."""

    name = "drainset"
    shell = ""
    summary = "Show or choose what holds for all drain commands of this session."
    description = "\n".join(
        f"{each.name}: {each.summary} ({WORDS[each.kind]}).\n  {each.explanation}"
        for each in SETTINGS
    )
    examples = ("drainset", "drainset top 10", "drainset reader none")

    def __init__(self) -> None:
        self._values = {each.name: each.initial for each in SETTINGS}

    @property
    def preferences(self) -> Preferences:
        """As they are chosen now."""
        return preferences_of(self._values)

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the setting and its value."""
        parser.add_argument("setting", nargs="?", choices=[each.name for each in SETTINGS])
        parser.add_argument("value", nargs="?")

    def run(self, args: argparse.Namespace, context: Context) -> int:
        """Choose, or show."""
        chosen = [each for each in SETTINGS if args.setting in (None, each.name)]
        if args.value is None:
            for each in chosen:
                context.write(f"{each.name}: {_shown(each, self._values[each.name])}\n")
            return EXIT_DONE
        (setting,) = chosen
        try:
            self._values[setting.name] = PARSERS[setting.kind](args.value)
        except (ValueError, KeyError):
            raise UsageError(
                f"{setting.name} cannot be {args.value!r}", f"it is {WORDS[setting.kind]}"
            ) from None
        return EXIT_DONE
