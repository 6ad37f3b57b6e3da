"""Small hand-written events, and their way through `normalize`."""

from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from service.contract import Data, Event
from service.events import Endpoint, Mode, Record, Secret, Unprocessable, VerifiedEvent
from service.normalize import normalize
from service.records import Topics, encode

D = TypeVar("D", bound=Data)

RECEIVED_AT = datetime(2026, 11, 20, 10, 0, 1, 123_987, UTC)


def at(seconds: int) -> datetime:
    """A moment of Stripe's wire."""
    return datetime.fromtimestamp(seconds, UTC)


def endpoint(*, mode: Mode = "any", account: str | None = None, connect: bool = False) -> Endpoint:
    return Endpoint(
        name="shop", path="/webhooks/shop", secrets=(Secret("whsec_x"),), mode=mode, account=account, connect=connect
    )


def verified(body: bytes, to: Endpoint | None = None) -> VerifiedEvent:
    return VerifiedEvent(
        endpoint=to or endpoint(),
        body=body,
        received_at=RECEIVED_AT,
        signed_at=RECEIVED_AT,
        secret_fingerprint="0123456789ab",
    )


def event(stripe_object: object, event_type: str, **envelope: Any) -> dict[str, Any]:
    """A snapshot event around an object; `envelope` replaces its fields."""
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": "2020-08-27",
        "created": 1_700_000_000,
        "data": {"object": stripe_object},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": "key-1"},
        "type": event_type,
        **envelope,
    }


def updated(stripe_object: dict[str, Any], event_type: str, previous: object) -> dict[str, Any]:
    """A snapshot event that says what its object was before."""
    return event(stripe_object, event_type, data={"object": stripe_object, "previous_attributes": previous})


def normalized(tree: object, to: Endpoint | None = None) -> Event:
    outcome = normalize(verified(orjson.dumps(tree), to))
    assert isinstance(outcome, Event), outcome
    return outcome


def refused(tree: object, to: Endpoint | None = None) -> Unprocessable:
    outcome = normalize(verified(orjson.dumps(tree), to))
    assert isinstance(outcome, Unprocessable), outcome
    return outcome


def data_of(stripe_object: dict[str, Any], event_type: str, data_type: type[D]) -> D:
    """The typed data of an event about this object."""
    data = normalized(event(stripe_object, event_type)).data
    assert isinstance(data, data_type)
    return data


def published(event: Event) -> Record:
    """Its record, without Stripe's own."""
    return encode(event, topics=Topics("stripe"), ingest_source="webhook", include_raw=False, traceparent="")


def headers(record: Record) -> dict[str, str]:
    """A record's headers, as text."""
    return {name: value.decode() for name, value in record.headers}
