"""Benchmarks of the search for settings."""
