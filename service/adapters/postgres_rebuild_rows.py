"""A rebuild's walk by roots: links, and the rows that all states linked to a root come to.

- What belongs to a root is read in the ledgers of all that may belong to it. A link that no ledger states any more is
  removed: whoever relies on a link holds its root's lock.
- A row belongs to the page of the root that it names. Where that one does not make it, all others that might are asked
  before it counts as extra: those that its id may have another form of, and the objects of its last event. A row that
  is wrong about both its root and its last event is found twice: it goes here, and is missing there.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg
import msgspec

from service.adapters.postgres_rebuild_ledger import RebuildLedger, distinct, link_columns, within
from service.adapters.postgres_rebuild_statements import remove_rows, rows_by
from service.adapters.postgres_tables import LocksGrew, columns_of, key_of
from service.ports import RebuildPage
from service.projections.differences import Difference, row_differences
from service.projections.linking import Known, Link, grow
from service.projections.model import Links, ObjectKey, ObjectState, Observation, Row
from service.projections.ordering import fold

_RowKey: TypeAlias = tuple[str, ObjectKey]


@dataclass(frozen=True, slots=True)
class _StoredRow:
    content: Mapping[str, Any]
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class _Belonging:
    """What belongs to some roots by the ledgers: links, and the rows that these make."""

    links: frozenset[Link]
    rows: Mapping[_RowKey, Row]


class RowsWalk(RebuildLedger):
    """The walk `rows`, a page in a transaction that its caller has begun."""

    async def _rows_page(self, after: ObjectKey, wanted: frozenset[ObjectKey]) -> RebuildPage:
        """A page under the locks of its roots and of those `wanted`. Raises `LocksGrew` where it needs more."""
        keys = await self._next_roots(after)
        if not keys:
            return RebuildPage("rows", 0)
        held = wanted | frozenset(keys)
        await self._hold(held)
        belonging = await self._belonging(keys)
        missing, extra = await self._wrong_links(keys, belonging.links)
        self._require_held(held, (member for member, _ in missing | extra))
        stored, named = await self._stored_rows(keys, belonging.rows)
        wrong, differences = await self._wrong_rows(belonging.rows, stored)
        unmade = {identity: stored[identity] for identity in named - belonging.rows.keys()}
        orphans = await self._orphans(unmade, frozenset(keys), held)
        if not self._dry_run:
            await self._link(self._connection, missing)
            await self._correct_rows(extra, wrong, orphans)
        found = (
            *self._link_differences(missing, extra),
            *differences,
            *(Difference("extra", table, key, None, row.content, None) for (table, key), row in orphans.items()),
        )
        return RebuildPage("rows", len(keys), found, keys[-1])

    async def _next_roots(self, after: ObjectKey) -> list[ObjectKey]:
        keys = await self._next(self._more.next_roots, after)
        members = await self._members(self._more.all_members, keys)
        weights = await self._weights({*keys, *(member for member, _ in members)})
        of_root: defaultdict[ObjectKey, int] = defaultdict(int)
        for member, root in {*members, *((key, key) for key in keys)}:
            of_root[root] += weights.get(member, 0)
        return within(keys, of_root, self._page_entries)

    def _require_held(self, held: frozenset[ObjectKey], needed: Iterable[ObjectKey]) -> None:
        lacking = frozenset(needed) - held
        if lacking and not self._dry_run:
            raise LocksGrew(lacking)

    # What belongs to roots -------------------------------------------------------------------------------------------

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
                observed += distinct(entries)
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

    # Links -----------------------------------------------------------------------------------------------------------

    async def _wrong_links(
        self, roots: Collection[ObjectKey], should_be: frozenset[Link]
    ) -> tuple[frozenset[Link], frozenset[Link]]:
        """Those that are missing, and those that are extra."""
        if self._tables.refs is None:
            return frozenset(), frozenset()
        stands = await self._members(self._more.members, roots)
        return should_be - stands, stands - should_be

    def _link_differences(self, missing: Collection[Link], extra: Collection[Link]) -> Iterable[Difference]:
        refs = self._tables.refs or ""
        for member, root in sorted(missing):
            yield Difference("missing", refs, member, None, None, {"payment_id": root.object_id})
        for member, root in sorted(extra):
            yield Difference("extra", refs, member, None, {"payment_id": root.object_id}, None)

    # Rows ------------------------------------------------------------------------------------------------------------

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

    async def _correct_rows(
        self, extra: Collection[Link], wrong: Collection[Row], orphans: Mapping[_RowKey, _StoredRow]
    ) -> None:
        if extra:
            await self._connection.execute(self._more.unlink, *link_columns(extra))
        for table, id_column in self._tables.rows.items():
            rows = {row.key: row for row in wrong if row.table == table}
            if rows:
                await self._upsert(self._connection, table, rows)
            gone = {key: row.applied_at for (name, key), row in orphans.items() if name == table}
            if gone:
                await self._connection.execute(remove_rows(table, id_column), *columns_of(gone), list(gone.values()))


def _row(row: asyncpg.Record) -> _StoredRow:
    return _StoredRow(msgspec.json.decode(row["content"]), row["applied_at"])
