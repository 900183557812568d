"""Pure functions from a walked heap to frozen reports."""
