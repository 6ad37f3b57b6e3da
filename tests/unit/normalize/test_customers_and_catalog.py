"""Customers, products, prices, and the objects that have no type of their own."""

from typing import Any

import pytest

from service.contract import Customer, Other, Price, Product
from tests.unit.normalize.building import at, data_of, event, normalized, refused

CUSTOMER: dict[str, Any] = {
    "id": "cus_1",
    "object": "customer",
    "balance": -500,
    "created": 1_700_000_000,
    "currency": "eur",
    "delinquent": False,
    "description": "A regular",
    "email": "buyer@example.com",
    "metadata": {"crm": "17"},
    "name": "Ada Example",
    "phone": "+490000000",
}


def test_a_customer_is_read() -> None:
    found = normalized(event(CUSTOMER, "customer.updated"))

    assert (found.category, found.object_type, found.object_id) == ("customer", "customer", "cus_1")
    assert found.data == Customer(
        customer_id="cus_1",
        email="buyer@example.com",
        name="Ada Example",
        phone="+490000000",
        description="A regular",
        currency="eur",
        delinquent=False,
        balance_minor=-500,
        metadata={"crm": "17"},
        created_at=at(1_700_000_000),
    )


@pytest.mark.parametrize(
    ("balances", "balance"),
    [
        ({"balance": 0, "account_balance": 7}, 0),
        ({"balance": None, "account_balance": 7}, 7),
        ({"balance": None}, None),
    ],
)
def test_a_customers_balance_was_once_its_account_balance(balances: dict[str, Any], balance: int | None) -> None:
    assert data_of({**CUSTOMER, **balances}, "customer.updated", Customer).balance_minor == balance


@pytest.mark.parametrize("stub", [{"object": "customer"}, {}], ids=["with object", "without object"])
def test_a_deleted_customer_may_be_a_stub(stub: dict[str, Any]) -> None:
    found = normalized(event({"id": "cus_1", "deleted": True, **stub}, "customer.deleted"))

    assert (found.object_type, found.data) == ("customer", Customer(customer_id="cus_1", deleted=True))


def test_a_deleted_customer_may_be_whole() -> None:
    found = data_of(CUSTOMER, "customer.deleted", Customer)

    assert (found.deleted, found.email) == (False, "buyer@example.com")


def test_what_belongs_to_a_customer_goes_to_its_topic_without_a_type_of_its_own() -> None:
    discount = {"object": "discount", "customer": "cus_1", "subscription": {"id": "sub_1"}, "coupon": {"id": "TEN"}}
    found = normalized(event(discount, "customer.discount.created"))

    assert (found.category, found.object_type, found.object_id) == ("customer", "discount", None)
    assert found.data == Other(customer_id="cus_1", subscription_id="sub_1")


@pytest.mark.parametrize("default_price", ["price_1", {"id": "price_1", "object": "price"}])
def test_a_product_is_read(default_price: object) -> None:
    product = {
        "id": "tea",
        "object": "product",
        "active": True,
        "created": 1_700_000_000,
        "default_price": default_price,
        "description": "Twenty bags",
        "metadata": {},
        "name": "Tea Box",
        "type": "service",
        "updated": 1_700_000_900,
    }
    found = normalized(event(product, "product.updated"))

    assert (found.category, found.object_type, found.object_id) == ("catalog", "product", "tea")
    assert found.data == Product(
        product_id="tea",
        name="Tea Box",
        description="Twenty bags",
        active=True,
        default_price_id="price_1",
        product_type="service",
        created_at=at(1_700_000_000),
        updated_at=at(1_700_000_900),
    )


