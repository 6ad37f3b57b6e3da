"""Where Stripe says each fact of the contract: one table per struct, one line per field, the best place first.

A place is a pattern over the raw object (`tests.oracle.tree`), or a small reading of one: a total, the earliest, what
follows from several. `^` starts at the object around, `*` is each element of a list.
"""

from collections.abc import Mapping
from typing import Any, Final

from service.contract import types
from tests.oracle.kinds import (
    At,
    Fact,
    Parts,
    Preferred,
    Table,
    as_decimal_text,
    as_ids,
    as_number,
    each,
    earliest,
    flag,
    latest,
    metadata,
    moment,
    number,
    reference,
    references,
    text,
    told,
    total,
)

# The prefixes of Stripe's ids.
CHARGE = ("ch_", "py_")
CUSTOMER = ("cus_",)
INTENT = ("pi_",)
INVOICE = ("in_",)
METHOD = ("pm_",)
PRICE = ("price_", "plan_")
PRODUCT = ("prod_",)
SUBSCRIPTION = ("sub_",)
TRANSACTION = ("txn_",)

LEGACY_BRANDS: Final[Mapping[str, str]] = {
    "American Express": "amex",
    "Cartes Bancaires": "cartes_bancaires",
    "China UnionPay": "unionpay",
    "Diners Club": "diners",
    "Eftpos Australia": "eftpos_au",
}
"""Brands of cards as sources write them, where they are more than the later name in capitals."""


def brand(value: Any) -> str | None:
    """A card's brand in the words of payment methods, whoever says it."""
    return LEGACY_BRANDS.get(value, value.lower().replace(" ", "_")) if isinstance(value, str) else None


def is_set(value: Any) -> bool | None:
    """Whether there is anything, where that means yes; nothing there says nothing."""
    return True if value else None


def scheduled(at_period_end: Any, at: Any) -> bool | None:
    """Whether a subscription is going to be cancelled."""
    return True if at is not None else at_period_end


def decline(outcome_type: Any, reason: Any) -> str | None:
    """The issuer's reason; for any other outcome the reason is Radar's or Stripe's."""
    return reason if outcome_type == "issuer_declined" else None


def if_prefixed(*prefixes: str) -> Any:
    return lambda value: value if isinstance(value, str) and value.startswith(prefixes) else None


def subscription_line(type_: Any, id_: Any) -> Any:
    """Before lines had ids of their own, a subscription's line had the subscription's."""
    return id_ if type_ == "subscription" and str(id_).startswith(("sub_", "su_")) else None


def subscription_of_lines(lines: Any) -> Any:
    """The first subscription that a line bears the id of; lines were three lists once."""
    lists = [lines] if isinstance(lines, list) else lines.values() if isinstance(lines, dict) else ()
    found = (
        subscription_line(line.get("type"), line.get("id"))
        for listed in lists
        for line in (listed.get("data", ()) if isinstance(listed, dict) else listed if isinstance(listed, list) else ())
        if isinstance(line, dict)
    )
    return next((it for it in found if it is not None), None)


def object_type(stripes: Any) -> Any:
    """Stripe's own name, but for the one object with a dot that the contract has a type for."""
    return "checkout_session" if stripes == "checkout.session" else stripes


def account_of_context(context: Any) -> Any:
    """The account that a context ends in: `acct_…`, or `org_…/acct_…`."""
    last = context.rpartition("/")[2] if isinstance(context, str) else ""
    return last if last.startswith("acct_") else None


def whole(value: Any) -> int | None:
    """A decimal amount that is a whole number of minor units."""
    return int(float(value)) if isinstance(value, str) and float(value).is_integer() else None


def brand_of_old(holder: Any, type_: Any) -> str | None:
    """A card's brand was its type until 2014."""
    return brand(type_) if holder == "card" else None


def only(values: Any) -> Any:
    """The one element of a list that has one: where nothing else is allowed, that is what it is."""
    return values[0] if isinstance(values, list) and len(values) == 1 else None


