"""Transactions of the stack's server that read before they write."""

import asyncio
from pathlib import Path

import pytest
from prefect.server.database.dependencies import MODELS_DEPENDENCIES, provide_database_interface
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
from sqlalchemy import text

from infra.local.server import let_writers_queue


@pytest.fixture(autouse=True)
def no_database_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODELS_DEPENDENCIES:
        monkeypatch.setitem(MODELS_DEPENDENCIES, name, None)


def test_one_that_reads_before_it_writes_is_not_refused_when_another_writes_in_between(
    tmp_path: Path,
) -> None:
    async def add(amount: int, read: asyncio.Event, other: asyncio.Event) -> None:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            found = (await session.execute(text("SELECT value FROM sums"))).scalar_one()
            read.set()
            await asyncio.wait([asyncio.create_task(other.wait())], timeout=0.5)
            await session.execute(text("UPDATE sums SET value = :value"), {"value": found + amount})

    async def total() -> int:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            await session.execute(text("CREATE TABLE sums (value INTEGER)"))
            await session.execute(text("INSERT INTO sums VALUES (0)"))
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(add(1, first, second), add(2, second, first))
        async with provide_database_interface().session_context() as session:
            value: int = (await session.execute(text("SELECT value FROM sums"))).scalar_one()
        return value

    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{tmp_path}/server.db"}):
        let_writers_queue()
        assert asyncio.run(total()) == 3


@pytest.mark.parametrize("begin_transaction", [False, True])
def test_a_session_within_a_transaction_reads_at_once(tmp_path: Path, begin_transaction: bool) -> None:
    """Prefect does so when a work queue is paused."""

    async def read() -> int:
        async with provide_database_interface().session_context(begin_transaction=begin_transaction) as session:
            value: int = (await session.execute(text("SELECT count(*) FROM sqlite_master"))).scalar_one()
        return value

    async def read_within_a_transaction() -> int:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            await session.execute(text("CREATE TABLE sums (value INTEGER)"))
            value = await asyncio.wait_for(read(), 5)
        assert await read() == 1
        return value

    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{tmp_path}/server.db"}):
        let_writers_queue()
        assert asyncio.run(read_within_a_transaction()) == 0


def test_who_reads_gets_a_connection_while_many_wait_to_write(tmp_path: Path) -> None:
    """SQLAlchemy's pool has 15."""

    async def write(until: asyncio.Event) -> None:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            await session.execute(text("CREATE TABLE IF NOT EXISTS sums (value INTEGER)"))
            await until.wait()

    async def read_while_many_wait() -> None:
        until = asyncio.Event()
        writers = [asyncio.create_task(write(until)) for _ in range(20)]
        await asyncio.sleep(0.3)
        async with provide_database_interface().session_context() as session:
            await asyncio.wait_for(session.execute(text("SELECT 1")), 2)
        until.set()
        await asyncio.gather(*writers)

    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{tmp_path}/server.db"}):
        let_writers_queue()
        asyncio.run(read_while_many_wait())
