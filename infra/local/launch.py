"""An experiment's file as a run of the deployment `compare/file`, on whichever server this shell or its stack names."""

import os
from collections.abc import Mapping
from typing import Any

from infra.local import access, stack
from tasks.errors import InputError

DEPLOYMENT = "compare/file"


def launch_comparison(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Start it and return at once. `parameters`: every field of the form. Raises InputError when there is no server or deployment."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    environment = stack.server_environment(stack.load(stack.default_home()))
    if not environment:
        raise InputError(
            "There is no Prefect server: start one with `fabrating up`, or set PREFECT_API_URL to another's."
        )
    api = environment[access.URL]
    try:
        with access.connected({**os.environ, **environment}), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters=dict(parameters), name=parameters["name"]
            )
    except ObjectNotFound as error:
        raise InputError(f"{api} has no deployment {DEPLOYMENT}: run `fabrating deploy` first.") from error
    except httpx.HTTPError as error:
        raise InputError(
            f"The Prefect server at {api} cannot be used ({error}): start it, or name another in {access.URL}."
        ) from error
    pages = environment.get(access.PAGES) or api.removesuffix("/").removesuffix("/api")
    return {"run": run.name, "ui": f"{pages}/runs/flow-run/{run.id}"}
