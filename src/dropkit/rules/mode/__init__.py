"""Rules on training and evaluation mode: when a dropout acts, and when it must not."""
