"""Hold regions of a jemalloc linked privately into a library, and say which.

    python3 ctypes_jemalloc.py LIBRARY MALLOCX_OFFSET DALLOCX_OFFSET

Its functions are local symbols, so they are called by address.  Prints the live
ones as "live ADDRESS SIZE", then "ready", and waits for its input to close.
"""

import ctypes
import sys

library, mallocx_offset, dallocx_offset = sys.argv[1], *map(int, sys.argv[2:4])
ctypes.CDLL(library)
with open("/proc/self/maps") as maps:
    base = min(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(library))
mallocx = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)(base + mallocx_offset)
dallocx = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(base + dallocx_offset)
held = [(mallocx(size, 0), size) for size in (24, 200, 1000, 20000) for _ in range(3000)]
for address, _ in held[1::3]:
    dallocx(address, 0)
del held[1::3]
for address, size in held:
    print(f"live {address:#x} {size}")
print("ready", flush=True)
sys.stdin.read()
