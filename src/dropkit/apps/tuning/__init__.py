"""Searching for settings: one study in one storage, shared by any number of processes."""
