"""One projection's tables on a connection: locks, ledger, states, links and rows, a statement for a whole batch each.

What the consumers' store and the rebuild have in common. Neither begins a transaction here, nor decides what to write.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from service.adapters.postgres_statements import TABLES, statements_for, upsert
from service.contract import DATA_TYPES, Data, Other
from service.errors import LedgerUnreadable
from service.projections.linking import Growth, Known, Link, Observed, grow, mentioned
from service.projections.model import ObjectKey, ObjectState, Observation, Projection, Row

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

LOCK_ATTEMPTS: Final = 8
"""How often a transaction is begun anew because others have linked its ids to more rows in between."""

_encode: Final = msgspec.json.Encoder().encode
_data_decoders: Final[Mapping[str, msgspec.json.Decoder[Data]]] = {
    object_type: msgspec.json.Decoder(data_type) for object_type, data_type in DATA_TYPES.items()
}
_other_decoder: Final[msgspec.json.Decoder[Data]] = msgspec.json.Decoder(Other)


class LocksGrew(Exception):
    """Under the locks it turned out that more are needed."""

    def __init__(self, needed: frozenset[ObjectKey]) -> None:
        super().__init__("more locks are needed")
        self.needed = needed


def session_settings(application_name: str, *, statement_seconds: float, lock_seconds: float) -> dict[str, str]:
    """How every session of ours is set up."""
    return {
        "application_name": application_name,
        "statement_timeout": str(int(statement_seconds * 1000)),
        "lock_timeout": str(int(lock_seconds * 1000)),
        # A process that is frozen in mid-transaction must not keep its locks from the others.
        "idle_in_transaction_session_timeout": str(int(statement_seconds * 1000)),
        # All joins here look up keys. Without fresh statistics, or while a table is small, the planner would
        # read whole tables for that, and go on with such a plan when they have grown.
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_seqscan": "off",
        "plan_cache_mode": "force_generic_plan",
        "jit": "off",
    }


class ProjectionTables:
    """What is read from and written to one projection's tables."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._tables = TABLES[projection.name]
        self._sql = statements_for(self._tables)

    async def _grow(self, connection: Connection, observed: Observed) -> tuple[Known, Growth]:
        """What the database knows of the observed ids now, and what the observations add to that."""
        if self._tables.refs is None:
            return Known(), grow(observed, Known())
        found = await connection.fetch(self._sql.known_roots, *columns_of(mentioned(observed)))
        roots: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)
        for account, livemode, object_id, root in found:
            roots[ObjectKey(account, livemode, object_id)].add(ObjectKey(account, livemode, root))
        growth = grow(observed, Known(roots))
        # Who depends on an id matters only where the id gets a new root.
        linked = {member for member, _ in growth.links}
        waiting = await connection.fetch(self._sql.dependants, *columns_of(linked)) if linked else ()
        if not waiting:
            return Known(roots), growth
        dependants: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)
        for account, livemode, via, object_id in waiting:
            dependants[ObjectKey(account, livemode, via)].add(ObjectKey(account, livemode, object_id))
        known = Known(roots, dependants)
        return known, grow(observed, known)

    async def _lock(self, connection: Connection, keys: Iterable[ObjectKey]) -> Sequence[asyncpg.Record]:
        """Lock the ids' anchors, in order, those that are missing made before; what stands in them."""
        columns = columns_of(keys)
        await connection.execute(self._sql.anchor, *columns)
        return await connection.fetch(self._sql.lock, *columns)

    async def _record(self, connection: Connection, observed: Observed, statement: str) -> Observed:
        """Insert into a ledger; what it takes is new, and nothing else is."""
        recorded = await connection.fetch(
            statement,
            *columns_of(o.key for o, _ in observed),
            [o.object_type for o, _ in observed],
            [o.event_id for o, _ in observed],
            [o.event_type for o, _ in observed],
            [o.created_at for o, _ in observed],
            [o.api_version for o, _ in observed],
            [json_of(o.data) for o, _ in observed],
            [None if o.previous is None else json_of(o.previous) for o, _ in observed],
            [links.via for _, links in observed],
        )
        new = {tuple(row) for row in recorded}
        return [
            (o, links) for o, links in observed if (o.key.account, o.key.livemode, o.key.object_id, o.event_id) in new
        ]

    async def _histories(
        self, connection: Connection, keys: Collection[ObjectKey]
    ) -> Mapping[ObjectKey, Sequence[tuple[Observation, bool]]]:
        histories: defaultdict[ObjectKey, list[tuple[Observation, bool]]] = defaultdict(list)
        if keys:
            for row in await connection.fetch(self._sql.history, *columns_of(keys)):
                observation = self._read(row)
                histories[observation.key].append((observation, row["no_op"]))
        return histories

    def _read(self, row: asyncpg.Record) -> Observation:
        """An entry of the ledger. Raises `LedgerUnreadable`."""
        try:
            return observation_of(row)
        except msgspec.DecodeError:
            raise LedgerUnreadable(
                f"{self._tables.ledger}: what event {row['event_id']} says of {row['object_id']} is not readable as a "
                f"{row['object_type']}. `stripe-ingest rebuild {self._projection.name} --from-topic` puts it right "
                "where its topic still has the event; else delete the entry."
            ) from None

    async def _mark_no_ops(self, connection: Connection, marks: Sequence[tuple[Observation, bool]]) -> None:
        if marks:
            await connection.execute(
                self._sql.mark_no_ops,
                *columns_of(o.key for o, _ in marks),
                [o.event_id for o, _ in marks],
                [o.created_at for o, _ in marks],
                [no_op for _, no_op in marks],
            )

    async def _keep_states(self, connection: Connection, states: Collection[ObjectState]) -> None:
        await connection.execute(
            self._sql.keep_states,
            *columns_of(s.key for s in states),
            [s.object_type for s in states],
            [json_of(s.data) for s in states],
            [s.last_event_id for s in states],
            [s.last_event_type for s in states],
            [s.last_event_at for s in states],
            [s.undecided for s in states],
        )

    async def _link(self, connection: Connection, links: Collection[Link]) -> None:
        if links and self._tables.refs is not None:
            ordered = sorted(links)
            await connection.execute(
                self._sql.link, *columns_of(member for member, _ in ordered), [root.object_id for _, root in ordered]
            )

    async def _upsert(self, connection: Connection, table: str, rows: Mapping[ObjectKey, Row]) -> None:
        id_column = self._tables.rows[table]
        first = next(iter(rows.values()))
        columns = [name for name in first.columns if name not in ("account", "livemode", id_column)]
        await connection.execute(
            upsert(table, id_column, columns), recordset((row for _, row in sorted(rows.items())), id_column)
        )


