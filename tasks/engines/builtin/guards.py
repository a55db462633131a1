"""What is checked before the first step, while a wrong number costs nothing yet."""

import functools
from collections.abc import Callable

import psutil
import torch

from tasks.errors import InputError

HEADROOM = 0.9
"""Part of the free GPU memory that a run may plan with; the rest is the allocator's and the libraries'."""
CPU_MICRO_TOKENS = 4_096
"""Tokens of a micro-batch on a CPU: beyond, a step only takes more memory, not less time."""
Memory = Callable[[int], int]
"""Rows of a micro-batch -> estimated peak bytes on the device."""


def choose_micro_batch(
    asked: int | None, rows: int, sequence_length: int, device: torch.device, memory: Memory, available: int
) -> int:
    """Rows of one forward pass out of a rank's `rows` per step: as asked, else the largest divisor that fits.

    `available`: bytes that may be used on the device. Raises InputError, with a proposal, when what is asked for does not
    divide the rows or does not fit, or when not even one row fits.
    """
    divisors = [n for n in range(rows, 0, -1) if rows % n == 0]
    fitting = [n for n in divisors if memory(n) <= available]
    if not fitting:
        raise InputError(
            f"One row of {sequence_length:,} tokens needs about {_gib(memory(1))} of memory, {device} has {_gib(available)} "
            f"to give: take a smaller depth or sequence_length, or a larger device."
        )
    if asked is None:
        if device.type == "cpu":
            return next((n for n in fitting if n * sequence_length <= CPU_MICRO_TOKENS), 1)
        return fitting[0]
    if asked not in divisors:
        near = next(n for n in divisors if n <= asked)
        raise InputError(
            f"micro_batch is {asked}, which does not divide the {rows} rows that each process has in a step: take {near}."
        )
    if asked not in fitting:
        raise InputError(
            f"micro_batch is {asked}: its forward and backward pass need about {_gib(memory(asked))}, {device} has "
            f"{_gib(available)} to give: take {fitting[0]}."
        )
    return asked


def available_memory(device: torch.device) -> int:
    """Bytes that this process may plan with on its device."""
    if device.type == "cuda":
        return _free_at_first(device)
    return int(psutil.virtual_memory().available * HEADROOM)


@functools.cache
def _free_at_first(device: torch.device) -> int:
    """Of a GPU. Kernels and libraries that an earlier run of this process loaded must not change how the next is cut into batches."""
    return int(torch.cuda.mem_get_info(device)[0] * HEADROOM)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
