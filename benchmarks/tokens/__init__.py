"""Encoders side by side: `python -m benchmarks.tokens`."""
