"""Values that Stripe's enumerations are known to have: Stripe's own lists are in ours, and news is noticed."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
import pytest
import stripe

from service.contract import Event
from service.normalize import normalize
from service.normalize.vocabulary import FIELDS, VOCABULARY, unknown_values
from service.redaction import HASHED
from tests.support.corpus import CORPUS, NO_CORPUS, payloads
from tests.support.stripe_catalogue import known_to_stripe
from tests.unit.normalize.building import endpoint, event, normalized, verified

STRIPES: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "payment_intent.status": (("PaymentIntent", "status"),),
    "payment_intent.capture_method": (("PaymentIntent", "capture_method"),),
    "payment_intent.setup_future_usage": (("PaymentIntent", "setup_future_usage"),),
    "payment_intent.cancellation_reason": (("PaymentIntent", "cancellation_reason"),),
    "payment_intent.payment_method_type": (("PaymentMethod", "type"),),
    "charge.status": (("Charge", "status"),),
    "charge.payment_method_type": (("PaymentMethod", "type"),),
    "refund.reason": (("Refund", "reason"),),
    "refund.pending_reason": (("Refund", "pending_reason"),),
    "dispute.status": (("Dispute", "status"),),
    "checkout_session.mode": (("checkout.Session", "mode"),),
    "checkout_session.status": (("checkout.Session", "status"),),
    "checkout_session.payment_status": (("checkout.Session", "payment_status"),),
    "invoice_payment.payment_type": (("InvoicePayment", "Payment", "type"),),
    "subscription.status": (("Subscription", "status"),),
    "subscription.collection_method": (("Subscription", "collection_method"),),
    "subscription.billing_mode": (("Subscription", "BillingMode", "type"),),
    "subscription.pause_behavior": (("Subscription", "PauseCollection", "behavior"),),
    "subscription.paused_reason": (
        ("Subscription", "StatusDetails", "Paused", "type"),
        ("Subscription", "StatusDetails", "Paused", "Subscription", "type"),
    ),
    "subscription.cancellation_reason": (("Subscription", "CancellationDetails", "reason"),),
    "subscription.cancellation_feedback": (("Subscription", "CancellationDetails", "feedback"),),
    "subscription_item.interval": (("Price", "Recurring", "interval"), ("Plan", "interval")),
    "invoice.status": (("Invoice", "status"),),
    "invoice.collection_method": (("Invoice", "collection_method"),),
    "invoice.billing_reason": (("Invoice", "billing_reason"),),
    "product.product_type": (("Product", "type"),),
    "price.price_type": (("Price", "type"),),
    "price.billing_scheme": (("Price", "billing_scheme"), ("Plan", "billing_scheme")),
    "price.interval": (("Price", "Recurring", "interval"), ("Plan", "interval")),
    "price.usage_type": (("Price", "Recurring", "usage_type"), ("Plan", "usage_type")),
    "price.tiers_mode": (("Price", "tiers_mode"), ("Plan", "tiers_mode")),
    "price.tax_behavior": (("Price", "tax_behavior"),),
}
"""Our field → where the `stripe` package names its values."""

PROSE: Final = {"charge.outcome_type", "charge.network_status", "charge.card_brand", "refund.status",
                "refund.failure_reason", "dispute.reason", "invoice_payment.status"}  # fmt: skip
"""Fields whose values Stripe lists in words only."""

HISTORIC: Final[Mapping[str, set[str]]] = {
    "payment_intent.status": {"requires_source", "requires_source_action"},
    "dispute.status": {"charge_refunded"},
    "invoice.status": {"deleted"},
}
"""Values that only old API versions have."""

PLACEHOLDERS: Final = {"charge.outcome_type": "type"}
"""What Stripe's composed fixtures have where no value was thought of."""


def known(field: str) -> frozenset[str]:
    owner, _, name = field.partition(".")
    return VOCABULARY[owner][name]


def test_every_field_is_held_against_stripes_own_values_but_those_only_told_in_words() -> None:
    assert set(FIELDS) == set(STRIPES) | PROSE
    assert not set(STRIPES) & PROSE


@pytest.mark.parametrize("field", STRIPES)
def test_the_values_that_stripe_names_are_known(field: str) -> None:
    stripes = frozenset[str]().union(*(known_to_stripe(*path) for path in STRIPES[field]))

    assert stripes
    assert stripes <= known(field), f"add {sorted(stripes - known(field))} to {field}"
    if field.endswith(".payment_method_type"):
        return  # older kinds are held against the charge's details below
    assert known(field) - stripes == HISTORIC.get(field, set())


