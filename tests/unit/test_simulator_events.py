"""Samples: one realistic event of every handled type, as Stripe would render it."""

import json
from typing import Any, get_args

import pytest
import stripe

from service.contract import DATA_TYPES, Event, Other
from service.errors import ConfigurationError
from service.events import Endpoint, QuarantineReason, Unprocessable
from service.normalize import normalize
from service.signature import verify
from service.simulator.changes import previous_attributes
from service.simulator.events import SAMPLE_EVENT_TYPES, UnknownEventType, carries_previous, render, sample
from service.simulator.objects import API_VERSION, Ids
from tests.support.signing import NOW, SECRET, SIGNED_AT, signed_delivery

CREATED = SIGNED_AT
STRIPES_EVENT_TYPES = frozenset(get_args(stripe.Event.__annotations__["type"]))

# What a type says about its object, read off Stripe's event reference.
IMPLIED: dict[str, dict[str, Any]] = {
    "payment_intent.created": {"status": "requires_payment_method", "amount_received": 0, "latest_charge": None},
    "payment_intent.requires_action": {"status": "requires_action", "next_action.type": "use_stripe_sdk"},
    "payment_intent.processing": {"status": "processing", "amount_received": 0},
    "payment_intent.partially_funded": {"status": "requires_action", "amount_received": 0},
    "payment_intent.amount_capturable_updated": {"status": "requires_capture", "amount_capturable": "=amount"},
    "payment_intent.payment_failed": {
        "status": "requires_payment_method",
        "last_payment_error.code": "card_declined",
        "last_payment_error.decline_code": "insufficient_funds",
        "last_payment_error.charge": "=latest_charge",
    },
    "payment_intent.succeeded": {
        "status": "succeeded",
        "amount_received": "=amount",
        "amount_capturable": 0,
        "last_payment_error": None,
    },
    "payment_intent.canceled": {"status": "canceled", "canceled_at": CREATED, "cancellation_reason": "abandoned"},
    "charge.pending": {"status": "pending", "paid": False, "amount_captured": 0},
    "charge.succeeded": {"status": "succeeded", "paid": True, "amount_captured": "=amount", "captured": True},
    "charge.failed": {"status": "failed", "paid": False, "failure_code": "card_declined", "captured": False},
    "charge.captured": {"status": "succeeded", "captured": True, "amount_captured": "=amount"},
    "charge.expired": {"captured": False, "refunded": True, "amount_refunded": "=amount"},
    "charge.updated": {"status": "succeeded"},
    "charge.refunded": {"status": "succeeded", "refunded": False, "captured": True},
    "charge.dispute.created": {"status": "needs_response", "balance_transactions": []},
    "charge.dispute.funds_withdrawn": {"status": "needs_response"},
    "charge.dispute.updated": {"status": "under_review", "evidence_details.has_evidence": True},
    "charge.dispute.funds_reinstated": {"status": "won"},
    "charge.dispute.closed": {"status": "won"},
    "refund.created": {"status": "pending"},
    "refund.updated": {"status": "succeeded"},
    "refund.failed": {"status": "failed", "failure_reason": "expired_or_canceled_card"},
    "charge.refund.updated": {"status": "succeeded", "destination_details.card.reference_status": "available"},
    "checkout.session.completed": {"status": "complete", "payment_status": "paid"},
    "checkout.session.async_payment_succeeded": {"status": "complete", "payment_status": "paid"},
    "checkout.session.async_payment_failed": {"status": "complete", "payment_status": "unpaid"},
    "checkout.session.expired": {"status": "expired", "payment_status": "unpaid", "payment_intent": None},
    "customer.subscription.created": {"status": "incomplete", "ended_at": None},
    "customer.subscription.updated": {"status": "active", "ended_at": None},
    "customer.subscription.deleted": {"status": "canceled", "ended_at": CREATED, "canceled_at": CREATED},
    "customer.subscription.paused": {"status": "paused"},
    "customer.subscription.resumed": {"status": "active", "status_details": None},
    "customer.subscription.trial_will_end": {"status": "trialing", "trial_end": CREATED + 3 * 86_400},
    "customer.subscription.pending_update_applied": {"pending_update": None},
    "customer.subscription.pending_update_expired": {"pending_update": None},
    "invoice.created": {"status": "draft", "number": None, "attempted": False},
    "invoice.deleted": {"status": "draft"},
    "invoice.finalization_failed": {"status": "draft", "last_finalization_error.type": "invalid_request_error"},
    "invoice.finalized": {"status": "open", "status_transitions.finalized_at": CREATED},
    "invoice.marked_uncollectible": {"status": "uncollectible"},
    "invoice.overdue": {"status": "open", "due_date": CREATED - 86_400},
    "invoice.overpaid": {"status": "paid", "amount_overpaid": 500},
    "invoice.paid": {"status": "paid", "amount_paid": "=amount_due", "amount_remaining": 0},
    "invoice.payment_action_required": {"status": "open", "attempted": True},
    "invoice.payment_attempt_required": {"status": "open", "attempted": False},
    "invoice.payment_failed": {
        "status": "open",
        "amount_paid": 0,
        "attempt_count": 1,
        "amount_remaining": "=amount_due",
    },
    "invoice.payment_succeeded": {"status": "paid", "amount_paid": "=amount_due"},
    "invoice.sent": {"status": "open", "collection_method": "send_invoice"},
    "invoice.upcoming": {"billing_reason": "upcoming"},
    "invoice.updated": {"status": "open"},
    "invoice.voided": {"status": "void", "status_transitions.voided_at": CREATED},
    "invoice.will_be_due": {"status": "open", "due_date": CREATED + 86_400},
    "invoice_payment.paid": {"status": "paid", "amount_paid": "=amount_requested", "payment.type": "payment_intent"},
    "customer.created": {"delinquent": False},
    "customer.updated": {"object": "customer"},
    "customer.deleted": {"object": "customer"},
    "product.created": {"active": True},
    "product.updated": {"active": True, "updated": CREATED + 1},
    "product.deleted": {"active": False},
    "price.created": {"active": True, "type": "recurring", "recurring.interval": "month"},
    "price.updated": {"nickname": "Monthly"},
    "price.deleted": {"active": False},
}