def recordset(rows: Iterable[Row], id_column: str) -> str:
    """Rows of one table as a JSON array."""
    return json_of(
        [
            {**row.columns, "account": row.key.account, "livemode": row.key.livemode, id_column: row.key.object_id}
            for row in rows
        ]
    )


def columns_of(keys: Iterable[ObjectKey]) -> tuple[list[str], list[bool], list[str]]:
    """Keys as the three arrays that statements take."""
    keys = list(keys)
    return [k.account for k in keys], [k.livemode for k in keys], [k.object_id for k in keys]


def json_of(value: Any) -> str:
    """JSON as a statement's parameter."""
    return _encode(value).decode()


def data_of(object_type: str, text: str) -> Data:
    """The typed data of a JSON text. Raises `msgspec.DecodeError` where it is none of that type."""
    return _data_decoders.get(object_type, _other_decoder).decode(text)


def key_of(row: asyncpg.Record) -> ObjectKey:
    """Whose anchor, ledger entry or link a row is."""
    return ObjectKey(row["account"], row["livemode"], row["object_id"])


def state_of(row: asyncpg.Record) -> ObjectState:
    """The state in an anchor that has one. Raises `LedgerUnreadable`."""
    try:
        data = data_of(row["object_type"], row["data"])
    except msgspec.DecodeError:
        raise LedgerUnreadable(
            f"the state of {row['object_id']} is not readable as a {row['object_type']}. `stripe-ingest rebuild` makes "
            "it anew from the ledger."
        ) from None
    return ObjectState(
        key=key_of(row),
        object_type=row["object_type"],
        data=data,
        last_event_id=row["last_event_id"],
        last_event_type=row["last_event_type"],
        last_event_at=row["last_event_at"],
        undecided=row["undecided"],
    )


def observation_of(row: asyncpg.Record) -> Observation:
    """An entry of the ledger. Raises `msgspec.DecodeError`."""
    return Observation(
        key=key_of(row),
        object_type=row["object_type"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        created_at=row["created_at"],
        api_version=row["api_version"],
        data=data_of(row["object_type"], row["data"]),
        previous=None if row["previous"] is None else msgspec.json.decode(row["previous"]),
    )