def of_card(holder: Any, last4: Any) -> Any:
    """The last digits of a legacy source, unless it is a bank account: those have some too."""
    return None if holder == "bank_account" else last4


def source_type(source_object: Any, type_: Any) -> Any:
    """A legacy source is of the type it names, a card or bank account of the type it is."""
    return type_ if source_object == "source" else source_object


def charge_word(status: Any) -> Any:
    """A charge's status was `paid` until 2015 where it is `succeeded` since."""
    return "succeeded" if status == "paid" else status


def charge_status(paid: Any, failure_code: Any, failure_message: Any) -> str | None:
    """A charge older than its status: paid or failed."""
    return "succeeded" if paid else "failed" if failure_code or failure_message else None


def invoice_status(paid: Any, forgiven: Any, closed: Any, attempted: Any) -> str | None:
    """An invoice older than its status. One that nobody tried to collect may be a draft or open: that is not said."""
    if paid:
        return "paid"
    if forgiven:
        return "uncollectible"
    return "open" if attempted and not closed else None


def session_mode(subscription: Any, setup_intent: Any, payment_intent: Any) -> str | None:
    """What a session older than its mode was for."""
    if subscription:
        return "subscription"
    return "payment" if payment_intent else "setup" if setup_intent else None


def display_total(items: Any) -> int | None:
    """What the first sessions, which had neither totals nor taxes nor discounts, came to."""
    listed = items["data"] if isinstance(items, dict) else items or ()
    amounts = [(item.get("amount"), item.get("quantity")) for item in listed]
    said = (
        amounts
        and not any(item.get("type") == "plan" for item in listed)
        and all(as_number(amount) is not None and as_number(many) is not None for amount, many in amounts)
    )
    return sum(amount * many for amount, many in amounts) if said else None


def plan_type(plan: Any) -> str | None:
    """A plan is a recurring price."""
    return "recurring" if plan else None


def coupons(discounts: Any, discount: Any) -> Any:
    """The coupons of all discounts, where every one of them tells its coupon."""
    several = discounts.get("data") if isinstance(discounts, dict) else discounts
    each_one = several or ([discount] if discount else [])
    if any(not isinstance(one, dict) for one in each_one):
        return None
    return [(one.get("source") or {}).get("coupon") or one.get("coupon") for one in each_one]


def application_fees(details: Any) -> int | None:
    fees = [fee["amount"] for fee in details or () if fee.get("type") == "application_fee"]
    return sum(fees) if fees else None


