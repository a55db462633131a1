"""The Prefect tasks of this room: each step of provisioning and each transfer, retried where the network is to blame."""

import time
from typing import Any

from httpx import HTTPStatusError
from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.tasks import exponential_backoff

from tasks import steps as show
from tasks.errors import InputError
from tasks.hosts import provision
from tasks.hosts.facts import Facts
from tasks.hosts.machine import Machine
from tasks.hosts.provision import Outcome
from tasks.hosts.removal import remove as undo
from tasks.hosts.ssh import Remote
from tasks.hosts.transfer import Moved
from tasks.hosts.transfer import move as move_artifact
from tasks.spec import Host

RETRIED = {**show.RETRIED, "retries": 4, "retry_delay_seconds": exponential_backoff(5), "retry_jitter_factor": 0.3}
ONLINE_SECONDS = 90
PATH_OF_WORKER: Any = "/work_pools/{work_pool_name}/workers/{name}"


@task(task_run_name="look at {name}", **RETRIED)
def look(name: str, remote: show.Sealed[Remote], host: Host) -> Facts:
    """Reach and describe a host; says aloud which host key was trusted."""
    connection: Remote = remote.value
    facts = provision.look(connection, host)
    for note in connection.notes:
        show.log().warning(note)
    gpus = ", ".join(gpu.name for gpu in facts.gpus) or "no GPU"
    show.log().info("%s: %s, %s, %s", connection.label, facts.system, facts.architecture, gpus)
    return facts


@task(task_run_name="{step} of {name}", **RETRIED)
def provision_step(name: str, step: str, setup: show.Sealed[provision.Setup]) -> Outcome:
    """One step of provisioning."""
    outcome = provision.run_step(setup.value, step)
    show.log().info("%s: %s (%s)", step, outcome.text, "changed" if outcome.changed else "as it was")
    return outcome


@task(task_run_name="{name} online in {pool}", **RETRIED)
def worker_online(name: str, pool: str, setup: show.Sealed[provision.Setup]) -> Outcome:
    """Wait until the worker shows up in its pool. Raises InputError when there is no such pool."""
    started = time.monotonic()
    first = True
    with get_client(sync_client=True) as client:
        while time.monotonic() - started < ONLINE_SECONDS:
            try:
                workers = client.read_workers_for_work_pool(pool)
            except ObjectNotFound as error:
                raise InputError(
                    f"There is no work pool {pool}: create it first (`fabrating up`), or name another."
                ) from error
            if any(worker.name == name and worker.status == WorkerStatus.ONLINE for worker in workers):
                text = f"worker {name} is online in the pool {pool}"
                return Outcome("online", not first, text, round(time.monotonic() - started, 2))
            first = False
            time.sleep(1)
    said = provision.worker_log(setup.value)
    raise TimeoutError(f"The worker {name} is not in the pool {pool} after {ONLINE_SECONDS} s; it says: {said}")


@task(task_run_name="forget {name} in {pool}", **RETRIED)
def forget_worker(name: str, pool: str) -> Outcome:
    """Delete the worker's entry in its pool."""
    started = time.monotonic()
    gone = True
    with get_client(sync_client=True) as client:
        try:
            client.request("DELETE", PATH_OF_WORKER, path_params={"work_pool_name": pool, "name": name})
        except HTTPStatusError as error:
            if error.response.status_code != 404:
                raise
            gone = False
    text = f"{name} left the pool {pool}" if gone else f"{name} was not in the pool {pool}"
    return Outcome("pool", gone, text, round(time.monotonic() - started, 2))


@task(task_run_name="remove {name}", **RETRIED)
def remove(name: str, remote: show.Sealed[Remote], host: Host, artifacts: bool, force: bool) -> list[Outcome]:
    """Undo provisioning."""
    outcomes = undo(remote.value, host, artifacts=artifacts, force=force)
    for outcome in outcomes:
        show.log().info("%s: %s", outcome.step, outcome.text)
    return outcomes


@task(task_run_name="move {name}", **RETRIED)
def move(
    name: str,
    source: show.Sealed[Machine],
    source_root: str,
    target: show.Sealed[Machine],
    target_root: str,
    streams: int,
) -> Moved:
    """Bring one artifact from one place to another."""
    ends: tuple[Machine, Machine] = (source.value, target.value)
    with show.progress("Transfer") as progress:
        moved = move_artifact(ends[0], source_root, ends[1], target_root, name, streams=streams, progress=progress)
    for machine in ends:
        for note in getattr(machine, "notes", ()):
            show.log().warning(note)
    rate = moved.sent / moved.seconds / 1e6 if moved.seconds else 0.0
    show.log().info("%s: %.2f GB %s, %.0f MB/s, %d sent again", name, moved.sent / 1e9, moved.way, rate, moved.again)
    return moved
