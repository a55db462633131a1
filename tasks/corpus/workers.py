"""Who does the work: the same jobs on threads of this process, on several processes, or (see `steps`) on many machines.

Decoding, hashing and compression release the interpreter lock, so that a few threads in one process use a few cores fully
and share one set of buffers; beyond `THREADS` cores there is a process for every `THREADS` of them.
"""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar

THREADS = 4
"""Decoding or encoding threads of one process."""

BATCH = 64
"""Blobs of one job at most, small ones not counted in full: enough that starting a job costs nothing, few enough that
progress shows."""

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

    def batches(self, items: Sequence[Any], units: Callable[[Any], float]) -> list[list[Any]]:
        """The items cut into jobs, in order: one for this process alone, a few for each of several.

        `units` says how many blobs or shards an item counts for; a job is `BATCH` of them at most, or one item.
        """
        if self.processes == 1:
            return [list(items)] if items else []
        return cut(items, units, max(1, min(BATCH, math.ceil(sum(map(units, items)) / (self.processes * 4)))))

    def run(self, function: Callable[[Job, Tick], Result], jobs: Sequence[Job], tick: Tick) -> Iterator[Result]:
        """`function(job, tick)` for each job, results as they come."""
        if self.processes == 1 or len(jobs) <= 1:
            for job in jobs:
                yield function(job, tick)
            return
        pool = processes(self.processes)
        futures = [pool.submit(counted, function, job) for job in jobs]
        try:
            for future in as_completed(futures):
                result, ticks = future.result()
                for counters in ticks:
                    tick(counters)
                yield result
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, BrokenProcessPool):
                processes.cache_clear()
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


@cache
def processes(count: int) -> ProcessPoolExecutor:
    """Processes that stay for the next stage. Fresh ones: the store's client has threads, and a fork inherits their locks."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def counted(function: Callable[[Job, Tick], Result], job: Job) -> tuple[Result, list[dict[str, int]]]:
    """Run a job elsewhere and bring its ticks along."""
    ticks: list[dict[str, int]] = []
    return function(job, ticks.append), ticks


def local_workers(count: int | None = None) -> Workers:
    """As many as asked for, or one for each core this process may use."""
    return Workers(count or len(os.sched_getaffinity(0)))
