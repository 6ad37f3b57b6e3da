"""Which objects' states are undecided, of all projections."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from service.adapters.postgres_connecting import OccasionalConnection
from service.adapters.postgres_statements import TABLES

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


class PostgresUndecidedObjects(OccasionalConnection):
    """`ports.UndecidedObjects` on the projections' database."""

    async def undecided(
        self, *, account: str, livemode: bool, before: datetime, limit: int
    ) -> Sequence[tuple[str, str]]:
        """See `UndecidedObjects.undecided`."""
        async with self._connection() as connection:
            rows = await connection.fetch(_UNDECIDED, account, livemode, before, limit)
        return [(row["object_type"], row["object_id"]) for row in rows]
