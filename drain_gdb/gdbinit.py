"""Load drain_gdb into gdb: ``source PATH/drain_gdb/gdbinit.py``."""

import os
import sys

import gdb


def _home() -> str:
    """The directory that the package lies in."""
    # To a file that is sourced by another of Python, gdb gives the name of that one.
    here = _home.__code__.co_filename if __name__ == "__main__" else __file__
    return os.path.dirname(os.path.dirname(os.path.abspath(os.path.expanduser(here))))


def _load() -> None:
    if sys.version_info < (3, 9):
        version = sys.version.split()[0]
        gdb.write("drain_gdb needs Python 3.9, this gdb has " + version + "\n", gdb.STDERR)
        return
    home = _home()
    sys.path.insert(0, home)
    import drain_gdb  # noqa: F401 - the one beside this file, whatever else there is

    sys.path.remove(home)
    from drain_gdb.loaders.dependencies import advice

    said = advice()
    from drain_gdb.loaders import gdb as loader
    from drain_gdb.loaders.serve import requested

    if requested():
        loader.serve()
        return
    loader.register()
    if said:
        gdb.write(f"drain_gdb: {said}\n", gdb.STDERR)


_load()
