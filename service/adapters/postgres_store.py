"""A projection's ledger, rows and offsets in Postgres: one transaction for each batch, a bounded number of statements.

Several processes may touch one object or one row at once: payments reads two topics, whose keys differ. What keeps the
result a function of the set of events:

- READ COMMITTED, and everything that a decision rests on is read by a statement that starts after the locks are held.
- One lock order: the partitions' offsets, sorted, then anchors, sorted. An anchor is the row of an id in the objects
  table, made if need be; `linking.grow` says which ids. First the missing anchors are inserted, in order, then all are
  locked, in order. While inserting, a process waits only for others' fresh anchors and holds no old one; while locking,
  it waits only for anchors that were there before; so no circle of waits can close.
- Which ids are involved is itself read from the database. It is read again under the locks, and where others have added
  to it in between, the transaction is rolled back and tried again with more locks: never a lock out of order.

Advisory locks would be less to write, but they live in a table of fixed size, which a large batch exhausts.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

import asyncpg

from service.adapters.postgres_errors import translated
from service.adapters.postgres_statements import OFFSET, OFFSETS_BEGIN, OFFSETS_CHECK, OFFSETS_MOVE, remove
from service.adapters.postgres_tables import (
    LOCK_ATTEMPTS,
    Connection,
    LocksGrew,
    ProjectionTables,
    columns_of,
    key_of,
    session_settings,
    state_of,
)
from service.errors import FenceLost, ForeignCluster, StoreUnavailable
from service.events import Partition
from service.ports import Applied, Batch
from service.projections.linking import Growth, Observed, grow, observe
from service.projections.model import ObjectKey, ObjectState, Observation, Projection, Row
from service.projections.ordering import continues, fold


class PostgresProjectionStore(ProjectionTables):
    """`ports.ProjectionStore` on Postgres. One batch at a time; several stores may share a database."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        projection: Projection,
        *,
        consumer_group: str,
        cluster_id: str,
        transaction_seconds: float = 30.0,
    ) -> None:
        super().__init__(projection)
        self._pool = pool
        self._consumer_group = consumer_group
        self._cluster_id = cluster_id
        self._transaction_seconds = transaction_seconds

    @classmethod
    async def open(
        cls,
        database_url: str,
        projection: Projection,
        *,
        consumer_group: str,
        cluster_id: str,
        connect_seconds: float = 5.0,
        statement_seconds: float = 15.0,
        lock_seconds: float = 5.0,
        transaction_seconds: float = 30.0,
    ) -> Self:
        """A store with a connection pool of its own, which connects on first use: the database may be away now."""
        pool = await asyncpg.create_pool(
            database_url,
            min_size=0,
            max_size=2,
            timeout=connect_seconds,
            command_timeout=statement_seconds + 5,
            server_settings=session_settings(
                f"stripe-ingest {projection.name}", statement_seconds=statement_seconds, lock_seconds=lock_seconds
            ),
        )
        return cls(
            pool,
            projection,
            consumer_group=consumer_group,
            cluster_id=cluster_id,
            transaction_seconds=transaction_seconds,
        )

    async def check(self) -> None:
        """See `ports.ProjectionStore`."""
        with translated():
            async with self._transaction() as connection:
                await connection.execute(OFFSETS_CHECK)

    async def next_offset(self, partition: Partition) -> int | None:
        """See `ports.ProjectionStore`."""
        with translated():
            async with self._transaction() as connection:
                row = await connection.fetchrow(OFFSET, self._consumer_group, partition.topic, partition.number)
        if row is None:
            return None
        if row["cluster_id"] != self._cluster_id:
            raise ForeignCluster(foreign_cluster_message(partition, row["cluster_id"], self._cluster_id))
        return int(row["next_offset"])

    async def apply(self, batch: Batch) -> Applied:
        """See `ports.ProjectionStore`."""
        observed = observe(self._projection, (consumed.event for consumed in batch.events))
        wanted: frozenset[ObjectKey] = frozenset()
        with translated():
            for _ in range(LOCK_ATTEMPTS):
                try:
                    async with self._transaction() as connection:
                        applied = await self._apply(connection, batch, observed, wanted)
                except LocksGrew as grew:
                    wanted |= grew.needed
                else:
                    return applied
        raise StoreUnavailable(f"others kept adding links to the ids of a batch, {LOCK_ATTEMPTS} times")

    async def close(self) -> None:
        """Give back the connections, by force after five seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        # The server's own timeouts do not help where no packet comes through any more.
        async with (
            asyncio.timeout(self._transaction_seconds),
            self._pool.acquire(timeout=self._transaction_seconds) as connection,
            connection.transaction(isolation="read_committed"),
        ):
            yield connection

    async def _apply(
        self, connection: Connection, batch: Batch, observed: Observed, wanted: frozenset[ObjectKey]
    ) -> Applied:
        await self._move_offsets(connection, batch)
        if not observed:
            return Applied(applied=0, already_applied=0, refolded=0, undecided=0)
        _, growth = await self._grow(connection, observed)
        locks = wanted | growth.locks
        locked = await self._lock(connection, locks)
        states = {state.key: state for row in locked if row["data"] is not None for state in (state_of(row),)}
        known, growth = await self._grow(connection, observed)
        if growth.locks - locks:
            raise LocksGrew(growth.locks)
        new = await self._record(connection, observed, self._sql.record)
        events = _event_ids(observed)
        if not new:
            return Applied(applied=0, already_applied=len(events), refolded=0, undecided=0)
        folded, refolded = await self._fold(connection, new, states)
        if len(new) < len(observed):
            growth = grow(new, known)
        await self._keep_states(connection, folded.values())
        await self._link(connection, growth.links)
        await self._write_rows(connection, growth, {**states, **folded})
        applied = _event_ids(new)
        return Applied(
            applied=len(applied),
            already_applied=len(events - applied),
            refolded=refolded,
            undecided=max(0, _undecided(folded.values()) - _undecided(states[k] for k in folded if k in states)),
            new_events=frozenset(event_id for _, _, event_id in applied),
        )

    async def _move_offsets(self, connection: Connection, batch: Batch) -> None:
        """The fence. It comes first: whoever has lost it does no work, and waits for nobody's rows."""
        moving = sorted(p for p, stored in batch.stored.items() if stored is not None)
        beginning = sorted(p for p, stored in batch.stored.items() if stored is None)
        settled: list[asyncpg.Record] = []
        if moving:
            settled += await connection.fetch(
                OFFSETS_MOVE,
                self._consumer_group,
                self._cluster_id,
                [p.topic for p in moving],
                [p.number for p in moving],
                [batch.stored[p] for p in moving],
                [batch.next_offsets[p] for p in moving],
            )
        if beginning:
            # Only who believes that there is no row may make it: where one vanished (a failover that lost its last
            # transactions), the partition must be read from its start again.
            settled += await connection.fetch(
                OFFSETS_BEGIN,
                self._consumer_group,
                self._cluster_id,
                [p.topic for p in beginning],
                [p.number for p in beginning],
                [batch.next_offsets[p] for p in beginning],
            )
        lost = batch.stored.keys() - {Partition(topic, number) for topic, number in settled}
        if lost:
            raise FenceLost("another process has moved the offsets of " + ", ".join(_name(p) for p in sorted(lost)))

    async def _fold(
        self, connection: Connection, new: Observed, states: Mapping[ObjectKey, ObjectState]
    ) -> tuple[dict[ObjectKey, ObjectState], int]:
        """The new states of the objects observed, and how many of them had to be folded from their whole ledger."""
        by_object: defaultdict[ObjectKey, list[Observation]] = defaultdict(list)
        for observation, _ in new:
            by_object[observation.key].append(observation)
        folded: dict[ObjectKey, ObjectState] = {}
        marks: list[tuple[Observation, bool]] = []
        late: list[ObjectKey] = []
        for key, observations in by_object.items():
            state = states.get(key)
            if state is not None and not continues(state, observations):
                late.append(key)
                continue
            result = fold(observations, after=state)
            folded[key] = result.state
            marks.extend((o, True) for o in observations if o.event_id in result.no_ops)
        for key, history in (await self._histories(connection, late)).items():
            result = fold((o for o, _ in history), after=None)
            folded[key] = result.state
            marks.extend((o, not no_op) for o, no_op in history if no_op is not (o.event_id in result.no_ops))
        await self._mark_no_ops(connection, marks)
        return folded, len(late)

    async def _write_rows(
        self, connection: Connection, growth: Growth, states: Mapping[ObjectKey, ObjectState]
    ) -> None:
        rows: defaultdict[str, dict[ObjectKey, Row]] = defaultdict(dict)
        owners: defaultdict[tuple[str, str], list[ObjectKey]] = defaultdict(list)
        linked = await self._linked_states(connection, growth.roots, states)
        for root in sorted(growth.roots):
            row_set = self._projection.rows(root, linked[root])
            for row in row_set.rows:
                rows[row.table][row.key] = row
            for table, owner_column in row_set.owned.items():
                owners[table, owner_column].append(root)
        for (table, owner_column), roots in owners.items():
            statement = remove(table, self._tables.rows[table], owner_column)
            await connection.execute(statement, *columns_of(roots), *columns_of(rows[table]))
        for table, by_key in rows.items():
            if by_key:
                await self._upsert(connection, table, by_key)

    async def _linked_states(
        self, connection: Connection, roots: Collection[ObjectKey], states: Mapping[ObjectKey, ObjectState]
    ) -> Mapping[ObjectKey, Sequence[ObjectState]]:
        if self._tables.refs is None:
            return {root: [states[root]] for root in roots}
        linked: defaultdict[ObjectKey, list[ObjectState]] = defaultdict(list)
        for row in await connection.fetch(self._sql.linked_states, *columns_of(roots)):
            key = key_of(row)
            root = ObjectKey(row["account"], row["livemode"], row["payment_id"])
            linked[root].append(states.get(key) or state_of(row))
        return linked


def foreign_cluster_message(partition: Partition, stored: str, ours: str) -> str:
    """What to do about offsets of another cluster."""
    return (
        f"the stored offset of {_name(partition)} belongs to Kafka cluster {stored}, this is {ours}: offsets mean "
        "nothing in another log. If the move is meant, delete this consumer group's rows from consumer_offsets: its "
        "topics are then read from their start, and what is in the ledger already is not applied again."
    )


def _undecided(states: Iterable[ObjectState]) -> int:
    return sum(state.undecided for state in states)


def _event_ids(observed: Observed) -> set[tuple[str, bool, str]]:
    return {(o.key.account, o.key.livemode, o.event_id) for o, _ in observed}


def _name(partition: Partition) -> str:
    return f"{partition.topic}[{partition.number}]"
