"""Reports as text, JSON, CSV and INFO; nothing is computed here but its look."""
