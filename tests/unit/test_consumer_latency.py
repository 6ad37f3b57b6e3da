"""Which events' ways are timed to their end, and how long they took."""

from datetime import timedelta

import pytest

from service.consumer.latency import Latency, latencies
from service.events import ConsumedEvent, ConsumedRecord, Partition
from tests.contracts.projection_store import event, intent

TRACE_ID = "0123456789abcdef0123456789abcdef"
WEBHOOK = ("ingest_source", b"webhook")
TRACED = ("traceparent", f"00-{TRACE_ID}-0123456789abcdef-01".encode())
RECEIVED_AT = event("evt_1", intent(1), at=0).received_at
NOW = RECEIVED_AT + timedelta(seconds=3)


def consumed(event_id: str, *headers: tuple[str, bytes]) -> ConsumedEvent:
    record = ConsumedRecord(Partition("stripe.payments", 0), 0, b"key", b"{}", headers, 0)
    return ConsumedEvent(record, event(event_id, intent(1), at=0))


def test_a_new_event_of_a_webhook_is_timed_with_its_trace() -> None:
    assert latencies([consumed("evt_1", WEBHOOK, TRACED)], {"evt_1"}, NOW) == [Latency(3.0, TRACE_ID)]


def test_what_was_there_before_or_came_twice_is_not_timed_again() -> None:
    events = [consumed("evt_1", WEBHOOK), consumed("evt_2", WEBHOOK), consumed("evt_2", WEBHOOK)]

    assert latencies(events, {"evt_2"}, NOW) == [Latency(3.0, None)]


@pytest.mark.parametrize("source", ["reconcile", "backfill", "replay"])
def test_what_was_recovered_is_not_timed(source: str) -> None:
    assert latencies([consumed("evt_1", ("ingest_source", source.encode()))], {"evt_1"}, NOW) == []


@pytest.mark.parametrize(
    "traceparent",
    [b"", b"00", b"00-" + b"0" * 31 + b"g-0123456789abcdef-01", TRACED[1] + b"\n", TRACED[1].upper(), b"\xff" * 55],
)
def test_what_names_no_trace_is_timed_without_one(traceparent: bytes) -> None:
    assert latencies([consumed("evt_1", WEBHOOK, ("traceparent", traceparent))], {"evt_1"}, NOW) == [Latency(3.0, None)]


def test_clocks_that_differ_make_no_time_below_nothing() -> None:
    assert latencies([consumed("evt_1", WEBHOOK)], {"evt_1"}, RECEIVED_AT - timedelta(seconds=1)) == [
        Latency(0.0, None)
    ]
