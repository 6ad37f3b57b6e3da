"""The kinds of objects that can be listed and retrieved: their paths, permissions and filters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from service.simulator.fake_stripe.forms import boolean, strings, text
from service.simulator.fake_stripe.refusals import unknown_param
from service.simulator.fake_stripe.shelf import PAGE_PARAMS, Span
from service.simulator.objects import Object

Wanted: TypeAlias = Callable[[Object], bool]
Filter: TypeAlias = Callable[[dict[str, Any], str], Wanted]
"""Makes of the parameter of this name the test that an object must pass."""


def everything(_: Object) -> bool:
    """No filter."""
    return True


def reference(value: object) -> object:
    """The id that a field refers to, expanded or not."""
    return value.get("id") if isinstance(value, dict) else value


def _is(params: dict[str, Any], name: str) -> Wanted:
    value = text(params, name)
    return lambda obj: reference(obj.get(name)) == value


def _is_true(params: dict[str, Any], name: str) -> Wanted:
    value = boolean(params, name)
    return lambda obj: obj.get(name) is value


def _among(field_name: str) -> Filter:
    def made(params: dict[str, Any], name: str) -> Wanted:
        values = frozenset(strings(params, name) or ())
        return lambda obj: obj.get(field_name) in values

    return made


def _recurring(params: dict[str, Any], name: str) -> Wanted:
    asked = params[name] if isinstance(params[name], dict) else {}
    return lambda obj: all((obj.get(name) or {}).get(part) == value for part, value in asked.items())


def _has_price(params: dict[str, Any], name: str) -> Wanted:
    price_id = text(params, name)
    return lambda obj: any(reference(item.get("price")) == price_id for item in obj["items"]["data"])


def _during(params: dict[str, Any], name: str) -> Wanted:
    span = Span.of(params[name], name)
    return lambda obj: any(item.get(name) in span for item in obj["items"]["data"] if item.get(name) is not None)


def _due(params: dict[str, Any], name: str) -> Wanted:
    span = Span.of(params[name], name)
    return lambda obj: obj.get(name) is not None and obj[name] in span


def _of_subscription(params: dict[str, Any], name: str) -> Wanted:
    subscription_id = text(params, name)

    def wanted(obj: Object) -> bool:
        details = (obj.get("parent") or {}).get("subscription_details") or {}
        return reference(obj.get(name) or details.get(name)) == subscription_id

    return wanted


def _subscription_status(params: dict[str, Any], name: str) -> Wanted:
    status = text(params, name)
    if status == "all":
        return everything
    statuses = {"canceled", "incomplete_expired"} if status == "ended" else {status}
    return lambda obj: obj.get("status") in statuses


@dataclass(frozen=True, slots=True)
class Resource:
    """Objects that lie under `/v1/<path>`. `permission` is what reading and writing them is called in a key.

    `usual` is what a list shows where `unless` is not given; `needed` is a parameter without which none is created.
    `creates` and `updates` say whether Stripe has such operations.
    """

    path: str
    object: str
    permission: str
    filters: Mapping[str, Filter] = field(default_factory=dict)
    usual: Wanted = everything
    unless: str = ""
    needed: str | None = None
    creates: bool = True
    updates: bool = True

    def wanted(self, params: dict[str, Any]) -> Wanted:
        """Whether an object is one of those that the parameters ask for. Raises `Refusal` for an unknown one."""
        if unknown := params.keys() - self.filters.keys() - PAGE_PARAMS:
            raise unknown_param(min(unknown))
        tests = [self.filters[name](params, name) for name in self.filters if name in params]
        if self.unless not in params:
            tests.append(self.usual)
        return lambda obj: all(test(obj) for test in tests)


RESOURCES: Final = (
    Resource(
        "products",
        "product",
        "product",
        {
            "active": _is_true, "ids": _among("id"), "shippable": _is_true, "type": _is, "url": _is,
        },
        needed="name",
    ),
    Resource(
        "prices",
        "price",
        "plan",
        {
            "active": _is_true, "currency": _is, "lookup_keys": _among("lookup_key"), "product": _is,
            "recurring": _recurring, "type": _is,
        },
        # "A list of your active prices": the others are a list of their own.
        usual=lambda obj: obj.get("active") is True,
        unless="active",
        needed="currency",
    ),
    Resource("plans", "plan", "plan", {"active": _is_true, "product": _is}, needed="currency"),
    Resource("customers", "customer", "customer", {"email": _is, "test_clock": _is}),
    Resource(
        "subscriptions",
        "subscription",
        "subscription",
        {
            "collection_method": _is, "current_period_end": _during, "current_period_start": _during,
            "customer": _is, "customer_account": _is, "price": _has_price, "status": _subscription_status,
            "test_clock": _is,
        },
        usual=lambda obj: obj.get("status") != "canceled",
        unless="status",
        needed="customer",
    ),
    Resource(
        "payment_intents",
        "payment_intent",
        "payment_intent",
        {"customer": _is, "customer_account": _is},
        needed="amount",
    ),
    Resource(
        "charges",
        "charge",
        "charge",
        {"customer": _is, "payment_intent": _is, "transfer_group": _is},
        needed="amount",
    ),
    Resource("refunds", "refund", "refund", {"charge": _is, "payment_intent": _is}, needed="charge"),
    Resource(
        "invoices",
        "invoice",
        "invoice",
        {
            "collection_method": _is, "customer": _is, "customer_account": _is, "due_date": _due, "status": _is,
            "subscription": _of_subscription,
        },
        needed="customer",
    ),
    Resource(
        "invoice_payments",
        "invoice_payment",
        "invoice",
        {"invoice": _is, "status": _is},
        creates=False,
        updates=False,
    ),
    Resource("disputes", "dispute", "dispute", {"charge": _is, "payment_intent": _is}, creates=False),
    Resource(
        "checkout/sessions",
        "checkout.session",
        "checkout_session",
        {
            "customer": _is, "customer_account": _is, "payment_intent": _is, "payment_link": _is, "status": _is,
            "subscription": _is,
        },
        needed="line_items",
    ),
    Resource(
        "billing_portal/configurations",
        "billing_portal.configuration",
        "customer_portal",
        {"active": _is_true, "is_default": _is_true},
        needed="features",
    ),
)  # fmt: skip

PORTAL_SESSION: Final = Resource(
    "billing_portal/sessions", "billing_portal.session", "customer_portal", needed="customer"
)
"""It can be created, and neither listed nor retrieved."""
