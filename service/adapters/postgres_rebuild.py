"""A projection's tables compared with its ledger, and corrected: a page of keys in each transaction, on one session.

Consumers go on meanwhile. A run that corrects takes the locks that `postgres_store` describes, in the same order, and
decides by what it reads under them; a dry run reads each page in one snapshot, and locks nothing. Its differences are
those that a run without it corrects, but for a row that is found twice, of which the second finding may be worded
otherwise. What a page does: `postgres_rebuild_objects`, then `postgres_rebuild_rows`; what both read:
`postgres_rebuild_ledger`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Self

import asyncpg

from service.adapters.postgres_connecting import configured
from service.adapters.postgres_errors import translated
from service.adapters.postgres_rebuild_objects import ObjectsWalk
from service.adapters.postgres_rebuild_rows import RowsWalk
from service.adapters.postgres_rebuild_statements import ESTIMATE, count
from service.adapters.postgres_tables import LOCK_ATTEMPTS, LocksGrew, session_settings
from service.errors import LedgerUnreadable, RowRefused, StoreUnavailable
from service.events import ConsumedEvent
from service.ports import RebuildPage
from service.projections.model import ObjectKey, Projection

PAGE_KEYS: Final = 200
PAGE_ENTRIES: Final = 5_000
"""A page ends before its ledgers come to more entries than this, but for a single object that has more."""

COUNTED_MAX: Final = 1_000_000
"""No more rows are counted for a progress bar; where there are more, the planner's estimate is good enough."""

_SERIALIZATION_FAILURE: Final = "40001"

_BEFORE_ALL: Final = ObjectKey("", False, "")


class PostgresRebuild(ObjectsWalk, RowsWalk):
    """`ports.RebuildStore` on Postgres. Made by `open`; one call at a time."""

    def __init__(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        projection: Projection,
        *,
        consumer_group: str,
        dry_run: bool,
        page_keys: int = PAGE_KEYS,
        page_entries: int = PAGE_ENTRIES,
        transaction_seconds: float = 120.0,
    ) -> None:
        super().__init__(
            connection,
            projection,
            consumer_group=consumer_group,
            dry_run=dry_run,
            page_keys=page_keys,
            page_entries=page_entries,
        )
        self._transaction_seconds = transaction_seconds

    @classmethod
    async def open(
        cls,
        database_url: str,
        projection: Projection,
        *,
        consumer_group: str,
        dry_run: bool,
        page_keys: int = PAGE_KEYS,
        page_entries: int = PAGE_ENTRIES,
        connect_seconds: float = 5.0,
        statement_seconds: float = 60.0,
        lock_seconds: float = 5.0,
    ) -> Self:
        """A rebuild on a session of its own, which may make temporary tables.

        Raises `StoreUnavailable`, and `ConfigurationError` where the database is not one that this can work on.
        """
        settings = session_settings(
            f"stripe-ingest rebuild {projection.name}", statement_seconds=statement_seconds, lock_seconds=lock_seconds
        )
        with configured(), translated():
            connection = await asyncpg.connect(
                database_url,
                timeout=connect_seconds,
                command_timeout=statement_seconds + 5,
                # The next keys are to be read off an index, in its order, not gathered from all that there are.
                server_settings={**settings, "TimeZone": "UTC", "enable_hashagg": "off", "enable_bitmapscan": "off"},
            )
            rebuild = cls(
                connection,
                projection,
                consumer_group=consumer_group,
                dry_run=dry_run,
                page_keys=page_keys,
                page_entries=page_entries,
            )
            try:
                await connection.execute(rebuild._more.begin)
            except BaseException:
                await rebuild.close()
                raise
        return rebuild

    async def totals(self) -> Mapping[str, int]:
        """See `RebuildStore.totals`."""
        with configured(), translated():
            rows = [await self._count(table) for table in self._tables.rows if table not in self._tables.owners]
            return {"objects": await self._count(self._tables.objects), "rows": sum(rows)}

    async def stage(self, events: Sequence[ConsumedEvent]) -> int:
        """See `RebuildStore.stage`."""
        with configured(), translated():
            async with self._transaction(writing=True):
                return await self._stage(events)

    async def objects(self, after: ObjectKey | None) -> RebuildPage:
        """See `RebuildStore.objects`."""
        return await self._page(lambda start, _: self._objects_page(start), after)

    async def rows(self, after: ObjectKey | None) -> RebuildPage:
        """See `RebuildStore.rows`."""
        return await self._page(self._rows_page, after)

    async def close(self) -> None:
        """Give back the connection, by force after five seconds."""
        try:
            await asyncio.wait_for(self._connection.close(), 5)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._connection.terminate()

    async def _page(
        self,
        look: Callable[[ObjectKey, frozenset[ObjectKey]], Awaitable[RebuildPage]],
        after: ObjectKey | None,
    ) -> RebuildPage:
        """One page in one transaction; begun anew with more locks where these are not enough."""
        start = after or _BEFORE_ALL
        wanted: frozenset[ObjectKey] = frozenset()
        try:
            with configured(), translated():
                for _ in range(LOCK_ATTEMPTS):
                    try:
                        async with self._transaction(writing=not self._dry_run):
                            return await look(start, wanted)
                    except LocksGrew as grew:
                        wanted |= grew.needed
        except RowRefused as refused:
            # No record is to blame, and no consumer could write it either: the events of some object together are.
            raise LedgerUnreadable(
                f"{self._tables.ledger}: Postgres refuses what the ledger comes to (SQLSTATE {refused.sqlstate}) for "
                f"one of the objects from {start.object_id or 'the first one'} on"
            ) from None
        raise StoreUnavailable("others kept adding links to the ids of a page", _SERIALIZATION_FAILURE)

    @asynccontextmanager
    async def _transaction(self, *, writing: bool) -> AsyncIterator[None]:
        async with (
            asyncio.timeout(self._transaction_seconds),
            self._connection.transaction(
                isolation="read_committed" if writing else "repeatable_read", readonly=not writing
            ),
        ):
            yield

    async def _count(self, table: str) -> int:
        estimate = int(await self._connection.fetchval(ESTIMATE, table))
        if estimate > COUNTED_MAX:
            return estimate
        return int(await self._connection.fetchval(count(table, COUNTED_MAX)))
