"""Events that say several things at once: what follows from a combination, and forms that only old payloads have."""

from collections.abc import Mapping
from typing import Any, Final

from tests.oracle.specimens import Node, snapshot


def _charge(**fields: Any) -> Node:
    return snapshot({"id": "ch_1", "object": "charge", **fields}, "charge.succeeded")


def _invoice(**fields: Any) -> Node:
    return snapshot({"id": "in_1", "object": "invoice", **fields}, "invoice.updated")


def _subscription(**fields: Any) -> Node:
    return snapshot({"id": "sub_1", "object": "subscription", **fields}, "customer.subscription.updated")


def _session(**fields: Any) -> Node:
    return snapshot({"id": "cs_1", "object": "checkout.session", **fields}, "checkout.session.completed")


def _source(**fields: Any) -> Node:
    return _charge(source={"id": "src_1", **fields})


def _thin(**fields: Any) -> Node:
    return {
        "id": "evt_1",
        "object": "v2.core.event",
        "type": "v1.customer.created",
        "livemode": False,
        "created": "2026-09-17T06:20:52.246Z",
        "related_object": {"id": "cus_1", "type": "customer", "url": "/v1/customers/cus_1"},
        **fields,
    }


def _changed(now: Node, **before: Any) -> Node:
    return now | {"data": now["data"] | {"previous_attributes": before}}


_BRANDS = (
    "American Express", "Cartes Bancaires", "Diners Club", "Discover", "Eftpos Australia", "Girocard", "JCB",
    "MasterCard", "UnionPay", "China UnionPay", "Visa", "Unknown",
)  # fmt: skip
_GOLD = {"id": "gold", "amount": 9, "currency": "usd"}
_LINE = {"id": "sub_7specimen", "type": "subscription", "amount": 5}

CASES: Final[Mapping[str, Node]] = {
    **{f"brand {name}": _source(object="card", brand=name, last4="4242") for name in _BRANDS},
    "charge paid, failed code gone": _charge(paid=True, failure_code=None),
    "charge not paid": _charge(paid=False, failure_code="card_declined"),
    "charge of a legacy status": _charge(status="paid"),
    "charge in an event of another family": _charge(customer="cus_1") | {"type": "unheard.of"},
    "charge neither": _charge(paid=False),
    "charge with both statuses": _charge(paid=True, status="pending"),
    "source of a type": _source(object="source", type="ideal"),
    "source, a bank account": _source(object="bank_account", last4="6789"),
    "source, a card": _source(object="card", last4="4242", brand="Visa"),
    "legacy bank account": _charge(card={"id": "ba_1", "object": "bank_account", "last4": "6789"}),
    "legacy card": _charge(card={"id": "card_1", "object": "card", "type": "Visa", "last4": "4242"}),
    "dispute inside": _charge(dispute={"amount": 5, "status": "under_review"}),
    "blocked charge": _charge(outcome={"type": "blocked", "reason": "highest_risk_level"}),
    "declined charge": _charge(outcome={"type": "issuer_declined", "reason": "lost_card"}),
    "refunds, a bare list": _charge(refunds=[{"id": "re_1", "amount": 3}, {"id": "re_2", "amount": 4}]),
    "invoice paid": _invoice(paid=True, attempted=True, closed=True, forgiven=False),
    "invoice paid after all": _invoice(paid=True, forgiven=True),
    "invoice forgiven": _invoice(paid=False, attempted=True, closed=True, forgiven=True),
    "invoice attempted": _invoice(paid=False, attempted=True, closed=False, forgiven=False),
    "invoice attempted and closed": _invoice(paid=False, attempted=True, closed=True, forgiven=False),
    "invoice not attempted": _invoice(paid=False, attempted=False, closed=False, forgiven=False),
    "invoice paid by another payment than the default": _invoice(
        payments=[
            {"is_default": True, "status": "canceled", "payment": {"payment_intent": "pi_canceled"}},
            {"is_default": False, "status": "paid", "payment": {"payment_intent": "pi_paid"}},
        ]
    ),
    "line of a subscription": _invoice(lines=[_LINE, _LINE | {"id": "su_7", "amount": 6}]),
    "line of the oldest subscription": _invoice(lines=[_LINE | {"id": "su_7"}]),
    "lines, three lists": _invoice(
        lines={
            "subscriptions": [_LINE | {"currency": "usd"}],
            "prorations": [{"id": "ii_1", "type": "invoiceitem", "amount": 4, "proration": True}],
            "invoiceitems": [{"id": "ii_2", "type": "invoiceitem", "amount": 3}],
        }
    ),
    "subscription of a plan's currency": _subscription(plan={"id": "gold", "currency": "usd"}, quantity=2),
    "subscription paused": _subscription(
        status_details={"paused": {"type": "subscription", "subscription": {"type": "pause_requested"}}}
    ),
    "subscription paused, in short": _subscription(status_details={"paused": {"type": "pause_requested"}}),
    "subscription paused in a way of tomorrow": _subscription(
        status_details={"paused": {"type": "novel", "novel": {"type": "system"}, "subscription": None}}
    ),
    "subscription of a plan, its item of none": _subscription(
        plan={"id": "gold", "currency": "usd"}, items=[{"id": "si_1"}]
    ),
    "subscription of a bare plan": _subscription(plan="gold", currency="usd"),
    "subscription of a plan in its item": _subscription(
        items=[{"id": "si_1", "plan": {"id": "gold", "currency": "usd"}}]
    ),
    "subscription of a price in its item": _subscription(
        items=[{"id": "si_1", "price": {"id": "price_1", "currency": "usd"}}]
    ),
    "subscription to be cancelled": _subscription(cancel_at=1_800_000_000, cancel_at_period_end=False),
    "subscription not to be cancelled": _subscription(cancel_at=None, cancel_at_period_end=False),
    "subscription of several items": _subscription(
        items=[
            {"id": "si_1", "plan": "gold", "current_period_start": 5, "current_period_end": 50},
            {"id": "si_2", "price": "price_1", "current_period_start": 6, "current_period_end": 60},
        ]
    ),
    "coupon replaced": _changed(_subscription(discount={"coupon": {"id": "new"}}), discount={"coupon": {"id": "old"}}),
    "status and metadata changed": _changed(
        _subscription(status="active", metadata={"a": "1", "b": "2"}), status="trialing", metadata={"a": None}
    ),
    "invoice changed": _changed(_invoice(total=5, status="open", due_date=7), total=4, status="draft", due_date=None),
    "plan changed, told beside the item": _changed(
        _subscription(plan=_GOLD, quantity=2, items=[{"id": "si_1", "plan": _GOLD, "quantity": 2}]),
        plan={"id": "silver", "amount": 5},
        quantity=1,
    ),
    "plan changed, the item has a price": _changed(
        _subscription(
            plan=_GOLD,
            items=[{"id": "si_1", "plan": _GOLD, "price": {"id": "gold", "unit_amount": 9, "currency": "usd"}}],
        ),
        plan={"id": "silver", "amount": 5},
    ),
    "quantity changed, of one item": _changed(
        _subscription(quantity=2, items=[{"id": "si_1", "quantity": 2}]), quantity=1
    ),
    "plan changed, told in both places": _changed(
        _subscription(plan=_GOLD, items=[{"id": "si_1", "plan": _GOLD}]),
        plan={"id": "silver"},
        items=[{"id": "si_1", "plan": {"id": "bronze"}}],
    ),
    "plan changed, of two items": _changed(
        _subscription(plan=_GOLD, items=[{"id": "si_1"}, {"id": "si_2"}]), plan={"id": "silver"}
    ),
    "session of a plan": _session(display_items=[{"type": "plan", "amount": 9, "quantity": 1, "currency": "usd"}]),
    "request, a bare id": _charge() | {"request": "req_7"},
    "request, automatic": _charge() | {"request": None},
    "connected account": _charge() | {"account": "acct_7"},
    "an organization's account": _charge() | {"context": "org_1/acct_7"},
    "connected account, by its old name": _charge() | {"user_id": "acct_7"},
    "thin": _thin(),
    "thin, of nothing": {name: value for name, value in _thin().items() if name != "related_object"},
    "thin, of an account": _thin(context="acct_7"),
    "thin, of an account of an organization": _thin(context="org_1/acct_7"),
    "thin, requested": _thin(reason={"type": "request", "request": {"id": "req_7", "idempotency_key": "key-7"}}),
    "thin, with its twin": _thin(snapshot_event="evt_7"),
    "thin, of a session": _thin(related_object={"id": "cs_1", "type": "checkout.session", "url": "/v1"}),
}
"""Name of the case → the event."""


