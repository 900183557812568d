"""``python3 -m drain_gdb`` is ``drain-gdb``."""

import sys

from drain_gdb.loaders.shell import main

sys.exit(main())
