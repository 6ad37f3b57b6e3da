"""A dedupe store in PostgreSQL, shared by every receiver: one statement per call, whatever the number of keys.

Time is the database's clock, the only one that all receivers share. Each statement takes its row locks in the order
of (scope, id), which is that of Python's sort because the columns are collated "C": two batches can wait for each
other, never deadlock.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from service.errors import DedupeUnavailable
from service.events import ClaimKey, ClaimState

# A row that the upsert does not return is held or done; which, the left join tells from the statement's snapshot. Under
# READ COMMITTED the upsert sees rows that are newer than this snapshot, so the join may lag behind it: a row that was
# inserted or taken over since is missing here or looks expired, one confirmed since still looks leased. All of these
# come out as `in_flight`, which is only "ask again". `done` is never said too early: a done row stays done until its
# retention ends, and where the snapshot shows one, it was.
_CLAIM: Final = """
WITH asked AS (
    SELECT scope, id FROM unnest($1::text[], $2::text[]) AS keys (scope, id)
), claimed AS (
    INSERT INTO dedupe_claims AS claim (scope, id, owner, lease_until)
    SELECT scope, id, $3, clock_timestamp() + $4::interval FROM asked
    ON CONFLICT (scope, id) DO UPDATE
        SET owner = excluded.owner, lease_until = clock_timestamp() + $4::interval, done_at = NULL
        WHERE CASE WHEN claim.done_at IS NULL THEN claim.lease_until <= clock_timestamp()
                   ELSE claim.done_at <= clock_timestamp() - $5::interval END
    RETURNING scope, id
)
SELECT asked.scope, asked.id,
       CASE WHEN claimed.id IS NOT NULL THEN 'new'
            WHEN seen.done_at > now() - $5::interval THEN 'done'
            ELSE 'in_flight' END AS state
FROM asked
LEFT JOIN claimed USING (scope, id)
LEFT JOIN dedupe_claims AS seen ON seen.scope = asked.scope AND seen.id = asked.id
"""

_LOOK: Final = """
SELECT asked.scope, asked.id,
       CASE WHEN seen.id IS NULL THEN 'new'
            WHEN seen.done_at > now() - $3::interval THEN 'done'
            WHEN seen.done_at IS NULL AND seen.lease_until > now() THEN 'in_flight'
            ELSE 'new' END AS state
