"""What an event says its object was before, in our fields."""

from typing import Any

import msgspec
import pytest

from service.events import QuarantineReason
from service.normalize.previous import DEPTH_MAX, patched
from tests.unit.normalize.building import event, normalized, refused, updated

START, END = 1_700_000_000, 1_702_592_000
START_WIRE, END_WIRE = "2023-11-14T22:13:20Z", "2023-12-14T22:13:20Z"

PRICE = {"id": "price_1", "object": "price", "unit_amount": 900, "currency": "eur", "product": "prod_1"}
ITEM: dict[str, Any] = {
    "id": "si_1",
    "price": PRICE,
    "quantity": 2,
    "current_period_start": END,
    "current_period_end": END + 100,
}
SUBSCRIPTION: dict[str, Any] = {
    "id": "sub_1",
    "object": "subscription",
    "status": "active",
    "cancel_at_period_end": True,
    "canceled_at": END,
    "items": {"object": "list", "data": [ITEM], "has_more": False},
    "metadata": {"kept": "1", "new": "2", "changed": "b"},
}
CHARGE: dict[str, Any] = {
    "id": "ch_1",
    "object": "charge",
    "amount_refunded": 500,
    "refunded": False,
    "payment_method_details": {"card": {"last4": "4242", "country": "DE"}, "type": "card"},
    "refunds": {"object": "list", "data": [{"id": "re_1", "amount": 500}], "total_count": 1},
}


def previous_of(tree: dict[str, Any], event_type: str, patch: object) -> Any:
    return normalized(updated(tree, event_type, patch)).previous


def test_an_event_without_previous_attributes_has_no_previous() -> None:
    assert normalized(event(SUBSCRIPTION, "customer.subscription.created")).previous is None


@pytest.mark.parametrize("patch", [None, [], "status"])
def test_previous_attributes_that_are_no_object_say_nothing(patch: object) -> None:
    assert previous_of(SUBSCRIPTION, "customer.subscription.updated", patch) is None


@pytest.mark.parametrize("patch", [{}, {"pending_update": None}, {"payment_settings": {"save": "off"}}])
def test_a_change_outside_of_the_normalized_fields_is_an_empty_previous(patch: object) -> None:
    assert previous_of(SUBSCRIPTION, "customer.subscription.updated", patch) == {}


def test_only_what_changed_is_there_with_its_old_value() -> None:
    patch = {"status": "incomplete", "cancel_at_period_end": False, "canceled_at": None}

    assert previous_of(SUBSCRIPTION, "customer.subscription.updated", patch) == {
        "status": "incomplete",
        "cancel_at_period_end": False,
        "cancellation_scheduled": False,
        "canceled_at": None,
    }


def test_times_are_as_on_the_wire() -> None:
    tree = {**SUBSCRIPTION, "current_period_start": END, "current_period_end": END + 100}
    patch = {"current_period_start": START, "current_period_end": END}

    assert previous_of(tree, "customer.subscription.updated", patch) == {
        "current_period_start": START_WIRE,
        "current_period_end": END_WIRE,
    }


def test_a_period_that_changed_on_the_items_changed_on_the_subscription() -> None:
    patch = {"items": {"data": [{**ITEM, "current_period_start": START, "current_period_end": END}]}}

    found = previous_of(SUBSCRIPTION, "customer.subscription.updated", patch)

    assert sorted(found) == ["current_period_end", "current_period_start", "items"]
    assert (found["current_period_start"], found["current_period_end"]) == (START_WIRE, END_WIRE)
    assert type(found["items"]) is list
    assert found["items"][0]["current_period_end"] == END_WIRE
    assert found["items"][0]["price_id"] == "price_1"


def test_metadata_is_patched_by_key() -> None:
    patch = {"metadata": {"new": None, "changed": "a", "gone": "3"}}

    assert previous_of(SUBSCRIPTION, "customer.subscription.updated", patch) == {
        "metadata": {"kept": "1", "changed": "a", "gone": "3"}
    }


def test_a_first_refund_had_none_before_it() -> None:
    patch = {"amount_refunded": 0, "refunds": {"data": [], "total_count": 0}}

    assert previous_of(CHARGE, "charge.refunded", patch) == {"amount_refunded_minor": 0, "refunds": []}


