"""How long events took, from their reception by a receiver to the commit of what they say."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from service.events import ConsumedEvent
from service.records import header, trace_id


class Latency(NamedTuple):
    """Of one event: seconds, and the trace of its record, where that names one."""

    seconds: float
    trace_id: str | None


def latencies(events: Sequence[ConsumedEvent], new: Collection[str], now: datetime) -> Sequence[Latency]:
    """Of those that came by webhook and are new to the projection, each once.

    What was recovered or replayed was late before it was received; and a log that is read again tells nothing new.
    """
    left = set(new)
    found: list[Latency] = []
    for event, record in ((each.event, each.record) for each in events):
        if event.event_id in left:
            left.remove(event.event_id)
            if header(record, "ingest_source") == b"webhook":
                found.append(Latency(max(0.0, (now - event.received_at).total_seconds()), trace_id(record)))
    return found
