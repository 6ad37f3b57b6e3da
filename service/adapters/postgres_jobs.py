"""Jobs in the table `recovery_jobs`: a row each, with its lease and how far it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Self

import asyncpg

from service.adapters.postgres_errors import translated
from service.errors import JobHeld, RowRefused

CALL_SECONDS_MAX: Final = 10.0

# The server's own clock decides, for all processes alike.
_BEGIN: Final = """
INSERT INTO recovery_jobs AS job (name, owner, lease_until)
VALUES ($1, $2, clock_timestamp() + $3::interval)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until
    WHERE job.owner = excluded.owner OR job.lease_until <= clock_timestamp()
RETURNING progress
"""

# Without asking for the lease's end: one that ran out and that nobody has taken over is still its owner's.
_SAVE: Final = """
UPDATE recovery_jobs
SET progress = $3, lease_until = clock_timestamp() + $4::interval, updated_at = now()
WHERE name = $1 AND owner = $2
RETURNING name
"""

_END: Final = "UPDATE recovery_jobs SET lease_until = clock_timestamp() WHERE name = $1 AND owner = $2"


class PostgresJobStore:
    """`ports.JobStore` on Postgres."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """A store with a connection of its own, made on first use."""
        pool = await asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=1,
            timeout=CALL_SECONDS_MAX,
            command_timeout=CALL_SECONDS_MAX,
            server_settings={"application_name": "stripe-ingest jobs"},
        )
        return cls(pool)

    async def begin(self, job: str, *, owner: str, lease_seconds: float) -> bytes | None:
        """See `JobStore.begin`."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_BEGIN, job, owner, timedelta(seconds=lease_seconds))
        if row is None:
            raise JobHeld(f"another process is doing {job}")
        return None if row["progress"] is None else bytes(row["progress"])

    async def save(self, job: str, progress: bytes, *, owner: str, lease_seconds: float) -> None:
        """See `JobStore.save`."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_SAVE, job, owner, progress, timedelta(seconds=lease_seconds))
        if row is None:
            raise JobHeld(f"another process is doing {job}")

    async def end(self, job: str, *, owner: str) -> None:
        """See `JobStore.end`."""
        async with self._connection() as connection:
            await connection.execute(_END, job, owner)

    async def close(self) -> None:
        """Give back the connection, by force where it is in use."""
        self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            with translated():
                async with self._pool.acquire(timeout=CALL_SECONDS_MAX) as connection:
                    yield connection
        except RowRefused as refused:  # nothing of a job comes from outside
            raise AssertionError(str(refused)) from refused
