"""How long preparing an arm takes, from measured rates."""

CPU_BYTES_PER_SECOND = 85e6
"""Decoded text that one core takes through the text pass: decode, order, spill, zstd level 3."""