# What an update changed, and from what.
WAS: dict[str, dict[str, Any]] = {
    "charge.captured": {"captured": False, "amount_captured": 0},
    "charge.expired": {"refunded": False, "amount_refunded": 0},
    "charge.updated": {"balance_transaction": None},
    "charge.refunded": {"amount_refunded": 0},
    "charge.dispute.updated": {"status": "needs_response"},
    "charge.dispute.closed": {"status": "under_review"},
    "refund.updated": {"status": "pending"},
    "charge.refund.updated": {"destination_details": {"card": {"reference": None, "reference_status": "pending"}}},
    "customer.subscription.updated": {"status": "incomplete"},
    "customer.subscription.paused": {"status": "trialing"},
    "customer.subscription.resumed": {"status": "paused"},
    "invoice.updated": {"status": "draft", "number": None},
    "product.updated": {"updated": CREATED},
    "price.updated": {"nickname": None},
}


def at(obj: dict[str, Any], path: str) -> Any:
    value: Any = obj
    for name in path.split("."):
        value = value[name]
    return value


def test_every_sample_type_is_one_of_stripes_and_has_its_implied_fields_stated_here() -> None:
    assert set(SAMPLE_EVENT_TYPES) == set(IMPLIED)
    assert set(SAMPLE_EVENT_TYPES) <= STRIPES_EVENT_TYPES


def test_every_type_of_the_handled_families_has_a_sample() -> None:
    handled = tuple(f"{family}." for family in (
        "payment_intent", "charge", "refund", "checkout.session", "customer.subscription", "invoice", "invoice_payment",
        "product", "price",
    ))  # fmt: skip
    wanted = {event_type for event_type in STRIPES_EVENT_TYPES if event_type.startswith(handled)}
    assert wanted | {"customer.created", "customer.updated", "customer.deleted"} == set(SAMPLE_EVENT_TYPES)


def test_a_sample_has_what_its_type_implies() -> None:
    for event_type in SAMPLE_EVENT_TYPES:
        event = sample(event_type, seed=7, created=CREATED)
        obj = event["data"]["object"]
        assert (event["type"], event["object"], event["api_version"]) == (event_type, "event", API_VERSION)
        assert (event["created"], event["livemode"]) == (CREATED, False), event_type
        for path, wanted in IMPLIED[event_type].items():
            value = obj[wanted[1:]] if isinstance(wanted, str) and wanted.startswith("=") else wanted
            assert at(obj, path) == value, (event_type, path)


def test_a_sample_says_what_changed_exactly_where_stripe_does() -> None:
    for event_type in SAMPLE_EVENT_TYPES:
        data = sample(event_type, seed=7, created=CREATED)["data"]
        assert ("previous_attributes" in data) == carries_previous(event_type), event_type
        if carries_previous(event_type):
            previous = data["previous_attributes"]
            assert previous, event_type
            assert previous.items() >= WAS.get(event_type, {}).items(), event_type
            assert all(data["object"].get(name) != old for name, old in previous.items()), event_type


def test_a_sample_is_normalized_to_the_type_of_its_object() -> None:
    for event_type in SAMPLE_EVENT_TYPES:
        event = sample(event_type, seed=7, created=CREATED)
        normalized = normalize(verify(signed_delivery(render(event)), now=NOW, tolerance_seconds=300))
        assert isinstance(normalized, Event), event_type
        assert not isinstance(normalized.data, Other), event_type
        assert type(normalized.data) is DATA_TYPES[normalized.object_type], event_type
        assert normalized.object_id == event["data"]["object"].get("id"), event_type
        assert normalized.category != "other", event_type


