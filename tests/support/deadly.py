"""A file system whose files do harm to what reads them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadly:
    """Files of a folder, but for those that are called after what they do."""

    def get_file(self, path: str, local: str) -> None:
        name = os.path.basename(path)
        if name.startswith("kills"):
            os.kill(os.getpid(), 9)
        while name.startswith("hangs"):
            pass
        shutil.copy(path, local)
