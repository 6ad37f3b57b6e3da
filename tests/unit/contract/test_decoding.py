"""`service.contract` as a consumer in Python uses it: bytes in, typed events out, and nothing else comes with it."""

import subprocess
import sys
from datetime import UTC, datetime

import orjson
import pytest

from service.contract import DATA_TYPES, NO_RAW, ContractError, Other, PaymentIntent, Subscription, decode
from service.contract.schema import SCHEMA_NAMES
from tests.unit.contract.records import event, record

FOREIGN = (
    "aiohttp",
    "aiokafka",
    "asyncpg",
    "click",
    "cryptography",
    "orjson",
    "prometheus_client",
    "stripe",
    "structlog",
)

VALUE = b"""
{"schema_version": 1, "category": "payment", "event_id": "evt_1", "event_type": "payment_intent.succeeded",
 "account": "default", "livemode": true, "endpoint": "shop", "created_at": "2026-11-20T10:00:00Z",
 "received_at": "2026-11-20T10:00:01.123Z", "api_version": "2020-08-27", "request_id": null, "idempotency_key": null,
 "object_type": "payment_intent", "object_id": "pi_1",
 "data": {"payment_intent_id": "pi_1", "status": "succeeded", "amount_minor": 9007199254740993, "currency": "eur"},
 "previous": {"status": "processing"}, "raw": {"id": "evt_1", "n": 1.0}}
"""


def test_a_records_value_is_a_typed_event() -> None:
    event = decode(VALUE)

    assert event.data == PaymentIntent(
        payment_intent_id="pi_1", status="succeeded", amount_minor=9007199254740993, currency="eur"
    )
    assert (event.event_id, event.event_type, event.livemode) == ("evt_1", "payment_intent.succeeded", True)
    assert event.created_at == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert event.previous == {"status": "processing"}
    assert bytes(event.raw) == b'{"id": "evt_1", "n": 1.0}'


def test_events_are_told_apart_by_the_type_of_their_data() -> None:
    match decode(VALUE).data:
        case PaymentIntent(status="succeeded", amount_minor=int(amount)):
            assert amount == 9007199254740993
        case _:
            pytest.fail("a payment intent that succeeded")


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_what_was_encoded_is_decoded(name: str) -> None:
    given = event(name)

    read = decode(record(given).value)

    assert read == given
    assert type(read.data) is DATA_TYPES.get(name, Other)


def test_without_raw_it_is_null() -> None:
    assert decode(record(event("charge"), include_raw=False).value).raw == NO_RAW


def test_an_object_type_from_the_future_is_other() -> None:
    value = orjson.loads(VALUE) | {"object_type": "payment_record"}

    assert decode(orjson.dumps(value)).data == Other(payment_intent_id="pi_1")


def test_fields_and_statuses_from_the_future_pass() -> None:
    value = orjson.loads(record(event("subscription")).value)
    value["added"] = value["data"]["added"] = value["data"]["items"][0]["added"] = [1]
    value["data"]["status"] = "hibernating"

    data = decode(orjson.dumps(value)).data

    assert isinstance(data, Subscription)
    assert data.status == "hibernating"


def test_a_field_that_an_earlier_release_did_not_write_reads_as_its_default() -> None:
    value = orjson.loads(record(event("subscription")).value)
    for name in ("items", "pending_update", "metadata"):
        del value["data"][name]

    data = decode(orjson.dumps(value)).data

    assert isinstance(data, Subscription)
    assert (data.items, data.pending_update, data.metadata) == ((), None, {})


@pytest.mark.parametrize(
    ("value", "reason", "place"),
    [
        (b"", "not_json", None),
        (b"\xff\xfe sk_live_secret", "not_json", None),
        (VALUE[:-100], "not_json", None),
        (VALUE.replace(b"1.0", b"[" * 100_000), "not_json", None),
        (b"[]", "schema_mismatch", "$"),
        (b"null", "schema_mismatch", "$"),
        (VALUE.replace(b'"event_id": "evt_1", ', b""), "schema_mismatch", "$"),
        (VALUE.replace(b'"schema_version": 1', b'"schema_version": 4242'), "schema_mismatch", "$.schema_version"),
        (VALUE.replace(b'"payment"', b'"sk_live_secret"'), "schema_mismatch", "$.category"),
        (VALUE.replace(b"10:00:00Z", b"10:00:00"), "schema_mismatch", "$.created_at"),
        (VALUE.replace(b"9007199254740993", b'"sk_live_secret"'), "schema_mismatch", "$.amount_minor"),
        (VALUE.replace(b'"pi_1", "status"', b'4242, "status"'), "schema_mismatch", "$.payment_intent_id"),
    ],
)
def test_what_is_no_record_has_a_reason_and_a_place_and_shows_no_value(
    value: bytes, reason: str, place: str | None
) -> None:
    with pytest.raises(ContractError) as raised:
        decode(value)

    assert raised.value.reason == reason
    assert place is None or str(raised.value).endswith(f" `{place}`")
    assert "secret" not in str(raised.value)
    assert "4242" not in str(raised.value)
    # A traceback would print the cause, and msgspec's message may quote the value.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_consumer_needs_nothing_but_msgspec() -> None:
    program = "import sys, service.contract; print(*sorted(sys.modules))"

    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()

    assert "service.contract" in modules
    assert {name.partition(".")[0] for name in modules}.isdisjoint(FOREIGN)
    assert [name for name in modules if name.startswith("service.") and not name.startswith("service.contract")] == []
