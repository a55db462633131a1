"""The tasks of this room. Reading and writing text goes in batches of up to 64 blobs (more if small), one Prefect task each.

A task for every blob would be thousands of runs for the server to write down; inside of a batch blobs are retried one by
one. The batches run on whatever task runner the flow has: threads of its process, or, with prefect-dask's
DaskTaskRunner, workers on many machines, where what one leaves for another lies under the artifact root.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.context import FlowRunContext
from prefect.tasks import exponential_backoff

from tasks import steps as show
from tasks.corpus import prepare
from tasks.corpus.workers import BATCH, Tick, Workers, counted, cut, local_workers, processes
from tasks.records.layout import ArmFolder, PoolFolder, arm_id
from tasks.spec import Arm, Pool
from tasks.store.artifact import Artifact
from tasks.store.root import Root

RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": show.retryable,
    "persist_result": False,
}
"""What the network did is tried again; a blob that changed or a parameter that is wrong is not."""


STAGES = {"index_blobs": "read scores", "scatter": "read texts", "emit": "write shards"}
"""What the tasks of a stage are called in the UI."""


@task(task_run_name="{stage} {number} of {total}", **RETRIED)
def batch(
    stage: str, number: int, total: int, function: Callable, sealed: "Sealed", here: bool
) -> tuple[Any, list[dict]]:
    """One job of a preparation; `here`: on this machine, whose processes are kept for the next one."""
    machine = local_workers()
    if here and machine.processes > 1:
        with processes(machine.processes) as pool:
            return pool.submit(counted, function, sealed.job).result()
    return counted(function, sealed.job)


class Sealed:
    """A job that Prefect does not look into: it would search large arrays for futures."""

    def __init__(self, job: Any):
        self.job = job


@dataclass(frozen=True)
class PrefectWorkers(Workers):
    """Jobs as Prefect tasks. `shared`: they run on other machines, where each is given `count` threads."""

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


def workers() -> Workers:
    """What fits the flow that runs: its Dask cluster, or this machine; outside of a flow, plain threads and processes."""
    context = FlowRunContext.get()
    if context is None:
        return local_workers()
    if type(context.task_runner).__name__ == "DaskTaskRunner":
        return PrefectWorkers(count=1, shared=True)
    return PrefectWorkers(count=local_workers().count)


@task(task_run_name="list {pool.source}", **RETRIED)
def find_pool(root_url: str, pool: Pool) -> dict[str, Any]:
    """List the source; returns the pool's name and what is there."""
    handle = prepare.open_pool(Root(root_url), pool)
    return {"pool_id": handle.pool_id, "blobs": len(handle.blobs), "bytes": sum(blob.size for blob in handle.blobs)}


@task(task_run_name="checksums of {arm.name}", **RETRIED)
def set_damaged_aside(root_url: str, pool: Pool, arm: Arm) -> None:
    """Compare every file of what an earlier attempt completed with its checksum: what differs is made anew."""
    root = Root(root_url)
    pool_id = prepare.open_pool(root, pool).pool_id
    for name in [*PoolFolder(pool_id).parts, ArmFolder(arm_id(arm, pool_id)).text]:
        root.intact(name)


def index_pool(root_url: str, pool: Pool) -> dict[str, Any]:
    """Index the pool in batches of blobs; returns the artifact's facts. Called in a flow."""
    with show.progress("Index") as progress:
        return facts(prepare.build_index(Root(root_url), pool, mapper=workers(), progress=progress))


@task(task_run_name="holdout of {pool.name}", **RETRIED)
def holdout(root_url: str, pool: Pool) -> dict[str, Any]:
    """Set the holdout aside; returns the artifact's facts."""
    with show.progress("Holdout") as progress:
        return facts(prepare.build_holdout(Root(root_url), pool, progress=progress))


@task(task_run_name="sample of {pool.name}", **RETRIED)
def sample(root_url: str, pool: Pool) -> dict[str, Any]:
    """Sample texts for the tokenizer; returns the artifact's facts."""
    with show.progress("Sample") as progress:
        return facts(prepare.build_sample(Root(root_url), pool, progress=progress))


@task(task_run_name="plan of {arm.name}", **RETRIED)
def plan(root_url: str, pool: Pool, arm: Arm) -> dict[str, Any]:
    """What the arm takes, reads and needs. Fails when the pool or the disk cannot serve it."""
    return prepare.plan_arm(Root(root_url), pool, arm).as_dict()


def arms(root_url: str, pool: Pool, chosen: Sequence[Arm]) -> list[dict[str, Any]]:
    """The text of arms, in batches of blobs and shards, one pass for all; returns their facts. Called in a flow."""
    with show.progress("Text") as progress:
        made = prepare.build_arms(Root(root_url), pool, chosen, mapper=workers(), progress=progress)
        return [facts(artifact) for artifact in made]


def facts(artifact: Artifact) -> dict[str, Any]:
    """What an artifact's manifest counted, with its name and whether it was there already."""
    return {"artifact": artifact.name, "reused": artifact.reused, **artifact.facts}
