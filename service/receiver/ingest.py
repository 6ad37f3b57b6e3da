"""The spine: take one delivery to Kafka. Every line hands a more trusted value to the next."""

import secrets
from dataclasses import dataclass
from typing import Final, Self

from service.contract import Event
from service.errors import RecordTooLarge
from service.events import (
    Accepted,
    ClaimKey,
    DedupeMark,
    Delivery,
    Duplicate,
    IngestOutcome,
    IngestSource,
    KnownEvent,
    Position,
    Quarantined,
    QuarantineReason,
    Record,
    Unprocessable,
    VerifiedEvent,
)
from service.normalize import normalize
from service.ports import Clock, Publisher
from service.receiver.dedupe import Deduplicator
from service.records import Topics, encode, marked, quarantine
from service.redaction import Redaction
from service.signature import verify

EVENT_SCOPE: Final = "event"
LATE_ACK_SECONDS: Final = 5.0
"""How long after its answer a record may still be acknowledged; with the answer's budget, shorter than any lease."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """What the spine needs of the world."""

    publisher: Publisher
    deduplicator: Deduplicator
    clock: Clock
    topics: Topics
    include_raw: bool
    tolerance_seconds: int
    redaction: Redaction | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a body of Stripe's; `event` is None where it could not be normalized."""

    outcome: IngestOutcome
    event: Event | None
    trace_id: str


@dataclass(frozen=True, slots=True)
class Ingested(Taken):
    """What became of a delivery."""

    verified: VerifiedEvent


async def ingest(delivery: Delivery, deps: Ingest, *, deadline: float) -> Ingested:
    """Take one delivery to Kafka; return only after all in-sync replicas have its record, or had it before.

    `deadline` is on the event loop's clock. Raises `SignatureRefused` and `Unavailable`.
    """
    verified = verify(delivery, now=deps.clock.now(), tolerance_seconds=deps.tolerance_seconds)
    taken = await take(verified, "webhook", deps, deadline=deadline)
    return Ingested(taken.outcome, taken.event, taken.trace_id, verified)


async def take(known: KnownEvent, source: IngestSource, deps: Ingest, *, deadline: float) -> Taken:
    """Take a body of Stripe's to Kafka, wherever it came from: what a delivery goes through once it is verified.

    Raises `Unavailable` and `PublishRefused`.
    """
    way = _Way.of(source, deps, deadline)
    match await _to_its_topic(known, way):
        case Taken() as taken:
            return taken
        case _Unfit(unprocessable, event):
            return Taken(await _quarantine(unprocessable, way), event, way.trace_id)


async def retake(known: KnownEvent, source: IngestSource, deps: Ingest, *, deadline: float) -> Taken | Unprocessable:
    """Take a body to Kafka that is on the quarantine topic. Unfit still, it stays there, and goes nowhere.

    Raises `Unavailable` and `PublishRefused`.
    """
    match await _to_its_topic(known, _Way.of(source, deps, deadline)):
        case Taken() as taken:
            return taken
        case _Unfit(unprocessable):
            return unprocessable


@dataclass(frozen=True, slots=True)
class _Way:
    """What goes with a body all the way."""

    source: IngestSource
    deps: Ingest
    trace_id: str
    traceparent: str
    deadline: float

    @classmethod
    def of(cls, source: IngestSource, deps: Ingest, deadline: float) -> Self:
        trace_id = secrets.token_hex(16)
        return cls(source, deps, trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-01", deadline)


@dataclass(frozen=True, slots=True)
class _Unfit:
    """A body that cannot be on a topic of events; `event` is None where it could not be normalized."""

    unprocessable: Unprocessable
    event: Event | None


async def _to_its_topic(known: KnownEvent, way: _Way) -> Taken | _Unfit:
    match normalize(known, way.deps.redaction):
        case Unprocessable() as unprocessable:
            return _Unfit(unprocessable, None)
        case event:
            return await _accept(event, known, way)


async def _accept(event: Event, known: KnownEvent, way: _Way) -> Taken | _Unfit:
    record = encode(
        event,
        topics=way.deps.topics,
        ingest_source=way.source,
        include_raw=way.deps.include_raw,
        traceparent=way.traceparent,
    )
    try:
        if not way.deps.publisher.fits(record):
            raise RecordTooLarge("the record is over its topic's limit")
        position = await _publish_once(ClaimKey(EVENT_SCOPE, event.event_id), record, way)
    except RecordTooLarge:
        # Kept byte for byte where there is room for every body: refused, Stripe would send it for days.
        too_large = Unprocessable(
            reason=QuarantineReason.RECORD_TOO_LARGE,
            detail=f"the record of {len(record.value)} bytes is over the limit of {record.topic}",
            event_id=event.event_id,
            endpoint=known.endpoint,
            body=known.body,
            received_at=known.received_at,
            event_type=event.event_type,
        )
        return _Unfit(too_large, event)
    outcome = Duplicate(event.event_id) if position is None else Accepted(event.event_id, position)
    return Taken(outcome, event, way.trace_id)


async def _quarantine(unprocessable: Unprocessable, way: _Way) -> Quarantined:
    redaction = way.deps.redaction
    record = quarantine(
        unprocessable,
        topics=way.deps.topics,
        ingest_source=way.source,
        traceparent=way.traceparent,
        sealing=redaction.sealing if redaction is not None else None,
    )
    # A scope of its own: a body quarantined at the wrong endpoint must not hide the event from its topic.
    key = ClaimKey(f"quarantine:{unprocessable.endpoint.name}", record.key.decode())
    position = await _publish_once(key, record, way)
    return Quarantined(unprocessable.event_id, unprocessable.reason, position)


async def _publish_once(key: ClaimKey, record: Record, way: _Way) -> Position | None:
    """Publish the record unless one of this key was acknowledged before: then None."""

    async def publish(mark: DedupeMark) -> Position:
        # Beyond the answer's deadline: an ack that comes too late for the answer still confirms the claim.
        return await way.deps.publisher.publish(marked(record, mark), deadline=way.deadline + LATE_ACK_SECONDS)

    return await way.deps.deduplicator.run(key, publish, deadline=way.deadline)