PAYMENT_INTENT: Final[Table] = {
    "payment_intent_id": reference("id"),
    "status": text("status"),
    "amount_minor": number("amount"),
    "amount_received_minor": number("amount_received"),
    "amount_capturable_minor": number("amount_capturable"),
    "application_fee_amount_minor": number("application_fee_amount", "application_fee"),
    "currency": text("currency"),
    "customer_id": reference("customer", "latest_charge.customer", "charges.0.customer", prefixes=CUSTOMER),
    "customer_account_id": reference("customer_account", "customer.customer_account"),
    "latest_charge_id": reference("latest_charge", "charges.0", "last_payment_error.charge", prefixes=CHARGE),
    "invoice_id": reference("invoice", "latest_charge.invoice", "charges.0.invoice", prefixes=INVOICE),
    "payment_method_id": reference(
        "payment_method",
        "source",
        "latest_charge.payment_method",
        "charges.0.payment_method",
        "last_payment_error.payment_method",
        "last_payment_error.source",
        prefixes=METHOD,
    ),
    "payment_method_type": text(
        "payment_method.type",
        "latest_charge.payment_method_details.type",
        "charges.0.payment_method_details.type",
        "last_payment_error.payment_method.type",
        told(only, "payment_method_types", example=(["ideal"],)),
        told(only, "allowed_source_types", example=(["ideal"],)),
    ),
    "capture_method": text("capture_method"),
    "setup_future_usage": text("setup_future_usage"),
    "on_behalf_of_id": reference("on_behalf_of", "latest_charge.on_behalf_of", "charges.0.on_behalf_of"),
    "transfer_destination_id": reference("transfer_data.destination"),
    # A failed charge of an earlier attempt is no failure of the present one: only the intent says.
    "failure_code": text("last_payment_error.code").besides("charges.*.failure_code", "latest_charge.failure_code"),
    "decline_code": text("last_payment_error.decline_code"),
    "failure_message": text("last_payment_error.message").besides(
        "charges.*.failure_message", "latest_charge.failure_message"
    ),
    "canceled_at": moment("canceled_at"),
    "cancellation_reason": text("cancellation_reason"),
    "description": text("description"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

REFUND: Final[Table] = {
    "refund_id": reference("id"),
    "charge_id": reference("charge", "payment_intent.latest_charge", prefixes=CHARGE),
    "payment_intent_id": reference("payment_intent", "charge.payment_intent", prefixes=INTENT),
    "status": text("status"),
    "amount_minor": number("amount"),
    "currency": text("currency"),
    "customer_id": reference("customer", "charge.customer", "payment_intent.customer", prefixes=CUSTOMER),
    "customer_account_id": reference("customer_account", "customer.customer_account"),
    "reason": text("reason"),
    "failure_reason": text("failure_reason"),
    "pending_reason": text("pending_reason"),
    "balance_transaction_id": reference("balance_transaction", prefixes=TRANSACTION).besides(
        "failure_balance_transaction"
    ),
    "failure_balance_transaction_id": reference("failure_balance_transaction"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

EMBEDDED_REFUND: Final[Table] = {
    **REFUND,
    "charge_id": reference("charge", "^id", prefixes=CHARGE),
    "payment_intent_id": reference("payment_intent", "charge.payment_intent", "^payment_intent", prefixes=INTENT),
    "currency": text("currency", "^currency"),
    "customer_id": reference(
        "customer", "charge.customer", "^customer", "^source.customer", "^card.customer", prefixes=CUSTOMER
    ),
}
"""A refund inside of its charge: what it does not say itself, the charge says."""

CHARGE_: Final[Table] = {
    "charge_id": reference("id"),
    "payment_intent_id": reference("payment_intent", prefixes=INTENT).besides("id"),
    "invoice_id": reference("invoice", "payment_intent.invoice", prefixes=INVOICE),
    "status": text(
        told(charge_word, "status", example=("paid",)),
        told(charge_status, "paid", "failure_code", "failure_message", example=(True, None, None)),
        told(charge_status, "paid", "failure_code", "failure_message", example=(False, None, "It was declined.")),
    ),
    "amount_minor": number("amount"),
    "amount_captured_minor": number("amount_captured"),
    "amount_refunded_minor": number("amount_refunded"),
    "application_fee_amount_minor": number(
        "application_fee_amount",
        "application_fee.amount",
        told(
            application_fees,
            "fee_details",
            example=([{"type": "application_fee", "amount": 3}, {"type": "stripe_fee", "amount": 9}],),
        ),
    ),
    "fee_minor": number("balance_transaction.fee", "fee"),
    "captured": flag("captured"),
    "paid": flag("paid"),
    "refunded": flag("refunded"),
    "disputed": flag("disputed", told(is_set, "dispute", example=("dp_1specimen",))),
    "dispute_id": reference("dispute", prefixes=("dp_", "du_")),
    "currency": text("currency"),
    "customer_id": reference(
        "customer", "payment_intent.customer", "source.customer", "card.customer", prefixes=CUSTOMER
    ),
    "payment_method_id": reference("payment_method", "source", "card", prefixes=METHOD),
    "payment_method_type": text(
        "payment_method_details.type",
        "payment_method.type",
        told(source_type, "source.object", "source.type", example=("source", "ideal")),
        "card.object",
    ),
    "card_brand": text(
        *(
            told(brand, f"{place}.brand", example=("American Express",))
            for place in (
                "payment_method_details.card",
                "payment_method_details.card_present",
                "payment_method_details.interac_present",
                "payment_method.card",
                "source.card",
                "source.three_d_secure",
                "source",
                "card",
            )
        ),
        told(brand_of_old, "card.object", "card.type", example=("card", "Visa")),
    ),
    "card_last4": text(
        "payment_method_details.card.last4",
        "payment_method_details.card_present.last4",
        "payment_method_details.interac_present.last4",
        "payment_method.card.last4",
        "source.card.last4",
        "source.three_d_secure.last4",
        told(of_card, "source.object", "source.last4", example=("card", "4242")),
        told(of_card, "card.object", "card.last4", example=("card", "4242")),
    ),
    "failure_code": text("failure_code"),
    "decline_code": text(
        told(decline, "outcome.type", "outcome.reason", example=("issuer_declined", "lost_card"))
    ).besides("outcome.reason"),
    "failure_message": text("failure_message"),
    "outcome_type": text("outcome.type"),
    "outcome_reason": text("outcome.reason"),
    "network_status": text("outcome.network_status"),
    "balance_transaction_id": reference("balance_transaction", prefixes=TRANSACTION),
    "on_behalf_of_id": reference("on_behalf_of"),
    "transfer_destination_id": reference("transfer_data.destination", "destination"),
    "refunds": Parts(types.Refund, (("refunds.*", EMBEDDED_REFUND),), named=("refunds.*",)),
    "refunds_have_more": flag("refunds.has_more"),
    "description": text("description"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

DISPUTE: Final[Table] = {
    "dispute_id": reference("id"),
    "charge_id": reference("charge", prefixes=CHARGE),
    "payment_intent_id": reference("payment_intent", "charge.payment_intent", prefixes=INTENT),
    "status": text("status"),
    "amount_minor": number("amount"),
    "currency": text("currency"),
    "reason": text("reason"),
    "is_charge_refundable": flag("is_charge_refundable"),
    "evidence_due_by": moment("evidence_details.due_by", "evidence_due_by"),
    "balance_change_minor": number(total("balance_transactions.*.amount"), "balance_transaction.amount"),
    "balance_fee_minor": number(total("balance_transactions.*.fee"), "balance_transaction.fee"),
    "balance_currency": text("balance_transactions.0.currency", "balance_transaction.currency").besides(
        "currency", "balance_transactions.*.fee_details.*.currency"
    ),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

CHECKOUT_SESSION: Final[Table] = {
    "checkout_session_id": reference("id"),
    "mode": text(
        "mode", told(session_mode, "subscription", "setup_intent", "payment_intent", example=(None, "seti_1", None))
    ),
    "status": text("status"),
    "payment_status": text("payment_status"),
    "payment_intent_id": reference("payment_intent", prefixes=INTENT),
    "subscription_id": reference("subscription", prefixes=SUBSCRIPTION),
    "setup_intent_id": reference("setup_intent", prefixes=("seti_",)),
    "invoice_id": reference("invoice", "payment_intent.invoice", "subscription.latest_invoice", prefixes=INVOICE),
    "customer_id": reference("customer", "payment_intent.customer", "subscription.customer", prefixes=CUSTOMER),
    "customer_account_id": reference("customer_account", "customer.customer_account"),
    "customer_email": text("customer_details.email", "customer_email", "customer.email"),
    "client_reference_id": text("client_reference_id"),
    "payment_link_id": reference("payment_link", prefixes=("plink_",)),
    "amount_subtotal_minor": number(
        "amount_subtotal",
        told(display_total, "display_items", example=([{"amount": 3, "currency": "usd", "quantity": 2}],)),
    ).besides("shipping_cost", "currency_conversion"),
    "amount_total_minor": number(
        "amount_total",
        told(display_total, "display_items", example=([{"amount": 3, "currency": "usd", "quantity": 2}],)),
    ).besides("shipping_cost", "currency_conversion"),
    "amount_discount_minor": number("total_details.amount_discount"),
    "amount_shipping_minor": number("total_details.amount_shipping", "shipping_cost.amount_subtotal").besides(
        "amount_subtotal", "currency_conversion.amount_subtotal"
    ),
    "amount_tax_minor": number("total_details.amount_tax"),
    "currency": text("currency", "display_items.*.currency"),
    "expires_at": moment("expires_at"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

INVOICE_PAYMENT: Final[Table] = {
    "invoice_payment_id": reference("id"),
    "invoice_id": reference("invoice", prefixes=INVOICE),
    "payment_type": text("payment.type"),
    "payment_intent_id": reference("payment.payment_intent", prefixes=INTENT),
    "charge_id": reference("payment.charge", "payment.payment_intent.latest_charge", prefixes=CHARGE),
    "payment_record_id": reference("payment.payment_record"),
    "status": text("status"),
    "amount_requested_minor": number("amount_requested"),
    "amount_paid_minor": number("amount_paid"),
    "currency": text("currency"),
    "is_default": flag("is_default"),
    "paid_at": moment("status_transitions.paid_at"),
    "created_at": moment("created"),
}

SUBSCRIPTION_ITEM: Final[Table] = {
    "subscription_item_id": reference("id"),
    "price_id": reference("price", "plan", prefixes=PRICE),
    "product_id": reference("price.product", "plan.product", prefixes=PRODUCT),
    "quantity": number("quantity"),
    "unit_amount_minor": number(
        "price.unit_amount",
        "plan.amount",
        told(whole, "price.unit_amount_decimal", example=("7",)),
        told(whole, "plan.amount_decimal", example=("7",)),
    ),
    "unit_amount_decimal": Fact(as_decimal_text, (At("price.unit_amount_decimal"), At("plan.amount_decimal"))),
    "currency": text("price.currency", "plan.currency", "^currency"),
    "interval": text("price.recurring.interval", "plan.interval"),
    "interval_count": number("price.recurring.interval_count", "plan.interval_count"),
    "current_period_start": moment("current_period_start", "^current_period_start"),
    "current_period_end": moment("current_period_end", "^current_period_end"),
}

PENDING_ITEM: Final[Table] = {
    **SUBSCRIPTION_ITEM,
    "currency": text("price.currency", "plan.currency"),
    "current_period_start": moment("current_period_start"),
    "current_period_end": moment("current_period_end"),
}
"""An item that is not in force yet has no period that the subscription could tell."""

ONLY_PLAN: Final[Table] = {
    "subscription_item_id": reference("^id"),
    "price_id": reference("id"),
    "product_id": reference("product"),
    "quantity": number("^quantity"),
    "unit_amount_minor": number("amount", told(whole, "amount_decimal", example=("7",))),
    "unit_amount_decimal": Fact(as_decimal_text, (At("amount_decimal"),)),
    "currency": text("currency", "^currency"),
    "interval": text("interval"),
    "interval_count": number("interval_count"),
    "current_period_start": moment("^current_period_start"),
    "current_period_end": moment("^current_period_end"),
}
"""A subscription older than items has one plan."""

PENDING_UPDATE: Final[Table] = {
    "expires_at": moment("expires_at"),
    "billing_cycle_anchor": moment("billing_cycle_anchor"),
    "trial_end": moment("trial_end"),
    "items": Parts(types.SubscriptionItem, (("subscription_items.*", PENDING_ITEM),)),
}

SUBSCRIPTION_: Final[Table] = {
    "subscription_id": reference("id"),
    "customer_id": reference("customer", prefixes=CUSTOMER),
    "customer_account_id": reference("customer_account", "customer.customer_account"),
    "status": text("status"),
    "current_period_start": moment("current_period_start", earliest("items.*.current_period_start")),
    "current_period_end": moment("current_period_end", latest("items.*.current_period_end")),
    "cancel_at": moment("cancel_at"),
    "cancel_at_period_end": flag("cancel_at_period_end"),
    "cancellation_scheduled": flag(
        told(scheduled, "cancel_at_period_end", "cancel_at", example=(False, 1_700_000_000))
    ),
    "cancellation_reason": text("cancellation_details.reason"),
    "cancellation_feedback": text("cancellation_details.feedback"),
    "canceled_at": moment("canceled_at"),
    "ended_at": moment("ended_at"),
    "start_date": moment("start_date", "start"),
    "trial_start": moment("trial_start"),
    "trial_end": moment("trial_end"),
    "billing_cycle_anchor": moment("billing_cycle_anchor"),
    "billing_mode": text("billing_mode.type", "billing_mode"),
    "days_until_due": number("days_until_due"),
    "pause_behavior": text("pause_collection.behavior"),
    "pause_resumes_at": moment("pause_collection.resumes_at"),
    "paused_reason": text("status_details.paused.subscription.type", "status_details.paused.type"),
    "pending_update": Parts(types.PendingUpdate, (("pending_update", PENDING_UPDATE),), many=False),
    "items": Parts(types.SubscriptionItem, (("items.*", SUBSCRIPTION_ITEM), ("plan", ONLY_PLAN)), named=("plan",)),
    "items_have_more": flag("items.has_more"),
    "latest_invoice_id": reference("latest_invoice", prefixes=INVOICE),
    "default_payment_method_id": reference("default_payment_method", "default_source", prefixes=METHOD),
    "schedule_id": reference("schedule", prefixes=("sub_sched_",)),
    "discount_ids": references(each("discounts.*"), each("discount")).besides("pending_update"),
    "coupon_ids": Fact(
        as_ids,
        (
            told(coupons, "discounts", "discount", example=([{"source": {"coupon": "gold"}}], None)),
            told(coupons, "discounts", "discount", example=([{"coupon": {"id": "gold"}}], None)),
            told(coupons, "discounts", "discount", example=(None, {"source": {"coupon": "gold"}})),
            told(coupons, "discounts", "discount", example=(None, {"coupon": {"id": "gold"}})),
        ),
    ),
    "transfer_destination_id": reference("transfer_data.destination"),
    "collection_method": text("collection_method", "billing"),
    "currency": text("currency", "items.*.price.currency", "items.*.plan.currency", "plan.currency"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

THREE_LISTS: Final = "lines.subscriptions.*|lines.prorations.*|lines.invoiceitems.*"
"""The lines of invoices until 2012."""

LINE: Final[Table] = {
    "invoice_line_id": reference("unique_id", "id"),
    "amount_minor": number("amount"),
    "currency": text("currency", "^currency"),
    "description": text("description"),
    "quantity": number("quantity"),
    "price_id": reference("pricing.price_details.price", "price", "plan", prefixes=PRICE),
    "product_id": reference("pricing.price_details.product", "price.product", "plan.product", prefixes=PRODUCT),
    "subscription_id": reference(
        "parent.subscription_item_details.subscription",
        "parent.invoice_item_details.subscription",
        "subscription",
        told(subscription_line, "type", "id", example=("subscription", "sub_1specimen")),
        prefixes=SUBSCRIPTION,
    ),
    "subscription_item_id": reference(
        "parent.subscription_item_details.subscription_item", "subscription_item", prefixes=("si_",)
    ),
    "invoice_item_id": reference(
        "parent.invoice_item_details.invoice_item",
        "parent.subscription_item_details.invoice_item",
        "invoice_item",
        told(if_prefixed("ii_"), "id", example=("ii_1specimen",)),
        prefixes=("ii_",),
    ),
    "proration": flag(
        "parent.subscription_item_details.proration", "parent.invoice_item_details.proration", "proration"
    ),
    "period_start": moment("period.start"),
    "period_end": moment("period.end"),
}

OLDEST_LINE: Final[Table] = {
    **LINE,
    "price_id": reference("plan", prefixes=PRICE),
    "product_id": reference(),
    "subscription_id": reference(told(subscription_line, "type", "id", example=("subscription", "sub_1specimen"))),
    "subscription_item_id": reference(),
    "invoice_item_id": reference(told(if_prefixed("ii_"), "id", example=("ii_1specimen",))),
    "proration": flag("proration"),
}
"""A line of one of the three lists."""

INVOICE_: Final[Table] = {
    "invoice_id": reference("id"),
    "number": text("number"),
    "subscription_id": reference(
        "parent.subscription_details.subscription",
        "subscription",
        "lines.*.parent.subscription_item_details.subscription",
        "lines.*.parent.invoice_item_details.subscription",
        "lines.*.subscription",
        told(subscription_of_lines, "lines", example=([{"type": "subscription", "id": "sub_1specimen"}],)),
        prefixes=SUBSCRIPTION,
    ),
    "customer_id": reference("customer", prefixes=CUSTOMER),
    "customer_account_id": reference("customer_account", "customer.customer_account"),
    "payment_intent_id": reference(
        "payment_intent",
        Preferred("payments.*", "is_default", "payment.payment_intent"),
        "charge.payment_intent",
        prefixes=INTENT,
    ),
    "charge_id": reference(
        "charge",
        Preferred("payments.*", "is_default", "payment.charge"),
        "payment_intent.latest_charge",
        prefixes=CHARGE,
    ),
    "status": text(
        "status", told(invoice_status, "paid", "forgiven", "closed", "attempted", example=(False, False, False, True))
    ),
    "billing_reason": text("billing_reason"),
    "collection_method": text("collection_method", "billing"),
    "amount_due_minor": number("amount_due"),
    "amount_paid_minor": number("amount_paid"),
    "amount_remaining_minor": number("amount_remaining"),
    "amount_overpaid_minor": number("amount_overpaid"),
    "subtotal_minor": number("subtotal"),
    "total_minor": number("total"),
    "tax_minor": number(total("total_taxes.*.amount"), "tax", total("total_tax_amounts.*.amount")),
    "discount_minor": number(total("total_discount_amounts.*.amount")),
    "currency": text("currency"),
    "attempt_count": number("attempt_count"),
    "next_payment_attempt": moment("next_payment_attempt"),
    "period_start": moment("period_start"),
    "period_end": moment("period_end"),
    "due_date": moment("due_date"),
    "paid_at": moment("status_transitions.paid_at"),
    "paid_out_of_band": flag("paid_out_of_band"),
    "finalized_at": moment("status_transitions.finalized_at", "finalized_at"),
    "voided_at": moment("status_transitions.voided_at"),
    "lines": Parts(types.InvoiceLine, (("lines.*", LINE), (THREE_LISTS, OLDEST_LINE))),
    "lines_have_more": flag("lines.has_more"),
    "metadata": metadata("metadata").besides("parent.subscription_details.metadata", "subscription_details.metadata"),
    "created_at": moment("created", "date"),
}

CUSTOMER_: Final[Table] = {
    "customer_id": reference("id"),
    "customer_account_id": reference("customer_account"),
    "email": text("email"),
    "name": text("name").besides("active_card.name"),
    "phone": text("phone"),
    "description": text("description"),
    "currency": text("currency"),
    "delinquent": flag("delinquent"),
    "balance_minor": number("balance", "account_balance"),
    "default_payment_method_id": reference(
        "invoice_settings.default_payment_method", "default_source", "default_card", prefixes=METHOD
    ),
    "deleted": flag("deleted"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

PRODUCT_: Final[Table] = {
    "product_id": reference("id"),
    "name": text("name"),
    "description": text("description"),
    "active": flag("active"),
    "default_price_id": reference("default_price", prefixes=PRICE),
    "product_type": text("type"),
    "deleted": flag("deleted"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
    "updated_at": moment("updated"),
}

PRICE_: Final[Table] = {
    "price_id": reference("id"),
    "product_id": reference("product", prefixes=PRODUCT),
    "active": flag("active"),
    "currency": text("currency"),
    "unit_amount_minor": number("unit_amount", told(whole, "unit_amount_decimal", example=("7",))),
    "unit_amount_decimal": Fact(as_decimal_text, (At("unit_amount_decimal"),)),
    "price_type": text("type"),
    "billing_scheme": text("billing_scheme"),
    "interval": text("recurring.interval"),
    "interval_count": number("recurring.interval_count"),
    "trial_period_days": number("recurring.trial_period_days"),
    "usage_type": text("recurring.usage_type"),
    "tiers_mode": text("tiers_mode"),
    "lookup_key": text("lookup_key"),
    "nickname": text("nickname"),
    "tax_behavior": text("tax_behavior"),
    "deleted": flag("deleted"),
    "metadata": metadata("metadata"),
    "created_at": moment("created"),
}

PLAN: Final[Table] = {
    **PRICE_,
    "unit_amount_minor": number("amount", told(whole, "amount_decimal", example=("7",))),
    "unit_amount_decimal": Fact(as_decimal_text, (At("amount_decimal"),)),
    "price_type": text(told(plan_type, "id", example=("plan_1",))),
    "interval": text("interval"),
    "interval_count": number("interval_count"),
    "trial_period_days": number("trial_period_days"),
    "usage_type": text("usage_type"),
    "lookup_key": text(),
    "nickname": text("nickname", "name"),
    "tax_behavior": text(),
}
"""A plan says what a price says, in its own words; what came with prices it never says."""

OTHER: Final[Table] = {
    "customer_id": reference("customer", prefixes=CUSTOMER),
    "payment_intent_id": reference("payment_intent", prefixes=INTENT),
    "charge_id": reference("charge", "source_transaction", prefixes=CHARGE).besides(
        "id",
        "destination_payment",
        "transactions.*.id",
        "balance_transaction.source",
        "details.linked_payment",
        "details.transaction.charge",
        "metadata.stripe_charge_id",
    ),
    "invoice_id": reference("invoice", prefixes=INVOICE).besides("customer.subscriptions"),
    "subscription_id": reference(
        "subscription",
        "parent.subscription_details.subscription",
        "released_subscription",
        prefixes=SUBSCRIPTION,
    ).besides("customer.subscriptions"),
    "product_id": reference(
        "product", "pricing.price_details.product", "price.product", "plan.product", prefixes=PRODUCT
    ).besides("customer.subscriptions", "coupon.applies_to"),
}

ENVELOPE: Final[Table] = {
    "event_id": reference("id"),
    "event_type": text("type"),
    "account": reference("account", "user_id", told(account_of_context, "context", example=("org_1/acct_1",))),
    "context": text("context"),
    "livemode": flag("livemode"),
    "created_at": moment("created"),
    "api_version": text("api_version"),
    "request_id": reference("request", "reason.request"),
    "idempotency_key": text("request.idempotency_key", "reason.request.idempotency_key"),
    "object_type": text(
        told(object_type, "data.object.object", example=("checkout.session",)),
        told(object_type, "related_object.type", example=("checkout.session",)),
        "object",
    ),
    "object_id": reference("data.object.id", "related_object"),
    "snapshot_event": reference("snapshot_event"),
}
"""What the event says around its object, thin events too."""

OURS: Final = frozenset({"schema_version", "category", "endpoint", "received_at", "data", "previous", "raw"})
"""Fields of an event that are no single word of Stripe's."""

FACTS: Final[Mapping[type, Table]] = {
    types.PaymentIntent: PAYMENT_INTENT,
    types.Refund: REFUND,
    types.Charge: CHARGE_,
    types.Dispute: DISPUTE,
    types.CheckoutSession: CHECKOUT_SESSION,
    types.InvoicePayment: INVOICE_PAYMENT,
    types.SubscriptionItem: SUBSCRIPTION_ITEM,
    types.PendingUpdate: PENDING_UPDATE,
    types.Subscription: SUBSCRIPTION_,
    types.InvoiceLine: LINE,
    types.Invoice: INVOICE_,
    types.Customer: CUSTOMER_,
    types.Product: PRODUCT_,
    types.Price: PRICE_,
    types.Other: OTHER,
}

OBJECTS: Final[Mapping[str, Table]] = {"plan": PLAN}
"""Stripe's objects that share a type of the contract with another, and say things elsewhere."""


def table_of(data_type: type, stripe_object: Any) -> Table:
    """The table for an object of this type of the contract."""
    return OBJECTS.get(stripe_object.get("object"), FACTS[data_type]) if data_type is types.Price else FACTS[data_type]
