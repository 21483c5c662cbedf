"""Rules on how much is dropped."""
