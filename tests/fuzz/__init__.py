"""Coverage-guided fuzzing: see ``python3 -m tests.fuzz --help``."""
