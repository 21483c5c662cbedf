"""Changes of a user's model: nothing else in the house writes one, but for hooks."""
