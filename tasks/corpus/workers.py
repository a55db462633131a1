"""Who does the work: the same jobs on threads of this process, on several processes, or (see `steps`) on many machines.

Decoding, hashing and compression release the interpreter lock, so that a few threads in one process use a few cores fully
and share one set of buffers; beyond `THREADS` cores there is a process for every `THREADS` of them.
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
from typing import Any, ClassVar, TypeVar

THREADS = 4
"""Decoding or encoding threads of one process."""

BATCH = 64
"""Blobs of one job at most, small ones not counted in full: enough that starting a job costs nothing, few enough that
progress shows."""

JOBS = 4
"""Jobs for each process where there is enough to do: one that ends late makes the others wait for a quarter of its share."""

DEPTH = 3
"""Units of a job for each of its threads, before there are several jobs: nothing is fetched or decoded across their ends."""

SMALL = 4 << 20
"""Bytes below which a blob, or what is read of it, counts for less than one in a batch, down to a tenth."""

Job = TypeVar("Job")
Result = TypeVar("Result")
Tick = Callable[[dict[str, int]], None]
"""Called by a job after each finished unit, with what it counted since the last call."""


@dataclass(frozen=True)
class Workers:
    """Threads of this process, or processes of this machine."""

    count: int
    shared: ClassVar[bool] = False
    """Whether jobs run on other machines, so that what they leave must lie on the artifact root."""

    @property
    def processes(self) -> int:
        return -(-self.count // THREADS)

    @property
    def threads(self) -> int:
        """Threads of one job."""
        return -(-self.count // self.processes)

    def get_ready(self) -> None:
        """Let the processes' server start beside what comes before it is needed."""
        if self.processes > 1:
            _context()

    def batches(self, items: Sequence[Any], units: Callable[[Any], float], soon: bool = False) -> list[list[Any]]:
        """The items cut into jobs, in order: one for this process alone or for what is `soon` done, else some for each process.

        `units` says how many blobs or shards an item counts for; a job is `BATCH` of them at most, or one item.
        """
        if self.processes == 1 or soon:
            return [list(items)] if items else []
        total = sum(map(units, items))
        each = min(JOBS, max(1, int(total / (self.processes * self.threads * DEPTH))))
        return cut(items, units, max(1, min(BATCH, math.ceil(total / (self.processes * each)))))

    def run(self, function: Callable[[Job, Tick], Result], jobs: Sequence[Job], tick: Tick) -> Iterator[Result]:
        """`function(job, tick)` for each job, results as they come."""
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
    """What a blob of which `size` bytes are read counts for: a job of small ones would end as soon as it began."""
    return min(1.0, max(0.1, size / SMALL))


def cut(items: Sequence[Any], units: Callable[[Any], float], size: int) -> list[list[Any]]:
    """Consecutive items in lists of up to `size` units, at least one item each."""
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
    """Processes that stay for the next stage, with the environment of their first, and end with this one however it ends.

    Where one of them was killed the others are of no use: then the next stage has new ones.
    """
    with _starting:
        pool = _pools.get(count)
        if pool is None:
            given = (dict(os.environ),)
            pool = _pools[count] = ProcessPoolExecutor(count, _context(), initializer=_begin, initargs=given)
            # or this process, where multiprocessing started it, would wait at its end for processes that wait for jobs
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
    """Processes are forks of a server that has imported this room and does nothing else: a fork of this process would inherit the
    locks of the store's client, and a fresh interpreter for each imports everything, for as long as a small stage takes."""
    context = multiprocessing.get_context("forkserver")
    # what a child imports again to know this process's functions is mostly Prefect, where that is what runs here
    context.set_forkserver_preload(
        ["tasks.corpus.pool.index", "tasks.corpus.arm.emit", *({"prefect"} & sys.modules.keys())]
    )
    # without it the server would import another checkout that happens to be the current folder
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
    return context


def _begin(environment: dict[str, str]) -> None:
    """Take the environment of the process that asked, and end with it: a killed preparation leaves no process behind, which
    would go on holding memory, and writing beside the next attempt."""
    os.environ.clear()
    os.environ.update(environment)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def counted(function: Callable[[Job, Tick], Result], job: Job) -> tuple[Result, list[dict[str, int]]]:
    """Run a job elsewhere and bring its ticks along."""
    ticks: list[dict[str, int]] = []
    return function(job, ticks.append), ticks


def local_workers(count: int | None = None) -> Workers:
    """As many as asked for, or one for each core this process may use."""
    return Workers(count or len(os.sched_getaffinity(0)))
