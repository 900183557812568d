"""What a Redis or Valkey holds, release 6 to 8, and which keys hold it."""
