"""Months in a Prefect server's database: `python -m tests.stack.month DATABASE` prints what its clearing leaves, as JSON.

The server's settings (how long things are kept) come from the environment, as the server's do.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

RUNS_A_DAY, LOGS_A_RUN = 4, 10


async def fill(db: Any, days: range) -> None:
    """Rows as runs leave them, on each of the days before now: the run, its logs, an event with its resource."""
    import sqlalchemy as sa

    async with db.session_context(begin_transaction=True) as session:
        flow = (await session.execute(sa.select(db.Flow.id).limit(1))).scalar_one()
        for day in days:
            then = datetime.now(UTC) - timedelta(days=day + 0.5)
            for _ in range(RUNS_A_DAY):
                run, event = uuid4(), uuid4()
                session.add(
                    db.FlowRun(
                        id=run, flow_id=flow, name="old", state_type="COMPLETED", state_name="Completed", end_time=then
                    )
                )
                for _ in range(LOGS_A_RUN):
                    session.add(db.Log(flow_run_id=run, name="old", level=20, message="step " * 30, timestamp=then))
                resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
                session.add(
                    db.Event(
                        id=event,
                        occurred=then,
                        received=then,
                        recorded=then,
                        event="prefect.flow-run.Completed",
                        resource_id=resource["prefect.resource.id"],
                        resource=resource,
                        related_resource_ids=[],
                        related=[],
                        payload={},
                    )
                )
                session.add(
                    db.EventResource(
                        occurred=then,
                        resource_id=resource["prefect.resource.id"],
                        resource_role="",
                        resource=resource,
                        event_id=event,
                    )
                )


async def clear() -> None:
    """What the server's clearing service does every hour."""
    from prefect.server.database import provide_database_interface
    from prefect.server.services import db_vacuum

    db = provide_database_interface()
    for part in (
        db_vacuum.vacuum_old_flow_runs,
        db_vacuum.vacuum_events_with_retention_overrides,
        db_vacuum.vacuum_old_events,
    ):
        await part(db=db)


async def ages(db: Any) -> dict[str, list[float]]:
    """For each table its number of rows of `fill`, and the age of the oldest in days."""
    import sqlalchemy as sa

    found = {}
    async with db.session_context() as session:
        for model, column, mine in (
            (db.FlowRun, db.FlowRun.end_time, db.FlowRun.name == "old"),
            (db.Log, db.Log.timestamp, db.Log.name == "old"),
            (db.Event, db.Event.occurred, sa.true()),
            (db.EventResource, db.EventResource.occurred, sa.true()),
        ):
            rows, oldest = (await session.execute(sa.select(sa.func.count(), sa.func.min(column)).where(mine))).one()
            found[model.__tablename__] = [rows, (datetime.now(UTC) - oldest) / timedelta(days=1)]
    return found


async def main(database: Path) -> dict[str, Any]:
    from prefect.server.database import provide_database_interface

    db = provide_database_interface()
    await fill(db, range(60))
    sizes = []
    for _ in range(3):  # each time another month is over: what was written lies behind the time that is kept
        await clear()
        sizes.append(database.stat().st_size)
        await fill(db, range(30, 60))
    await clear()
    return {"ages": await ages(db), "sizes": [*sizes, database.stat().st_size]}


if __name__ == "__main__":
    file = Path(sys.argv[1])
    os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{file}"
    print(json.dumps(asyncio.run(main(file))))
