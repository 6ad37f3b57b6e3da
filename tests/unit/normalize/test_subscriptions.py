"""Subscriptions and invoices, in the shapes of different API versions."""

from typing import Any

import pytest

from service.contract import Invoice, InvoiceLine, Subscription, SubscriptionItem
from tests.unit.normalize.building import at, data_of, event, normalized, refused

START, END, LATER = 1_700_000_000, 1_702_592_000, 1_731_536_000

SUBSCRIPTION: dict[str, Any] = {
    "id": "sub_1",
    "object": "subscription",
    "cancel_at": None,
    "cancel_at_period_end": False,
    "canceled_at": None,
    "collection_method": "charge_automatically",
    "created": START,
    "currency": "eur",
    "customer": "cus_1",
    "ended_at": None,
    "latest_invoice": "in_1",
    "metadata": {"plan": "gold"},
    "start_date": START,
    "status": "active",
    "trial_end": None,
    "trial_start": None,
}
PRICE: dict[str, Any] = {
    "id": "price_1",
    "object": "price",
    "currency": "eur",
    "product": "prod_1",
    "recurring": {"interval": "month", "interval_count": 1},
    "unit_amount": 900,
}
PLAN: dict[str, Any] = {
    "id": "gold",
    "object": "plan",
    "amount": 900,
    "currency": "eur",
    "interval": "month",
    "interval_count": 1,
    "product": "prod_1",
}
ITEM: dict[str, Any] = {"id": "si_1", "object": "subscription_item", "quantity": 2}
INVOICE: dict[str, Any] = {
    "id": "in_1",
    "object": "invoice",
    "amount_due": 1800,
    "amount_paid": 1800,
    "amount_remaining": 0,
    "attempt_count": 1,
    "billing_reason": "subscription_cycle",
    "collection_method": "charge_automatically",
    "created": START,
    "currency": "eur",
    "customer": "cus_1",
    "due_date": None,
    "lines": {"object": "list", "data": []},
    "next_payment_attempt": None,
    "number": "A-0001",
    "period_end": END,
    "period_start": START,
    "status": "paid",
    "status_transitions": {"finalized_at": START, "paid_at": START + 5},
    "subtotal": 1600,
    "total": 1800,
}


def items(*trees: dict[str, Any]) -> dict[str, Any]:
    return {"items": {"object": "list", "data": list(trees), "has_more": False}}


def subscription(**fields: Any) -> Subscription:
    return data_of({**SUBSCRIPTION, **fields}, "customer.subscription.updated", Subscription)


def invoice(**fields: Any) -> Invoice:
    return data_of({**INVOICE, **fields}, "invoice.paid", Invoice)


def test_a_subscription_is_read() -> None:
    found = normalized(
        event(
            {
                **SUBSCRIPTION,
                "current_period_start": START,
                "current_period_end": END,
                **items({**ITEM, "price": PRICE}),
            },
            "customer.subscription.updated",
        )
    )

    assert (found.category, found.object_type, found.object_id) == ("subscription", "subscription", "sub_1")
    assert found.data == Subscription(
        subscription_id="sub_1",
        customer_id="cus_1",
        status="active",
        current_period_start=at(START),
        current_period_end=at(END),
        cancel_at_period_end=False,
        cancellation_scheduled=False,
        start_date=at(START),
        items=(
            SubscriptionItem(
                subscription_item_id="si_1",
                price_id="price_1",
                product_id="prod_1",
                quantity=2,
                unit_amount_minor=900,
                currency="eur",
                interval="month",
                interval_count=1,
                current_period_start=at(START),
                current_period_end=at(END),
            ),
        ),
        items_have_more=False,
        latest_invoice_id="in_1",
        coupon_ids=(),
        collection_method="charge_automatically",
        currency="eur",
        metadata={"plan": "gold"},
        created_at=at(START),
    )


