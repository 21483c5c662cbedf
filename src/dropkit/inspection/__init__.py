"""Reads, and never writes: a model as it runs, source as text."""
