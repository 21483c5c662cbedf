"""Models that nobody here wrote, audited: `python -m benchmarks.zoo`."""
