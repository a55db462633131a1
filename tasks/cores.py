"""How many cores of this machine the work may use: what FABRATING_WORKERS says, else all that this process may use.

And the threads and processes that use them: who waits for threads can be stopped, and processes end with the one that started them.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

WORKERS = "FABRATING_WORKERS"
OF_LIBRARIES = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")
"""What tokenizers and PyTorch read."""
SECONDS_BETWEEN_SIGNALS = 0.5


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


def wait_for(threads: Iterable[Future[Any]]) -> None:
    """Wait until all threads have ended; raises the exception of one that fails, at once.

    The kernel gives SIGTERM or Ctrl-C to any thread, often to a busy one. Python handles it in the main thread, which does not wake for
    that: so it looks, every half a second.
    """
    waiting = set(threads)
    while waiting:
        ended, waiting = wait(waiting, SECONDS_BETWEEN_SIGNALS, FIRST_EXCEPTION)
        for each in ended:
            each.result()


def end_with_parent() -> None:
    """End this process, which multiprocessing started, with the one that started it: a killed one must leave no process behind that
    holds memory, of GPUs too, and writes beside the next attempt.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "multiprocessing started this process"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
