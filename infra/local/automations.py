"""Put the automations of `deployments/automations.yaml` onto the Prefect server: made or updated by name, never twice."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore

from infra.local.access import connected


def ensure_automations(environment: Mapping[str, str], file: Path) -> None:
    """Make the server that `environment` names have the automations of `file`; doing it again changes nothing.

    (`prefect automation create -f` would make a second one with the same name.)
    """
    wanted = yaml.safe_load(file.read_text())["automations"]
    with connected(environment):
        asyncio.run(_upsert([AutomationCore.model_validate(one) for one in wanted]))


async def _upsert(wanted: list[AutomationCore]) -> None:
    async with get_client() as client:
        for automation in wanted:
            existing = await client.read_automations_by_name(automation.name)
            if existing:
                await client.update_automation(existing[0].id, automation)
            else:
                await client.create_automation(automation)
            for double in existing[1:]:
                await client.delete_automation(double.id)
