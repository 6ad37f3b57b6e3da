"""Arrivals for the event log, to test with."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from service.events import Arrival

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_numbers = count(1)


def arrival(event_id: str | None = "evt_1", **changes: Any) -> Arrival:
    """A delivery that was accepted; each is its own, by its trace."""
    number = next(_numbers)
    made = Arrival(
        received_at=NOON,
        ingest_source="webhook",
        endpoint="shop",
        outcome="accepted",
        event_id=event_id,
        event_type="payment_intent.succeeded",
        account="acct_1",
        livemode=True,
        object_type="payment_intent",
        object_id="pi_1",
        customer_id="cus_1",
        created_at=NOON - timedelta(seconds=2),
        api_version="2026-10-28.endive",
        signed_at=NOON - timedelta(seconds=1),
        secret="0a1b2c3d",
        topic="stripe.payments",
        partition=2,
        record_offset=2**40 + number,
        dedupe="checked",
        reason=None,
        trace_id=f"{number:032x}",
    )
    return made._replace(**changes)


def bare_arrival() -> Arrival:
    """One of a body that nothing was found in."""
    nothing = {name: None for name in Arrival._fields if name not in ("received_at", "ingest_source", "trace_id")}
    return arrival(**nothing | {"endpoint": "shop", "outcome": "quarantined", "reason": "malformed_json"})