@pytest.mark.parametrize(
    "shape",
    [
        {"current_period_start": START, "current_period_end": LATER, **items({**ITEM, "price": PRICE})},
        items(
            {**ITEM, "price": PRICE, "current_period_start": END, "current_period_end": LATER},
            {**ITEM, "id": "si_2", "price": PRICE, "current_period_start": START, "current_period_end": END},
        ),
        {
            "current_period_start": START,
            "current_period_end": LATER,
            **items({**ITEM, "price": PRICE, "current_period_start": END, "current_period_end": END}),
        },
    ],
    ids=["before basil", "from basil on", "both"],
)
def test_the_period_is_the_subscriptions_own_else_spans_its_items(shape: dict[str, Any]) -> None:
    found = subscription(**shape)

    assert (found.current_period_start, found.current_period_end) == (at(START), at(LATER))


def test_items_have_periods_of_their_own() -> None:
    (item,) = subscription(
        **items({**ITEM, "price": PRICE, "current_period_start": START, "current_period_end": END})
    ).items

    assert (item.current_period_start, item.current_period_end) == (at(START), at(END))


@pytest.mark.parametrize(
    ("terms", "price_id"),
    [
        ({"price": PRICE}, "price_1"),
        ({"price": PRICE, "plan": {**PLAN, "amount": 1}}, "price_1"),
        ({"plan": PLAN}, "gold"),
        ({"price": None, "plan": PLAN}, "gold"),
        ({"price": "price_1", "plan": PLAN}, "price_1"),
        ({"price": {**PRICE, "product": {"id": "prod_1", "object": "product", "name": "Gold"}}}, "price_1"),
        ({"price": {**PRICE, "product": {"id": "prod_1", "object": "product", "deleted": True}}}, "price_1"),
    ],
    ids=["price", "price and plan", "plan", "null price", "price id and plan", "expanded product", "deleted product"],
)
def test_an_items_terms_are_read_of_its_price_or_plan(terms: dict[str, Any], price_id: str) -> None:
    (item,) = subscription(**items({**ITEM, **terms})).items

    assert item == SubscriptionItem(
        subscription_item_id="si_1",
        price_id=price_id,
        product_id="prod_1",
        quantity=2,
        unit_amount_minor=900,
        currency="eur",
        interval="month",
        interval_count=1,
    )


def test_an_item_whose_price_is_only_named_keeps_the_name() -> None:
    (item,) = subscription(**items({**ITEM, "price": "price_1"})).items

    assert item == SubscriptionItem(subscription_item_id="si_1", price_id="price_1", quantity=2, currency="eur")


@pytest.mark.parametrize(
    ("shape", "currency"),
    [
        ({}, "eur"),
        ({"currency": None, **items({**ITEM, "price": PRICE})}, "eur"),
        ({"currency": None, "plan": PLAN}, "eur"),
        ({"currency": None}, None),
    ],
)
def test_a_subscriptions_currency_is_its_own_else_its_items(shape: dict[str, Any], currency: str | None) -> None:
    assert subscription(**shape).currency == currency


def test_a_subscription_of_2018_is_read() -> None:
    old = {
        "id": "sub_1",
        "object": "subscription",
        "billing": "send_invoice",
        "cancel_at_period_end": None,
        "customer": {"id": "cus_1", "object": "customer"},
        "latest_invoice": {"id": "in_1", "object": "invoice"},
        "plan": PLAN,
        "quantity": 2,
        "start": START,
        "status": "trialing",
        "trial_end": END,
        "trial_start": START,
    }
    found = data_of(old, "customer.subscription.created", Subscription)

    assert found == Subscription(
        subscription_id="sub_1",
        customer_id="cus_1",
        status="trialing",
        start_date=at(START),
        trial_start=at(START),
        trial_end=at(END),
        items=(
            SubscriptionItem(
                subscription_item_id="sub_1",
                price_id="gold",
                product_id="prod_1",
                quantity=2,
                unit_amount_minor=900,
                currency="eur",
                interval="month",
                interval_count=1,
            ),
        ),
        latest_invoice_id="in_1",
        coupon_ids=(),
        collection_method="send_invoice",
        currency="eur",
    )


