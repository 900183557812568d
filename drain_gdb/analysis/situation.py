"""One jemalloc in its process: what is there, and how it is spoken to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from drain_gdb.analysis.report import Account, Part, Sweep
from drain_gdb.jemalloc.settings import Settings
from drain_gdb.layout.versions import release_key

OPTION_MAX = 40
"""Characters of options that are worth repeating."""
PURGE, FLUSH = "arena.4096.purge", "thread.tcache.flush"
"""Names of mallctl(): all arenas (MALLCTL_ARENAS_ALL), and of the thread that calls."""


@dataclass(frozen=True)
class Situation:
    """One jemalloc in its process.

    Attributes:
        number: of it, among the reports.
        zeros: the share that holds but zeros of what lies on huge pages.
    """

    number: int
    report: Sweep
    settings: Settings
    account: Account
    zeros: Optional[float]

    def part(self, name: str) -> Optional[Part]:
        """The part ``name`` of this jemalloc's."""
        for part in self.account.parts:
            if part.part == name and part.allocator == self.number:
                return part
        return None

    def there(self, *names: str) -> int:
        """Resident bytes of the parts ``names``; their sizes where residence is not known."""
        return sum(resident(part) for part in map(self.part, names) if part is not None)

    def unwritten(self, *names: str) -> int:
        """Resident bytes of the parts ``names`` that huge pages alone make resident."""
        parts = filter(None, map(self.part, names))
        return round((self.zeros or 0) * sum(part.huge_bytes or 0 for part in parts))

    def alone(self, name: str) -> int:
        """Resident bytes of a part that no fork shares."""
        part = self.part(name)
        return 0 if part is None else resident(part) - (part.shared_bytes or 0)

    @property
    def held_bytes(self) -> int:
        """Bytes of live regions, or of allocated ones where live ones are not known."""
        totals = self.report.totals
        return totals.allocated_bytes if totals.live_bytes is None else totals.live_bytes

    def before(self, *release: int) -> bool:
        """Whether it is known to be older than ``release``."""
        version = self.report.allocator.version
        return version is not None and (0, 0, 0) < release_key(version) < release

    @property
    def old(self) -> bool:
        """Whether it is older than 5.3, which renamed options of thread caches."""
        return self.before(5, 3, 0)

    # -- how to say it to this process --------------------------------------------

    @property
    def closed(self) -> Optional[str]:
        """Why only the library that holds this jemalloc can call mallctl().

        None where others can, or where that is not known.  What is linked with a program is
        in reach of the program's own code.
        """
        settings, allocator = self.settings, self.report.allocator
        of_program = allocator.module == self.report.process.executable
        if settings.exported is not False or (of_program and settings.program != "python"):
            return None
        return f"{allocator.library} does not export {settings.prefix}mallctl()"

    def call(self, name: str, redis: Optional[str] = None) -> str:
        """How ``name`` of mallctl() is called in this program; servers have a command."""
        program, prefix = self.settings.program, self.settings.prefix
        if redis is not None and program in ("redis", "valkey"):
            return self.command(redis)
        if program == "python":
            # dlopen() knows a library that is loaded by its path, and few by their names alone.
            library = f'"{self.report.allocator.module}"' if prefix else "None"
            return f'ctypes.CDLL({library}).{prefix}mallctl(b"{name}", None, None, None, 0)'
        return f'{prefix}mallctl("{name}", NULL, NULL, NULL, 0)'

    def command(self, text: str) -> str:
        """A command for a Redis or Valkey."""
        port = "" if self.settings.port in (None, 6379) else f" -p {self.settings.port}"
        return f"{self.settings.program}-cli{port} {text}"

    def conf(self, option: str, value: str) -> str:
        """The line that gives an option at the next start, beside those that are given now."""
        given = {**(self.settings.options or {}), option: value}
        text = ",".join(f"{name}:{said}" for name, said in given.items())
        if len(text) > OPTION_MAX:
            return f"{option}:{value} added to {self.settings.variable}"
        return f"{self.settings.variable}={text}"


def resident(part: Part) -> int:
    """How many bytes of ``part`` are resident; its size where that is not known."""
    return part.bytes if part.resident_bytes is None else part.resident_bytes
