"""A shop's story: Stripe's true order, and facts that agree with it."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from service.simulator.events import SAMPLE_EVENT_TYPES
from service.simulator.shop import Story, shop

START = datetime(2026, 7, 1, 9, 30, tzinfo=UTC)


@pytest.fixture
def story() -> Story:
    return shop(11, START)


def statuses(story: Story, object_type: str) -> list[tuple[str, ...]]:
    """The statuses that each object of a type goes through, in order of appearance."""
    seen: dict[str, list[str]] = {}
    for event in story.events:
        obj = event["data"]["object"]
        if obj["object"] == object_type:
            path = seen.setdefault(obj["id"], [])
            if path[-1:] != [obj["status"]]:
                path.append(obj["status"])
    return [tuple(path) for path in seen.values()]


def test_the_payments_live_through_what_payments_live_through(story: Story) -> None:
    straight = ("requires_payment_method", "succeeded")
    assert Counter(statuses(story, "payment_intent")) == {
        straight: 6,  # refunded in parts, refunded in vain, by checkout, and the three of the subscription
        ("requires_payment_method", "requires_action", "succeeded"): 1,
        ("requires_payment_method", "canceled"): 1,
    }
    failures = [e for e in story.events if e["type"] == "payment_intent.payment_failed"]
    assert len(failures) == 3


def test_the_refunds_include_one_that_fails_after_it_had_succeeded(story: Story) -> None:
    assert Counter(statuses(story, "refund")) == {("succeeded",): 3, ("succeeded", "failed"): 1}
    told = [e["type"] for e in story.events if e["data"]["object"].get("status") == "failed" and "refund" in e["type"]]
    assert sorted(told) == ["charge.refund.updated", "refund.failed", "refund.updated"]
    refunds = story.expected["refunds"]
    (failed,) = [refund for refund in refunds.values() if refund["status"] == "failed"]
    payment = story.expected["payments"][failed["payment_intent_id"]]
    good = [r for r in refunds.values() if r["charge_id"] == failed["charge_id"] and r["status"] == "succeeded"]
    assert failed["amount_minor"] > 0
    assert payment["amount_refunded_minor"] == sum(refund["amount_minor"] for refund in good) > 0


def test_no_event_shows_the_charge_after_its_refund_failed(story: Story) -> None:
    (at,) = [e["created"] for e in story.events if e["type"] == "refund.failed"]
    (charge_id,) = [e["data"]["object"]["charge"] for e in story.events if e["type"] == "refund.failed"]
    assert all(e["created"] < at for e in story.events if e["data"]["object"]["id"] == charge_id)


def test_the_subscription_starts_renews_falls_behind_recovers_and_ends(story: Story) -> None:
    assert statuses(story, "subscription") == [("incomplete", "active", "past_due", "active", "canceled")]
    events = [e for e in story.events if e["data"]["object"]["object"] == "subscription"]
    assert [e["type"].removeprefix("customer.subscription.") for e in events] == [
        "created", "updated", "updated", "updated", "updated", "updated", "updated", "deleted",
    ]  # fmt: skip
    assert events[0]["created"] == events[1]["created"]
    (expected,) = story.expected["subscriptions"].values()
    last = events[-1]["data"]["object"]
    assert last["status"] == expected["status"] == "canceled"
    assert last["latest_invoice"] == expected["latest_invoice_id"]
    assert datetime.fromtimestamp(last["ended_at"], UTC) == expected["ended_at"] == expected["current_period_end"]
    assert datetime.fromtimestamp(last["cancel_at"], UTC) == expected["ended_at"]


def test_renewing_says_which_periods_the_items_had(story: Story) -> None:
    renewals = [
        e
        for e in story.events
        if e["type"] == "customer.subscription.updated" and "items" in e["data"]["previous_attributes"]
    ]
    assert len(renewals) == 2
    for event in renewals:
        (old,) = event["data"]["previous_attributes"]["items"]["data"]
        (new,) = event["data"]["object"]["items"]["data"]
        assert event["data"]["previous_attributes"]["items"].keys() == {"data"}
        assert old["current_period_end"] == new["current_period_start"] < new["current_period_end"]
        assert old["id"] == new["id"]


def test_each_invoice_is_paid_through_an_invoice_payment_that_names_its_payment_intent(story: Story) -> None:
    assert Counter(statuses(story, "invoice")) == {("draft", "open", "paid"): 3}
    links = [e["data"]["object"] for e in story.events if e["type"] == "invoice_payment.paid"]
    assert {link["invoice"] for link in links} == story.expected["invoices"].keys()
    for link in links:
        payment = story.expected["payments"][link["payment"]["payment_intent"]]
        invoice = story.expected["invoices"][link["invoice"]]
        assert payment["invoice_id"] == link["invoice"]
        assert payment["amount_received_minor"] == invoice["amount_paid_minor"] == link["amount_paid"]


def test_every_payment_refund_subscription_invoice_product_and_price_told_of_has_its_facts(story: Story) -> None:
    tables = {
        "payment_intent": "payments",
        "refund": "refunds",
        "subscription": "subscriptions",
        "invoice": "invoices",
        "product": "products",
        "price": "prices",
    }
    for object_type, table in tables.items():
        told = {e["data"]["object"]["id"] for e in story.events if e["data"]["object"]["object"] == object_type}
        assert told == story.expected[table].keys(), table
    assert story.expected.keys() == set(tables.values())


def test_one_change_is_told_by_two_event_objects(story: Story) -> None:
    (first, second) = [
        e
        for e in story.events
        if e["type"] == "charge.refunded" and not e["data"]["object"]["refunded"] and e["data"]["object"]["amount"]
        and [o["data"] for o in story.events].count(e["data"]) > 1
    ]  # fmt: skip
    assert first["id"] != second["id"]
    assert (first["created"], first["type"], first["data"]) == (second["created"], second["type"], second["data"])


def test_amounts_are_in_currencies_with_and_without_minor_units(story: Story) -> None:
    assert {payment["currency"] for payment in story.expected["payments"].values()} == {"eur", "jpy"}


def test_a_story_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        shop(1, START.replace(tzinfo=None))


def test_the_story_tells_only_of_types_that_have_samples(story: Story) -> None:
    assert {event["type"] for event in story.events} <= set(SAMPLE_EVENT_TYPES)