def test_every_kind_of_payment_method_details_is_known() -> None:
    kinds = stripe.Charge.PaymentMethodDetails.__annotations__.keys() - {"type"}

    assert kinds
    assert kinds <= known("charge.payment_method_type")


def test_every_value_of_the_corpus_is_known() -> None:
    if not CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    news: dict[str, str] = {}
    for payload in payloads():
        mode = endpoint(mode="live" if payload.event.get("livemode") else "test")
        outcome = normalize(verified(orjson.dumps(payload.event), mode))
        if isinstance(outcome, Event):
            for field in unknown_values(outcome):
                value = str(getattr(outcome.data, field.partition(".")[2]))
                if PLACEHOLDERS.get(field) != value:
                    news[field] = f"{value} in {payload.name}"

    assert news == {}


def intent(**fields: Any) -> dict[str, Any]:
    return event({"id": "pi_1", "object": "payment_intent", **fields}, "payment_intent.succeeded")


def test_known_values_and_absent_ones_are_no_news() -> None:
    assert unknown_values(normalized(intent(status="succeeded", capture_method=None))) == ()


def test_news_is_told_by_the_fields_name_and_the_value_passes() -> None:
    found = normalized(intent(status="levitating", capture_method="manual", cancellation_reason="boredom"))

    assert unknown_values(found) == ("payment_intent.status", "payment_intent.cancellation_reason")
    assert getattr(found.data, "status") == "levitating"  # noqa: B009 -- only some types have it


def test_embedded_refunds_are_looked_at_and_a_field_is_told_once() -> None:
    refunds = [{"id": f"re_{n}", "object": "refund", "status": "floating"} for n in range(3)]
    charge = {"id": "ch_1", "object": "charge", "status": "succeeded", "refunds": {"data": refunds}}

    assert unknown_values(normalized(event(charge, "charge.refunded"))) == ("refund.status",)


def test_a_subscriptions_items_are_looked_at() -> None:
    item = {"id": "si_1", "price": {"id": "price_1", "recurring": {"interval": "fortnight"}}}
    subscription = {"id": "sub_1", "object": "subscription", "status": "active", "items": {"data": [item]}}

    found = normalized(event(subscription, "customer.subscription.updated"))

    assert unknown_values(found) == ("subscription_item.interval",)


def test_an_object_without_a_type_of_its_own_has_no_news() -> None:
    assert unknown_values(normalized(event({"id": "x", "object": "payout", "status": "new"}, "payout.paid"))) == ()


def test_a_hashed_value_is_no_news() -> None:
    assert unknown_values(normalized(intent(status=HASHED + "0" * 64))) == ()


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_the_vocabulary_is_noticed(field: str) -> None:
    """Each field is one that its type has, and its reader fills from a payload."""
    owner, _, name = field.partition(".")
    trees: Mapping[str, tuple[str, dict[str, Any]]] = {
        "payment_intent": ("payment_intent.created", {"payment_method_types": ["NEW"]}),
        "charge": (
            "charge.updated",
            {
                "outcome": {"type": "NEW", "network_status": "NEW"},
                "payment_method_details": {"type": "NEW", "card": {"brand": "NEW"}},
            },
        ),
        "refund": ("refund.updated", {}),
        "dispute": ("charge.dispute.updated", {}),
        "checkout_session": ("checkout.session.completed", {}),
        "invoice_payment": ("invoice_payment.paid", {"payment": {"type": "NEW"}}),
        "subscription": (
            "customer.subscription.updated",
            {
                "billing_mode": {"type": "NEW"},
                "pause_collection": {"behavior": "NEW"},
                "status_details": {"paused": {"type": "NEW"}},
                "cancellation_details": {"reason": "NEW", "feedback": "NEW"},
            },
        ),
        "invoice": ("invoice.updated", {}),
        "product": ("product.updated", {"type": "NEW"}),
        "price": ("price.updated", {"type": "NEW", "recurring": {"interval": "NEW", "usage_type": "NEW"}}),
        "subscription_item": (
            "customer.subscription.updated",
            {"items": {"data": [{"id": "si_1", "price": {"id": "price_1", "recurring": {"interval": "NEW"}}}]}},
        ),
    }
    event_type, fields = trees[owner]
    object_type = {"subscription_item": "subscription", "checkout_session": "checkout.session"}.get(owner, owner)

    found = normalized(event({"id": "x_1", "object": object_type, **fields, name: fields.get(name, "NEW")}, event_type))

    assert field in unknown_values(found)
