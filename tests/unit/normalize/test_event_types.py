"""The one table from an event type to its family."""

import pytest

from service.contract import Category
from service.normalize import category_of
from service.normalize.event_types import ROUTES


@pytest.mark.parametrize(
    ("event_type", "category"),
    [
        ("payment_intent.succeeded", "payment"),
        ("payment_intent.partially_funded", "payment"),
        ("charge.succeeded", "payment"),
        ("charge.updated", "payment"),
        ("charge.dispute.created", "payment"),
        ("charge.dispute.funds_reinstated", "payment"),
        ("checkout.session.completed", "payment"),
        ("invoice_payment.paid", "payment"),
        ("charge.refunded", "refund"),
        ("charge.refund.updated", "refund"),
        ("refund.created", "refund"),
        ("refund.failed", "refund"),
        ("customer.subscription.deleted", "subscription"),
        ("customer.subscription.pending_update_expired", "subscription"),
        ("invoice.payment_failed", "subscription"),
        ("invoice.upcoming", "subscription"),
        ("customer.created", "customer"),
        ("customer.discount.created", "customer"),
        ("customer.source.updated", "customer"),
        ("product.updated", "catalog"),
        ("price.deleted", "catalog"),
        ("plan.created", "catalog"),
        ("payment_intent.snapshot", "payment"),
        ("invoiceitem.created", "other"),
        ("payment_method.attached", "other"),
        ("checkout.created", "other"),
        ("v1.charge.refunded", "other"),
        ("Charge.refunded", "other"),
        ("charge", "other"),
        ("", "other"),
    ],
)
def test_every_event_type_has_one_family(event_type: str, category: Category) -> None:
    assert category_of(event_type) == category


def test_no_two_rows_claim_the_same_prefix() -> None:
    prefixes = [prefix for prefix, _ in ROUTES]

    assert len(set(prefixes)) == len(prefixes)


@pytest.mark.parametrize(("prefix", "category"), ROUTES)
def test_a_longer_prefix_wins_over_the_shorter_ones_before_it(prefix: str, category: Category) -> None:
    assert category_of(f"{prefix}anything") == category
