"""A rebuild's walk by objects: ledger entries, their marks, and the states that they come to.

Links can be found only from the objects that state them. Those that are missing are noted here, in a temporary table,
so that the walk by roots knows all that may belong to a root.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import asyncpg

from service.adapters.postgres_rebuild_ledger import Entry, RebuildLedger, distinct, within
from service.adapters.postgres_tables import columns_of, data_of, key_of
from service.ports import RebuildPage
from service.projections.differences import Difference, StoredState, entry_differences, state_differences
from service.projections.linking import Known, grow
from service.projections.model import Links, ObjectKey, ObjectState, Observation
from service.projections.ordering import fold


@dataclass(slots=True)
class _Corrections:
    """What a page has to write."""

    merged: set[ObjectKey] = field(default_factory=set)
    vias: list[tuple[Observation, Links]] = field(default_factory=list)
    marks: list[tuple[Observation, bool]] = field(default_factory=list)
    states: list[ObjectState] = field(default_factory=list)
    forgotten: list[ObjectKey] = field(default_factory=list)


class ObjectsWalk(RebuildLedger):
    """The walk `objects`, a page in a transaction that its caller has begun."""

    async def _objects_page(self, after: ObjectKey) -> RebuildPage:
        keys = await self._next(self._more.next_objects, after)
        if not keys:
            return RebuildPage("objects", 0)
        keys = within(keys, await self._weights(keys), self._page_entries)
        stands = {key_of(row): _stored(row) for row in await self._hold(keys) if row["data"] is not None}
        corrections = _Corrections()
        differences: list[Difference] = []
        observed: list[tuple[Observation, Links]] = []
        without_ledger = set(keys)
        async for key, entries in self._ledgers(keys):
            without_ledger.discard(key)
            differences += self._compare(key, entries, stands.get(key), corrections)
            observed += distinct(entries)
        for key in sorted(without_ledger & stands.keys()):
            differences += state_differences(self._tables.objects, key, stands[key], None, data_of)
            corrections.forgotten.append(key)
        await self._note_links(grow(observed, Known()).links)
        if not self._dry_run:
            await self._correct_objects(corrections)
        elif corrections.vias:
            # As they should be, so that the walk by roots finds whom they wait for.
            await self._lay_beside(corrections.vias)
        return RebuildPage("objects", len(keys), tuple(differences), keys[-1])

    def _compare(
        self, key: ObjectKey, entries: Sequence[Entry], stands: StoredState | None, corrections: _Corrections
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
