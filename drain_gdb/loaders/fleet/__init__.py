"""``drain-gdb fleet``: many processes into tables, in parallel."""
