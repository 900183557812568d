"""The one place where errors become a line and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Callable, Tuple

from drain_gdb.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_TARGET, DrainError
from drain_gdb.render.style import printable

DEBUG = "DRAIN_GDB_DEBUG"
"""Set in the environment, an unexpected error shows its traceback."""


def guarded(name: str, action: Callable[[], int]) -> Tuple[int, str]:
    """Run ``action``; ``(exit status, line for the user)``, the line empty if all is well.

    What the line says of a target is escaped, as it may hold anything.
    """
    status, line = _run(name, action)
    return status, printable(line)


def _run(name: str, action: Callable[[], int]) -> Tuple[int, str]:
    try:
        return action(), ""
    except DrainError as error:
        return error.exit_status, f"{name}: {error}"
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED, f"{name}: interrupted"
    except BrokenPipeError:
        # Whoever read the output has read enough; what is left of it goes nowhere.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE, ""
    except Exception as error:  # noqa: BLE001 - the boundary
        if os.environ.get(DEBUG):
            print(traceback.format_exc(), end="", file=sys.stderr, flush=True)
        return EXIT_TARGET, (
            f"{name}: internal error: {type(error).__name__}: {error}; please report it"
            f" with the traceback that {DEBUG}=1 in the environment shows"
        )
