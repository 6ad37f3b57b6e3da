"""Which objects' states are undecided, of all projections."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Self

import asyncpg

from service.adapters.postgres_errors import translated
from service.adapters.postgres_statements import TABLES

CALL_SECONDS_MAX: Final = 15.0

# Each table has a partial index on what it is asked for: hardly any object is ever undecided.
# Of the catalog the states' keys are not always Stripe's ids: a product and a plan may both be called `gold`.
_OF_ONE: Final = """
SELECT object_type,
       CASE object_type WHEN 'product' THEN data ->> 'product_id'
                        WHEN 'price' THEN data ->> 'price_id'
                        WHEN 'plan' THEN data ->> 'price_id'
                        ELSE object_id END AS object_id,
       last_event_at
FROM {objects}
WHERE undecided > 0 AND account = $1 AND livemode = $2 AND last_event_at < $3
"""
_OF_ALL: Final = """
SELECT object_type, object_id, min(last_event_at) AS since FROM ({each}) AS found
GROUP BY object_type, object_id ORDER BY since, object_type, object_id LIMIT $4
"""
_UNDECIDED: Final = _OF_ALL.format(
    each=" UNION ALL ".join(_OF_ONE.format(objects=tables.objects) for tables in TABLES.values())
)


class PostgresUndecidedObjects:
    """`ports.UndecidedObjects` on the projections' database."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """With a connection of its own, made on first use."""
        pool = await asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=1,
            timeout=CALL_SECONDS_MAX,
            command_timeout=CALL_SECONDS_MAX,
            server_settings={"application_name": "stripe-ingest ties"},
        )
        return cls(pool)

    async def undecided(
        self, *, account: str, livemode: bool, before: datetime, limit: int
    ) -> Sequence[tuple[str, str]]:
        """See `UndecidedObjects.undecided`."""
        with translated():
            async with self._pool.acquire(timeout=CALL_SECONDS_MAX) as connection:
                rows = await connection.fetch(_UNDECIDED, account, livemode, before, limit)
        return [(row["object_type"], row["object_id"]) for row in rows]

    async def close(self) -> None:
        """Give back the connection, by force where it is in use."""
        self._pool.terminate()
