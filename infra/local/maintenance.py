"""Looks after the runs of a Prefect server, without a flow run where there is nothing to do.

A running one without a process is declared crashed, one that was never started waits for a worker again, what ended badly is
restarted, and what a person cancelled is cancelled down to its last child.
"""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from infra.local.access import connected

if TYPE_CHECKING:
    from flows.alive import Watch

log = logging.getLogger(__name__)


def maintain(
    environment: Mapping[str, str], every: float, attempts: int, delay: float, keep: Callable[[], None] = lambda: None
) -> None:
    """Look every `every` seconds, for ever, at the server that `environment` names; while it is away, try again.

    `keep`: called before each look, to start again what has died.
    """
    from flows.alive import Watch

    watch = Watch()
    while True:
        try:
            keep()
            look(environment, attempts, delay, watch)
        except Exception as error:  # the server, its database or the link is away: it must not end with them
            log.warning("The runs could not be looked after (%s: %s)", type(error).__name__, str(error).split("\n")[0])
        time.sleep(every)


def look(environment: Mapping[str, str], attempts: int, delay: float, watch: "Watch") -> bool:
    """Look once, and run the flow `reaper` if there is a run to restart. Returns whether there was."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.alive import declare_dead
    from flows.maintenance import cancel_left_behind, ended_badly, put_back, reaper

    with connected(environment):
        # The client doubles its wait with each retry: an outage would be followed by a pause as long.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            for run in cancel_left_behind(client):
                log.warning("%s is cancelled, as what waits for it was", run.name)
            for run in declare_dead(client, watch):
                log.warning("%s sends no heartbeat any more: it has crashed", run.name)
            for run in put_back(client, watch):
                log.warning("%s was taken by a worker that never started it: it waits for one again", run.name)
            restarts, _ = ended_badly(client, attempts, timedelta(seconds=delay))
        if restarts:
            reaper(attempts=attempts, delay_seconds=delay)
    return bool(restarts)
