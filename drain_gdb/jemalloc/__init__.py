"""Walkers over jemalloc's structures; they yield columns and counts, never text."""
