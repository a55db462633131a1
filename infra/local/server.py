"""`python -m infra.local.server start ...`: `prefect server start ...`, whose transactions on SQLite wait for their turn to write.

Prefect begins most of them DEFERRED: they read, and take the lock for writing when they first write. Where another one has written in
between, SQLite refuses them at once, whatever its timeout (https://www.sqlite.org/lang_transaction.html). The server then answers 503, and
Prefect's client waits 2 s, 4 s and so on before it asks again. Begun IMMEDIATE, they queue for the lock, mostly for milliseconds.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar
from weakref import WeakKeyDictionary

from prefect.cli import app
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import MODELS_DEPENDENCIES
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class QueueingSqlite(AioSqliteConfiguration):
    """Prefect's SQLite, whose transactions take turns, each begun as Prefect begins those that lock a row.

    They wait here for the one before, in order and without a connection: SQLite looks for its lock now and then, so that some would wait
    long there, and who reads would wait for a connection. What Prefect begins within a transaction is no other's turn: it reads.
    """

    turns: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        if SQLITE_BEGIN_MODE.get() is not None:
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
            return
        turn = self.turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn, super().begin_transaction(session, with_for_update=True) as transaction:
            await session.connection()  # begins here, IMMEDIATE; sessions within begin as Prefect's do
            mode = SQLITE_BEGIN_MODE.set("DEFERRED")
            try:
                yield transaction
            finally:
                SQLITE_BEGIN_MODE.reset(mode)


def let_writers_queue() -> None:
    """Make the server of this process use `QueueingSqlite`, if its database is SQLite."""
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(url).name == "sqlite":
        MODELS_DEPENDENCIES["database_config"] = QueueingSqlite(connection_url=url)


if __name__ == "__main__":
    let_writers_queue()
    sys.argv[1:1] = ["server"]
    app()
