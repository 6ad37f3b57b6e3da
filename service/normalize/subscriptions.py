"""Subscriptions and invoices."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from service.contract import Invoice, InvoiceLine, PendingUpdate, Subscription, SubscriptionItem
from service.normalize.shapes import (
    NOTHING,
    Tree,
    child,
    children,
    customer_account,
    each,
    first,
    flag,
    has_more,
    integer,
    listed,
    metadata,
    optional_identity,
    reference,
    text,
    timestamp,
    total,
    whole_decimal,
)


def read_subscription(tree: Tree) -> Subscription:
    """A `subscription`: its period its own, or (from basil on) its items'."""
    own_start = timestamp(tree, "current_period_start")
    own_end = timestamp(tree, "current_period_end")
    currency = text(tree, "currency")
    items = _items(tree, own_start, own_end, currency)
    cancel_at = timestamp(tree, "cancel_at")
    at_period_end = flag(tree, "cancel_at_period_end")
    cancellation = child(tree, "cancellation_details")
    pause = child(tree, "pause_collection")
    discounts = _discounts(tree)
    starts = [item.current_period_start for item in items if item.current_period_start is not None]
    ends = [item.current_period_end for item in items if item.current_period_end is not None]
    return Subscription(
        subscription_id=optional_identity(tree),
        customer_id=reference(tree, "customer"),
        customer_account_id=customer_account(tree),
        status=text(tree, "status"),
        current_period_start=own_start or min(starts, default=None),
        current_period_end=own_end or max(ends, default=None),
        cancel_at=cancel_at,
        cancel_at_period_end=at_period_end,
        cancellation_scheduled=at_period_end if cancel_at is None else True,
        cancellation_reason=text(cancellation, "reason"),
        cancellation_feedback=text(cancellation, "feedback"),
        canceled_at=timestamp(tree, "canceled_at"),
        ended_at=timestamp(tree, "ended_at"),
        start_date=timestamp(tree, "start_date") or timestamp(tree, "start"),
        trial_start=timestamp(tree, "trial_start"),
        trial_end=timestamp(tree, "trial_end"),
        billing_cycle_anchor=timestamp(tree, "billing_cycle_anchor"),
        billing_mode=text(child(tree, "billing_mode"), "type") or _bare(tree, "billing_mode"),
        days_until_due=integer(tree, "days_until_due"),
        pause_behavior=text(pause, "behavior"),
        pause_resumes_at=timestamp(pause, "resumes_at"),
        paused_reason=text(child(child(child(tree, "status_details"), "paused"), "subscription"), "type")
        or text(child(child(tree, "status_details"), "paused"), "type"),
        pending_update=_pending_update(tree),
        items=items,
        items_have_more=has_more(tree, "items"),
        latest_invoice_id=reference(tree, "latest_invoice"),
        default_payment_method_id=reference(tree, "default_payment_method") or reference(tree, "default_source"),
        schedule_id=reference(tree, "schedule"),
        discount_ids=tuple(
            named for discount in discounts if (named := reference({"discount": discount}, "discount")) is not None
        ),
        coupon_ids=_coupons(discounts),
        transfer_destination_id=reference(child(tree, "transfer_data"), "destination"),
        collection_method=text(tree, "collection_method") or text(tree, "billing"),
        currency=currency or _currency(tree, items),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def _items(
    tree: Tree, start: datetime | None, end: datetime | None, currency: str | None
) -> tuple[SubscriptionItem, ...]:
    """The items, or the one plan of a subscription from before there were items (2015-10-16), by the subscription's id.

    Where the subscription has a period of its own (before basil), all its items have that one; and its currency.
    """
    items = each(tree, "items", read_subscription_item)
    plan = child(tree, "plan")
    if not items and plan.get("id") is not None:
        items = (read_subscription_item({"id": tree.get("id"), "plan": plan, "quantity": tree.get("quantity")}),)
    return tuple(
        replace(
            item,
            current_period_start=item.current_period_start or start,
            current_period_end=item.current_period_end or end,
            currency=item.currency or currency,
        )
        for item in items
    )


def _bare(tree: Tree, name: str) -> str | None:
    """The text that stands where an object may stand."""
    return text(tree, name) if type(tree.get(name)) is str else None


def _pending_update(tree: Tree) -> PendingUpdate | None:
    update = child(tree, "pending_update")
    if not update:
        return None
    return PendingUpdate(
        expires_at=timestamp(update, "expires_at"),
        billing_cycle_anchor=timestamp(update, "billing_cycle_anchor"),
        trial_end=timestamp(update, "trial_end"),
        items=each(update, "subscription_items", read_subscription_item),
    )


def _discounts(tree: Tree) -> Sequence[object]:
    """All discounts, each an id or rendered whole; before 2025-03-31.basil there was one."""
    return listed(tree, "discounts") or ([tree["discount"]] if tree.get("discount") else [])


def _coupons(discounts: Sequence[object]) -> tuple[str, ...] | None:
    """The discounts' coupons; None where a discount is only named: an id does not tell its coupon."""
    rendered = [discount for discount in discounts if type(discount) is dict]
    if len(rendered) < len(discounts):
        return None
    found = (reference(child(discount, "source"), "coupon") or reference(discount, "coupon") for discount in rendered)
    return tuple(coupon for coupon in found if coupon is not None)


def _currency(tree: Tree, items: Sequence[SubscriptionItem]) -> str | None:
    """All items of a subscription have one currency."""
    return next((item.currency for item in items if item.currency), None) or text(child(tree, "plan"), "currency")


def read_subscription_item(tree: Tree) -> SubscriptionItem:
    """A `subscription_item`: priced by a price, or by a plan (2020-08-27 and before)."""
    price = child(tree, "price")
    plan = child(tree, "plan")
    recurring = child(price, "recurring") or plan
    terms = price or plan
    return SubscriptionItem(
        subscription_item_id=optional_identity(tree),
        price_id=reference(tree, "price") or reference(tree, "plan"),
        product_id=reference(terms, "product"),
        quantity=integer(tree, "quantity"),
        unit_amount_minor=_unit_amount(price, plan),
        unit_amount_decimal=text(price, "unit_amount_decimal") if price else text(plan, "amount_decimal"),
        currency=text(terms, "currency"),
        interval=text(recurring, "interval"),
        interval_count=integer(recurring, "interval_count"),
        current_period_start=timestamp(tree, "current_period_start"),
        current_period_end=timestamp(tree, "current_period_end"),
    )


def _unit_amount(price: Tree, plan: Tree) -> int | None:
    if price:
        return first(integer(price, "unit_amount"), whole_decimal(price, "unit_amount_decimal"))
    return first(integer(plan, "amount"), whole_decimal(plan, "amount_decimal"))


def read_invoice(tree: Tree) -> Invoice:
    """An `invoice`; the preview of `invoice.upcoming` has no id."""
    payment = _payment(tree)
    currency = text(tree, "currency")
    transitions = child(tree, "status_transitions")
    return Invoice(
        invoice_id=optional_identity(tree),
        number=text(tree, "number"),
        subscription_id=_subscription_of_invoice(tree),
        customer_id=reference(tree, "customer"),
        customer_account_id=customer_account(tree),
        payment_intent_id=reference(tree, "payment_intent")
        or reference(payment, "payment_intent")
        or reference(child(tree, "charge"), "payment_intent"),
        charge_id=reference(tree, "charge")
        or reference(payment, "charge")
        or reference(child(tree, "payment_intent"), "latest_charge"),
        status=text(tree, "status") or _status_from_flags(tree),
        billing_reason=text(tree, "billing_reason"),
        collection_method=text(tree, "collection_method") or text(tree, "billing"),
        amount_due_minor=integer(tree, "amount_due"),
        amount_paid_minor=integer(tree, "amount_paid"),
        amount_remaining_minor=integer(tree, "amount_remaining"),
        amount_overpaid_minor=integer(tree, "amount_overpaid"),
        subtotal_minor=integer(tree, "subtotal"),
        total_minor=integer(tree, "total"),
        tax_minor=_tax(tree),
        discount_minor=total(children(tree, "total_discount_amounts"), "amount"),
        currency=currency,
        attempt_count=integer(tree, "attempt_count"),
        next_payment_attempt=timestamp(tree, "next_payment_attempt"),
        period_start=timestamp(tree, "period_start"),
        period_end=timestamp(tree, "period_end"),
        due_date=timestamp(tree, "due_date"),
        paid_at=timestamp(transitions, "paid_at"),
        paid_out_of_band=flag(tree, "paid_out_of_band"),
        finalized_at=timestamp(transitions, "finalized_at") or timestamp(tree, "finalized_at"),
        voided_at=timestamp(transitions, "voided_at"),
        lines=tuple(
            replace(line, currency=line.currency or currency)
            for line in each({"lines": _lines(tree)}, "lines", read_invoice_line)
        ),
        lines_have_more=has_more(tree, "lines"),
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
        or next((found for line in _lines(tree) if (found := _subscription_of_line(line))), None)
    )


_SUBSCRIPTION_IDS: Final = ("sub_", "su_")  # the second until 2014
_LINES_BY_KIND: Final = ("subscriptions", "prorations", "invoiceitems")


def _lines(tree: Tree) -> Sequence[Tree]:
    """The lines, which until 2012-10-26 were three lists."""
    lines = tree.get("lines")
    if type(lines) is dict and "data" not in lines:
        return [line for kind in _LINES_BY_KIND for line in children(lines, kind)]
    return list(children(tree, "lines"))


def _subscription_of_line(line: Tree) -> str | None:
    parent = child(line, "parent")
    found = (
        reference(child(parent, "subscription_item_details"), "subscription")
        or reference(child(parent, "invoice_item_details"), "subscription")
        or reference(line, "subscription")
    )
    if found is None and line.get("type") == "subscription":
        # Until 2019-12-03 a subscription's own line had the subscription's id for its own.
        own = optional_identity(line)
        return own if own is not None and own.startswith(_SUBSCRIPTION_IDS) else None
    return found


def _payment(tree: Tree) -> Tree:
    """From basil on an invoice has a list of payments, where it is included at all: the means of the one that paid it.

    Else of the default one: the others are attempts that ended, or that are still to come.
    """
    payments = children(tree, "payments")
    paid = [payment for payment in payments if payment.get("status") == "paid"]
    default = [payment for payment in payments if payment.get("is_default") is True]
    return child(next(iter((*paid, *default, *payments)), NOTHING), "payment")


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
    return first(
        total(children(tree, "total_taxes"), "amount"),
        integer(tree, "tax"),
        total(children(tree, "total_tax_amounts"), "amount"),
    )


def read_invoice_line(tree: Tree) -> InvoiceLine:
    """A `line_item`: of a subscription item or an invoice item, priced by `pricing` (from basil on), price or plan."""
    parent = child(tree, "parent")
    of_subscription = child(parent, "subscription_item_details")
    of_item = child(parent, "invoice_item_details")
    priced = child(child(tree, "pricing"), "price_details")
    terms = child(tree, "price") or child(tree, "plan")
    period = child(tree, "period")
    own = optional_identity(tree)
    return InvoiceLine(
        # Until 2019-12-03 a line's `id` was that of what it bills, and this was the line's own.
        invoice_line_id=reference(tree, "unique_id") or own,
        amount_minor=integer(tree, "amount"),
        currency=text(tree, "currency"),
        description=text(tree, "description"),
        quantity=integer(tree, "quantity"),
        price_id=reference(priced, "price") or reference(tree, "price") or reference(tree, "plan"),
        product_id=reference(priced, "product") or reference(terms, "product"),
        subscription_id=_subscription_of_line(tree),
        subscription_item_id=reference(of_subscription, "subscription_item") or reference(tree, "subscription_item"),
        invoice_item_id=reference(of_item, "invoice_item")
        or reference(of_subscription, "invoice_item")
        or reference(tree, "invoice_item")
        or (own if own is not None and own.startswith("ii_") else None),
        proration=first(flag(of_subscription, "proration"), flag(of_item, "proration"), flag(tree, "proration")),
        period_start=timestamp(period, "start"),
        period_end=timestamp(period, "end"),
    )
