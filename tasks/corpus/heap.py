"""Memory that a finished stage no longer needs, given back before the next stage takes its own."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


@contextmanager
def released() -> Iterator[None]:
    """Give back what this process freed inside, which takes a few milliseconds.

    Allocators keep it for the thread that had it. Stages have threads of their own, so what one leaves there the next cannot
    use, and the peak would be near the sum of all of them.
    """
    try:
        yield
    finally:
        pa.default_memory_pool().release_unused()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        if trim is not None:  # glibc's, for what NumPy and the store's client had
            trim(0)
