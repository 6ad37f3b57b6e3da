"""Real payloads from 2016 to the newest release: every one is read, and what it says is there."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest

from service.contract import DATA_TYPES, Charge, Event, Other, Subscription
from service.events import Endpoint, Unprocessable
from service.normalize import category_of, normalize
from tests.support.corpus import CORPUS, NO_CORPUS, Payload, payloads
from tests.unit.normalize.building import at, endpoint, verified

MONEY = {
    "amount": "amount_minor",
    "amount_received": "amount_received_minor",
    "amount_capturable": "amount_capturable_minor",
    "amount_captured": "amount_captured_minor",
    "amount_refunded": "amount_refunded_minor",
    "amount_due": "amount_due_minor",
    "amount_paid": "amount_paid_minor",
    "amount_remaining": "amount_remaining_minor",
    "amount_requested": "amount_requested_minor",
    "amount_subtotal": "amount_subtotal_minor",
    "amount_total": "amount_total_minor",
    "subtotal": "subtotal_minor",
    "total": "total_minor",
    "unit_amount": "unit_amount_minor",
    "balance": "balance_minor",
    "account_balance": "balance_minor",
}
TIMES = {
    "created": "created_at",
    "date": "created_at",
    "updated": "updated_at",
    "canceled_at": "canceled_at",
    "cancel_at": "cancel_at",
    "ended_at": "ended_at",
    "trial_end": "trial_end",
    "trial_start": "trial_start",
    "start": "start_date",
    "start_date": "start_date",
    "expires_at": "expires_at",
    "due_date": "due_date",
    "period_start": "period_start",
    "period_end": "period_end",
    "current_period_start": "current_period_start",
    "current_period_end": "current_period_end",
    "next_payment_attempt": "next_payment_attempt",
}
REFERENCES = {
    "customer": "customer_id",
    "payment_intent": "payment_intent_id",
    "charge": "charge_id",
    "invoice": "invoice_id",
    "subscription": "subscription_id",
    "latest_charge": "latest_charge_id",
    "latest_invoice": "latest_invoice_id",
    "balance_transaction": "balance_transaction_id",
    "payment_method": "payment_method_id",
    "product": "product_id",
    "default_price": "default_price_id",
}
AS_IT_IS = ("status", "currency", "description", "email", "name", "mode", "payment_status", "reason", "failure_code",
            "failure_message", "failure_reason", "captured", "refunded", "disputed", "active", "collection_method",
            "cancel_at_period_end", "billing_reason", "attempt_count", "number", "unit_amount_decimal",
            "cancellation_reason", "capture_method", "is_default", "delinquent")  # fmt: skip


def endpoint_of(payload: Payload) -> Endpoint:
    """The endpoint of the event's mode; three thin fixtures do not say theirs."""
    return endpoint(mode="live" if payload.event.get("livemode") else "test")


@pytest.fixture(scope="module")
def corpus() -> tuple[Payload, ...]:
    if not CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    found = tuple(payloads())
    assert found
    return found


def read(corpus: tuple[Payload, ...]) -> Iterator[tuple[Payload, Event]]:
    """The payloads that are events to us."""
    for payload in corpus:
        outcome = normalize(verified(orjson.dumps(payload.event), endpoint_of(payload)))
        if isinstance(outcome, Event):
            yield payload, outcome


