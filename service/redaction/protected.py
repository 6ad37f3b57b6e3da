"""What must not be redacted: the fields that keys, identities, order, amounts, states and links are made of.

Everything else of Stripe's may go: what the readers never look at, and what they only pass on (an e-mail address, a
name, a description, metadata).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

ANY: Final = "*"

Fields: TypeAlias = Mapping[str, "Fields | str | None"]
"""Field → what of it is protected: itself alone (None), fields of its own, or those of an object type (its name)."""

_WHOLE: Final = "(whole)"
"""In place of an object type: everything below is protected, for other types' names reach into it."""

_STRUCTURE: Final = frozenset({"id", "object", "previous_attributes"})
"""What no object may lose; the last two are also how an event holds its object, of whichever type."""

_EVERY_OBJECT: Final = """
    created deleted customer:customer payment_intent:payment_intent charge:charge invoice:invoice
    subscription:subscription product:product released_subscription source_transaction
    parent.subscription_details.subscription pricing.price_details.product price.product plan.product
"""

_PROTECTED: Final[Mapping[str, str]] = {
    "payment_intent": """
        status amount amount_received amount_capturable application_fee_amount application_fee:application_fee currency
        customer_account latest_charge:charge charges:charge payment_method:payment_method source payment_method_types
        allowed_source_types capture_method setup_future_usage on_behalf_of transfer_data.destination canceled_at
        cancellation_reason
        last_payment_error.charge last_payment_error.source last_payment_error.code last_payment_error.decline_code
        last_payment_error.payment_method:payment_method
    """,
    "charge": """
        status amount amount_captured amount_refunded application_fee_amount application_fee:application_fee fee
        fee_details.amount fee_details.type captured paid refunded disputed dispute:dispute currency
        payment_method:payment_method payment_method_details.type source:source card:source failure_code outcome.type
        outcome.reason outcome.network_status balance_transaction:balance_transaction on_behalf_of refunds:refund
        transfer_data.destination destination
    """,
    "refund": """
        status amount currency reason failure_reason pending_reason balance_transaction failure_balance_transaction
    """,
    "dispute": """
        status amount currency reason is_charge_refundable evidence_due_by evidence_details.due_by
        balance_transactions:balance_transaction balance_transaction:balance_transaction
    """,
    "application_fee": "amount",
    "balance_transaction": "amount currency fee",
    "checkout.session": """
        mode status payment_status setup_intent customer_account payment_link amount_subtotal amount_total
        total_details.amount_discount total_details.amount_shipping total_details.amount_tax
        shipping_cost.amount_subtotal display_items.amount display_items.quantity display_items.currency currency
        expires_at
    """,
    "invoice_payment": """
        payment.type payment.payment_intent payment.charge payment.payment_record status amount_requested amount_paid
        currency is_default status_transitions.paid_at
    """,
    "subscription": """
        customer_account status current_period_start current_period_end cancel_at cancel_at_period_end
        cancellation_details.reason cancellation_details.feedback canceled_at ended_at start_date start trial_start
        trial_end billing_cycle_anchor billing_mode.type days_until_due pause_collection.behavior
        pause_collection.resumes_at status_details.paused.subscription.type status_details.paused.type
        pending_update.expires_at pending_update.billing_cycle_anchor pending_update.trial_end
        pending_update.subscription_items:subscription_item items:subscription_item plan:plan quantity latest_invoice
        default_payment_method default_source schedule discounts:discount discount:discount collection_method billing
        currency transfer_data.destination
    """,
    "subscription_item": "price:price plan:plan quantity current_period_start current_period_end",
    "discount": "source.coupon coupon",
    "invoice": """
        number customer_account payments:invoice_payment status billing_reason
        collection_method billing amount_due amount_paid amount_remaining amount_overpaid subtotal total
        total_taxes.amount tax total_tax_amounts.amount total_discount_amounts.amount currency attempt_count
        next_payment_attempt period_start period_end due_date status_transitions.paid_at
        status_transitions.finalized_at status_transitions.voided_at paid_out_of_band paid forgiven attempted closed
        lines:line_item date
    """,
    "line_item": """
        unique_id amount currency quantity type price:price plan:plan pricing.price_details.price
        pricing.price_details.product parent.subscription_item_details.subscription
        parent.subscription_item_details.subscription_item parent.subscription_item_details.proration
        parent.invoice_item_details.subscription parent.invoice_item_details.invoice_item
        parent.invoice_item_details.proration subscription_item invoice_item proration period.start period.end
        subscriptions:line_item prorations:line_item invoiceitems:line_item
    """,
    "customer": """
        customer_account currency delinquent balance account_balance invoice_settings.default_payment_method
        default_source default_card
    """,
    "product": "active default_price type updated",
    "price": """
        active currency unit_amount unit_amount_decimal type billing_scheme recurring.interval recurring.interval_count
        recurring.trial_period_days recurring.usage_type tiers_mode lookup_key tax_behavior
    """,
    "plan": """
        active currency amount amount_decimal billing_scheme interval interval_count trial_period_days usage_type
        tiers_mode
    """,
    "payment_method": "type",
    "source": "type",
    "list": f"data:{_WHOLE} has_more",
    "event": f"type api_version livemode account user_id context data:{_WHOLE} request.id",
    "v2.core.event": "type livemode account user_id context related_object.type reason.request.id snapshot_event",
}
"""Object type → the fields of it that are read for more than to be passed on, and the types of what they hold.

Until 2012 an invoice's lines were three lists by kind, which stand here as fields of a line.
"""


def _fields(paths: str) -> dict[str, Fields | str | None]:
    fields: dict[str, Fields | str | None] = {}
    for path in paths.split():
        *containers, last = path.split(".")
        inner = fields
        for container in containers:
            below = inner.setdefault(container, {})
            if not isinstance(below, dict):
                raise TypeError(f"{path}: {container} is said to be protected as a whole")
            inner = below
        name, _, object_type = last.partition(":")
        inner[name] = object_type or None
    return fields


PROTECTED: Final[Mapping[str, Fields]] = {
    object_type: _fields(f"{_EVERY_OBJECT} {paths}") for object_type, paths in _PROTECTED.items()
}
_UNREAD: Final = _fields(_EVERY_OBJECT)
"""Of an object without a type of its own in the contract only the references are read."""


def is_protected(object_type: str, fields: Sequence[str]) -> bool:
    """Whether removing this path from objects of the type would change more than what a reader only passes on."""
    named = fields[: fields.index("metadata") + 1] if "metadata" in fields else fields
    if not _STRUCTURE.isdisjoint(named):
        return True
    if object_type == ANY:
        return any(_reaches(inner, fields) for inner in _all_fields())
    return _reaches(PROTECTED.get(object_type, _UNREAD), fields)


def _reaches(protected: Fields, fields: Sequence[str]) -> bool:
    """Whether the path is, contains or leads into something protected. Lists, bare or as objects, are transparent."""
    first, *rest = fields
    if first not in protected:
        return False
    below = protected[first]
    if not rest or below == _WHOLE:
        return True
    if isinstance(below, str):
        below = PROTECTED[below]
    members = [name for name in rest if name != "data"]
    if below is None:
        return not members
    return not members or members == ["has_more"] or _reaches(below, members)


def _all_fields() -> Iterator[Fields]:
    waiting: list[Fields] = list(PROTECTED.values())
    while waiting:  # ends: the tables are finite trees; other types are named in them, not nested
        fields = waiting.pop()
        yield fields
        waiting += [below for below in fields.values() if isinstance(below, Mapping)]
