"""What each command is called, takes and says of itself: cheap to load, as help is asked of all."""
