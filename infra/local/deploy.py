"""Put work pools and deployments onto a Prefect server. Doing it again changes nothing.

PREFECT_API_URL and PREFECT_API_AUTH_STRING of an `environment` say which server, and let us in.

What they are is said by the files of `deployments/`: `prefect.yaml`, one base job template per pool, and the automations.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from infra.local.access import connected
from tasks.engines.turns import visible_gpus
from tasks.errors import InputError

PROJECT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = PROJECT / "deployments"
POOLS = ("cpu", "gpu")
"""Work pools. They take any number of runs: an `experiment` waits in the cpu pool for its children, so that a limit could be used up
by runs which all wait; preparation is limited by its queue instead, training by each worker of the gpu pool."""
DESCRIPTIONS = {
    "cpu": "Preparation, experiments and comparisons that wait for their children, hosts: what needs no GPU.",
    "gpu": "Training and scoring. Several hosts may serve it: each takes a run for each of its GPUs, and one that waits.",
}
QUEUES = {"cpu": {"prepare": 1}}
"""Work queues besides `default`, with their concurrency limits: one preparation at a time, as it takes all cores."""

REAPER, OLD_INTERVAL = "maintenance/reaper", timedelta(seconds=60)
OLD_LIMIT = 1
"""Earlier versions ran this deployment by a schedule; now `fabrating maintain` looks without a flow run. They let the gpu pool take
one run at a time."""

SAMPLE, NO_SAMPLE = "FABRATING_SAMPLE", "file:///sample"
"""Where the sample of a local stack lies, and what a server without one is told: a folder that is not there."""


def worker_options(pool: str) -> list[str]:
    """How many runs the worker of a pool takes here: on the gpu pool one more than there are GPUs, which loads while they train."""
    return ["--limit", str(max(1, len(visible_gpus())) + 1)] if pool == "gpu" else []


def version() -> str:
    """A hash of everything that `prefect deploy` reads, to skip a deployment that would change nothing."""
    digest = hashlib.sha256()
    files = [*DEPLOYMENTS.rglob("*.yaml"), *DEPLOYMENTS.rglob("*.json")]
    code = [path for folder in ("flows", "tasks/spec") for path in (PROJECT / folder).glob("*.py")]
    for path in sorted([*files, *code, Path(__file__)]):
        digest.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def create_pools(environment: Mapping[str, str]) -> None:
    """Make or update the work pools and queues. Each worker loads flows from the folder it was started in."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    with connected(environment), get_client(sync_client=True) as client:
        for name in POOLS:
            template = json.loads((DEPLOYMENTS / "pools" / f"{name}.json").read_text())
            limit = None
            with contextlib.suppress(ObjectNotFound):
                limit = client.read_work_pool(name).concurrency_limit
            pool = WorkPoolCreate(
                name=name,
                description=DESCRIPTIONS[name],
                type="process",
                base_job_template=template,
                concurrency_limit=None if limit == OLD_LIMIT else limit,  # a person's, if any
            )
            client.create_work_pool(pool, overwrite=True)
            existing = {queue.name for queue in client.read_work_queues(work_pool_name=name)}
            for queue, queue_limit in QUEUES.get(name, {}).items():
                if queue not in existing:
                    client.create_work_queue(queue, concurrency_limit=queue_limit, work_pool_name=name)


def deploy(environment: Mapping[str, str]) -> None:
    """Run `prefect deploy --all` on `deployments/prefect.yaml`, then put the automations there.

    The demo's deployments read the sample that FABRATING_SAMPLE names; a server without one has them all the same.
    Raises InputError with Prefect's message when that fails.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    command += ["--prefect-file", "deployments/prefect.yaml"]
    environment = {SAMPLE: NO_SAMPLE, **environment}
    result = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        raise InputError(f"The deployments could not be put onto the server: {lines[-1] if lines else 'no message'}")
    from infra.local.automations import ensure_automations

    _end_old_schedule(environment)
    ensure_automations(environment, DEPLOYMENTS / "automations.yaml")


def _end_old_schedule(environment: Mapping[str, str]) -> None:
    from prefect.client.orchestration import get_client

    with connected(environment), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(REAPER)
        for one in deployment.schedules:
            if getattr(one.schedule, "interval", None) == OLD_INTERVAL:
                client.delete_deployment_schedule(deployment.id, one.id)
