"""drain_gdb: why a jemalloc process does not give its freed memory back."""
