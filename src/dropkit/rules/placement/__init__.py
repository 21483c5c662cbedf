"""Rules on where a dropout stands."""
