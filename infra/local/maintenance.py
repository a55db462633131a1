"""Looks after the runs of a Prefect server: restarts what ended badly, without a flow run where there is nothing to do."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from infra.local.access import connected

log = logging.getLogger(__name__)


def maintain(environment: Mapping[str, str], every: float, attempts: int, delay: float) -> None:
    """Look every `every` seconds, for ever, at the server that `environment` names; while it is away, try again."""
    while True:
        try:
            look(environment, attempts, delay)
        except Exception as error:  # the server, its database or the link is away: it must not end with them
            log.warning("The runs could not be looked after (%s: %s)", type(error).__name__, str(error).split("\n")[0])
        time.sleep(every)


def look(environment: Mapping[str, str], attempts: int, delay: float) -> bool:
    """Run the flow `reaper` if there is a run to restart. Returns whether there was."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.maintenance import ended_badly, reaper

    with connected(environment):
        # The client doubles its wait with each retry: an outage would be followed by a pause as long.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            restarts, _ = ended_badly(client, attempts, timedelta(seconds=delay))
        if restarts:
            reaper(attempts=attempts, delay_seconds=delay)
    return bool(restarts)
