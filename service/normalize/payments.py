"""Payments: payment intents, charges, disputes, Checkout sessions, invoice payments."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from service.contract import Charge, CheckoutSession, Dispute, InvoicePayment, PaymentIntent
from service.normalize.refunds import read_refund
from service.normalize.shapes import (
    NOTHING,
    Malformed,
    Tree,
    child,
    children,
    customer_account,
    each,
    first,
    flag,
    has_more,
    identity,
    integer,
    metadata,
    optional_identity,
    reference,
    sum_of,
    text,
    timestamp,
    total,
)

_BRANDS: Final = {
    "American Express": "amex",
    "Diners Club": "diners",
    "Eftpos Australia": "eftpos_au",
    "China UnionPay": "unionpay",
}
"""The brands of cards whose name is not just the payment method's spelling in capitals."""


def read_payment_intent(tree: Tree) -> PaymentIntent:
    """A `payment_intent`: with its charges embedded (before 2022-11-15), with its latest one, or with both."""
    error = child(tree, "last_payment_error")
    charges = children(tree, "charges")
    newest = child(tree, "latest_charge") or (charges[0] if charges else NOTHING)  # Stripe lists the newest first
    return PaymentIntent(
        payment_intent_id=identity(tree),
        status=text(tree, "status"),
        amount_minor=integer(tree, "amount"),
        amount_received_minor=integer(tree, "amount_received"),
        amount_capturable_minor=integer(tree, "amount_capturable"),
        application_fee_amount_minor=first(
            integer(tree, "application_fee_amount"), _amount_of(tree, "application_fee")
        ),
        currency=text(tree, "currency"),
        customer_id=reference(tree, "customer") or reference(newest, "customer"),
        customer_account_id=customer_account(tree),
        latest_charge_id=reference(tree, "latest_charge") or reference(newest, "id") or reference(error, "charge"),
        invoice_id=reference(tree, "invoice") or reference(newest, "invoice"),
        payment_method_id=reference(tree, "payment_method")
        or reference(tree, "source")
        or reference(newest, "payment_method")
        or reference(error, "payment_method")
        or reference(error, "source"),
        payment_method_type=_type_of_intent(tree, newest, error),
        capture_method=text(tree, "capture_method"),
        setup_future_usage=text(tree, "setup_future_usage"),
        on_behalf_of_id=reference(tree, "on_behalf_of") or reference(newest, "on_behalf_of"),
        transfer_destination_id=reference(child(tree, "transfer_data"), "destination"),
        failure_code=text(error, "code"),
        decline_code=text(error, "decline_code"),
        failure_message=text(error, "message"),
        canceled_at=timestamp(tree, "canceled_at"),
        cancellation_reason=text(tree, "cancellation_reason"),
        description=text(tree, "description"),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def _type_of_intent(tree: Tree, newest: Tree, error: Tree) -> str | None:
    """What was paid with, where the intent says so, else what alone it can be paid with."""
    return (
        text(child(tree, "payment_method"), "type")
        or text(child(newest, "payment_method_details"), "type")
        or text(child(error, "payment_method"), "type")
        or _only(tree, "payment_method_types")
        or _only(tree, "allowed_source_types")
    )


def _only(tree: Tree, name: str) -> str | None:
    """The one string of a list; several leave it open which it will be."""
    value = tree.get(name)
    if value is None:
        return None
    if type(value) is not list:
        raise Malformed(name)
    return value[0] if len(value) == 1 and type(value[0]) is str else None


def read_charge(tree: Tree) -> Charge:
    """A `charge`: its refunds embedded (before 2022-11-15) or not, paid by a payment method, a source or a card."""
    charge_id = identity(tree)
    payment_intent_id = reference(tree, "payment_intent")
    intent = child(tree, "payment_intent")
    method = child(tree, "payment_method_details") or child(tree, "payment_method")
    source = child(tree, "source") or child(tree, "card")
    customer_id = reference(tree, "customer") or reference(source, "customer") or reference(intent, "customer")
    currency = text(tree, "currency")
    outcome = child(tree, "outcome")
    card = _card(method, source)
    # Until 2014 a charge's refunds had no ids: its `amount_refunded` tells what they came to.
    embedded = [refund for refund in children(tree, "refunds") if refund.get("id") is not None]
    return Charge(
        charge_id=charge_id,
        payment_intent_id=payment_intent_id,
        invoice_id=reference(tree, "invoice") or reference(intent, "invoice"),
        status=_status_of_charge(tree),
        amount_minor=integer(tree, "amount"),
        amount_captured_minor=integer(tree, "amount_captured"),
        amount_refunded_minor=integer(tree, "amount_refunded"),
        application_fee_amount_minor=_application_fee(tree),
        fee_minor=first(integer(child(tree, "balance_transaction"), "fee"), integer(tree, "fee")),
        captured=flag(tree, "captured"),
        paid=flag(tree, "paid"),
        refunded=flag(tree, "refunded"),
        disputed=_disputed(tree),
        # Long ago a charge held its whole dispute, which had no id.
        dispute_id=reference(tree, "dispute"),
        currency=currency,
        customer_id=customer_id,
        payment_method_id=reference(tree, "payment_method") or reference(tree, "source") or reference(tree, "card"),
        payment_method_type=text(method, "type") or _type_of_source(source),
        card_brand=_card_brand(card),
        card_last4=text(card, "last4"),
        failure_code=text(tree, "failure_code"),
        # `reason` has Radar's words for other outcomes; only for this one it is the issuer's code.
        decline_code=text(outcome, "reason") if outcome.get("type") == "issuer_declined" else None,
        failure_message=text(tree, "failure_message"),
        outcome_type=text(outcome, "type"),
        outcome_reason=text(outcome, "reason"),
        network_status=text(outcome, "network_status"),
        balance_transaction_id=reference(tree, "balance_transaction"),
        on_behalf_of_id=reference(tree, "on_behalf_of"),
        transfer_destination_id=reference(child(tree, "transfer_data"), "destination")
        or reference(tree, "destination"),
        refunds=tuple(
            replace(
                refund,
                charge_id=refund.charge_id or charge_id,
                payment_intent_id=refund.payment_intent_id or payment_intent_id,
                customer_id=refund.customer_id or customer_id,
                currency=refund.currency or currency,
            )
            for refund in each({"refunds": embedded}, "refunds", read_refund)
        ),
        refunds_have_more=has_more(tree, "refunds"),
        description=text(tree, "description"),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def _status_of_charge(tree: Tree) -> str | None:
    """Before 2015-02-18 a charge that went through was `paid`; before 2014-11-20 there was only a flag."""
    status = text(tree, "status")
    if status == "paid":
        return "succeeded"
    if status is None and flag(tree, "paid"):
        return "succeeded"
    if status is None and (tree.get("failure_code") or tree.get("failure_message")):
        return "failed"
    return status


def _application_fee(tree: Tree) -> int | None:
    """The platform's own fee: said, of the fee that was made, or among all fees (2012)."""
    of_platform = [fee for fee in children(tree, "fee_details") if fee.get("type") == "application_fee"]
    return first(
        integer(tree, "application_fee_amount"), _amount_of(tree, "application_fee"), total(of_platform, "amount")
    )


def _amount_of(tree: Tree, name: str) -> int | None:
    """The amount of a fee that is embedded, or (payment intents of 2018) that stands in its place."""
    value = tree.get(name)
    return integer(tree, name) if type(value) is int else integer(child(tree, name), "amount")


def _card(method: Tree, source: Tree) -> Tree:
    """The card that was charged, in a terminal or not: of a payment method, of a source, or stored directly."""
    return (
        child(method, "card")
        or child(method, "card_present")
        or child(method, "interac_present")
        or child(source, "card")
        or child(source, "three_d_secure")
        or (NOTHING if source.get("object") == "bank_account" else source)
    )


def _card_brand(card: Tree) -> str | None:
    """In the spelling of payment methods: cards once had the brand as people write it, and longer ago as their type."""
    brand = text(card, "brand") or (text(card, "type") if card.get("object") == "card" else None)
    return None if brand is None else _BRANDS.get(brand) or brand.lower().replace(" ", "_")


def _disputed(tree: Tree) -> bool | None:
    """Before `disputed` there was `dispute`: the dispute's id or null."""
    disputed = flag(tree, "disputed")
    return tree["dispute"] is not None if disputed is None and "dispute" in tree else disputed


def _type_of_source(source: Tree) -> str | None:
    """A source names its type; a card or a bank account stored directly is its own type."""
    kind = text(source, "object")
    return text(source, "type") if kind == "source" else kind


def read_dispute(tree: Tree) -> Dispute:
    """A `dispute`."""
    details = child(tree, "evidence_details")
    moved = children(tree, "balance_transactions") or [child(tree, "balance_transaction")]
    return Dispute(
        dispute_id=optional_identity(tree),
        charge_id=reference(tree, "charge"),
        payment_intent_id=reference(tree, "payment_intent") or reference(child(tree, "charge"), "payment_intent"),
        status=text(tree, "status"),
        amount_minor=integer(tree, "amount"),
        currency=text(tree, "currency"),
        reason=text(tree, "reason"),
        is_charge_refundable=flag(tree, "is_charge_refundable"),
        evidence_due_by=timestamp(details, "due_by") or timestamp(tree, "evidence_due_by"),
        balance_change_minor=total(moved, "amount"),
        balance_fee_minor=total(moved, "fee"),
        balance_currency=next((text(transaction, "currency") for transaction in moved), None),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def read_checkout_session(tree: Tree) -> CheckoutSession:
    """A `checkout.session`. Sessions of 2019 say their mode only by what they made."""
    payment_intent_id = reference(tree, "payment_intent")
    subscription_id = reference(tree, "subscription")
    setup_intent_id = reference(tree, "setup_intent")
    made = {"subscription": subscription_id, "payment": payment_intent_id, "setup": setup_intent_id}
    details = child(tree, "total_details")
    ordered = children(tree, "display_items")
    return CheckoutSession(
        checkout_session_id=identity(tree),
        mode=text(tree, "mode") or next((mode for mode, made in made.items() if made), None),
        status=text(tree, "status"),
        payment_status=text(tree, "payment_status"),
        payment_intent_id=payment_intent_id,
        subscription_id=subscription_id,
        setup_intent_id=setup_intent_id,
        invoice_id=reference(tree, "invoice")
        or reference(child(tree, "payment_intent"), "invoice")
        or reference(child(tree, "subscription"), "latest_invoice"),
        customer_id=reference(tree, "customer")
        or reference(child(tree, "payment_intent"), "customer")
        or reference(child(tree, "subscription"), "customer"),
        customer_account_id=customer_account(tree),
        # What the customer typed in, else what the session was prepared with.
        customer_email=text(child(tree, "customer_details"), "email")
        or text(tree, "customer_email")
        or text(child(tree, "customer"), "email"),
        client_reference_id=text(tree, "client_reference_id"),
        payment_link_id=reference(tree, "payment_link"),
        amount_subtotal_minor=first(integer(tree, "amount_subtotal"), _ordered_amount(ordered)),
        amount_total_minor=first(integer(tree, "amount_total"), _ordered_amount(ordered)),
        amount_discount_minor=integer(details, "amount_discount"),
        amount_shipping_minor=first(
            integer(details, "amount_shipping"), integer(child(tree, "shipping_cost"), "amount_subtotal")
        ),
        amount_tax_minor=integer(details, "amount_tax"),
        currency=text(tree, "currency") or next((text(item, "currency") for item in ordered), None),
        expires_at=timestamp(tree, "expires_at"),
        metadata=metadata(tree),
        created_at=timestamp(tree, "created"),
    )


def _ordered_amount(items: Sequence[Tree]) -> int | None:
    """What a session's items come to: until 2020 it did not say so itself, and had no tax, shipping or discount.

    Of a plan it is not known what is due at once: it may begin with a trial.
    """
    amounts = [_amount_of_item(item) for item in items]
    known = [amount for amount in amounts if amount is not None]
    return sum_of(known, "display_items") if len(known) == len(items) else None


def _amount_of_item(item: Tree) -> int | None:
    amount, quantity = integer(item, "amount"), integer(item, "quantity")
    return None if amount is None or quantity is None or item.get("type") == "plan" else amount * quantity


def read_invoice_payment(tree: Tree) -> InvoicePayment:
    """An `invoice_payment`."""
    payment = child(tree, "payment")
    return InvoicePayment(
        invoice_payment_id=identity(tree),
        invoice_id=reference(tree, "invoice"),
        payment_type=text(payment, "type"),
        payment_intent_id=reference(payment, "payment_intent"),
        charge_id=reference(payment, "charge") or reference(child(payment, "payment_intent"), "latest_charge"),
        payment_record_id=reference(payment, "payment_record"),
        status=text(tree, "status"),
        amount_requested_minor=integer(tree, "amount_requested"),
        amount_paid_minor=integer(tree, "amount_paid"),
        currency=text(tree, "currency"),
        is_default=flag(tree, "is_default"),
        paid_at=timestamp(child(tree, "status_transitions"), "paid_at"),
        created_at=timestamp(tree, "created"),
    )