def said(stripe_object: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """The normalized fields that an object states directly, with their values."""
    for name, ours in MONEY.items():
        if type(value := stripe_object.get(name)) is int:
            yield ours, value
    for name, ours in TIMES.items():
        if type(value := stripe_object.get(name)) is int:
            yield ours, at(value)
    for name, ours in REFERENCES.items():
        value = stripe_object.get(name)
        if value:
            yield ours, value["id"] if isinstance(value, dict) else value
    for name in AS_IT_IS:
        if (value := stripe_object.get(name)) is not None:
            yield name, value


def test_every_payload_is_an_event(corpus: tuple[Payload, ...]) -> None:
    outcomes = {
        payload.name: normalize(verified(orjson.dumps(payload.event), endpoint_of(payload))) for payload in corpus
    }
    refused = {
        name: (outcome.reason, outcome.detail)
        for name, outcome in outcomes.items()
        if isinstance(outcome, Unprocessable)
    }

    assert refused == {}


def test_every_envelope_is_read(corpus: tuple[Payload, ...]) -> None:
    for payload, event in read(corpus):
        tree = payload.event
        assert event.event_id == tree["id"], payload.name
        assert event.event_type == tree["type"], payload.name
        assert event.livemode is tree.get("livemode", False), payload.name
        assert orjson.loads(bytes(event.raw)) == tree, payload.name
        if tree["object"] == "event":
            assert event.created_at == at(tree["created"]), payload.name
            assert event.category == category_of(tree["type"]), payload.name
            assert event.api_version == tree.get("api_version"), payload.name
            assert event.object_id == tree["data"]["object"].get("id"), payload.name
        else:
            assert event.created_at == datetime.fromisoformat(tree["created"]), payload.name
            assert (event.category, event.data) == ("other", Other()), payload.name
            assert event.object_id == (tree.get("related_object") or {}).get("id"), payload.name


def test_every_object_has_the_type_of_its_own_name(corpus: tuple[Payload, ...]) -> None:
    for payload, event in read(corpus):
        if payload.event["object"] == "event":
            stripes = payload.event["data"]["object"]["object"]
            assert event.object_type == {"checkout.session": "checkout_session"}.get(stripes, stripes), payload.name
            assert type(event.data) is DATA_TYPES.get(event.object_type, Other), payload.name


def test_what_an_object_says_directly_is_never_lost(corpus: tuple[Payload, ...]) -> None:
    checked = 0
    for payload, event in read(corpus):
        if event.object_type not in DATA_TYPES or payload.event["object"] != "event":
            continue
        stated: dict[str, list[object]] = {}
        for name, value in said(payload.event["data"]["object"]):
            if name in event.data.__struct_fields__:
                stated.setdefault(name, []).append(value)
        for name, values in stated.items():
            assert getattr(event.data, name) in values, f"{payload.name}: {name}"
        checked += len(stated)

    assert checked > 0


def test_metadata_is_kept_whole(corpus: tuple[Payload, ...]) -> None:
    for payload, event in read(corpus):
        if "metadata" in event.data.__struct_fields__ and payload.event["object"] == "event":
            stated = payload.event["data"]["object"].get("metadata") or {}
            assert getattr(event.data, "metadata") == stated, payload.name  # noqa: B009 -- only some types have it


def test_every_subscription_with_items_has_a_period_and_priced_items(corpus: tuple[Payload, ...]) -> None:
    for payload, event in read(corpus):
        if isinstance(event.data, Subscription):
            tree = payload.event["data"]["object"]
            assert event.data.current_period_end is not None, payload.name
            stated = tree.get("items", {}).get("data") or [tree["plan"]]
            assert len(event.data.items) == len(stated), payload.name
            assert all(item.price_id and item.currency for item in event.data.items), payload.name


def test_every_embedded_refund_is_read(corpus: tuple[Payload, ...]) -> None:
    for payload, event in read(corpus):
        if isinstance(event.data, Charge):
            embedded = (payload.event["data"]["object"].get("refunds") or {}).get("data", ())
            assert [refund.refund_id for refund in event.data.refunds] == [tree["id"] for tree in embedded], (
                payload.name
            )


def test_every_previous_attribute_that_differs_is_in_previous(corpus: tuple[Payload, ...]) -> None:
    for payload, event in read(corpus):
        if payload.event["object"] != "event":
            continue
        content = payload.event["data"]
        patch = content.get("previous_attributes")
        assert (event.previous is None) == (patch is None), payload.name
        for name in ("status", "currency", "refunded", "captured", "cancel_at_period_end"):
            if (
                name in event.data.__struct_fields__
                and name in (patch or {})
                and patch[name] != content["object"][name]
            ):
                assert event.previous is not None
                assert event.previous[name] == patch[name], payload.name
