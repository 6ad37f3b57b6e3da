"""The spine: take one delivery to Kafka. Every line hands a more trusted value to the next."""

import secrets
from dataclasses import dataclass
from typing import Final

from service.contract import Event
from service.errors import RecordTooLarge
from service.events import (
    Accepted,
    ClaimKey,
    DedupeMark,
    Delivery,
    Duplicate,
    IngestOutcome,
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
class Ingested:
    """What became of a verified delivery; `event` is None where its body could not be normalized."""

    outcome: IngestOutcome
    verified: VerifiedEvent
    event: Event | None
    trace_id: str


async def ingest(delivery: Delivery, deps: Ingest, *, deadline: float) -> Ingested:
    """Take one delivery to Kafka; return only after all in-sync replicas have its record, or had it before.

    `deadline` is on the event loop's clock. Raises `SignatureRefused` and `Unavailable`.
    """
    verified = verify(delivery, now=deps.clock.now(), tolerance_seconds=deps.tolerance_seconds)
    trace_id = secrets.token_hex(16)
    traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-01"
    match normalize(verified, deps.redaction):
        case Unprocessable() as unprocessable:
            quarantined = await _quarantine(unprocessable, deps, traceparent, deadline)
            return Ingested(quarantined, verified, None, trace_id)
        case event:
            accepted = await _accept(event, verified, deps, traceparent, deadline)
            return Ingested(accepted, verified, event, trace_id)


async def _accept(
    event: Event, verified: VerifiedEvent, deps: Ingest, traceparent: str, deadline: float
) -> IngestOutcome:
    record = encode(
        event,
        topics=deps.topics,
        ingest_source="webhook",
        include_raw=deps.include_raw,
        traceparent=traceparent,
    )
    try:
        if not deps.publisher.fits(record):
            raise RecordTooLarge("the record is over its topic's limit")
        position = await _publish_once(ClaimKey(EVENT_SCOPE, event.event_id), record, deps, deadline)
    except RecordTooLarge:
        # Kept byte for byte where there is room for every body: refused, Stripe would send it for days.
        too_large = Unprocessable(
            reason=QuarantineReason.RECORD_TOO_LARGE,
            detail=f"the record of {len(record.value)} bytes is over the limit of {record.topic}",
            event_id=event.event_id,
            endpoint=verified.endpoint,
            body=verified.body,
            received_at=verified.received_at,
        )
        return await _quarantine(too_large, deps, traceparent, deadline)
    return Duplicate(event.event_id) if position is None else Accepted(event.event_id, position)


async def _quarantine(unprocessable: Unprocessable, deps: Ingest, traceparent: str, deadline: float) -> Quarantined:
    record = quarantine(
        unprocessable,
        topics=deps.topics,
        ingest_source="webhook",
        traceparent=traceparent,
        sealing=deps.redaction.sealing if deps.redaction is not None else None,
    )
    # A scope of its own: a body quarantined at the wrong endpoint must not hide the event from its topic.
    key = ClaimKey(f"quarantine:{unprocessable.endpoint.name}", record.key.decode())
    position = await _publish_once(key, record, deps, deadline)
    return Quarantined(unprocessable.event_id, unprocessable.reason, position)


async def _publish_once(key: ClaimKey, record: Record, deps: Ingest, deadline: float) -> Position | None:
    """Publish the record unless one of this key was acknowledged before: then None."""

    async def publish(mark: DedupeMark) -> Position:
        # Beyond the answer's deadline: an ack that comes too late for the answer still confirms the claim.
        return await deps.publisher.publish(marked(record, mark), deadline=deadline + LATE_ACK_SECONDS)

    return await deps.deduplicator.run(key, publish, deadline=deadline)
