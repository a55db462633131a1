"""Who does the work: the same jobs on threads of this process, on several processes, or (see `steps`) on many machines.

Decoding, hashing and compression release the interpreter lock, so a few threads of one process keep a few cores busy and
share one set of buffers. Beyond `THREADS` cores there is one process for every `THREADS` of them.
"""

import math
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, util
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tasks.cores import cores, end_with_parent, variables
from tasks.corpus.heap import limit_arenas
from tasks.progress import Progress

THREADS = 4
"""Decoding or encoding threads per process."""

BATCH = 64
"""Most blobs per job, where small ones count for less: enough to make the start of a job cheap, few enough to show progress."""

JOBS = 4
"""Jobs per process where there is enough to do: a process that ends late delays the others by a quarter of its share."""

DEPTH = 3
"""Least units per thread of a job before there are several jobs: fetching and decoding stop at the end of a job."""

SMALL = 4 << 20
"""Bytes below which a blob, or what is read of it, counts for less than one unit, down to a tenth."""

Job = TypeVar("Job")
Result = TypeVar("Result")
Tick = Callable[[dict[str, int]], None]
"""Called by a job after each unit, with what it counted since the last call."""


@dataclass(frozen=True)
class Workers:
    """Threads of this process, or processes of this machine."""

    count: int
    shared: ClassVar[bool] = False
    """Whether jobs run on other machines, which must leave their results under the artifact root."""

    @property
    def processes(self) -> int:
        return -(-self.count // THREADS)

    @property
    def threads(self) -> int:
        """Threads of one job."""
        return -(-self.count // self.processes)

    def get_ready(self) -> None:
        """Start the server of processes now, before it is needed."""
        if self.processes > 1:
            _context()

    def batches(self, items: Sequence[Any], units: Callable[[Any], float], soon: bool = False) -> list[list[Any]]:
        """The items cut into jobs, in order: one job for a single process or for work that is `soon` done, else some per process.

        `units` says how many blobs or shards an item counts for. A job has at most `BATCH` of them, or one item.
        """
        if self.processes == 1 or soon:
            return [list(items)] if items else []
        total = sum(map(units, items))
        each = min(JOBS, max(1, int(total / (self.processes * self.threads * DEPTH))))
        return cut(items, units, max(1, min(BATCH, math.ceil(total / (self.processes * each)))))

    def run(self, function: Callable[[Job, Tick], Result], jobs: Sequence[Job], tick: Tick) -> Iterator[Result]:
        """Run `function(job, tick)` for each job. Results come as they are ready."""
        if self.processes == 1 or len(jobs) <= 1:
            for job in jobs:
                yield function(job, tick)
            return
        with processes(self.processes) as pool:
            futures = [pool.submit(counted, function, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    result, ticks = future.result()
                    for counters in ticks:
                        tick(counters)
                    yield result
            except BaseException:
                for future in futures:
                    future.cancel()
                raise


def of_batch(size: int) -> float:
    """Units that a blob of which `size` bytes are read counts for: a job of a few small ones would end as soon as it began."""
    return min(1.0, max(0.1, size / SMALL))


def cut(items: Sequence[Any], units: Callable[[Any], float], size: int) -> list[list[Any]]:
    """Consecutive items in lists of at most `size` units, or of one item."""
    jobs: list[list[Any]] = []
    filled: float = size
    for item in items:
        if filled + units(item) > size:
            jobs.append([])
            filled = 0
        jobs[-1].append(item)
        filled += units(item)
    return jobs


_pools: dict[int, ProcessPoolExecutor] = {}
_starting = threading.Lock()


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with the environment of their first stage. They stay for the next one, and end however this process ends.

    Once one of them was killed, the others are of no use, and the next stage has new ones.
    """
    with _starting:
        pool = _pools.get(count)
        if pool is None:
            given = (dict(os.environ),)
            pool = _pools[count] = ProcessPoolExecutor(count, _context(), initializer=_begin, initargs=given)
            # a process that multiprocessing started would otherwise hang at exit on idle workers
            util.Finalize(None, pool.shutdown, exitpriority=100)
    try:
        yield pool
    except BrokenProcessPool:
        with _starting:
            if _pools.get(count) is pool:
                del _pools[count]
        raise


@cache
def _context() -> BaseContext:
    """Processes are forks of a server that has imported the code of the jobs and does nothing else. A fork of this process would
    inherit the locks of the store's client; a fresh interpreter for each takes as long to import as a small stage to run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.corpus.server"])
    settings = {
        "PYTHONSAFEPATH": "1",  # imports come from where this process has them, not from the current folder
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
        "OPENBLAS_NUM_THREADS": "1",  # one thread per core, which spin: nothing here multiplies large matrices
    }
    with variables(settings):
        forkserver.ensure_running()
    return context


def _begin(environment: dict[str, str]) -> None:
    """Take the environment of the process that asked, share a few heaps, and end with that process."""
    os.environ.clear()
    os.environ.update(environment)
    limit_arenas()
    end_with_parent()


def counted(function: Callable[[Job, Tick], Result], job: Job) -> tuple[Result, list[dict[str, int]]]:
    """Run a job in another process; returns its result and its ticks."""
    ticks: list[dict[str, int]] = []
    return function(job, ticks.append), ticks


def local_workers(count: int | None = None) -> Workers:
    """`count` workers, or one for each core that may be used."""
    return Workers(count or cores())


class Count:
    """Adds up the ticks of jobs and reports progress."""

    def __init__(self, stage: str, total: int, progress: Progress, done: int = 0):
        self.stage, self.total, self.progress, self.done = stage, total, progress, done
        self.counters = {"bytes_read": 0, "requests": 0, "retries": 0, "rows": 0}

    def __call__(self, counted: dict[str, int]) -> None:
        self.done += counted["units"]
        for name in self.counters:
            self.counters[name] += counted.get(name, 0)
        self.progress(self.stage, self.done, self.total, self.counters)
