"""A page to look at: one HTML file that holds all it needs."""
