"""Jobs in the table `recovery_jobs`: a row each, with its lease and how far it is."""

from datetime import timedelta
from typing import Final

from service.adapters.postgres_connecting import OccasionalConnection
from service.errors import JobHeld

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


class PostgresJobStore(OccasionalConnection):
    """`ports.JobStore` on Postgres."""

    async def begin(self, job: str, *, owner: str, lease_seconds: float) -> bytes | None:
        """See `JobStore.begin`."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_BEGIN, job, owner, timedelta(seconds=lease_seconds))
        if row is None:
            raise JobHeld(
                f"another process is doing {job}; one that was killed keeps it for {lease_seconds:g} s at most"
            )
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
