import msgspec

from service.contract import Invoice, Subscription, SubscriptionItem
from service.projections import PROJECTIONS
from service.projections.model import ObjectState, RowSet
from service.projections.ordering import fold
from tests.support.histories import at, event, key, observation, oracle_rows

SUBSCRIPTIONS = PROJECTIONS["subscriptions"]
LAST_EVENT = {"last_event_id": "evt_1", "last_event_at": at(2)}


def item(name: str, quantity: int = 1) -> SubscriptionItem:
    return SubscriptionItem(subscription_item_id=name, price_id="price_1", quantity=quantity, current_period_end=at(9))


def state_of(*items: SubscriptionItem) -> ObjectState:
    data = Subscription(subscription_id="sub_1", status="active", items=items)
    return fold([observation("customer.subscription.updated", data)]).state


def rows_of(state: ObjectState) -> RowSet:
    return SUBSCRIPTIONS.rows(key("sub_1"), [state])


def test_a_subscription_has_a_row_with_all_its_fields_and_one_for_each_item() -> None:
    subscription = Subscription(
        subscription_id="sub_1",
        customer_id="cus_1",
        status="active",
        items=(item("si_1"), item("si_2", 3)),
        metadata={"k": "v"},
        created_at=at(0),
    )
    rows = oracle_rows(SUBSCRIPTIONS, [event("customer.subscription.created", subscription, second=2)])
    expected = msgspec.structs.asdict(subscription) | LAST_EVENT
    del expected["subscription_id"], expected["items"], expected["pending_update"]
    assert rows["subscriptions", key("sub_1")] == expected | {"discount_ids": []}
    expected = msgspec.structs.asdict(item("si_2", 3)) | LAST_EVENT | {"subscription_id": "sub_1"}
    del expected["subscription_item_id"]
    assert rows["subscription_items", key("si_2")] == expected
    assert len(rows) == 3


def test_a_subscription_owns_its_items_rows_even_when_none_is_left() -> None:
    assert [row.key.object_id for row in rows_of(state_of(item("si_2"))).rows] == ["sub_1", "si_2"]
    assert rows_of(state_of(item("si_2"))).owned == {"subscription_items": "subscription_id"}
    assert rows_of(state_of()).owned == {"subscription_items": "subscription_id"}


def test_an_item_that_the_latest_event_does_not_have_has_no_row() -> None:
    history = [
        event("customer.subscription.updated", state_of(item("si_1"), item("si_2")).data, event_id="evt_1"),
        event("customer.subscription.updated", state_of(item("si_1")).data, second=1, event_id="evt_2"),
    ]
    assert set(oracle_rows(SUBSCRIPTIONS, history)) == {
        ("subscriptions", key("sub_1")),
        ("subscription_items", key("si_1")),
    }


def test_the_one_plan_of_a_subscription_older_than_items_has_a_row_under_the_subscriptions_id() -> None:
    subscription = Subscription(subscription_id="sub_1", items=(SubscriptionItem(price_id="gold", quantity=2),))
    rows = oracle_rows(SUBSCRIPTIONS, [event("customer.subscription.created", subscription)])
    row = rows["subscription_items", key("sub_1")]
    assert (row["subscription_id"], row["price_id"], row["quantity"]) == ("sub_1", "gold", 2)


def test_an_invoice_has_a_row_with_all_its_fields() -> None:
    invoice = Invoice(invoice_id="in_1", status="paid", amount_paid_minor=100, currency="eur", subscription_id="sub_1")
    expected = msgspec.structs.asdict(invoice) | LAST_EVENT
    del expected["invoice_id"], expected["lines"]
    rows = oracle_rows(SUBSCRIPTIONS, [event("invoice.paid", invoice, second=2)])
    assert rows == {("invoices", key("in_1")): expected}
    assert SUBSCRIPTIONS.rows(key("in_1"), []).owned == {}


def test_a_deleted_invoice_says_so_and_keeps_the_rest() -> None:
    draft = Invoice(invoice_id="in_1", status="draft", customer_id="cus_1")
    rows = oracle_rows(SUBSCRIPTIONS, [event("invoice.deleted", draft)])
    row = rows["invoices", key("in_1")]
    assert (row["status"], row["customer_id"]) == ("deleted", "cus_1")


def test_the_preview_of_an_invoice_is_not_observed() -> None:
    assert SUBSCRIPTIONS.observe(event("invoice.upcoming", Invoice(subscription_id="sub_1"))) == ()


def test_a_deleted_subscription_keeps_its_row() -> None:
    ended = Subscription(subscription_id="sub_1", status="canceled", ended_at=at(5))
    row = oracle_rows(SUBSCRIPTIONS, [event("customer.subscription.deleted", ended)])["subscriptions", key("sub_1")]
    assert (row["status"], row["ended_at"]) == ("canceled", at(5))
