"""What the database tells the operator's page: read only, in short transactions, on two connections at most."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Any, Final, TypeVar

import asyncpg
import msgspec

from service.adapters import postgres_page_statements as sql
from service.adapters.postgres_connecting import configured
from service.adapters.postgres_errors import translated
from service.adapters.postgres_statements import TABLES
from service.adapters.postgres_tables import Connection, session_settings
from service.events import Arrival, Partition
from service.ports import EventEffect, FoundObject, LedgerLine, LoggedArrival, NamedRow, StoredOffset
from service.projections.model import ObjectKey

_T = TypeVar("_T")

CONNECTIONS_MAX: Final = 2
CONNECT_SECONDS: Final = 3.0
STATEMENT_SECONDS: Final = 3.0
CALL_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 60.0
"""After which a connection that nobody uses is closed: most of the time nobody looks at the page."""
LINES_CHARACTERS_MAX: Final = 4 * 1024 * 1024
"""Of an object's ledger, the newest so much: a charge with all its refunds comes to 100 kB a line, and two hundred of
them would keep deliveries waiting for a second."""
ARRIVALS_MAX: Final = 50
"""Of an object that has no ledger."""

_PROJECTION_OF: Final[Mapping[str, str]] = {table: name for name, its in TABLES.items() for table in its.rows}
_RELATED: Final[Mapping[str, str]] = {
    # The ids are the payment's, its charge's and its invoice's: each names rows in its own column.
    "payments": sql.related("refunds.payment_intent_id", "refunds.charge_id", "invoices.invoice_id"),
    "refunds": sql.related("payments.payment_id"),
    "subscriptions": sql.related("subscription_items.subscription_id", "invoices.subscription_id"),
    "subscription_items": sql.related("subscriptions.subscription_id", "prices.price_id"),
    "invoices": sql.related("payments.payment_id", "subscriptions.subscription_id"),
    "products": sql.related("prices.product_id"),
    "prices": sql.related("products.product_id", "subscription_items.price_id"),
}
"""A row's table → the rows that are told beside it."""
_REFERENCES: Final[Mapping[str, Sequence[str]]] = {
    "payments": ("payment_id", "charge_id", "invoice_id"),
    "refunds": (),
    "subscriptions": ("subscription_id",),
    "subscription_items": ("subscription_id", "price_id"),
    "invoices": ("subscription_id",),
    "products": ("product_id",),
    "prices": ("price_id", "product_id"),
}
"""The columns of a row whose ids its related rows are looked for by."""


