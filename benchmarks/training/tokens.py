"""Rows to measure speed with."""

import torch


def rows_of_tokens(rows: int, length: int, vocab_size: int) -> torch.Tensor:
    """(rows, length + 1) tokens with frequencies like text's: the n-th most common in proportion to 1 / (n + 10)."""
    generator = torch.Generator().manual_seed(0)
    frequency = 1 / (torch.arange(vocab_size) + 10.0)
    ids = torch.multinomial(frequency, rows * (length + 1), replacement=True, generator=generator)
    return ids.view(rows, length + 1)
