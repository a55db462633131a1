"""How many cores of this machine the work may use: what FABRATING_WORKERS says, else all that this process may use."""

import contextlib
import os
from collections.abc import Iterator, Mapping

WORKERS = "FABRATING_WORKERS"
OF_LIBRARIES = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")
"""What tokenizers and PyTorch read."""


def cores() -> int:
    """Threads to start, over all processes of a step: at least 1."""
    if (given := os.environ.get(WORKERS, "")).isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def limited(workers: int | None) -> Iterator[None]:
    """Use so many cores while the block lasts, in this process and in those that it starts; None: as many as before."""
    with variables({} if workers is None else dict.fromkeys((WORKERS, *OF_LIBRARIES), str(workers))):
        yield


@contextlib.contextmanager
def variables(settings: Mapping[str, str]) -> Iterator[None]:
    """These variables while the block lasts."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
