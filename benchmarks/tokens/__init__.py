"""Packing an arm against the usual loader: `python -m benchmarks.tokens`."""