def test_a_canceled_subscription_says_when() -> None:
    found = subscription(status="canceled", cancel_at=END, canceled_at=START, ended_at=END, cancel_at_period_end=True)

    assert (found.cancel_at, found.canceled_at, found.ended_at, found.cancel_at_period_end) == (
        at(END),
        at(START),
        at(END),
        True,
    )


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"current_period_end": "soon"}, "data.object.current_period_end"),
        ({"cancel_at_period_end": 1}, "data.object.cancel_at_period_end"),
        (items({"id": 1}), "data.object.items.id"),
        (items({**ITEM, "price": {**PRICE, "unit_amount": "9.00"}}), "data.object.items.unit_amount"),
        ({"items": {"data": "si_1"}}, "data.object.items"),
    ],
)
def test_a_subscription_of_an_impossible_shape_is_refused_by_field(fields: dict[str, Any], detail: str) -> None:
    assert refused(event({**SUBSCRIPTION, **fields}, "customer.subscription.updated")).detail == detail


def test_an_invoice_is_read() -> None:
    found = normalized(event({**INVOICE, "subscription": "sub_1", "tax": 200}, "invoice.paid"))

    assert (found.category, found.object_type, found.object_id) == ("subscription", "invoice", "in_1")
    assert found.data == Invoice(
        invoice_id="in_1",
        number="A-0001",
        subscription_id="sub_1",
        customer_id="cus_1",
        status="paid",
        billing_reason="subscription_cycle",
        collection_method="charge_automatically",
        amount_due_minor=1800,
        amount_paid_minor=1800,
        amount_remaining_minor=0,
        subtotal_minor=1600,
        total_minor=1800,
        tax_minor=200,
        currency="eur",
        attempt_count=1,
        period_start=at(START),
        period_end=at(END),
        finalized_at=at(START),
        paid_at=at(START + 5),
        created_at=at(START),
    )


def lines(*trees: dict[str, Any]) -> dict[str, Any]:
    return {"lines": {"object": "list", "data": list(trees)}}


