"""Put work pools and deployments onto a Prefect server. Doing it again changes nothing.

PREFECT_API_URL and PREFECT_API_AUTH_STRING of an `environment` say which server, and let us in.

What they are is said by the files of `deployments/`: `prefect.yaml` and one base job template per pool.
"""

import contextlib
import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from infra.local.access import connected
from tasks.engines.turns import visible_gpus
from tasks.errors import InputError
from tasks.records.devices import runs_at_once

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROJECT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = PROJECT / "deployments"
POOLS = ("cpu", "gpu")
"""Work pools. They take any number of runs: an `experiment` waits in the cpu pool for its children, so that a limit could be used up
by runs which all wait; preparation is limited by its queue instead, training by each worker of the gpu pool."""
DESCRIPTIONS = {
    "cpu": "Preparation, experiments and comparisons that wait for their children, hosts: what needs no GPU.",
    "gpu": "Training and scoring. Several hosts may serve it: each takes a run for each of its GPUs, and two that wait.",
}
QUEUES = {"cpu": {"prepare": 1}}
"""Work queues besides `default`, with their concurrency limits: one preparation at a time, as it takes all cores."""

SAMPLE, NO_SAMPLE = "FABRATING_SAMPLE", "file:///sample"
"""Where the sample of a local stack lies, and what a server without one is told: a folder that is not there."""


def worker_options(pool: str) -> list[str]:
    """How many runs the worker of a pool takes here."""
    return ["--limit", str(runs_at_once(len(visible_gpus())))] if pool == "gpu" else []


def version() -> str:
    """A hash of everything that `prefect deploy` reads, to skip a deployment that would change nothing."""
    digest = hashlib.sha256()
    files = [*DEPLOYMENTS.rglob("*.yaml"), *DEPLOYMENTS.rglob("*.json")]
    code = [
        path for folder in ("flows", "tasks") for path in (PROJECT / folder).rglob("*.py")
    ]  # forms are made of both
    for path in sorted([*files, *code, Path(__file__)]):
        digest.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _template() -> dict[str, Any]:
    """How the work pools start a run."""
    return cast("dict[str, Any]", json.loads((DEPLOYMENTS / "pool.json").read_text()))


def wrong_pools(environment: Mapping[str, str]) -> dict[str, str]:
    """Work pools that keep runs from being started as they should be, each with what is wrong with it."""
    from prefect.client.orchestration import get_client

    with connected(environment), get_client(sync_client=True) as client:
        found = {name: wrong_with(client, name) for name in POOLS}
    return {name: what for name, what in found.items() if what}


def wrong_with(client: "SyncPrefectClient", pool: str) -> str:
    """What is wrong with a work pool, in words that follow its name; "" if nothing is."""
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        return "is not on the server"
    if found.is_paused:
        return "is paused"
    return "" if found.base_job_template == _template() else "is another than ours, which was deleted"


def create_pools(environment: Mapping[str, str]) -> None:
    """Make or update the work pools and queues. Each worker loads flows from the folder it was started in."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    with connected(environment), get_client(sync_client=True) as client:
        for name in POOLS:
            limit = None
            with contextlib.suppress(ObjectNotFound):
                limit = client.read_work_pool(name).concurrency_limit
            pool = WorkPoolCreate(
                name=name,
                description=DESCRIPTIONS[name],
                type="process",
                base_job_template=_template(),
                concurrency_limit=limit,  # a person's, if any
            )
            client.create_work_pool(pool, overwrite=True)
            existing = {queue.name for queue in client.read_work_queues(work_pool_name=name)}
            for queue, queue_limit in QUEUES.get(name, {}).items():
                if queue not in existing:
                    client.create_work_queue(queue, concurrency_limit=queue_limit, work_pool_name=name)


def _queue_again(client: "SyncPrefectClient") -> None:
    """Ask anew for our runs that wait in a work pool which was deleted: no worker would ever find them.

    One that another run waits for is deleted; that one then asks for it again.
    """
    from prefect.client.schemas.filters import FlowRunFilterDeploymentId
    from prefect.client.schemas.objects import StateType
    from prefect.states import Scheduled

    from flows.alive import ours

    waiting = ours(StateType.SCHEDULED, deployment_id=FlowRunFilterDeploymentId(is_null_=False))
    for run in client.read_flow_runs(flow_run_filter=waiting, limit=200):
        if run.work_pool_name or run.deployment_id is None:
            continue
        if run.parent_task_run_id is None:
            client.create_flow_run_from_deployment(
                run.deployment_id,
                parameters=run.parameters,
                name=run.name,
                tags=run.tags,
                state=Scheduled(scheduled_time=run.next_scheduled_start_time),
            )
        client.delete_flow_run(run.id)


def load_flows() -> None:
    """Import what the deployments run: the slow part of `deploy`, for whoever waits for a server anyway."""
    for each in _declared({SAMPLE: NO_SAMPLE}):
        _flow(each)


def deploy(environment: Mapping[str, str]) -> None:
    """Put what `deployments/prefect.yaml` says onto the server.

    It is what `prefect deploy --all` does, in one process, and every form is closed: parameters that a flow does not have are
    refused like values beyond a bound; Prefect would store them. The demo's deployments read the sample that FABRATING_SAMPLE names;
    a server without one has them all the same. Raises InputError when the server does not take them.
    """
    import httpx
    from prefect.client.orchestration import get_client

    environment = {SAMPLE: NO_SAMPLE, **environment}
    with connected(environment), get_client(sync_client=True) as client:
        try:
            for each in _declared(environment):
                _put(client, each)
        except httpx.HTTPStatusError as error:
            raise InputError(f"The deployments could not be put onto the server: {error}") from error
        _queue_again(client)


def _declared(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The deployments of the file, with the environment's values for `{{ $NAME }}`."""
    text = (DEPLOYMENTS / "prefect.yaml").read_text()
    filled = re.sub(r"\{\{ \$(\w+) \}\}", lambda found: json.dumps(environment.get(found[1], ""))[1:-1], text)
    return cast("list[dict[str, Any]]", yaml.safe_load(filled)["deployments"])


def _flow(declared: Mapping[str, Any]) -> Any:
    file, _, name = declared["entrypoint"].partition(":")
    return getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)


def _put(client: "SyncPrefectClient", declared: Mapping[str, Any]) -> None:
    """Make or update one deployment. Its flow is loaded from the folder of the worker."""
    from prefect.utilities.callables import parameter_schema

    flow = _flow(declared)
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=declared["name"],
        version=flow.version,
        description=declared["description"],
        tags=declared["tags"],
        entrypoint=declared["entrypoint"],
        work_pool_name=declared["work_pool"]["name"],
        work_queue_name=declared["work_pool"]["work_queue_name"],
        parameters=declared.get("parameters", {}),
        parameter_openapi_schema={
            **parameter_schema(flow).model_dump(exclude_unset=True),
            "additionalProperties": False,
        },
        enforce_parameter_schema=True,
        concurrency_limit=declared.get("concurrency_limit"),
        pull_steps=[],
        job_variables={},
        paused=False,
        schedules=[],
    )
