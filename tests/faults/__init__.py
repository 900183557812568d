"""Damaged cores and recordings by the thousand: see ``python3 -m tests.faults --help``."""
