"""A projection's tables compared with its ledger, and corrected: a page of keys in each transaction, on one session.

Consumers go on meanwhile. A run that corrects takes the locks that `postgres_store` describes, in the same order, and
decides by what it reads under them; a dry run reads each page in one snapshot, and locks nothing. Its differences are
those that the same run without it corrects:

- What the topics have and the ledger lacks is not written at once, but laid beside it, in a temporary table. A page of
  objects puts it in, and folds, in one transaction: no consumer finds an event in the ledger that was not folded.
- Links can be found only from the objects that state them. Those that are missing are noted, in another temporary
  table, while the objects are walked, so that the walk by roots knows all that may belong to a root; which do, it reads
  in their ledgers. A link that no ledger states any more is removed: whoever relies on a link holds its root's lock.
- A row belongs to the page of the root that it names. Where that one does not make it, all others that might are asked
  before it counts as extra: those that its id may have another form of, and the objects of its last event.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

import asyncpg
import msgspec

from service.adapters.postgres_errors import translated
from service.adapters.postgres_rebuild_statements import (
    ESTIMATE,
    OFFSETS,
    count,
    rebuild_statements,
    remove_rows,
    rows_by,
    would_be,
)
from service.adapters.postgres_tables import (
    LOCK_ATTEMPTS,
    LocksGrew,
    ProjectionTables,
    columns_of,
    data_of,
    key_of,
    observation_of,
    recordset,
    session_settings,
)
from service.errors import LedgerUnreadable, StoreUnavailable
from service.events import ConsumedEvent, Partition
from service.ports import RebuildPage
from service.projections.differences import (
    Difference,
    LedgerEntry,
    StoredState,
    entry_differences,
    row_differences,
    state_differences,
)
from service.projections.linking import Known, Link, Observed, grow, observe
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Projection, Row
from service.projections.ordering import fold

PAGE_KEYS: Final = 200
PAGE_ENTRIES: Final = 5_000
"""A page ends before its ledgers come to more entries than this, but for a single object that has more."""

COUNTED_MAX: Final = 1_000_000
"""Above so many rows the planner's estimate is good enough for a progress bar."""

_SERIALIZATION_FAILURE: Final = "40001"

_BEFORE_ALL: Final = ObjectKey("", False, "")
_RowKey = tuple[str, ObjectKey]


@dataclass(frozen=True, slots=True)
class _Entry:
    """An observation as it should stand in the ledger, its links, and what stands there."""

    observation: Observation
    links: Links
    stands: LedgerEntry | None
    from_topic: bool


@dataclass(slots=True)
class _Corrections:
    """What a page of objects has to write."""

    merged: set[ObjectKey] = field(default_factory=set)
    vias: list[tuple[Observation, Links]] = field(default_factory=list)
    marks: list[tuple[Observation, bool]] = field(default_factory=list)
    states: list[ObjectState] = field(default_factory=list)
    forgotten: list[ObjectKey] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _StoredRow:
    content: Mapping[str, Any]
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class _Belonging:
    """What belongs to some roots by the ledgers: links, and the rows that these make."""

    links: frozenset[Link]
    rows: Mapping[_RowKey, Row]


