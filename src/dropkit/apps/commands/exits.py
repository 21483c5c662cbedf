"""With what the command ends; 1 is also what Python gives a bug."""

DONE, FOUND, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
