"""A stack that was off for hours: nothing catches up, and it is up again within a minute."""

import os
import sqlite3
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client

from infra.local import lifecycle, processes
from infra.local.access import connected

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def age(database: Path, hours: int) -> None:
    """Move every moment that the server's tables know back by so many hours."""
    with sqlite3.connect(database) as server:
        names = [row[0] for row in server.execute("select name from sqlite_master where type = 'table'")]
        for table in names:
            columns = [row[1] for row in server.execute(f'pragma table_info("{table}")') if row[2] == "DATETIME"]
            if columns and not table.startswith("alembic"):
                moved = ", ".join(
                    f"\"{name}\" = strftime('%Y-%m-%d %H:%M:%f', \"{name}\", '-{hours} hours')" for name in columns
                )
                server.execute(f'update "{table}" set {moved}')


def test_a_stack_that_was_off_for_three_hours_is_up_within_a_minute(tmp_path: Path) -> None:
    said: list[str] = []
    home, load = tmp_path / "home", os.getloadavg()[0]
    stack = lifecycle.up(home, said.append, port=0)
    try:
        lifecycle.down(home, said.append)
        before = (home / "logs" / "server.log").stat().st_size
        age(home / "prefect" / "prefect.db", 3)
        said.clear()
        began = time.monotonic()
        stack = lifecycle.up(home, said.append)
        took = time.monotonic() - began
        time.sleep(20)  # a worker looks every two seconds
        with connected(stack.environment), get_client(sync_client=True) as client:
            assert client.read_flow_runs(limit=200) == []
        found = {" ".join(process.cmdline()[:6]) for process in processes.members(stack.mark) if process.is_running()}
        assert not [command for command in found if "prefect.engine" in command or "flow_run" in command]
        assert lifecycle.running(stack)
        log = (home / "logs" / "server.log").read_bytes()[before:]
        print(f"up in {took:.0f} s at a load of {load:.1f}, database is locked: {log.count(b'database is locked')}")
        assert took < 60 or max(load, os.getloadavg()[0]) > psutil.cpu_count()
    finally:
        lifecycle.down(home, said.append)