def _with(stripe_object: Any, **envelope: Any) -> Node:
    return snapshot(stripe_object, "charge.succeeded") | envelope


REFUSED: Final[Mapping[str, Any]] = {
    "a session beyond 64 bits": _session(display_items=[{"amount": 2**62, "quantity": 1}] * 2),
    "no object": _with(None),
    "no object's name": _with({"id": "ch_1"}),
    "an object's name of no text": _with({"id": "ch_1", "object": 7}),
    "no id": _with({"object": "charge"}),
    "an id of no text": _with({"id": 7, "object": "charge"}),
    "metadata of no kind": _with({"id": "ch_1", "object": "charge", "metadata": 7}),
    "metadata of an object": _with({"id": "ch_1", "object": "charge", "metadata": {"a": {}}}),
    "a reference of no id": _with({"id": "ch_1", "object": "charge", "customer": {"object": "list"}}),
    "an account of no text": _with({"id": "ch_1", "object": "charge"}, account=7),
    "a context of no text": _thin(context=7),
    "no event": {"object": "charge"},
    "an event of no type": _with({"id": "ch_1", "object": "charge"}, type=7),
    "an event of no time": _with({"id": "ch_1", "object": "charge"}, created="soon"),
    "a reference of no kind": _with({"id": "ch_1", "object": "charge", "customer": 7}),
    "a refund's metadata of no kind": _with(
        {"id": "ch_1", "object": "charge", "refunds": [{"id": "re_1", "metadata": 7}]}
    ),
    "a refund's intent of no kind": snapshot({"id": "re_1", "object": "refund", "payment_intent": 7}, "refund.created"),
    "a line's list of no kind": snapshot({"id": "in_1", "object": "invoice", "lines": 7}, "invoice.paid"),
}
"""Name → an event with something malformed: what a refusal names, or what is passed over."""
