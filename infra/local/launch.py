"""An experiment's file as a run of the deployment `compare/file`, on whichever server this shell or its stack names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.local import access, stack
from tasks.engines.turns import visible_gpus
from tasks.errors import InputError
from tasks.spec.pool import SOURCE
from tasks.store.root import DEFAULT_ROOT

DEPLOYMENT = "compare/file"
PLACES = ("source", "sources", "holdout", "url", "ids", "root")
"""Fields of the form, at any depth, that name a place."""


def launch_comparison(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Start it and return at once. `parameters`: every field of the form; workers stand elsewhere, so paths go as whole ones. Raises InputError when there is no server or deployment."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    local = stack.load(stack.default_home())
    environment = stack.server_environment(local)
    if not environment:
        raise InputError(
            "There is no Prefect server: start one with `fabrating up`, or set PREFECT_API_URL to another's."
        )
    api = environment[access.URL]
    if local is not None and local.gpu and api.rstrip("/") == local.api and not visible_gpus():
        parameters = on_the_cpu(parameters)
    try:
        with access.connected({**os.environ, **environment}), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters=whole(parameters), name=parameters["name"]
            )
    except ObjectNotFound as error:
        raise InputError(f"{api} has no deployment {DEPLOYMENT}: run `fabrating deploy` first.") from error
    except httpx.HTTPError as error:
        raise InputError(
            f"The Prefect server at {api} cannot be used ({error}): start it, or name another in {access.URL}."
        ) from error
    pages = environment.get(access.PAGES) or api.removesuffix("/").removesuffix("/api")
    return {"run": run.name, "ui": f"{pages}/runs/flow-run/{run.id}"}


def on_the_cpu(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, trained on a CPU if that is what fp32 and `auto` come to on a machine without a GPU: then its estimate is of a CPU, not of an H100."""
    train = parameters["train"]
    if (train["engine"], train["precision"], train["device"]) != ("builtin", "fp32", "auto"):
        return parameters
    return {**parameters, "train": train | {"device": "cpu"}}


def whole(value: Any, place: bool = False) -> Any:
    """The same with whole paths instead of those from here; the default root stays the stack's, the default source the worker's."""
    if isinstance(value, Mapping):
        return {name: whole(each, place or name in PLACES) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [whole(each, place) for each in value]
    if not place or not isinstance(value, str) or "://" in value or value in (DEFAULT_ROOT, SOURCE):
        return value
    return str(Path(value).expanduser().absolute())
