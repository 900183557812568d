"""Where each field of a jemalloc lies: found, modelled or discovered."""
