"""How much memory a preparation keeps: few heaps, and what is no longer needed is given back."""

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
    """From now on the threads of this process share `ARENAS` heaps, unless MALLOC_ARENA_MAX says otherwise.

    glibc has up to eight heaps per core and keeps in each what was freed there. A preparation has dozens of threads, whose
    allocations are large or rare: a few heaps are as fast. glibc cannot take the limit back.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and (limit := _of_glibc("mallopt")) is not None:
        limit(M_ARENA_MAX, ARENAS)


@contextmanager
def released() -> Iterator[None]:
    """A stage of a preparation: its threads share a few heaps, and what they freed is given back at its end (milliseconds).

    Allocators keep freed memory for the thread that had it. Each stage has its own threads, which cannot use what those of
    the stage before left, so the peak would be near the sum of all stages.
    """
    limit_arenas()
    try:
        yield
    finally:
        pa.default_memory_pool().release_unused()
        if (trim := _of_glibc("malloc_trim")) is not None:  # what NumPy and the store's client had
            trim(0)


def drop_pages(*columns: np.ndarray | None) -> None:
    """Give back the pages of those columns that are mapped. A later read takes them from the kernel's cache."""
    for column in columns:
        if isinstance(column, np.memmap):
            column.base.madvise(mmap.MADV_DONTNEED)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