@pytest.mark.parametrize(
    ("recurring", "interval", "count"), [({"interval": "year", "interval_count": 2}, "year", 2), (None, None, None)]
)
def test_a_price_is_read(recurring: object, interval: str | None, count: int | None) -> None:
    price = {
        "id": "price_1",
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": 1_700_000_000,
        "currency": "eur",
        "lookup_key": "gold",
        "nickname": "Gold",
        "product": {"id": "prod_1", "object": "product", "deleted": True},
        "recurring": recurring,
        "tax_behavior": "inclusive",
        "type": "recurring",
        "unit_amount": None,
        "unit_amount_decimal": "0.5",
    }
    found = normalized(event(price, "price.updated"))

    assert (found.category, found.object_type, found.object_id) == ("catalog", "price", "price_1")
    assert found.data == Price(
        price_id="price_1",
        product_id="prod_1",
        active=False,
        currency="eur",
        unit_amount_decimal="0.5",
        price_type="recurring",
        billing_scheme="per_unit",
        interval=interval,
        interval_count=count,
        lookup_key="gold",
        nickname="Gold",
        tax_behavior="inclusive",
        created_at=at(1_700_000_000),
    )


@pytest.mark.parametrize(
    ("stub", "data"),
    [
        ({"id": "prod_1", "object": "product", "deleted": True}, Product(product_id="prod_1", deleted=True)),
        ({"id": "price_1", "object": "price", "deleted": True}, Price(price_id="price_1", deleted=True)),
    ],
)
def test_a_deleted_product_or_price_may_be_a_stub(stub: dict[str, Any], data: Product | Price) -> None:
    assert normalized(event(stub, f"{stub['object']}.deleted")).data == data


def test_a_plan_is_kept_with_its_product() -> None:
    found = normalized(event({"id": "gold", "object": "plan", "product": "prod_1", "amount": 900}, "plan.updated"))

    assert (found.category, found.object_type, found.object_id) == ("catalog", "plan", "gold")
    assert found.data == Price(price_id="gold", product_id="prod_1", unit_amount_minor=900, price_type="recurring")


def test_an_object_without_a_type_of_its_own_has_the_references_it_shares() -> None:
    tree = {
        "id": "x_1",
        "object": "radar.early_fraud_warning",
        "charge": "ch_1",
        "customer": {"id": "cus_1", "deleted": True},
        "invoice": "in_1",
        "payment_intent": {"id": "pi_1", "object": "payment_intent"},
        "product": "prod_1",
        "subscription": "sub_1",
    }
    found = normalized(event(tree, "radar.early_fraud_warning.created"))

    assert (found.category, found.object_type, found.object_id) == ("other", "radar.early_fraud_warning", "x_1")
    assert found.data == Other(
        customer_id="cus_1",
        payment_intent_id="pi_1",
        charge_id="ch_1",
        invoice_id="in_1",
        subscription_id="sub_1",
        product_id="prod_1",
    )


def test_a_name_we_know_may_mean_something_else_in_an_object_we_do_not_know() -> None:
    tree = {"id": "x_1", "object": "widget", "charge": 12.5, "product": ["a"], "customer": {"name": "Ada"}}

    assert normalized(event(tree, "widget.created")).data == Other()


@pytest.mark.parametrize(
    ("event_type", "object_type"),
    [("foo.created", "foo"), ("checkout.session.completed", "checkout_session"), ("charge.dispute.closed", "dispute"),
     ("ping", "ping")],
)  # fmt: skip
def test_an_object_that_does_not_say_what_it_is_is_what_its_event_is_about(event_type: str, object_type: str) -> None:
    assert normalized(event({"id": "x_1"}, event_type)).object_type == object_type


@pytest.mark.parametrize(
    ("tree", "event_type", "detail"),
    [
        ({**CUSTOMER, "balance": "five"}, "customer.updated", "data.object.balance"),
        ({**CUSTOMER, "deleted": "yes"}, "customer.deleted", "data.object.deleted"),
        ({"id": "prod_1", "object": "product", "updated": "now"}, "product.updated", "data.object.updated"),
        ({"id": "price_1", "object": "price", "unit_amount": 0.5}, "price.updated", "data.object.unit_amount"),
        ({"id": 5, "object": "plan"}, "plan.updated", "data.object.id"),
    ],
)
def test_an_impossible_shape_is_refused_by_field(tree: dict[str, Any], event_type: str, detail: str) -> None:
    assert refused(event(tree, event_type)).detail == detail