def test_the_preview_of_an_invoice_has_no_id_and_every_other_object_has_one() -> None:
    without = [t for t in SAMPLE_EVENT_TYPES if "id" not in sample(t, seed=1, created=CREATED)["data"]["object"]]
    assert without == ["invoice.upcoming"]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_other_ids() -> None:
    for event_type in SAMPLE_EVENT_TYPES:
        first = sample(event_type, seed=3, created=CREATED)
        assert render(first) == render(sample(event_type, seed=3, created=CREATED)), event_type
        assert sample(event_type, seed=4, created=CREATED)["id"] != first["id"], event_type


@pytest.mark.parametrize("livemode", [True, False])
def test_mode_and_connected_account_are_as_asked(livemode: bool) -> None:
    for event_type in SAMPLE_EVENT_TYPES:
        event = sample(event_type, seed=1, created=CREATED, livemode=livemode, account="acct_1SimulatedShop")
        assert event["livemode"] is livemode
        assert event["account"] == "acct_1SimulatedShop"
        # Refunds are the one object here to which Stripe gives no mode.
        assert event["data"]["object"].get("livemode", livemode) is livemode


def test_an_event_of_the_account_itself_names_no_account() -> None:
    assert "account" not in sample("charge.succeeded", seed=1, created=CREATED)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("payment_intent.failed", "payment_intent.payment_failed"),
        ("charge.dispute.won", "charge.dispute.closed"),
        ("subscription.created", "customer.subscription.created"),
        ("customer.subscription.canceled", "customer.subscription.deleted"),
        ("invoice.payment.failed", "invoice.payment_failed"),
    ],
)
def test_an_unknown_type_is_refused_with_the_closest_ones(wrong: str, right: str) -> None:
    with pytest.raises(UnknownEventType) as refused:
        sample(wrong, seed=1, created=CREATED)
    assert isinstance(refused.value, ConfigurationError)
    assert 1 <= len(refused.value.suggestions) <= 5
    assert right in SAMPLE_EVENT_TYPES
    assert right in refused.value.suggestions
    assert right in str(refused.value)


def test_a_type_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(UnknownEventType, match="none is close"):
        sample("zzz", seed=1, created=CREATED)


def test_rendering_is_indented_json_with_empty_containers_over_two_lines() -> None:
    tricky = {"id": "evt_1", "empty": [], "none": {}, "text": 'a "quoted" []: {}', "nested": [[], {"x": []}], "é": "é"}
    assert render(tricky).decode() == (
        '{\n  "id": "evt_1",\n  "empty": [\n  ],\n  "none": {\n  },\n  "text": "a \\"quoted\\" []: {}",\n'
        '  "nested": [\n    [\n    ],\n    {\n      "x": [\n      ]\n    }\n  ],\n  "é": "é"\n}'
    )
    assert json.loads(render(tricky)) == tricky


def test_rendering_loses_nothing() -> None:
    for event_type in SAMPLE_EVENT_TYPES:
        event = sample(event_type, seed=2, created=CREATED)
        body = render(event)
        assert json.loads(body) == event
        assert b"[]" not in body, event_type
        assert b"{}" not in body, event_type


def test_bytes_written_again_by_a_json_library_are_not_the_signed_ones() -> None:
    body = render(sample("invoice.paid", seed=1, created=CREATED))
    assert json.dumps(json.loads(body), indent=2, ensure_ascii=False).encode() != body


def test_previous_attributes_go_into_objects_give_arrays_whole_and_null_for_what_is_new() -> None:
    before = {"same": 1, "status": "a", "card": {"last4": "1", "brand": "visa"}, "list": [1, 2], "gone": "x", "o": {}}
    after = {"same": 1, "status": "b", "card": {"last4": "2", "brand": "visa"}, "list": [1, 3], "new": 5, "o": None}
    assert previous_attributes(before, after) == {
        "status": "a",
        "card": {"last4": "1"},
        "list": [1, 2],
        "gone": "x",
        "new": None,
        "o": {},
    }


@pytest.mark.parametrize(
    ("prefix", "length"), [("evt", 28), ("pi", 27), ("cus", 18), ("prod", 19), ("cs_test", 66), ("inpay", 30)]
)
def test_ids_have_stripes_form_and_never_repeat(prefix: str, length: int) -> None:
    ids = Ids(5)
    made = [ids.new(prefix) for _ in range(1_000)]
    assert len(set(made)) == len(made)
    assert all(one.startswith(f"{prefix}_") and len(one) == length for one in made)


def test_people_in_samples_are_invented() -> None:
    for seed in range(20):
        customer = sample("customer.created", seed=seed, created=CREATED)["data"]["object"]
        assert customer["email"].endswith("@example.com")
    session = sample("checkout.session.completed", seed=1, created=CREATED)["data"]["object"]
    assert session["customer_details"]["email"].endswith("@example.com")


def test_a_sample_of_an_endpoint_of_the_other_mode_is_quarantined() -> None:
    body = render(sample("charge.succeeded", seed=1, created=CREATED, livemode=True))
    shop = Endpoint(name="shop", path="/webhooks/shop", secrets=(SECRET,), mode="test")
    taken = normalize(verify(signed_delivery(body, to=shop), now=NOW, tolerance_seconds=300))
    assert isinstance(taken, Unprocessable)
    assert taken.reason is QuarantineReason.MODE_MISMATCH