FROM unnest($1::text[], $2::text[]) AS asked (scope, id)
LEFT JOIN dedupe_claims AS seen ON seen.scope = asked.scope AND seen.id = asked.id
"""

# An upsert: the row may be gone (released, pruned) or another's by now, and the ack is still an ack.
_CONFIRM: Final = """
INSERT INTO dedupe_claims AS claim (scope, id, owner, lease_until, done_at)
SELECT scope, id, '', now(), now() FROM unnest($1::text[], $2::text[]) AS keys (scope, id)
ON CONFLICT (scope, id) DO UPDATE SET done_at = excluded.done_at
"""

# The locks are taken first, in order, and each row is looked at again once it is locked: one that was taken over or
# confirmed since the statement began is no longer among those held.
_RELEASE: Final = """
WITH held AS (
    SELECT claim.scope, claim.id FROM dedupe_claims AS claim
    JOIN unnest($1::text[], $2::text[]) AS keys (scope, id) ON claim.scope = keys.scope AND claim.id = keys.id
    WHERE claim.owner = $3 AND claim.done_at IS NULL
    ORDER BY claim.scope, claim.id
    FOR UPDATE OF claim
)
DELETE FROM dedupe_claims AS claim USING held
WHERE claim.scope = held.scope AND claim.id = held.id
"""

# Rows that somebody is working on are skipped, not waited for: the next run finds them.
_PRUNE: Final = """
WITH expired AS (
    SELECT scope, id FROM dedupe_claims
    WHERE lease_until < now() - $2::interval AND (done_at IS NULL OR done_at < now() - $2::interval)
    ORDER BY lease_until
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM dedupe_claims AS claim USING expired
    WHERE claim.scope = expired.scope AND claim.id = expired.id
    RETURNING 1
)
SELECT count(*) FROM deleted
"""

POOL_SIZE_MAX: Final = 4
"""Claims, confirms and releases each have one round trip under way at a time; one more for pruning."""

CONNECTION_SECONDS_MAX: Final = 2.0
"""For getting a connection, and for giving it back."""


class _Connection(asyncpg.Connection):
    """One that is given back as it is: no statement here leaves anything in the session to be reset."""

    def get_reset_query(self) -> str:
        """None: asked at each return to the pool, it would double the round trips of every call."""
        return ""


class PostgresDedupeStore:
    """Claims in the table `dedupe_claims`. `retention_days` bounds how long an event is remembered."""

    def __init__(self, pool: asyncpg.Pool, *, lease_seconds: float = 30, retention_days: float = 31) -> None:
        self._pool = pool
        self._lease = timedelta(seconds=lease_seconds)
        self._retention = timedelta(days=retention_days)

    @classmethod
    async def connect(cls, url: str, *, lease_seconds: float = 30, retention_days: float = 31) -> Self:
        """Make a store with a pool of its own.

        No connection is made before the first call: a receiver starts while its dedupe store is away. Commits are
        not waited for (`synchronous_commit = off`): what a crashed server forgets of the last moment costs a
        duplicate, never an event, and every delivery is faster by a disk flush.
        """
        pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=POOL_SIZE_MAX,
            connection_class=_Connection,
            server_settings={"application_name": "stripe-ingest dedupe", "synchronous_commit": "off"},
        )
        return cls(pool, lease_seconds=lease_seconds, retention_days=retention_days)

    async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.claim`."""
        async with self._connection() as connection:
            rows = await connection.fetch(_CLAIM, *_columns(keys), owner, self._lease, self._retention)
        return {ClaimKey(row["scope"], row["id"]): ClaimState(row["state"]) for row in rows}

    async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        """See `DedupeStore.look`."""
        async with self._connection() as connection:
            rows = await connection.fetch(_LOOK, *_columns(keys), self._retention)
        return {ClaimKey(row["scope"], row["id"]): ClaimState(row["state"]) for row in rows}

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        """See `DedupeStore.confirm`."""
        async with self._connection() as connection:
            await connection.execute(_CONFIRM, *_columns(keys))

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        """See `DedupeStore.release`."""
        async with self._connection() as connection:
            await connection.execute(_RELEASE, *_columns(keys), owner)

    async def prune(self, limit: int) -> int:
        """Delete at most `limit` rows that have outlived the retention, done or abandoned; say how many."""
        async with self._connection() as connection:
            deleted: int = await connection.fetchval(_PRUNE, limit, self._retention)
        return deleted

    async def close(self) -> None:
        """Give back the connections; whatever is still under way on them is cut off."""
        self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy]:
        # The time-out bounds giving the connection back as well: a statement that was given up is cancelled then, and
        # a server that has fallen silent would be waited for without end.
        try:
            async with self._pool.acquire(timeout=CONNECTION_SECONDS_MAX) as connection:
                try:
                    yield connection
                except asyncpg.PostgresError as error:
                    if _is_no_primary(error.sqlstate):
                        # All of them are to the same server. As new ones are made they go to who is primary then.
                        await self._pool.expire_connections()
                    raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            raise DedupeUnavailable(f"the dedupe store failed: {type(error).__name__}") from error


def _is_no_primary(sqlstate: str | None) -> bool:
    """Whether a server says that it cannot write (25006), or is going or coming (57P): another may be primary."""
    return sqlstate is not None and (sqlstate == "25006" or sqlstate.startswith("57P"))


def _columns(keys: Collection[ClaimKey]) -> tuple[list[str], list[str]]:
    """Split keys into columns, unique (one statement may not touch a row twice) and sorted (unsorted ones deadlock)."""
    ordered = sorted(set(keys))
    return [key.scope for key in ordered], [key.id for key in ordered]
