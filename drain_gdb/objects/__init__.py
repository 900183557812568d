"""What a region holds, and who holds it."""
