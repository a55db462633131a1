"""Memory that is no longer needed, given back before others take their own."""

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

ARENAS = 4
M_ARENA_MAX = -8  # of glibc's malloc.h


def limit_arenas() -> None:
    """Let the threads of this process share `ARENAS` heaps, unless MALLOC_ARENA_MAX says otherwise.

    glibc has up to eight for each core and keeps in each what was freed there. The threads of the network and of the stages are
    dozens, and what they ask for is large or rare: a few heaps are as fast.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and (limit := _of_glibc("mallopt")) is not None:
        limit(M_ARENA_MAX, ARENAS)


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
        if (trim := _of_glibc("malloc_trim")) is not None:  # for what NumPy and the store's client had
            trim(0)


def drop_pages(*columns: np.memmap | None) -> None:
    """Give back the pages of mapped columns; whoever reads one again has them from the kernel's cache."""
    for column in columns:
        if column is not None:
            column.base.madvise(mmap.MADV_DONTNEED)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
