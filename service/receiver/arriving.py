"""What the event log keeps of a body that came: pure."""

from asyncio import CancelledError
from datetime import datetime

from service.contract import Event
from service.errors import IngestError, ShuttingDown
from service.events import (
    Arrival,
    DedupeMark,
    Duplicate,
    IngestOutcome,
    IngestSource,
    KnownEvent,
    Quarantined,
    Unprocessable,
    VerifiedEvent,
)


def arrival(
    known: KnownEvent,
    source: IngestSource,
    end: IngestOutcome | Unprocessable | BaseException,
    *,
    now: datetime,
    event: Event | None,
    unprocessable: Unprocessable | None,
    mark: DedupeMark | None,
    trace_id: str,
) -> Arrival:
    """The row for it, at the end of its way. What could not be normalized is known by what is well-formed in it.

    An `end` that is `Unprocessable` is a quarantined body that stays so. `event` and `unprocessable` are both there
    where an event's record was too large for its topic.
    """
    if isinstance(known, VerifiedEvent):
        received_at, signed_at, secret = known.received_at, known.signed_at, known.secret_fingerprint
    else:
        # A quarantined body that is replayed says when it came first; this is when it came again.
        received_at, signed_at, secret = now, None, None
    topic = number = offset = None
    if not isinstance(end, Duplicate | Unprocessable | BaseException) and (position := end.position) is not None:
        topic, number, offset = position.topic, position.partition, position.offset
    reason = None if unprocessable is None else unprocessable.reason.value
    if event is None:
        event_id = event_type = None
        if unprocessable is not None:
            event_id, event_type = unprocessable.event_id, unprocessable.event_type
        account = livemode = object_type = object_id = customer_id = created_at = api_version = None
    else:
        event_id, event_type, account, livemode = event.event_id, event.event_type, event.account, event.livemode
        object_type, object_id = event.object_type, event.object_id
        customer_id = getattr(event.data, "customer_id", None)
        created_at, api_version = event.created_at, event.api_version
    return Arrival(
        received_at,
        source,
        known.endpoint.name,
        _tag(end),
        event_id,
        event_type,
        account,
        livemode,
        object_type,
        object_id,
        customer_id,
        created_at,
        api_version,
        signed_at,
        secret,
        topic,
        number,
        offset,
        mark,
        reason,
        trace_id,
    )


def _tag(end: IngestOutcome | Unprocessable | BaseException) -> str:
    if isinstance(end, Unprocessable):
        return Quarantined.tag
    if isinstance(end, CancelledError):
        return ShuttingDown.tag  # nobody cancels it but a process that ends
    if isinstance(end, BaseException) and not isinstance(end, IngestError):
        return IngestError.tag
    return end.tag