class PostgresRebuild(ProjectionTables):
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
        super().__init__(projection)
        self._connection = connection
        self._consumer_group = consumer_group
        self._dry_run = dry_run
        self._page_entries = page_entries
        self._transaction_seconds = transaction_seconds
        self._more = rebuild_statements(self._tables, page_keys)
        self._staged = False

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
        """A rebuild on a session of its own, which may make temporary tables. Raises `StoreUnavailable`."""
        settings = session_settings(
            f"stripe-ingest rebuild {projection.name}", statement_seconds=statement_seconds, lock_seconds=lock_seconds
        )
        with translated():
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
        with translated():
            rows = [await self._count(table) for table in self._tables.rows if table not in self._tables.owners]
            return {"objects": await self._count(self._tables.objects), "rows": sum(rows)}

    async def stage(self, events: Sequence[ConsumedEvent]) -> int:
        """See `RebuildStore.stage`."""
        seen = [(each, o, links) for each in events for o, links in observe(self._projection, (each.event,))]
        if not seen:
            return 0
        with translated():
            async with self._transaction(writing=True):
                # Before the ledger: what was applied by then is found in it.
                offsets = await self._offsets()
                found = await self._found([o for _, o, _ in seen])
                fresh: dict[tuple[ObjectKey, str], int] = {}
                ahead: set[str] = set()
                for place, (consumed, o, _) in enumerate(seen):
                    entry = found.get(place)
                    if entry is None and _is_ahead(consumed, offsets):
                        ahead.add(consumed.event.event_id)
                    elif entry is None or entry.api_version == o.api_version:
                        fresh.setdefault((o.key, o.event_id), place)
                wanted = [
                    (o, links)
                    for place in await self._first_seen(fresh)
                    for _, o, links in (seen[place],)
                    if any(entry_differences(self._tables.ledger, o, links.via, found.get(place), data_of))
                ]
                await self._lay_beside(wanted)
        self._staged = self._staged or bool(wanted)
        return len(ahead)

    async def objects(self, after: ObjectKey | None) -> RebuildPage:
        """See `RebuildStore.objects`."""
        return await self._page(self._objects, after)

    async def rows(self, after: ObjectKey | None) -> RebuildPage:
        """See `RebuildStore.rows`."""
        return await self._page(self._rows, after)

    async def close(self) -> None:
        """Give back the connection, by force after five seconds."""
        try:
            await asyncio.wait_for(self._connection.close(), 5)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._connection.terminate()

    # Pages -----------------------------------------------------------------------------------------------------------

    async def _page(
        self,
        look: Callable[[ObjectKey, frozenset[ObjectKey]], Awaitable[RebuildPage]],
        after: ObjectKey | None,
    ) -> RebuildPage:
        """One page in one transaction; begun anew with more locks where these are not enough."""
        wanted: frozenset[ObjectKey] = frozenset()
        with translated():
            for _ in range(LOCK_ATTEMPTS):
                try:
                    async with self._transaction(writing=not self._dry_run):
                        return await look(after or _BEFORE_ALL, wanted)
                except LocksGrew as grew:
                    wanted |= grew.needed
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

    async def _hold(self, keys: Collection[ObjectKey]) -> Sequence[asyncpg.Record]:
        """The anchors of the keys: locked, where something may be written."""
        if self._dry_run:
            return await self._connection.fetch(self._more.stored, *columns_of(keys))
        return await self._lock(self._connection, keys)

    async def _next(self, statement: str, after: ObjectKey) -> list[ObjectKey]:
        return [key_of(row) for row in await self._connection.fetch(statement, *after)]

    # Objects ---------------------------------------------------------------------------------------------------------

    async def _objects(self, after: ObjectKey, _: frozenset[ObjectKey]) -> RebuildPage:
        keys = await self._next(self._more.next_objects, after)
        if not keys:
            return RebuildPage("objects", 0)
        keys = _within(keys, await self._weights(keys), self._page_entries)
        stands = {key_of(row): _stored(row) for row in await self._hold(keys) if row["data"] is not None}
        corrections = _Corrections()
        differences: list[Difference] = []
        observed: list[tuple[Observation, Links]] = []
        without_ledger = set(keys)
        async for key, entries in self._ledgers(keys):
            without_ledger.discard(key)
            differences += self._compare(key, entries, stands.get(key), corrections)
            observed += _distinct(entries)
        for key in sorted(without_ledger & stands.keys()):
            differences += state_differences(self._tables.objects, key, stands[key], None, data_of)
            corrections.forgotten.append(key)
        await self._note_links(grow(observed, Known()).links)
        if self._dry_run:
            await self._note_vias(corrections.vias)
        else:
            await self._correct_objects(corrections)
        return RebuildPage("objects", len(keys), tuple(differences), keys[-1])

    def _compare(
        self, key: ObjectKey, entries: Sequence[_Entry], stands: StoredState | None, corrections: _Corrections
    ) -> Iterable[Difference]:
        """One object's ledger, marks and state, against what they should be."""
        result = fold(entry.observation for entry in entries)
        for entry in entries:
            o = entry.observation
            wrong = tuple(entry_differences(self._tables.ledger, o, entry.links.via, entry.stands, data_of))
            yield from wrong
            if wrong and entry.from_topic:
                corrections.merged.add(key)
            elif wrong:
                corrections.vias.append((o, entry.links))
            no_op = o.event_id in result.no_ops
            if no_op is not (entry.stands is not None and entry.stands.no_op):
                corrections.marks.append((o, no_op))
                if entry.stands is not None:
                    yield Difference(
                        "differs", self._tables.ledger, key, "no_op", entry.stands.no_op, no_op, o.event_id
                    )
        found = tuple(state_differences(self._tables.objects, key, stands, result.state, data_of))
        yield from found
        if found:
            corrections.states.append(result.state)

    async def _correct_objects(self, corrections: _Corrections) -> None:
        connection = self._connection
        if corrections.merged:
            await connection.execute(self._more.merge, *columns_of(corrections.merged))
        if corrections.vias:
            await connection.execute(
                self._more.set_vias,
                *columns_of(o.key for o, _ in corrections.vias),
                [o.event_id for o, _ in corrections.vias],
                [o.created_at for o, _ in corrections.vias],
                [links.via for _, links in corrections.vias],
            )
        await self._mark_no_ops(connection, corrections.marks)
        if corrections.states:
            await self._keep_states(connection, corrections.states)
        if corrections.forgotten:
            await connection.execute(self._more.forget, *columns_of(corrections.forgotten))

    async def _note_links(self, links: Collection[Link]) -> None:
        """Note those that the table lacks, so that the walk by roots finds their members."""
        if links and self._tables.refs is not None:
            await self._connection.execute(self._more.link_found, *_link_columns(links))

    async def _note_vias(self, observed: Observed) -> None:
        """Lay entries beside the ledger as they should be, so that the walk by roots finds whom they wait for."""
        if observed:
            await self._record(self._connection, observed, self._more.stage.record)
            self._staged = True

    # Roots -----------------------------------------------------------------------------------------------------------

    async def _rows(self, after: ObjectKey, wanted: frozenset[ObjectKey]) -> RebuildPage:
        keys = await self._next(self._more.next_roots, after)
        if not keys:
            return RebuildPage("rows", 0)
        members = await self._members(self._more.all_members, keys)
        weights = await self._weights({*keys, *(member for member, _ in members)})
        of_root: defaultdict[ObjectKey, int] = defaultdict(int)
        for member, root in {*members, *((key, key) for key in keys)}:
            of_root[root] += weights.get(member, 0)
        keys = _within(keys, of_root, self._page_entries)
        held = wanted | frozenset(keys)
        await self._hold(held)
        belonging = await self._belonging(keys)
        linked = await self._members(self._more.members, keys)
        missing, extra = self._links_between(belonging.links, linked)
        self._require_held(held, (member for member, _ in missing | extra))
        stored, named = await self._stored_rows(keys, belonging.rows)
        wrong, row_differences_found = await self._wrong_rows(belonging.rows, stored)
        unmade = {identity: stored[identity] for identity in named - belonging.rows.keys()}
        orphans = await self._orphans(unmade, frozenset(keys), held)
        differences = [
            *self._link_differences(missing, extra),
            *row_differences_found,
            *(Difference("extra", table, key, None, row.content, None) for (table, key), row in orphans.items()),
        ]
        if not self._dry_run:
            await self._link(self._connection, missing)
            await self._correct_rows(extra, wrong, orphans)
        return RebuildPage("rows", len(keys), tuple(differences), keys[-1])

    def _links_between(
        self, should_be: frozenset[Link], stands: frozenset[Link]
    ) -> tuple[frozenset[Link], frozenset[Link]]:
        if self._tables.refs is None:
            return frozenset(), frozenset()
        return should_be - stands, stands - should_be

    def _require_held(self, held: frozenset[ObjectKey], needed: Iterable[ObjectKey]) -> None:
        lacking = frozenset(needed) - held
        if lacking and not self._dry_run:
            raise LocksGrew(lacking)

    async def _belonging(self, roots: Collection[ObjectKey]) -> _Belonging:
        """What belongs to the roots. Ends: each turn reads at least one ledger more, and there are finitely many."""
        asked = frozenset(roots)
        states: dict[ObjectKey, ObjectState] = {}
        observed: list[tuple[Observation, Links]] = []
        read: set[ObjectKey] = set()
        more = {*asked, *(member for member, _ in await self._members(self._more.all_members, asked))}
        links: frozenset[Link] = frozenset()
        while more:
            async for key, entries in self._ledgers(more):
                states[key] = fold(entry.observation for entry in entries).state
                observed += _distinct(entries)
            read |= more
            links = frozenset(link for link in grow(observed, Known()).links if link[1] in asked)
            members = {member for member, _ in links}
            more = (members | await self._dependants(members)) - read
        by_root: defaultdict[ObjectKey, list[ObjectState]] = defaultdict(list)
        for member, root in sorted(links):
            if member in states:
                by_root[root].append(states[member])
        rows = (row for root, its in by_root.items() for row in self._projection.rows(root, its).rows)
        return _Belonging(links, {(row.table, row.key): row for row in rows})

    async def _members(self, statement: str, roots: Collection[ObjectKey]) -> frozenset[Link]:
        if self._tables.refs is None or not roots:
            return frozenset()
        return frozenset(
            (key_of(row), ObjectKey(row["account"], row["livemode"], row["payment_id"]))
            for row in await self._connection.fetch(statement, *columns_of(roots))
        )

    async def _dependants(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        """The objects that belong where these do."""
        if self._tables.refs is None or not keys:
            return set()
        statements = [self._sql.dependants, *([self._more.stage.dependants] if self._staged else [])]
        return {
            key_of(row)
            for statement in statements
            for row in await self._connection.fetch(statement, *columns_of(keys))
        }

    async def _stored_rows(
        self, roots: Collection[ObjectKey], should_be: Collection[_RowKey]
    ) -> tuple[Mapping[_RowKey, _StoredRow], set[_RowKey]]:
        """The rows that stand under the keys of those that should be, or name one of the roots; which ones do that."""
        stored: dict[_RowKey, _StoredRow] = {}
        named: set[_RowKey] = set()
        for table, id_column in self._tables.rows.items():
            naming = rows_by(table, id_column, self._tables.owners.get(table, id_column))
            for row in await self._connection.fetch(naming, *columns_of(roots)):
                named.add((table, key_of(row)))
                stored[table, key_of(row)] = _row(row)
            others = [key for name, key in should_be if name == table and (table, key) not in named]
            if others:
                for row in await self._connection.fetch(rows_by(table, id_column, id_column), *columns_of(others)):
                    stored[table, key_of(row)] = _row(row)
        return stored, named

    async def _wrong_rows(
        self, should_be: Mapping[_RowKey, Row], stored: Mapping[_RowKey, _StoredRow]
    ) -> tuple[list[Row], list[Difference]]:
        wrong: list[Row] = []
        differences: list[Difference] = []
        for table, id_column in self._tables.rows.items():
            rows = [row for (name, _), row in should_be.items() if name == table]
            for key, content in (await self._would_be(table, rows)).items():
                row = should_be[table, key]
                ours = {name: content[name] for name in row.columns if name != id_column}
                stands = stored.get((table, key))
                found = list(row_differences(table, key, None if stands is None else stands.content, ours))
                if found:
                    wrong.append(row)
                    differences += found
        return wrong, differences

    async def _would_be(self, table: str, rows: Collection[Row]) -> Mapping[ObjectKey, Mapping[str, Any]]:
        """What Postgres makes of rows: the types of the columns are its own."""
        if not rows:
            return {}
        id_column = self._tables.rows[table]
        found = await self._connection.fetch(would_be(table, id_column), recordset(rows, id_column))
        return {key_of(row): msgspec.json.decode(row["content"]) for row in found}

    async def _orphans(
        self, unmade: Mapping[_RowKey, _StoredRow], roots: frozenset[ObjectKey], held: frozenset[ObjectKey]
    ) -> Mapping[_RowKey, _StoredRow]:
        """Those rows that no root makes: not these roots, nor any other that might."""
        if not unmade:
            return {}
        might = await self._might_make(unmade) - roots
        self._require_held(held, might)
        made = (await self._belonging(might)).rows.keys() if might else set()
        return {identity: row for identity, row in unmade.items() if identity not in made}

    async def _might_make(self, rows: Mapping[_RowKey, _StoredRow]) -> frozenset[ObjectKey]:
        might: set[ObjectKey] = set()
        events: list[ObjectKey] = []
        for (_, key), row in rows.items():
            might.update(
                ObjectKey(key.account, key.livemode, prefix + key.object_id) for prefix in self._tables.root_prefixes
            )
            if row.content.get("last_event_id") is not None:
                events.append(ObjectKey(key.account, key.livemode, row.content["last_event_id"]))
        found = await self._connection.fetch(self._more.objects_of_events, *columns_of(events))
        objects = {key_of(row) for row in found}
        if self._tables.refs is None:
            return frozenset(might | objects)
        known = await self._connection.fetch(self._more.known_roots, *columns_of(objects))
        return frozenset(might | {ObjectKey(row["account"], row["livemode"], row["payment_id"]) for row in known})

    def _link_differences(self, missing: Collection[Link], extra: Collection[Link]) -> Iterable[Difference]:
        refs = self._tables.refs or ""
        for member, root in sorted(missing):
            yield Difference("missing", refs, member, None, None, {"payment_id": root.object_id})
        for member, root in sorted(extra):
            yield Difference("extra", refs, member, None, {"payment_id": root.object_id}, None)

    async def _correct_rows(
        self, extra: Collection[Link], wrong: Collection[Row], orphans: Mapping[_RowKey, _StoredRow]
    ) -> None:
        if extra:
            await self._connection.execute(self._more.unlink, *_link_columns(extra))
        for table, id_column in self._tables.rows.items():
            rows = {row.key: row for row in wrong if row.table == table}
            if rows:
                await self._upsert(self._connection, table, rows)
            gone = {key: row.applied_at for (name, key), row in orphans.items() if name == table}
            if gone:
                await self._connection.execute(remove_rows(table, id_column), *columns_of(gone), list(gone.values()))

    # Ledgers ---------------------------------------------------------------------------------------------------------

    async def _ledgers(self, keys: Collection[ObjectKey]) -> AsyncIterator[tuple[ObjectKey, Sequence[_Entry]]]:
        """The whole ledger of each object that has one, some objects at a time."""
        left = sorted(keys)
        weights = await self._weights(left)
        while left:
            group = _within(left, weights, self._page_entries)
            left = left[len(group) :]
            for key, entries in (await self._entries(group)).items():
                yield key, entries

    async def _entries(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Sequence[_Entry]]:
        columns = columns_of(keys)
        entries: defaultdict[ObjectKey, list[_Entry]] = defaultdict(list)
        beside: dict[tuple[ObjectKey, str], Observation] = {}
        if self._staged:
            for row in await self._connection.fetch(self._more.stage.history, *columns):
                beside[key_of(row), row["event_id"]] = observation_of(row)
        for row in await self._connection.fetch(self._sql.history, *columns):
            observation = beside.pop((key_of(row), row["event_id"]), None)
            from_topic = observation is not None
            if observation is None:
                observation = self._read(row)
            links = self._projection.links(observation)
            entries[observation.key].append(_Entry(observation, links, _ledger_entry(row), from_topic))
        for observation in beside.values():
            links = self._projection.links(observation)
            entries[observation.key].append(_Entry(observation, links, None, from_topic=True))
        return entries

    def _read(self, row: asyncpg.Record) -> Observation:
        try:
            return observation_of(row)
        except msgspec.DecodeError:
            raise LedgerUnreadable(
                f"{self._tables.ledger}: what event {row['event_id']} says of {row['object_id']} is not readable as a "
                f"{row['object_type']}. `stripe-ingest rebuild {self._projection.name} --from-topic` puts it right "
                "where its topic still has the event; else delete the entry."
            ) from None

    async def _weights(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, int]:
        weights: defaultdict[ObjectKey, int] = defaultdict(int)
        statements = [self._more.entries, *([self._more.overlay_entries] if self._staged else [])]
        for statement in statements:
            for row in await self._connection.fetch(statement, *columns_of(keys)):
                weights[key_of(row)] += row["entries"]
        return weights

    # Beside the ledger -----------------------------------------------------------------------------------------------

    async def _offsets(self) -> Mapping[Partition, int]:
        rows = await self._connection.fetch(OFFSETS, self._consumer_group)
        return {Partition(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def _found(self, observations: Sequence[Observation]) -> Mapping[int, LedgerEntry]:
        """What the ledger has, by the place of the observation."""
        rows = await self._connection.fetch(
            self._more.found,
            *columns_of(o.key for o in observations),
            [o.created_at for o in observations],
            [o.event_id for o in observations],
        )
        return {row["place"] - 1: _ledger_entry(row) for row in rows}

    async def _first_seen(self, places: Mapping[tuple[ObjectKey, str], int]) -> Sequence[int]:
        """The places of those that this run has not compared yet."""
        rows = await self._connection.fetch(
            self._more.see, *columns_of(key for key, _ in places), [event_id for _, event_id in places]
        )
        return [places[key_of(row), row["event_id"]] for row in rows]

    async def _lay_beside(self, observed: Observed) -> None:
        if not observed:
            return
        await self._try_rows(observed)
        await self._record(self._connection, observed, self._more.stage.record)

    async def _try_rows(self, observed: Observed) -> None:
        """What a consumer could not apply must not get into the ledger here: a row of each alone has to be possible."""
        by_table: defaultdict[str, list[Row]] = defaultdict(list)
        for o, links in observed:
            state = fold((o,)).state
            for root in links.roots or (o.key.object_id,):
                for row in self._projection.rows(ObjectKey(o.key.account, o.key.livemode, root), (state,)).rows:
                    by_table[row.table].append(row)
        for table, rows in by_table.items():
            await self._would_be(table, rows)

    async def _count(self, table: str) -> int:
        estimate = int(await self._connection.fetchval(ESTIMATE, table))
        return estimate if estimate > COUNTED_MAX else int(await self._connection.fetchval(count(table)))


def _within(keys: Sequence[ObjectKey], weights: Mapping[ObjectKey, int], most: int) -> list[ObjectKey]:
    """As many of the keys as weigh no more than this together, and one at least."""
    taken: list[ObjectKey] = []
    weight = 0
    for key in keys:
        weight += weights.get(key, 0)
        if taken and weight > most:
            break
        taken.append(key)
    return taken


def _distinct(entries: Sequence[_Entry]) -> Iterable[tuple[Observation, Links]]:
    """One observation of each kind of links: most of an object's events state the same ones."""
    return {entry.links: (entry.observation, entry.links) for entry in entries}.values()


def _is_ahead(consumed: ConsumedEvent, offsets: Mapping[Partition, int]) -> bool:
    next_offset = offsets.get(consumed.record.partition)
    return next_offset is not None and consumed.record.offset >= next_offset


def _stored(row: asyncpg.Record) -> StoredState:
    at = row["last_event_at"]
    return StoredState(
        row["object_type"],
        row["data"],
        row["last_event_id"],
        row["last_event_type"],
        None if at is None else at.isoformat(),
        row["undecided"],
    )


def _ledger_entry(row: asyncpg.Record) -> LedgerEntry:
    return LedgerEntry(row["api_version"], row["data"], row["previous"], row["no_op"], row["via"])


def _row(row: asyncpg.Record) -> _StoredRow:
    return _StoredRow(msgspec.json.decode(row["content"]), row["applied_at"])


def _link_columns(links: Iterable[Link]) -> tuple[list[str], list[bool], list[str], list[str]]:
    ordered = sorted(links)
    return *columns_of(member for member, _ in ordered), [root.object_id for _, root in ordered]