class PostgresOperatorReader:
    """`ports.OperatorReader` on the projections' database. Nothing is dialled before somebody asks."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def arrivals(
        self, *, of: str | None = None, before: int | None = None, limit: int
    ) -> Sequence[LoggedArrival]:
        """See `OperatorReader.arrivals`."""
        async with self._reading() as connection:
            return await _arrivals(connection, of, before, limit)

    async def arrivals_of_event(self, event_id: str, *, limit: int) -> Sequence[LoggedArrival]:
        """See `OperatorReader.arrivals_of_event`."""
        async with self._reading() as connection:
            return [_arrival(row) for row in await connection.fetch(sql.OF_EVENT, event_id, limit)]

    async def effects(self, event_id: str, *, limit: int) -> Sequence[EventEffect]:
        """See `OperatorReader.effects`."""
        async with self._reading() as connection:
            return [
                EventEffect(
                    name,
                    _line(row, tables.root_prefixes),
                    [NamedRow(*each) for each in _json(row["named"]) or ()],
                )
                for name, tables in TABLES.items()
                for row in await connection.fetch(sql.EFFECTS[name], event_id, limit)
            ]

    async def whose(self, object_id: str, *, limit: int) -> Sequence[tuple[str, bool]]:
        """See `OperatorReader.whose`."""
        async with self._reading() as connection:
            return [(row["account"], row["livemode"]) for row in await connection.fetch(sql.WHOSE, object_id, limit)]

    async def found(self, key: ObjectKey, *, limit: int) -> FoundObject | None:
        """See `OperatorReader.found`."""
        async with self._reading() as connection:
            return await _Looking(connection, key, limit).found()

    async def offsets(self, groups: Collection[str]) -> Mapping[tuple[str, Partition], StoredOffset]:
        """See `OperatorReader.offsets`."""
        async with self._reading() as connection:
            rows = await connection.fetch(sql.OFFSETS, list(groups))
        return {
            (row["consumer_group"], Partition(row["topic"], row["partition"])): StoredOffset(
                row["next_offset"], row["updated_at"]
            )
            for row in rows
        }

    async def close(self) -> None:
        """Give back the connections, by force where they are in use: nothing is lost by it."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def _reading(self) -> "AsyncIterator[Connection]":
        """A connection that sees one moment, and cannot change anything."""
        with configured(), translated():
            # The server's own timeout does not help where no packet comes through any more.
            async with (
                asyncio.timeout(CALL_SECONDS),
                (await self._opened()).acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield connection

    async def _opened(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=CONNECTIONS_MAX,
                    timeout=CONNECT_SECONDS,
                    command_timeout=STATEMENT_SECONDS + 1,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                    server_settings={
                        **session_settings("stripe-ingest page", statement_seconds=STATEMENT_SECONDS, lock_seconds=1.0),
                        "default_transaction_read_only": "on",
                        "timezone": "UTC",
                    },
                )
            return self._pool


async def _arrivals(connection: Connection, of: str | None, before: int | None, limit: int) -> Sequence[LoggedArrival]:
    if of is None:
        rows = await connection.fetch(sql.NEWEST, before, limit)
    else:
        rows = await connection.fetch(sql.OF_ID, of, before, limit)
    return [_arrival(row) for row in rows]


class _Looking:
    """What is known of one object, in one transaction."""

    def __init__(self, connection: Connection, key: ObjectKey, limit: int) -> None:
        self._connection = connection
        self._key = key
        self._limit = limit
        self._cut = False

    async def found(self) -> FoundObject | None:
        own = await self._connection.fetch(sql.OWN_ROWS, *self._key)
        linked = await self._connection.fetch(sql.ROOTS, *self._key)
        roots = [row["payment_id"] for row in self._bounded(linked, sql.ROOTS_MAX)]
        if own:
            return await self._with_row(own, roots)
        if len(roots) == 1:
            # A charge, a dispute, a session: what people ask for is the payment that it belongs to.
            payment = await self._connection.fetch(sql.OWN_ROWS, self._key.account, self._key.livemode, roots[0])
            return await self._payment(payment, roots[0])
        return await self._without_row(roots)

    async def _with_row(self, own: Sequence[asyncpg.Record], roots: Sequence[str]) -> FoundObject:
        table = own[0]["name"]
        if table == "payments":
            return await self._payment(own, self._key.object_id)
        row = _json(own[0]["row"])
        ids = [row[column] for column in _REFERENCES[table] if row.get(column) is not None]
        rows = [*map(_named, own), *await self._rows(_RELATED[table], [*ids, *roots])]
        return await self._made(sql.ROW_TABLES[table].kind, row, rows, _PROJECTION_OF[table], [self._key.object_id])

    async def _payment(self, own: Sequence[asyncpg.Record], root: str) -> FoundObject:
        row = _json(own[0]["row"]) if own else None
        ids = [root] if row is None else [row[name] for name in _REFERENCES["payments"] if row.get(name) is not None]
        refs = await self._connection.fetch(sql.REFS, self._key.account, self._key.livemode, root)
        objects = self._bounded([each["ref_id"] for each in refs], sql.REFS_MAX)
        rows = [*map(_named, own), *await self._rows(_RELATED["payments"], ids)]
        return await self._made("payment", row, rows, "payments", sorted({root, self._key.object_id, *objects}))

    async def _without_row(self, roots: Sequence[str]) -> FoundObject | None:
        """Of what has no row of its own: a customer, what belongs to several payments, what no table is of."""
        key = self._key
        anchor = await self._connection.fetchrow(sql.ANCHOR, *key)
        if anchor is not None or roots:
            rows = await self._rows(sql.related("payments.payment_id"), roots)
            kind, projection = (anchor["object_type"], anchor["projection"]) if anchor else ("payment", "payments")
            return await self._made(kind, None, rows, projection, [key.object_id])
        rows = await self._rows(sql.OF_CUSTOMER, [key.object_id])
        logged = await _arrivals(self._connection, key.object_id, None, sql.SORTED_MAX)
        arrivals = [
            each for each in logged if (each.arrival.account, each.arrival.livemode) == (key.account, key.livemode)
        ]
        if not rows and not arrivals:
            return None
        is_customer = bool(rows) or any(each.arrival.customer_id == key.object_id for each in arrivals)
        types = [each.arrival.object_type for each in arrivals if each.arrival.object_id == key.object_id]
        kind = "customer" if is_customer else next(filter(None, types), "unknown")
        return FoundObject(kind, None, rows, (), self._bounded(arrivals, ARRIVALS_MAX), self._cut)

    async def _made(
        self,
        kind: str,
        row: Mapping[str, Any] | None,
        rows: Sequence[NamedRow],
        projection: str,
        objects: Sequence[str],
    ) -> FoundObject:
        # What a product and a plan may both be called stands in the ledger with its kind before it.
        prefixes = TABLES[projection].root_prefixes
        names = [prefix + each for prefix in ("", *prefixes) for each in objects]
        found = await self._connection.fetch(
            sql.LINES[projection], self._key.account, self._key.livemode, names, self._limit + 1
        )
        lines = [_line(each, prefixes) for each in self._light(self._bounded(found, self._limit))]
        if prefixes:
            lines = [line for line in lines if (line.object_type == "product") is (kind == "product")]
        return FoundObject(kind, row, list(dict.fromkeys(rows)), lines, (), self._cut)

    async def _rows(self, statement: str, ids: Sequence[str]) -> Sequence[NamedRow]:
        if not ids:
            return []
        found = await self._connection.fetch(statement, self._key.account, self._key.livemode, ids)
        by_table: dict[str, list[NamedRow]] = {}
        for each in found:
            by_table.setdefault(each["name"], []).append(_named(each))
        return [each for rows in by_table.values() for each in self._bounded(rows, sql.ROWS_MAX)]

    def _light(self, found: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
        """The first of the lines, up to so much text, one at least; that there are more is remembered."""
        characters = accumulate(len(each["data"]) + len(each["previous"] or "") for each in found)
        return self._bounded(found, max(1, sum(1 for sum_so_far in characters if sum_so_far <= LINES_CHARACTERS_MAX)))

    def _bounded(self, found: Sequence[_T], most: int) -> Sequence[_T]:
        """So many of what was found; that there are more is remembered."""
        self._cut = self._cut or len(found) > most
        return found[:most]


def _arrival(row: asyncpg.Record) -> LoggedArrival:
    arrival_id, *columns = row
    return LoggedArrival(arrival_id, Arrival(*columns))


def _named(row: asyncpg.Record) -> NamedRow:
    return NamedRow(row["name"], row["id"], row["status"])


def _line(row: asyncpg.Record, prefixes: Sequence[str]) -> LedgerLine:
    object_id = row["object_id"]
    for prefix in prefixes:
        object_id = object_id.removeprefix(prefix)
    return LedgerLine(
        account=row["account"],
        livemode=row["livemode"],
        object_type=row["object_type"],
        object_id=object_id,
        event_id=row["event_id"],
        event_type=row["event_type"],
        created_at=row["created_at"],
        applied_at=row["recorded_at"],
        no_op=row["no_op"],
        data=_json(row["data"]),
        previous=_json(row["previous"]),
    )


def _json(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
