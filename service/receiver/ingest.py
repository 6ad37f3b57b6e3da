"""The spine: take one delivery to Kafka. Every line hands a more trusted value to the next."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

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
from service.ports import Clock, EventLog, Publisher
from service.receiver.arriving import arrival
from service.receiver.dedupe import Deduplicator
from service.records import Topics, encode, marked, quarantine
from service.redaction import Redaction
from service.signature import verify
from service.tracing import NO_TRACING, Attributes, Span, Tracing

T = TypeVar("T", bound="Taken | Unprocessable")

EVENT_SCOPE: Final = "event"
LATE_ACK_SECONDS: Final = 5.0
"""How long after its answer a record may still be acknowledged; with the answer's budget, shorter than any lease."""

_SENDING: Final[Attributes] = {
    "messaging.system": "kafka",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
}


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
    event_log: EventLog | None = None
    tracing: Tracing = NO_TRACING


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


async def ingest(delivery: Delivery, deps: Ingest, *, deadline: float, span: Span) -> Ingested:
    """Take one delivery to Kafka; return only after all in-sync replicas have its record, or had it before.

    `deadline` is on the event loop's clock, `span` is the request's. Raises `SignatureRefused`, and what `take` raises.
    """
    verified = verify(delivery, now=deps.clock.now(), tolerance_seconds=deps.tolerance_seconds)
    taken = await _noted(_taken, _Way(verified, "webhook", deps, span, deadline))
    return Ingested(taken.outcome, taken.event, taken.trace_id, verified)


async def take(known: KnownEvent, source: IngestSource, deps: Ingest, *, deadline: float) -> Taken:
    """Take a body of Stripe's to Kafka, wherever it came from: what a delivery goes through once it is verified.

    Raises `Unavailable` and `PublishRefused`.
    """
    with deps.tracing.root(source, attributes={"stripe_ingest.endpoint": known.endpoint.name}) as span:
        return await _noted(_taken, _Way(known, source, deps, span, deadline))


async def retake(known: KnownEvent, source: IngestSource, deps: Ingest, *, deadline: float) -> Taken | Unprocessable:
    """Take a body to Kafka that is on the quarantine topic. Unfit still, it stays there, and goes nowhere.

    Raises `Unavailable` and `PublishRefused`.
    """
    with deps.tracing.root(source, attributes={"stripe_ingest.endpoint": known.endpoint.name}) as span:
        return await _noted(_to_its_topic, _Way(known, source, deps, span, deadline))


@dataclass(slots=True)
class _Way:
    """What goes with a body all the way, and what it turns out to be on it."""

    known: KnownEvent
    source: IngestSource
    deps: Ingest
    span: Span
    deadline: float
    event: Event | None = None
    unprocessable: Unprocessable | None = None
    """Why it is for quarantine: it is no event, or one (`event` is there too) that its topic has no room for."""
    mark: DedupeMark | None = None


async def _noted(step: Callable[[_Way], Awaitable[T]], way: _Way) -> T:
    """Have the event log told what becomes of a body. Every way through the spine ends here."""
    try:
        end = await step(way)
    except BaseException as failure:
        _note(failure, way)
        raise
    _note(end, way)
    return end


def _note(end: Taken | Unprocessable | BaseException, way: _Way) -> None:
    if way.deps.event_log is not None:
        way.deps.event_log.note(
            arrival(
                way.known,
                way.source,
                end.outcome if isinstance(end, Taken) else end,
                now=way.deps.clock.now(),
                event=way.event,
                unprocessable=way.unprocessable,
                mark=way.mark,
                trace_id=way.span.trace_id,
            )
        )


async def _taken(way: _Way) -> Taken:
    match await _to_its_topic(way):
        case Taken() as taken:
            return taken
        case unprocessable:
            return Taken(await _quarantine(unprocessable, way), way.event, way.span.trace_id)


async def _to_its_topic(way: _Way) -> Taken | Unprocessable:
    match normalize(way.known, way.deps.redaction):
        case Unprocessable() as unprocessable:
            way.unprocessable = unprocessable
            return unprocessable
        case event:
            way.event = event
            return await _accept(event, way)


async def _accept(event: Event, way: _Way) -> Taken | Unprocessable:
    sending = _sending(way.deps.topics.of(event.category), way)
    record = encode(
        event,
        topics=way.deps.topics,
        ingest_source=way.source,
        include_raw=way.deps.include_raw,
        traceparent=sending.traceparent,
    )
    try:
        if not way.deps.publisher.fits(record):
            raise RecordTooLarge("the record is over its topic's limit")
        position = await _publish_once(ClaimKey(EVENT_SCOPE, event.event_id), record, sending, way)
    except RecordTooLarge:
        # Kept byte for byte where there is room for every body: refused, Stripe would send it for days.
        way.unprocessable = Unprocessable(
            reason=QuarantineReason.RECORD_TOO_LARGE,
            detail=f"the record of {len(record.value)} bytes is over the limit of {record.topic}",
            event_id=event.event_id,
            endpoint=way.known.endpoint,
            body=way.known.body,
            received_at=way.known.received_at,
            event_type=event.event_type,
        )
        return way.unprocessable
    outcome = Duplicate(event.event_id) if position is None else Accepted(event.event_id, position)
    return Taken(outcome, event, way.span.trace_id)


async def _quarantine(unprocessable: Unprocessable, way: _Way) -> Quarantined:
    redaction = way.deps.redaction
    sending = _sending(way.deps.topics.quarantine, way)
    record = quarantine(
        unprocessable,
        topics=way.deps.topics,
        ingest_source=way.source,
        traceparent=sending.traceparent,
        sealing=redaction.sealing if redaction is not None else None,
    )
    # A scope of its own: a body quarantined at the wrong endpoint must not hide the event from its topic.
    key = ClaimKey(f"quarantine:{unprocessable.endpoint.name}", record.key.decode())
    position = await _publish_once(key, record, sending, way)
    return Quarantined(unprocessable.event_id, unprocessable.reason, position)


def _sending(topic: str, way: _Way) -> Span:
    """The span that the record's `traceparent` names: its consumers' work follows from the sending."""
    return way.span.child(f"send {topic}", "producer", {**_SENDING, "messaging.destination.name": topic})


async def _publish_once(key: ClaimKey, record: Record, sending: Span, way: _Way) -> Position | None:
    """Publish the record unless one of this key was acknowledged before: then None."""
    claiming = way.span.child("dedupe claim")

    async def publish(mark: DedupeMark) -> Position:
        claiming.end()
        way.mark = mark
        with sending:
            # Beyond the answer's deadline: an ack that comes too late for the answer still confirms the claim.
            position = await way.deps.publisher.publish(marked(record, mark), deadline=way.deadline + LATE_ACK_SECONDS)
            sending.end(
                {
                    "messaging.destination.partition.id": str(position.partition),
                    "messaging.kafka.offset": position.offset,
                }
            )
        return position

    with claiming:
        return await way.deps.deduplicator.run(key, publish, deadline=way.deadline)