@pytest.mark.parametrize(
    "shape",
    [
        {"subscription": "sub_1"},
        {"subscription": {"id": "sub_1", "object": "subscription"}},
        {"parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}}},
        {"parent": None, **lines({"id": "il_0"}, {"id": "il_1", "subscription": "sub_1"})},
        lines({"id": "il_1", "parent": {"subscription_item_details": {"subscription": "sub_1"}}}),
        lines({"id": "sub_1", "type": "subscription", "subscription": None}),
    ],
    ids=["before basil", "expanded", "from basil on", "a line", "a line from basil on", "a line before 2019-12-03"],
)
def test_an_invoices_subscription_is_found_in_every_shape(shape: dict[str, Any]) -> None:
    assert invoice(**shape).subscription_id == "sub_1"


@pytest.mark.parametrize(
    "shape", [{}, {"parent": {"type": "quote_details", "subscription_details": None}}, lines({"id": "il_1"})]
)
def test_an_invoice_of_no_subscription_has_none(shape: dict[str, Any]) -> None:
    assert invoice(**shape).subscription_id is None


@pytest.mark.parametrize(
    ("shape", "ids"),
    [
        ({"payment_intent": "pi_1", "charge": "ch_1"}, ("pi_1", "ch_1")),
        ({"payment_intent": {"id": "pi_1"}, "charge": {"id": "ch_1"}}, ("pi_1", "ch_1")),
        ({"payments": {"data": [{"payment": {"type": "payment_intent", "payment_intent": "pi_1"}}]}}, ("pi_1", None)),
        (
            {
                "payments": {
                    "data": [
                        {"is_default": False, "payment": {"payment_intent": "pi_0"}},
                        {"is_default": True, "payment": {"charge": "ch_1"}},
                    ]
                }
            },
            (None, "ch_1"),
        ),
        ({"payments": {"data": []}}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_an_invoices_payment_is_found_in_every_shape(shape: dict[str, Any], ids: tuple[str | None, str | None]) -> None:
    found = invoice(**shape)

    assert (found.payment_intent_id, found.charge_id) == ids


@pytest.mark.parametrize(
    ("shape", "tax"),
    [
        ({"tax": 200}, 200),
        ({"tax": 0}, 0),
        ({"total_taxes": [{"amount": 120}, {"amount": 80}]}, 200),
        ({"total_taxes": [{"amount": 200}], "tax": 1}, 200),
        ({"tax": None, "total_tax_amounts": [{"amount": 150}, {"amount": 50}]}, 200),
        ({"tax": None, "total_tax_amounts": []}, None),
        ({"total_taxes": []}, None),
        ({"total_taxes": None}, None),
        ({}, None),
    ],
)
def test_an_invoices_tax_is_one_sum_in_every_shape(shape: dict[str, Any], tax: int | None) -> None:
    assert invoice(**shape).tax_minor == tax


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ({"paid": True, "closed": True, "attempted": True}, "paid"),
        ({"paid": False, "forgiven": True, "closed": True}, "uncollectible"),
        ({"paid": False, "forgiven": False, "closed": False, "attempted": True}, "open"),
        ({"paid": False, "forgiven": False, "closed": True, "attempted": True}, None),
        ({"paid": False, "closed": False, "attempted": False}, None),
        ({}, None),
    ],
)
def test_an_invoice_without_a_status_has_what_its_flags_make_certain(
    flags: dict[str, bool], status: str | None
) -> None:
    tree = {name: value for name, value in INVOICE.items() if name != "status"}

    assert data_of({**tree, **flags}, "invoice.updated", Invoice).status == status


def test_a_status_wins_over_flags() -> None:
    assert invoice(status="void", paid=True).status == "void"


def test_an_invoice_of_2018_is_read() -> None:
    found = invoice(created=None, date=START, collection_method=None, billing="send_invoice", due_date=END)

    assert (found.created_at, found.collection_method, found.due_date) == (at(START), "send_invoice", at(END))


@pytest.mark.parametrize("own", [{"id": None}, {}])
def test_an_upcoming_invoice_has_no_id(own: dict[str, Any]) -> None:
    tree = {name: value for name, value in INVOICE.items() if name != "id"}
    found = normalized(event({**tree, **own, "next_payment_attempt": END}, "invoice.upcoming"))

    assert found.object_id is None
    assert isinstance(found.data, Invoice)
    assert (found.data.invoice_id, found.data.next_payment_attempt) == (None, at(END))


def test_a_pause_and_its_end_are_read() -> None:
    found = subscription(pause_collection={"behavior": "void", "resumes_at": END})
    paused = {"paused": {"type": "subscription", "subscription": {"type": "pause_requested"}}}

    assert (found.status, found.pause_behavior, found.pause_resumes_at) == ("active", "void", at(END))
    assert subscription(status="paused", status_details=paused).paused_reason == "pause_requested"


def test_a_pending_update_is_read() -> None:
    update = {"expires_at": END, "trial_end": LATER, "subscription_items": [{**ITEM, "price": PRICE}]}
    pending = subscription(pending_update=update).pending_update

    assert pending is not None
    assert (pending.expires_at, pending.trial_end) == (at(END), at(LATER))
    assert [item.price_id for item in pending.items] == ["price_1"]
    assert subscription(pending_update=None).pending_update is None


@pytest.mark.parametrize(
    ("shape", "scheduled"),
    [
        ({"cancel_at": None, "cancel_at_period_end": False}, False),
        ({"cancel_at": None, "cancel_at_period_end": True}, True),
        ({"cancel_at": END, "cancel_at_period_end": False}, True),
        ({"cancel_at": None, "cancel_at_period_end": None}, None),
    ],
)
def test_a_cancellation_is_scheduled_by_its_date_as_well_as_by_its_flag(
    shape: dict[str, Any], scheduled: bool | None
) -> None:
    assert subscription(**shape).cancellation_scheduled is scheduled


@pytest.mark.parametrize(
    ("shape", "coupons"),
    [
        ({"discount": {"coupon": {"id": "gold"}}}, ("gold",)),
        ({"discounts": [{"source": {"type": "coupon", "coupon": "gold"}}, {"coupon": {"id": "silver"}}]}, ("gold", "silver")),
        ({"discounts": ["di_1"], "discount": {"coupon": {"id": "gold"}}}, None),
        ({"discounts": ["di_1", {"id": "di_2", "coupon": {"id": "gold"}}]}, None),
        ({"discounts": [], "discount": None}, ()),
        ({}, ()),
    ],
)  # fmt: skip
def test_the_coupons_are_known_where_every_discount_is_rendered_whole(
    shape: dict[str, Any], coupons: tuple[str, ...] | None
) -> None:
    assert subscription(**shape).coupon_ids == coupons


@pytest.mark.parametrize(
    ("shape", "discounts"),
    [
        ({"discounts": ["di_1", {"id": "di_2"}]}, ("di_1", "di_2")),
        ({"discount": {"id": "di_1", "coupon": {"id": "gold"}}}, ("di_1",)),
        ({"discount": {"coupon": {"id": "gold"}}}, ()),
        ({"discounts": []}, ()),
    ],
)
def test_discounts_are_named_whether_rendered_or_not(shape: dict[str, Any], discounts: tuple[str, ...]) -> None:
    assert subscription(**shape).discount_ids == discounts


@pytest.mark.parametrize(
    "line",
    [
        {"pricing": {"price_details": {"price": "price_1", "product": "prod_1"}},
         "parent": {"subscription_item_details": {"subscription": "sub_1", "subscription_item": "si_1", "proration": False}}},
        {"price": PRICE, "subscription": "sub_1", "subscription_item": "si_1", "proration": False},
        {"plan": {**PLAN, "id": "price_1"}, "subscription": "sub_1", "subscription_item": "si_1", "proration": False},
    ],
    ids=["from basil on", "price", "plan"],
)  # fmt: skip
def test_a_line_says_what_it_bills_in_every_version(line: dict[str, Any]) -> None:
    tree = {
        "id": "il_1",
        "amount": 900,
        "currency": "eur",
        "quantity": 1,
        "period": {"start": START, "end": END},
        **line,
    }
    (found,) = invoice(lines={"data": [tree], "has_more": True}).lines

    assert found == InvoiceLine(
        invoice_line_id="il_1",
        amount_minor=900,
        currency="eur",
        quantity=1,
        price_id="price_1",
        product_id="prod_1",
        subscription_id="sub_1",
        subscription_item_id="si_1",
        proration=False,
        period_start=at(START),
        period_end=at(END),
    )


def test_old_lines_have_the_ids_of_what_they_bill() -> None:
    lines = {
        "subscriptions": [{"id": "su_1", "type": "subscription"}],
        "prorations": [],
        "invoiceitems": [{"id": "ii_1"}],
    }
    found = invoice(lines=lines)

    assert [line.invoice_line_id for line in found.lines] == ["su_1", "ii_1"]
    assert (found.lines[0].subscription_id, found.lines[1].invoice_item_id) == ("su_1", "ii_1")
    assert found.subscription_id == "su_1"
    (line,) = invoice(lines={"data": [{"id": "ii_1", "unique_id": "il_1"}]}).lines
    assert (line.invoice_line_id, line.invoice_item_id) == ("il_1", "ii_1")


def test_a_subscription_older_than_ids_has_none() -> None:
    found = normalized(event({**SUBSCRIPTION, "id": None}, "customer.subscription.updated"))

    assert isinstance(found.data, Subscription)
    assert (found.object_id, found.data.subscription_id, found.data.customer_id) == (None, None, "cus_1")
