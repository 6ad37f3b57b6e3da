"""Records: the topic, key, headers and value of an event, both ways; side topics keep bytes unchanged."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
import pytest

from service.contract import (
    DATA_TYPES,
    NO_RAW,
    Category,
    Charge,
    CheckoutSession,
    Customer,
    Data,
    Event,
    Invoice,
    Other,
    PaymentIntent,
    Price,
    Product,
    Refund,
    Subscription,
)
from service.events import (
    ConsumedEvent,
    ConsumedRecord,
    Endpoint,
    InvalidRecord,
    Partition,
    QuarantineReason,
    Record,
    Secret,
    Unprocessable,
)
from service.records import Topics, dead_letter, decode, encode, key_of, key_rule, marked, quarantine, topic_configs

TOPICS = Topics("stripe")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = b'{\n  "id": "evt_1",\n  "n": 1.0\n}'


def event(category: Category = "payment", data: Data | None = None, **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "category": category,
        "event_id": "evt_1",
        "event_type": "payment_intent.succeeded",
        "account": "default",
        "livemode": True,
        "endpoint": "shop",
        "created_at": datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC),
        "received_at": datetime(2026, 11, 20, 10, 0, 1, 123000, tzinfo=UTC),
        "api_version": "2020-08-27",
        "request_id": None,
        "idempotency_key": None,
        "object_type": "payment_intent",
        "object_id": "pi_1",
        "data": data or PaymentIntent(payment_intent_id="pi_1", amount_minor=1234, currency="eur"),
        "previous": {"status": "processing"},
        "raw": msgspec.Raw(BODY),
    }
    return Event(**(fields | changes))


def encoded(given: Event, *, include_raw: bool = True) -> Record:
    return encode(given, topics=TOPICS, ingest_source="webhook", include_raw=include_raw, traceparent=TRACEPARENT)


def consumed(record: Record) -> ConsumedRecord:
    return ConsumedRecord(Partition(record.topic, 3), 41, record.key, record.value, record.headers, 0)


def test_the_value_is_the_published_contract() -> None:
    value = orjson.loads(encoded(event()).value)

    assert value.pop("data")["amount_minor"] == 1234
    assert value == {
        "schema_version": 1,
        "category": "payment",
        "event_id": "evt_1",
        "event_type": "payment_intent.succeeded",
        "account": "default",
        "context": None,
        "livemode": True,
        "endpoint": "shop",
        "created_at": "2026-11-20T10:00:00Z",
        "received_at": "2026-11-20T10:00:01.123000Z",
        "api_version": "2020-08-27",
        "request_id": None,
        "idempotency_key": None,
        "object_type": "payment_intent",
        "object_id": "pi_1",
        "snapshot_event": None,
        "previous": {"status": "processing"},
        "raw": {"id": "evt_1", "n": 1.0},
    }


def test_raw_is_the_received_bytes() -> None:
    assert BODY in encoded(event()).value


def test_the_twin_that_a_thin_event_names_is_in_the_value_and_in_a_header() -> None:
    record = encoded(event("other", Other(), snapshot_event="evt_twin"))

    assert dict(record.headers)["snapshot_event"] == b"evt_twin"
    assert orjson.loads(record.value)["snapshot_event"] == "evt_twin"
    read = decode(consumed(record))
    assert isinstance(read, ConsumedEvent)
    assert read.event.snapshot_event == "evt_twin"


def test_an_event_that_names_no_twin_has_no_header_for_it() -> None:
    assert "snapshot_event" not in dict(encoded(event()).headers)


@pytest.mark.parametrize(
    ("category", "words"),
    [
        ("payment", "payment intent, else charge, else checkout session"),
        ("refund", "payment intent, else charge"),
        ("subscription", "subscription, else invoice"),
        ("customer", "customer"),
        ("catalog", "product"),
        ("other", "object, else customer, else account"),
    ],
)
def test_the_rule_of_a_key_in_words(category: Category, words: str) -> None:
    assert key_rule(category) == words


def test_headers_are_cloudevents_and_our_own() -> None:
    record = marked(encoded(event(account="acct_1", livemode=False)), "unchecked")

    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"evt_1",
        "ce_source": b"/stripe/acct_1/test",
        "ce_type": b"com.stripe.payment_intent.succeeded",
        "ce_subject": b"pi_1",
        "ce_time": b"2026-11-20T10:00:00Z",
        "ce_dataschema": b"urn:stripe-ingest:schema:1:payment_intent",
        "content-type": b"application/json",
        "stripe_api_version": b"2020-08-27",
        "endpoint": b"shop",
        "ingest_source": b"webhook",
        "dedupe": b"unchecked",
        "traceparent": TRACEPARENT.encode(),
    }


def test_what_stripe_did_not_say_has_no_header() -> None:
    names = dict(encoded(event(api_version=None, object_id=None)).headers)

    assert "stripe_api_version" not in names
    assert "ce_subject" not in names


@pytest.mark.parametrize(
    ("category", "data", "object_id", "topic", "key"),
    [
        ("payment", PaymentIntent(payment_intent_id="pi_1"), "pi_1", "stripe.payments", "pi_1"),
        ("payment", Charge(charge_id="ch_1", payment_intent_id="pi_1"), "ch_1", "stripe.payments", "pi_1"),
        ("payment", Charge(charge_id="ch_1"), "ch_1", "stripe.payments", "ch_1"),
        ("payment", CheckoutSession(checkout_session_id="cs_1"), "cs_1", "stripe.payments", "cs_1"),
        ("payment", CheckoutSession(checkout_session_id="cs_1", payment_intent_id="pi_1"), "cs_1", "stripe.payments", "pi_1"),
        ("refund", Refund(refund_id="re_1", charge_id="ch_1"), "re_1", "stripe.refunds", "ch_1"),
        ("refund", Refund(refund_id="re_1", charge_id="ch_1", payment_intent_id="pi_1"), "re_1", "stripe.refunds", "pi_1"),
        ("refund", Refund(refund_id="re_1"), "re_1", "stripe.refunds", "re_1"),
        ("subscription", Subscription(subscription_id="sub_1"), "sub_1", "stripe.subscriptions", "sub_1"),
        ("subscription", Invoice(invoice_id="in_1", subscription_id="sub_1"), "in_1", "stripe.subscriptions", "sub_1"),
        ("subscription", Invoice(invoice_id="in_1"), "in_1", "stripe.subscriptions", "in_1"),
        ("subscription", Invoice(customer_id="cus_1"), None, "stripe.subscriptions", "cus_1"),
        ("customer", Customer(customer_id="cus_1"), "cus_1", "stripe.customers", "cus_1"),
        ("customer", Other(customer_id="cus_1"), "card_1", "stripe.customers", "cus_1"),
        ("catalog", Price(price_id="price_1", product_id="prod_1"), "price_1", "stripe.catalog", "prod_1"),
        ("catalog", Product(product_id="prod_1"), "prod_1", "stripe.catalog", "prod_1"),
        ("other", Other(customer_id="cus_1"), "seti_1", "stripe.other", "seti_1"),
        ("other", Other(customer_id="cus_1"), None, "stripe.other", "cus_1"),
        ("other", Other(), None, "stripe.other", "acct_9"),
    ],
)  # fmt: skip
def test_one_topic_and_the_key_most_of_the_aggregate_knows(
    category: Category, data: Data, object_id: str | None, topic: str, key: str
) -> None:
    record = encoded(event(category, data, object_id=object_id, account="acct_9"))

    assert (record.topic, record.key.decode()) == (topic, key)


def test_without_raw_only_what_data_cannot_say_is_kept() -> None:
    typed = orjson.loads(encoded(event(), include_raw=False).value)
    other = orjson.loads(encoded(event("other", Other()), include_raw=False).value)

    assert typed["raw"] is None
    assert other["raw"] == {"id": "evt_1", "n": 1.0}


@pytest.mark.parametrize("include_raw", [True, False])
@pytest.mark.parametrize("object_type", [*DATA_TYPES, "mandate"])
def test_decode_is_the_inverse_of_encode(object_type: str, include_raw: bool) -> None:
    data_type = DATA_TYPES.get(object_type, Other)
    fields = msgspec.structs.fields(data_type)
    data = data_type(**{field.name: "x_1" for field in fields if field.required})
    given = event(data=data, object_type=object_type)
    kept = given if include_raw or data_type is Other else msgspec.structs.replace(given, raw=NO_RAW)

    read = decode(consumed(encoded(given, include_raw=include_raw)))

    assert isinstance(read, ConsumedEvent)
    assert read.event == kept
    assert read.record.next_offset == 42


def test_a_thin_event_names_a_typed_object_and_its_data_is_other() -> None:
    given = event("other", Other(), object_type="invoice", object_id="in_1")

    read = decode(consumed(encoded(given)))

    assert isinstance(read, ConsumedEvent)
    assert read.event == given


def test_a_field_from_the_future_is_passed_over() -> None:
    value = orjson.loads(encoded(event()).value)
    value |= {"new_field": 1, "data": {**value["data"], "another": [1]}}

    read = decode(ConsumedRecord(Partition("t", 0), 0, b"k", orjson.dumps(value), (), 0))

    assert isinstance(read, ConsumedEvent)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty_value"),
        (b"", "empty_value"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[]", "schema_mismatch"),
        (b"{}", "schema_mismatch"),
        (b'{"schema_version": 2}', "schema_mismatch"),
    ],
)
def test_poison_is_a_value_with_a_reason(value: bytes | None, reason: str) -> None:
    read = decode(ConsumedRecord(Partition("t", 0), 0, b"k", value, (), 0))

    assert isinstance(read, InvalidRecord)
    assert read.reason == reason


@pytest.mark.parametrize("name", ["created_at", "received_at"])
def test_a_time_without_a_zone_is_poison(name: str) -> None:
    value = orjson.loads(encoded(event()).value) | {name: "2026-11-20T10:00:03"}

    read = decode(ConsumedRecord(Partition("t", 0), 0, b"k", orjson.dumps(value), (), 0))

    assert isinstance(read, InvalidRecord)
    assert read.reason == "schema_mismatch"


def test_poison_names_the_field_and_never_its_value() -> None:
    value = orjson.loads(encoded(event()).value)
    value["data"]["amount_minor"] = "4242-secret"

    read = decode(ConsumedRecord(Partition("t", 0), 0, b"k", orjson.dumps(value), (), 0))

    assert isinstance(read, InvalidRecord)
    assert "$.amount_minor" in read.detail
    assert "4242" not in read.detail


@pytest.mark.parametrize("event_id", ["evt_7", None])
def test_quarantine_keeps_the_bytes_and_says_why(event_id: str | None) -> None:
    body = b"\xff not json"
    record = quarantine(
        Unprocessable(
            reason=QuarantineReason.MALFORMED_JSON,
            detail="the body is not JSON",
            event_id=event_id,
            endpoint=Endpoint(name="shop", path="/webhooks/shop", secrets=(Secret("whsec_x"),)),
            body=body,
            received_at=datetime(2026, 11, 20, tzinfo=UTC),
        ),
        topics=TOPICS,
        ingest_source="webhook",
        traceparent=TRACEPARENT,
    )

    headers = dict(record.headers)
    assert record.topic == "stripe.quarantine"
    assert record.value == body
    assert headers["reason"] == b"malformed_json"
    assert headers["endpoint"] == b"shop"
    if event_id:
        assert headers["event_id"] == b"evt_7"
    else:
        assert headers["body_sha256"].decode() == hashlib.sha256(body).hexdigest()


def test_a_dead_letter_knows_where_it_stood() -> None:
    origin = ConsumedRecord(Partition("stripe.payments", 3), 41, b"pi_1", b"poison", (("endpoint", b"shop"),), 0)

    record = dead_letter(
        InvalidRecord(origin, "not_json", "the value is not JSON"),
        topics=TOPICS,
        consumer_group="stripe-ingest.payments",
    )

    assert (record.topic, record.key, record.value) == ("stripe.dead-letter", b"pi_1", b"poison")
    assert dict(record.headers) == {
        "endpoint": b"shop",
        "dead_letter_reason": b"not_json",
        "dead_letter_detail": b"the value is not JSON",
        "consumer_group": b"stripe-ingest.payments",
        "original_topic": b"stripe.payments",
        "original_partition": b"3",
        "original_offset": b"41",
    }


def test_the_quarantine_topic_takes_the_largest_body() -> None:
    configs = topic_configs(TOPICS, max_body_bytes=8 * 1024 * 1024)

    assert configs["stripe.quarantine"]["max.message.bytes"] >= 8 * 1024 * 1024 + 64 * 1024
    assert set(configs) == {*TOPICS.data, "stripe.quarantine", "stripe.dead-letter"}


def test_a_key_is_never_empty() -> None:
    assert key_of(event("other", Other(), object_id=None)) == "default"
