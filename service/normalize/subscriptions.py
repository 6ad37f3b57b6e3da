"""Subscriptions and invoices."""

from collections.abc import Sequence
from datetime import datetime

from service.contract import Invoice, Subscription, SubscriptionItem
from service.normalize.shapes import (
    NOTHING,
    Tree,
    child,
    children,
    each,
    flag,
    identity,
    integer,
    metadata,
    optional_identity,
    reference,
    text,
    timestamp,
)


def read_subscription(tree: Tree) -> Subscription:
    """A `subscription`: its period its own, or (from basil on) its items'."""
    items = each(tree, "items", read_subscription_item)
    starts = [item.current_period_start for item in items if item.current_period_start is not None]
    ends = [item.current_period_end for item in items if item.current_period_end is not None]
    return Subscription(
        subscription_id=identity(tree),
        customer_id=reference(tree, "customer"),
        status=text(tree, "status"),
        current_period_start=timestamp(tree, "current_period_start") or min(starts, default=None),
        current_period_end=timestamp(tree, "current_period_end") or max(ends, default=None),
        cancel_at=timestamp(tree, "cancel_at"),
        cancel_at_period_end=flag(tree, "cancel_at_period_end"),
        canceled_at=timestamp(tree, "canceled_at"),
        ended_at=timestamp(tree, "ended_at"),
        start_date=timestamp(tree, "start_date") or timestamp(tree, "start"),
        trial_start=timestamp(tree, "trial_start"),
        trial_end=timestamp(tree, "trial_end"),
        items=items,
        latest_invoice_id=reference(tree, "latest_invoice"),
        collection_method=text(tree, "collection_method") or text(tree, "billing"),
        currency=text(tree, "currency") or _currency(tree, items),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def _currency(tree: Tree, items: Sequence[SubscriptionItem]) -> str | None:
    """All items of a subscription have one currency."""
    return items[0].currency if items else text(child(tree, "plan"), "currency")


def read_subscription_item(tree: Tree) -> SubscriptionItem:
    """A `subscription_item`: priced by a price, or by a plan (2020-08-27 and before)."""
    price = child(tree, "price")
    plan = child(tree, "plan")
    recurring = child(price, "recurring") or plan
    terms = price or plan
    return SubscriptionItem(
        subscription_item_id=identity(tree),
        price_id=reference(tree, "price") or reference(tree, "plan"),
        product_id=reference(terms, "product"),
        quantity=integer(tree, "quantity"),
        unit_amount_minor=integer(price, "unit_amount") if price else integer(plan, "amount"),
        currency=text(terms, "currency"),
        interval=text(recurring, "interval"),
        interval_count=integer(recurring, "interval_count"),
        current_period_start=timestamp(tree, "current_period_start"),
        current_period_end=timestamp(tree, "current_period_end"),
    )


def read_invoice(tree: Tree) -> Invoice:
    """An `invoice`; the preview of `invoice.upcoming` has no id."""
    payment = _payment(tree)
    return Invoice(
        invoice_id=optional_identity(tree),
        number=text(tree, "number"),
        subscription_id=_subscription_of_invoice(tree),
        customer_id=reference(tree, "customer"),
        payment_intent_id=reference(tree, "payment_intent") or reference(payment, "payment_intent"),
        charge_id=reference(tree, "charge") or reference(payment, "charge"),
        status=text(tree, "status") or _status_from_flags(tree),
        billing_reason=text(tree, "billing_reason"),
        collection_method=text(tree, "collection_method") or text(tree, "billing"),
        amount_due_minor=integer(tree, "amount_due"),
        amount_paid_minor=integer(tree, "amount_paid"),
        amount_remaining_minor=integer(tree, "amount_remaining"),
        subtotal_minor=integer(tree, "subtotal"),
        total_minor=integer(tree, "total"),
        tax_minor=_tax(tree),
        currency=text(tree, "currency"),
        attempt_count=integer(tree, "attempt_count"),
        next_payment_attempt=timestamp(tree, "next_payment_attempt"),
        period_start=timestamp(tree, "period_start"),
        period_end=timestamp(tree, "period_end"),
        due_date=timestamp(tree, "due_date"),
        paid_at=timestamp(child(tree, "status_transitions"), "paid_at"),
        metadata=metadata(tree),
        created_at=_created(tree),
    )


def _created(tree: Tree) -> datetime | None:
    """Until 2019-03-14 an invoice's creation was its `date`."""
    return timestamp(tree, "created") or timestamp(tree, "date")


def _subscription_of_invoice(tree: Tree) -> str | None:
    return (
        reference(child(child(tree, "parent"), "subscription_details"), "subscription")
        or reference(tree, "subscription")
        or next((found for line in children(tree, "lines") if (found := _subscription_of_line(line))), None)
    )


def _subscription_of_line(line: Tree) -> str | None:
    found = reference(child(child(line, "parent"), "subscription_item_details"), "subscription")
    found = found or reference(line, "subscription")
    if found is None and line.get("type") == "subscription":
        # Until 2019-12-03 a subscription's own line had the subscription's id for its own.
        own = optional_identity(line)
        return own if own is not None and own.startswith("sub_") else None
    return found


def _payment(tree: Tree) -> Tree:
    """From basil on an invoice has a list of payments, where it is included at all: the default one's means."""
    payments = children(tree, "payments")
    chosen = next((payment for payment in payments if payment.get("is_default") is True), None)
    return child(chosen or (payments[0] if payments else NOTHING), "payment")


def _status_from_flags(tree: Tree) -> str | None:
    """Before 2018-11-08 an invoice had flags. A closed one may be open or void by today's words: that stays null."""
    if flag(tree, "paid"):
        return "paid"
    if flag(tree, "forgiven"):
        return "uncollectible"
    if flag(tree, "attempted") and not flag(tree, "closed"):
        return "open"
    return None


def _tax(tree: Tree) -> int | None:
    """The sum of `total_taxes` (from basil on), else `tax`, else the sum of `total_tax_amounts`.

    An empty list says what `tax: null` says in the same invoice's older rendering: nothing.
    """
    taxes = _sum(tree, "total_taxes")
    if taxes is None:
        taxes = integer(tree, "tax")
    return _sum(tree, "total_tax_amounts") if taxes is None else taxes


def _sum(tree: Tree, name: str) -> int | None:
    amounts = each(tree, name, _amount)
    return sum(amounts) if amounts else None


def _amount(tree: Tree) -> int:
    return integer(tree, "amount") or 0
