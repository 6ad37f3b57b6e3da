"""A projection's ledger as a rebuild reads it: with what was laid beside it, and as if that stood in it.

What the topics have and the ledger lacks, or has otherwise, is not written at once, but laid beside it, in a temporary
table. A page of objects puts it in, and folds, in one transaction: no consumer finds an event in the ledger that was
not folded. A dry run lays more there: entries as they should be, which the real run would have corrected by now.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

from service.adapters.postgres_rebuild_statements import OFFSETS, rebuild_statements, would_be
from service.adapters.postgres_tables import ProjectionTables, columns_of, data_of, key_of, observation_of, recordset
from service.events import ConsumedEvent, Partition
from service.projections.differences import LedgerEntry, entry_differences
from service.projections.linking import Known, Link, Observed, grow, observe
from service.projections.model import Links, ObjectKey, Observation, Projection, Row
from service.projections.ordering import fold


@dataclass(frozen=True, slots=True)
class Entry:
    """An observation as it should stand in the ledger, its links, and what stands there."""

    observation: Observation
    links: Links
    stands: LedgerEntry | None
    from_topic: bool


class RebuildLedger(ProjectionTables):
    """The ledger and what is beside it, on a rebuild's one session. Begins no transaction."""

    def __init__(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        projection: Projection,
        *,
        consumer_group: str,
        dry_run: bool,
        page_keys: int,
        page_entries: int,
    ) -> None:
        super().__init__(projection)
        self._connection = connection
        self._consumer_group = consumer_group
        self._dry_run = dry_run
        self._page_entries = page_entries
        self._more = rebuild_statements(self._tables, page_keys)
        self._beside = False
        """Whether anything was laid beside the ledger: else that is not asked for."""

    async def _hold(self, keys: Collection[ObjectKey]) -> Sequence[asyncpg.Record]:
        """The anchors of the keys: locked, where something may be written."""
        if self._dry_run:
            return await self._connection.fetch(self._more.stored, *columns_of(keys))
        return await self._lock(self._connection, keys)

    async def _next(self, statement: str, after: ObjectKey) -> list[ObjectKey]:
        return [key_of(row) for row in await self._connection.fetch(statement, *after)]

    # Reading ---------------------------------------------------------------------------------------------------------

    async def _ledgers(self, keys: Collection[ObjectKey]) -> AsyncIterator[tuple[ObjectKey, Sequence[Entry]]]:
        """The whole ledger of each object that has one, some objects at a time."""
        left = sorted(keys)
        weights = await self._weights(left)
        while left:
            group = within(left, weights, self._page_entries)
            left = left[len(group) :]
            for key, entries in (await self._entries(group)).items():
                yield key, entries

    async def _entries(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Sequence[Entry]]:
        columns = columns_of(keys)
        entries: defaultdict[ObjectKey, list[Entry]] = defaultdict(list)
        beside: dict[tuple[ObjectKey, str], Observation] = {}
        if self._beside:
            for row in await self._connection.fetch(self._more.stage.history, *columns):
                beside[key_of(row), row["event_id"]] = observation_of(row)
        for row in await self._connection.fetch(self._sql.history, *columns):
            observation = beside.pop((key_of(row), row["event_id"]), None)
            from_topic = observation is not None
            if observation is None:
                observation = self._read(row)
            links = self._projection.links(observation)
            entries[observation.key].append(Entry(observation, links, _ledger_entry(row), from_topic))
        for observation in beside.values():
            links = self._projection.links(observation)
            entries[observation.key].append(Entry(observation, links, None, from_topic=True))
        return entries

    async def _weights(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, int]:
        """How many entries each object has, about."""
        weights: defaultdict[ObjectKey, int] = defaultdict(int)
        statements = [self._more.entries, *([self._more.overlay_entries] if self._beside else [])]
        for statement in statements:
            for row in await self._connection.fetch(statement, *columns_of(keys)):
                weights[key_of(row)] += row["entries"]
        return weights

    async def _dependants(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        """The objects that belong where these do."""
        if self._tables.refs is None or not keys:
            return set()
        statements = [self._sql.dependants, *([self._more.stage.dependants] if self._beside else [])]
        return {
            key_of(row)
            for statement in statements
            for row in await self._connection.fetch(statement, *columns_of(keys))
        }

    # Laying beside ---------------------------------------------------------------------------------------------------

    async def _stage(self, events: Sequence[ConsumedEvent]) -> int:
        """Lay beside the ledger what it lacks or has otherwise; how many events are ahead of the consumers."""
        seen = [(each, o, links) for each in events for o, links in observe(self._projection, (each.event,))]
        if not seen:
            return 0
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
        if wanted:
            await self._try(wanted)
            await self._lay_beside(wanted)
        return len(ahead)

    async def _lay_beside(self, observed: Observed) -> None:
        await self._record(self._connection, observed, self._more.stage.record)
        self._beside = True

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

    async def _try(self, observed: Observed) -> None:
        """What no consumer could apply must not get into the ledger: links and rows of each must be possible."""
        await self._note_links(grow(observed, Known()).links)
        by_table: defaultdict[str, list[Row]] = defaultdict(list)
        for o, links in observed:
            state = fold((o,)).state
            for root in links.roots or (o.key.object_id,):
                for row in self._projection.rows(ObjectKey(o.key.account, o.key.livemode, root), (state,)).rows:
                    by_table[row.table].append(row)
        for table, rows in by_table.items():
            await self._would_be(table, rows)

    async def _note_links(self, links: Collection[Link]) -> None:
        """Note those that the table lacks, so that the walk by roots finds their members."""
        if links and self._tables.refs is not None:
            await self._connection.execute(self._more.link_found, *link_columns(links))

    async def _would_be(self, table: str, rows: Collection[Row]) -> Mapping[ObjectKey, Mapping[str, Any]]:
        """What Postgres makes of rows: the types of the columns are its own."""
        if not rows:
            return {}
        id_column = self._tables.rows[table]
        found = await self._connection.fetch(would_be(table, id_column), recordset(rows, id_column))
        return {key_of(row): msgspec.json.decode(row["content"]) for row in found}


def within(keys: Sequence[ObjectKey], weights: Mapping[ObjectKey, int], most: int) -> list[ObjectKey]:
    """As many of the keys as weigh no more than this together, and one at least."""
    taken: list[ObjectKey] = []
    weight = 0
    for key in keys:
        weight += weights.get(key, 0)
        if taken and weight > most:
            break
        taken.append(key)
    return taken


def distinct(entries: Sequence[Entry]) -> Iterable[tuple[Observation, Links]]:
    """One observation of each kind of links: most of an object's events state the same ones."""
    return {entry.links: (entry.observation, entry.links) for entry in entries}.values()


def link_columns(links: Iterable[Link]) -> tuple[list[str], list[bool], list[str], list[str]]:
    """Links as the four arrays that statements take."""
    ordered = sorted(links)
    return *columns_of(member for member, _ in ordered), [root.object_id for _, root in ordered]


def _is_ahead(consumed: ConsumedEvent, offsets: Mapping[Partition, int]) -> bool:
    next_offset = offsets.get(consumed.record.partition)
    return next_offset is not None and consumed.record.offset >= next_offset


def _ledger_entry(row: asyncpg.Record) -> LedgerEntry:
    return LedgerEntry(
        row["object_type"],
        row["event_type"],
        row["api_version"],
        row["data"],
        row["previous"],
        row["no_op"],
        row["via"],
    )
