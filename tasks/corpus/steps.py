"""The Prefect tasks of this room: batches of up to 64 blobs (more if small) to read, or of shards to write.

A task for every blob would be thousands of runs for the server to record; inside a batch, blobs are retried one by
one. Batches run on whatever task runner the flow has: threads of its process, or, with prefect-dask's DaskTaskRunner,
workers on many machines, which leave results for each other under the artifact root.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.context import FlowRunContext

from tasks.corpus.pool.handle import open_pool
from tasks.corpus.workers import BATCH, Tick, Workers, counted, cut, local_workers, processes
from tasks.spec import Pool
from tasks.steps import RETRIED, Sealed, step
from tasks.store.root import Root

STAGES = {"index_blobs": "read columns", "scatter": "read texts", "emit": "write shards"}
"""What the batches of a stage are called in the UI, by the function that does them."""


@task(task_run_name="{stage} {number} of {total}", **RETRIED)
def batch(
    stage: str, number: int, total: int, function: Callable, sealed: Sealed[Any], here: bool
) -> tuple[Any, list[dict]]:
    """One job of a preparation; `here`: on this machine, whose processes are kept for the next one."""
    machine = local_workers()
    if here and machine.processes > 1:
        with processes(machine.processes) as pool:
            return pool.submit(counted, function, sealed.value).result()
    return counted(function, sealed.value)


@dataclass(frozen=True)
class PrefectWorkers(Workers):
    """Jobs as Prefect tasks. `shared`: they run on other machines, with `count` threads each."""

    shared: bool = False

    @property
    def processes(self) -> int:
        return 1 if self.shared else super().processes

    def batches(self, items: Sequence[Any], units: Callable[[Any], float], soon: bool = False) -> list[list[Any]]:
        """Jobs of at most 64 blobs or shards, or some 600 small blobs, fewer where processes share them: one Prefect task each."""
        return super().batches(items, units) if self.processes > 1 and not soon else cut(items, units, BATCH)

    def run(self, function: Callable, jobs: Sequence[Any], tick: Tick) -> Iterator[Any]:
        """`function(job, tick)` for each job: on this machine as many at a time as it has processes, elsewhere all."""
        ahead = len(jobs) if self.shared else self.processes
        waiting: deque = deque()
        todo = enumerate(jobs, 1)
        while True:
            while len(waiting) < ahead and (following := next(todo, None)) is not None:
                number, job = following
                stage = STAGES[function.__name__]
                waiting.append(batch.submit(stage, number, len(jobs), function, Sealed(job), here=not self.shared))
            if not waiting:
                return
            result, ticks = waiting.popleft().result()
            for counters in ticks:
                tick(counters)
            yield result


def workers() -> PrefectWorkers:
    """Workers that fit the flow that runs: its Dask cluster, or the cores of this machine. Called in a flow."""
    if type(FlowRunContext.get().task_runner).__name__ == "DaskTaskRunner":
        return PrefectWorkers(count=1, shared=True)
    return PrefectWorkers(count=local_workers().count)


def find_pool(root: Root, pool: Pool) -> str:
    """List the pool's sources, as a Prefect task; returns the pool's id."""
    return step(f"List {pool.address}", lambda _: open_pool(root, pool)).pool_id
