"""``set drain``, ``show drain`` and ``info drain`` in gdb."""

from __future__ import annotations

import gdb

from drain_gdb.commands.session import Preferences, Session
from drain_gdb.errors import EXIT_DONE
from drain_gdb.loaders.boundary import guarded
from drain_gdb.loaders.settings import (
    CHOICE,
    NUMBER,
    READERS,
    SETTINGS,
    SWITCH,
    THREEFOLD,
    Setting,
    preferences_of,
)

KINDS = {
    CHOICE: gdb.PARAM_ENUM,
    NUMBER: gdb.PARAM_UINTEGER,
    SWITCH: gdb.PARAM_BOOLEAN,
    THREEFOLD: gdb.PARAM_AUTO_BOOLEAN,
}


class _Prefix(gdb.Command):
    """What holds for all drain commands of this session."""

    def __init__(self, verb: str) -> None:
        super().__init__(f"{verb} drain", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)
        self._verb = verb

    def invoke(self, argument: str, from_tty: bool) -> None:
        """What gdb does for a prefix of its own."""
        if argument:
            raise gdb.GdbError(
                f'Undefined {self._verb} drain command: "{argument}".'
                f'  Try "help {self._verb} drain".'
            )
        if self._verb == "set":
            gdb.execute("help set drain")
            return
        for setting in SETTINGS:
            gdb.execute(f"show drain {setting.name}")


class _Parameter(gdb.Parameter):
    """A setting as gdb knows it."""

    def __init__(self, setting: Setting) -> None:
        self.set_doc = f"Set {setting.summary}."
        self.show_doc = f"Show {setting.summary}."
        self.__doc__ = setting.explanation
        self._name = setting.name
        choices = [READERS] if setting.kind == CHOICE else []
        super().__init__(f"drain {setting.name}", gdb.COMMAND_DATA, KINDS[setting.kind], *choices)
        self.value = setting.initial

    def get_set_string(self) -> str:
        """Nothing is said where it is set."""
        return ""

    def get_show_string(self, value: str) -> str:
        """What is said where it is shown."""
        return f"{self._name}: {value}"


class _Info(gdb.Command):
    """The last report of a drain command, as it was: nothing is read again."""

    def __init__(self, session: Session) -> None:
        super().__init__("info drain", gdb.COMMAND_STATUS, gdb.COMPLETE_NONE)
        self._session = session

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Show it."""

        def show() -> int:
            gdb.write(self._session.again())
            return EXIT_DONE

        _, line = guarded("info drain", show)
        if line:
            raise gdb.GdbError(line)


def register(session: Session) -> None:
    """Make them known to gdb."""
    for verb in ("set", "show"):
        _Prefix(verb)
    for setting in SETTINGS:
        _Parameter(setting)
    _Info(session)


def preferences() -> Preferences:
    """As they are set now."""
    return preferences_of({each.name: gdb.parameter(f"drain {each.name}") for each in SETTINGS})