def test_a_change_beside_a_nested_field_we_read_changes_nothing_of_ours() -> None:
    patch = {"payment_method_details": {"card": {"country": "US"}}}

    assert previous_of(CHARGE, "charge.updated", patch) == {}


def test_an_array_in_place_of_a_list_object_hints_only() -> None:
    tree = {"id": "in_1", "object": "invoice", "lines": {"data": [{"subscription": "sub_1"}]}, "total": 5}

    assert previous_of(tree, "invoice.updated", {"lines": [], "total": 4}) == {"total_minor": 4}


def test_a_reference_that_changed_is_an_id() -> None:
    tree = {"id": "pm_1", "object": "payment_method", "customer": None}

    assert previous_of(tree, "payment_method.detached", {"customer": {"id": "cus_1"}}) == {"customer_id": "cus_1"}


def test_previous_is_the_same_after_a_way_through_json() -> None:
    patch = {"items": {"data": [{**ITEM, "quantity": 1}]}, "metadata": {"new": None}, "canceled_at": None}

    found = previous_of(SUBSCRIPTION, "customer.subscription.updated", patch)

    assert msgspec.json.decode(msgspec.json.encode(found)) == found


@pytest.mark.parametrize(
    ("patch", "detail"),
    [
        ({"canceled_at": "yesterday"}, "data.previous_attributes.canceled_at"),
        ({"items": {"data": [{"id": 1}]}}, "data.previous_attributes.items.id"),
    ],
)
def test_previous_attributes_of_an_impossible_shape_are_refused_by_field(patch: object, detail: str) -> None:
    outcome = refused(updated(SUBSCRIPTION, "customer.subscription.updated", patch))

    assert (outcome.reason, outcome.detail) == (QuarantineReason.OBJECT_MALFORMED, detail)


def test_the_new_object_is_left_alone() -> None:
    tree = {"a": {"b": 1, "c": 2}}

    assert patched(tree, {"a": {"b": 0}}, DEPTH_MAX) == {"a": {"b": 0, "c": 2}}
    assert tree == {"a": {"b": 1, "c": 2}}


def test_below_the_depth_limit_a_value_replaces() -> None:
    def nested(leaf: object, depth: int) -> dict[str, Any]:
        tree: dict[str, Any] = {"leaf": leaf}
        for _ in range(depth):
            tree = {"deeper": tree}
        return tree

    inside = patched(nested({"a": 1, "b": 1}, 2), nested({"a": 0}, 2), DEPTH_MAX)
    outside = patched(nested({"a": 1, "b": 1}, 900), nested({"a": 0}, 900), DEPTH_MAX)

    assert inside == nested({"a": 0, "b": 1}, 2)
    assert msgspec.json.encode(outside) == msgspec.json.encode(nested({"a": 0}, 900))


@pytest.mark.parametrize(
    "items",
    [
        {
            "items": {
                "object": "list",
                "data": [{"id": "si_1", "plan": {"id": "gold", "amount": 900, "currency": "eur"}, "quantity": 2}],
            }
        },
        {
            "items": {
                "data": [
                    {
                        "id": "si_1",
                        "price": PRICE,
                        "plan": {"id": "gold", "amount": 900, "currency": "eur"},
                        "quantity": 2,
                    }
                ]
            }
        },
    ],
    ids=["plan", "price"],
)
def test_a_change_of_plan_that_is_told_beside_the_item_is_the_items(items: dict[str, Any]) -> None:
    tree = {"id": "sub_1", "object": "subscription", "plan": {"id": "gold", "amount": 900, "currency": "eur"}, **items}

    found = previous_of(tree, "customer.subscription.updated", {"plan": {"id": "silver", "amount": 500}, "quantity": 1})

    assert list(found) == ["items"]
    assert [(item["price_id"], item["unit_amount_minor"], item["quantity"]) for item in found["items"]] == [
        ("silver", 500, 1)
    ]


def test_a_subscription_that_is_only_passed_on_may_have_items_of_any_kind() -> None:
    tree = {"id": "sub_1", "object": "subscription", "items": ["si_1"]}

    assert previous_of(tree, "review.opened", {"quantity": 1}) == {}
    assert refused(updated(tree, "customer.subscription.updated", {"quantity": 1})).detail == "data.object.items"
