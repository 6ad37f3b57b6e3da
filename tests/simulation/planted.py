"""Bugs that were made on purpose: each replaces a function of the service, and the simulation must find it.

They are the mistakes that receivers and consumers of webhooks really have. A simulation that lets one of them pass
shows nothing when it is silent about the service.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cmp_to_key
from typing import Any, Final
from unittest.mock import patch

from service import records
from service.adapters import memory_store
from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.memory_store import MemoryProjectionStore
from service.consumer.loop import Consumer
from service.contract import Event
from service.events import (
    ClaimKey,
    ClaimState,
    ConsumedEvent,
    ConsumedRecord,
    Delivery,
    Position,
    Record,
    VerifiedEvent,
)
from service.normalize import envelope
from service.ports import Applied, Batch
from service.projections import ordering
from service.projections.linking import Observed
from service.projections.model import Observation
from service.projections.ordering import Folded
from service.receiver import dedupe, ingest
from service.receiver.dedupe import Deduplicator
from service.signature import verify
from tests.simulation.twins import SimulatedSource

Replacement = tuple[object, str, object]
"""(whose, name, what stands there instead)."""


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A mistake, and the classes one of which must be found."""

    name: str
    classes: frozenset[str]
    replacements: Callable[[], Sequence[Replacement]]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The service has the bug inside of the block."""
        with ExitStack() as stack:
            for whose, name, replacement in self.replacements():
                stack.enter_context(patch.object(whose, name, replacement))
            yield


# The receiver -------------------------------------------------------------------------------------------------------


def _mark_before_publish() -> Sequence[Replacement]:
    async def publish_claimed(self: Any, key: ClaimKey, flight: Any, publish: Any, deadline: float) -> Position | None:
        mark = await self._claim(key, flight, deadline)
        self._remember(key)
        if mark is None:
            return None
        flight.publishing = True
        self._confirms.add(key)
        position: Position = await publish(mark)
        return position

    return [(Deduplicator, "_publish_claimed", publish_claimed)]


def _answer_before_ack() -> Sequence[Replacement]:
    publish_once = ingest._publish_once

    async def hasty(key: ClaimKey, record: Record, sending: Any, way: Any) -> Position | None:
        publishing = asyncio.create_task(publish_once(key, record, sending, way))
        publishing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return Position(record.topic, 0, 0)

    return [(ingest, "_publish_once", hasty)]


def _answer_while_in_flight_here() -> Sequence[Replacement]:
    async def follow(_: Any, __: Any, ___: float) -> bool:
        return True

    return [(Deduplicator, "_follow", follow)]


def _answer_while_in_flight_elsewhere() -> Sequence[Replacement]:
    ask = Deduplicator._ask

    async def trusting(self: Any, key: ClaimKey, flight: Any) -> Any:
        claim = await ask(self, key, flight)
        return replace(claim, state=ClaimState.DONE) if claim.state is ClaimState.IN_FLIGHT else claim

    return [(Deduplicator, "_ask", trusting)]


def _release_of_a_lease_that_ran_out() -> Sequence[Replacement]:
    async def release(self: Any, keys: Iterable[ClaimKey], *, owner: str) -> None:  # noqa: ARG001 -- that is the bug
        for key in keys:
            self._leases.pop(key, None)

    return [(MemoryDedupeStore, "release", release)]


def _release_after_an_unknown_outcome() -> Sequence[Replacement]:
    return [(dedupe, "_certainly_not_published", lambda _: True)]


def _quarantine_hides_the_event() -> Sequence[Replacement]:
    publish_once = ingest._publish_once

    async def one_scope(key: ClaimKey, record: Record, sending: Any, way: Any) -> Position | None:
        return await publish_once(ClaimKey(ingest.EVENT_SCOPE, key.id), record, sending, way)

    return [(ingest, "_publish_once", one_scope)]


def _dedupe_on_the_object() -> Sequence[Replacement]:
    publish_once = ingest._publish_once

    async def by_object(key: ClaimKey, record: Record, sending: Any, way: Any) -> Position | None:
        return await publish_once(ClaimKey(key.scope, record.key.decode()), record, sending, way)

    return [(ingest, "_publish_once", by_object)]


def _key_of_the_event() -> Sequence[Replacement]:
    def by_event(event: Event) -> str:
        return event.event_id

    return [(records, "key_of", by_event)]


def _signature_not_checked() -> Sequence[Replacement]:
    def believe(delivery: Delivery, **_: object) -> VerifiedEvent:
        return VerifiedEvent(delivery.endpoint, delivery.body, delivery.received_at, delivery.received_at, "none")

    return [(ingest, "verify", believe)]


def _timestamp_not_checked() -> Sequence[Replacement]:
    def any_age(delivery: Delivery, *, now: Any, **_: object) -> VerifiedEvent:
        return verify(delivery, now=now, tolerance_seconds=10**9)

    return [(ingest, "verify", any_age)]


def _mode_not_checked() -> Sequence[Replacement]:
    return [(envelope, "_livemode", lambda tree, _: tree["livemode"])]


def _no_bound_on_the_answer() -> Sequence[Replacement]:
    async def patient(futures: Sequence[asyncio.Future[Any]], *, until: float) -> None:  # noqa: ARG001 -- that is the bug
        if futures:
            await asyncio.wait(futures)

    return [(dedupe, "_wait", patient)]


def _flights_never_end() -> Sequence[Replacement]:
    return [(Deduplicator, "_ended", lambda *_: None)]


# The consumer -------------------------------------------------------------------------------------------------------


def _no_fence() -> Sequence[Replacement]:
    return [(MemoryProjectionStore, "_check_fence", lambda *_: None)]


def _fence_without_a_seek() -> Sequence[Replacement]:
    return [(SimulatedSource, "unposition", lambda *_: None)]


def _belief_not_checked() -> Sequence[Replacement]:
    async def believe(_: Any, __: object) -> None:
        """What was applied once is there for ever."""

    return [(Consumer, "_check_beliefs", believe)]


def _commit_before_apply() -> Sequence[Replacement]:
    async def commit(self: Any, events: Sequence[ConsumedEvent], consumed: Sequence[ConsumedRecord]) -> Applied:
        next_offsets = {record.partition: record.next_offset for record in consumed}
        stored = {partition: self._stored[partition] for partition in next_offsets}
        offsets = Batch((), stored, next_offsets)
        await self._insist(lambda: self._store.apply(offsets))
        self._positions |= next_offsets
        self._stored |= next_offsets
        batch = Batch(events, next_offsets, next_offsets)
        applied: Applied = await self._insist(lambda: self._store.apply(batch))
        return applied

    return [(Consumer, "_commit", commit)]


def _poison_is_dropped() -> Sequence[Replacement]:
    async def drop(self: Any, invalid: Any) -> None:
        await self._commit((), [invalid.record])

    return [(Consumer, "_bury", drop)]


def _dead_letter_nobody_awaits() -> Sequence[Replacement]:
    publish = Consumer._publish_dead_letter

    async def in_the_background(self: Any, invalid: Any) -> None:
        publishing = asyncio.create_task(publish(self, invalid))
        publishing.add_done_callback(lambda task: task.cancelled() or task.exception())

    return [(Consumer, "_publish_dead_letter", in_the_background)]


# The projections ----------------------------------------------------------------------------------------------------


def _in_sequence(observations: Sequence[Observation]) -> Folded:
    state = None
    for observation in observations:
        state = ordering._step(state, observation)
    if state is None:
        raise ValueError("nothing to fold")
    return Folded(state, frozenset())


def _last_arrival_wins() -> Sequence[Replacement]:
    return [(memory_store, "fold", lambda observations: _in_sequence(list(observations)))]


def _pairwise_order() -> Sequence[Replacement]:
    def follows(earlier: Observation, later: Observation) -> bool:
        told: Mapping[str, Any] = ordering._told(later)
        return ordering._holds(told, earlier.data)

    def compared(one: Observation, other: Observation) -> int:
        if one.created_at != other.created_at:
            return -1 if one.created_at < other.created_at else 1
        if follows(one, other) != follows(other, one):
            return -1 if follows(one, other) else 1
        return (ordering._rank(one) > ordering._rank(other)) - (ordering._rank(one) < ordering._rank(other))

    return [(memory_store, "fold", lambda observations: _in_sequence(sorted(observations, key=cmp_to_key(compared))))]


def _ledger_not_asked() -> Sequence[Replacement]:
    apply = MemoryProjectionStore._apply

    def always_new(self: Any, observed: Observed) -> Applied:
        for observation, _ in observed:
            self.database.ledger.get(observation.key, {}).pop(observation.event_id, None)
        return apply(self, observed)

    return [(MemoryProjectionStore, "_apply", always_new)]


PLANTED: Final[Sequence[PlantedBug]] = (
    PlantedBug("an event is marked as done before it is published", frozenset({"lost_ack"}), _mark_before_publish),
    PlantedBug("200 before the broker's ack", frozenset({"lost_ack"}), _answer_before_ack),
    PlantedBug("200 while another delivery is in flight here", frozenset({"lost_ack"}), _answer_while_in_flight_here),
    PlantedBug(
        "200 while another delivery is in flight elsewhere", frozenset({"lost_ack"}), _answer_while_in_flight_elsewhere
    ),
    PlantedBug(
        "release by a holder whose lease ran out", frozenset({"duplicate_record"}), _release_of_a_lease_that_ran_out
    ),
    PlantedBug("release after an unknown outcome", frozenset({"duplicate_record"}), _release_after_an_unknown_outcome),
    PlantedBug("a confirm from quarantine hides the event", frozenset({"lost_ack"}), _quarantine_hides_the_event),
    PlantedBug("dedupe on the object's id", frozenset({"lost_ack"}), _dedupe_on_the_object),
    PlantedBug("the record's key is the event's id", frozenset({"misrouted"}), _key_of_the_event),
    PlantedBug("the signature is not checked", frozenset({"phantom"}), _signature_not_checked),
    PlantedBug("the signature's timestamp is not checked", frozenset({"phantom"}), _timestamp_not_checked),
    PlantedBug("the mode is not checked", frozenset({"misrouted"}), _mode_not_checked),
    PlantedBug("no bound on the answer", frozenset({"unanswered"}), _no_bound_on_the_answer),
    PlantedBug("flights that never end", frozenset({"unanswered", "unbounded"}), _flights_never_end),
    PlantedBug("an offset without a fence", frozenset({"lost_ack", "diverged"}), _no_fence),
    PlantedBug("a lost fence without a seek", frozenset({"unbounded"}), _fence_without_a_seek),
    PlantedBug(
        "a failover that a quiet partition does not notice", frozenset({"lost_ack", "unbounded"}), _belief_not_checked
    ),
    PlantedBug("the offset is committed before the events are applied", frozenset({"lost_ack"}), _commit_before_apply),
    PlantedBug("poison is dropped", frozenset({"lost_ack"}), _poison_is_dropped),
    PlantedBug("a dead letter that nobody awaits", frozenset({"lost_ack"}), _dead_letter_nobody_awaits),
    PlantedBug("the last to arrive wins", frozenset({"diverged", "stale_regress"}), _last_arrival_wins),
    PlantedBug("events are compared pairwise", frozenset({"diverged"}), _pairwise_order),
    PlantedBug("the ledger's insert is not asked", frozenset({"duplicate_effect"}), _ledger_not_asked),
)
"""All of them."""
