"""A connection for what asks little, and seldom: jobs, and what they look for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from service.adapters.postgres_errors import translated

CALL_SECONDS_MAX: Final = 15.0


class OccasionalConnection:
    """One connection, made on first use and kept. What fails on it comes out as `StoreUnavailable` or `RowRefused`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """Nothing is dialled yet: the database may be away now."""
        pool = await asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=1,
            timeout=CALL_SECONDS_MAX,
            command_timeout=CALL_SECONDS_MAX,
            server_settings={"application_name": "stripe-ingest jobs"},
        )
        return cls(pool)

    @asynccontextmanager
    async def _connection(self) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        with translated():
            async with self._pool.acquire(timeout=CALL_SECONDS_MAX) as connection:
                yield connection

    async def close(self) -> None:
        """Give back the connection, by force where it is in use."""
        self._pool.terminate()
