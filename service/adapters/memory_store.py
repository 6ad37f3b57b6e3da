"""The projection store in memory: the twin of the Postgres one under the same contract tests, with faults to inject."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.errors import FenceLost, ForeignCluster, RowRefused
from service.events import Partition
from service.ports import Applied, Batch
from service.projections.linking import Known, Observed, grow, observe
from service.projections.model import ObjectKey, ObjectState, Observation, Projection, Row
from service.projections.ordering import continues, fold


@dataclass(slots=True)
class MemoryDatabase:
    """What outlives a store, and what several stores of one projection share."""

    ledger: dict[ObjectKey, dict[str, Observation]] = field(default_factory=dict)
    states: dict[ObjectKey, ObjectState] = field(default_factory=dict)
    roots: defaultdict[ObjectKey, set[ObjectKey]] = field(default_factory=lambda: defaultdict(set))
    members: defaultdict[ObjectKey, set[ObjectKey]] = field(default_factory=lambda: defaultdict(set))
    dependants: defaultdict[ObjectKey, set[ObjectKey]] = field(default_factory=lambda: defaultdict(set))
    no_ops: set[tuple[ObjectKey, str]] = field(default_factory=set)
    rows: dict[tuple[str, ObjectKey], Row] = field(default_factory=dict)
    offsets: dict[tuple[str, Partition], tuple[int, str]] = field(default_factory=dict)


class MemoryProjectionStore:
    """`ports.ProjectionStore` in memory. A batch is applied without an await in between, hence at once or not at all.

    Faults: an exception in `fail_before` is raised by the next call instead of doing anything; one in `fail_after` by
    the next `apply` after it has taken effect, as when the answer to COMMIT is lost; a batch with an event whose id is
    in `refused` is refused as a whole.
    """

    def __init__(
        self,
        projection: Projection,
        *,
        consumer_group: str,
        cluster_id: str,
        database: MemoryDatabase | None = None,
    ) -> None:
        self.database = database or MemoryDatabase()
        self.fail_before: deque[Exception] = deque()
        self.fail_after: deque[Exception] = deque()
        self.refused: set[str] = set()
        self._projection = projection
        self._consumer_group = consumer_group
        self._cluster_id = cluster_id

    async def check(self) -> None:
        """See `ports.ProjectionStore`."""
        if self.fail_before:
            raise self.fail_before.popleft()

    async def next_offset(self, partition: Partition) -> int | None:
        """See `ports.ProjectionStore`."""
        if self.fail_before:
            raise self.fail_before.popleft()
        stored = self.database.offsets.get((self._consumer_group, partition))
        if stored is None:
            return None
        offset, cluster_id = stored
        if cluster_id != self._cluster_id:
            raise ForeignCluster(f"the stored offset of {partition} belongs to Kafka cluster {cluster_id}")
        return offset

    async def apply(self, batch: Batch) -> Applied:
        """See `ports.ProjectionStore`."""
        if self.fail_before:
            raise self.fail_before.popleft()
        self._check_fence(batch)
        if any(consumed.event.event_id in self.refused for consumed in batch.events):
            raise RowRefused("a row is refused: SQLSTATE 22003", "22003")
        applied = self._apply(observe(self._projection, (consumed.event for consumed in batch.events)))
        for partition, offset in batch.next_offsets.items():
            self.database.offsets[self._consumer_group, partition] = (offset, self._cluster_id)
        if self.fail_after:
            raise self.fail_after.popleft()
        return applied

    async def close(self) -> None:
        """Nothing to give back."""

    def _check_fence(self, batch: Batch) -> None:
        for partition, believed in batch.stored.items():
            expected = None if believed is None else (believed, self._cluster_id)
            if self.database.offsets.get((self._consumer_group, partition)) != expected:
                raise FenceLost(f"another process has moved the offset of {partition}")

    def _apply(self, observed: Observed) -> Applied:
        database = self.database
        events = _event_ids(observed)
        new = [(o, links) for o, links in observed if o.event_id not in database.ledger.get(o.key, {})]
        growth = grow(new, Known(database.roots, database.dependants))
        undecided_before = _undecided(database.states, new)
        for observation, links in new:
            database.ledger.setdefault(observation.key, {})[observation.event_id] = observation
            if links.via is not None:
                via = ObjectKey(observation.key.account, observation.key.livemode, links.via)
                database.dependants[via].add(observation.key)
        for member, root in growth.links:
            database.roots[member].add(root)
            database.members[root].add(member)
        refolded = self._fold(new)
        for root in growth.roots:
            self._write_rows(root)
        applied = _event_ids(new)
        return Applied(
            applied=len(applied),
            already_applied=len(events - applied),
            refolded=refolded,
            undecided=max(0, _undecided(database.states, new) - undecided_before),
            new_events=frozenset(event_id for _, _, event_id in applied),
        )

    def _fold(self, new: Observed) -> int:
        """Always from the whole ledger, which the store it is the twin of does only when it must; say how often."""
        database = self.database
        first_new: dict[ObjectKey, Observation] = {}
        for observation, _ in new:
            first = first_new.setdefault(observation.key, observation)
            if observation.created_at < first.created_at:
                first_new[observation.key] = observation
        refolded = 0
        for key, first in first_new.items():
            state = database.states.get(key)
            refolded += state is not None and not continues(state, [first])
            folded = fold(database.ledger[key].values())
            database.states[key] = folded.state
            database.no_ops.difference_update((key, event_id) for event_id in database.ledger[key])
            database.no_ops.update((key, event_id) for event_id in folded.no_ops)
        return refolded

    def _write_rows(self, root: ObjectKey) -> None:
        database = self.database
        states = [database.states[member] for member in database.members[root] if member in database.states]
        row_set = self._projection.rows(root, states)
        kept = {(row.table, row.key) for row in row_set.rows}
        for table, owner_column in row_set.owned.items():
            for identity in [
                (row.table, row.key)
                for row in database.rows.values()
                if row.table == table and _owner(row, owner_column) == root and (row.table, row.key) not in kept
            ]:
                del database.rows[identity]
        for row in row_set.rows:
            database.rows[row.table, row.key] = row


def _owner(row: Row, column: str) -> ObjectKey:
    """Whom a row names as its owner; its own id, where the column is not among the others."""
    return ObjectKey(row.key.account, row.key.livemode, row.columns.get(column, row.key.object_id))


def _event_ids(observed: Observed) -> set[tuple[str, bool, str]]:
    return {(o.key.account, o.key.livemode, o.event_id) for o, _ in observed}


def _undecided(states: Mapping[ObjectKey, ObjectState], observed: Observed) -> int:
    return sum(states[key].undecided for key in {o.key for o, _ in observed} if key in states)
