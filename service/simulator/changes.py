"""What happens to objects at Stripe: each function gives an object's next state and leaves the old one alone.

`at` is in Unix seconds; amounts are in the currency's minor unit.
"""

from typing import Any, Final

from service.simulator.objects import Object

DECLINED: Final = {
    "advice_code": "try_again_later",
    "code": "card_declined",
    "decline_code": "insufficient_funds",
    "message": "Your card has insufficient funds.",
    "type": "card_error",
}
_APPROVED_OUTCOME: Final = {
    "advice_code": None,
    "network_advice_code": None,
    "network_decline_code": None,
    "network_status": "approved_by_network",
    "reason": None,
    "seller_message": "Payment complete.",
    "type": "authorized",
}
_DECLINED_OUTCOME: Final = {
    "advice_code": "try_again_later",
    "network_advice_code": None,
    "network_decline_code": "51",
    "network_status": "declined_by_network",
    "reason": "insufficient_funds",
    "seller_message": "The bank returned the decline code `insufficient_funds`.",
    "type": "issuer_declined",
}


def changed(before: Object, **fields: Any) -> Object:
    """The object with these top-level fields set anew."""
    return {**before, **fields}


def previous_attributes(before: Object, after: Object) -> Object:
    """What Stripe puts beside an updated object: the old values of what changed.

    Objects inside are compared field by field, arrays are given whole, and a field that is new was null.
    """
    old: Object = {}
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        nested = isinstance(was, dict) and isinstance(now, dict)
        old[name] = previous_attributes(was, now) if nested else was  # type: ignore[arg-type] # nested: both are dicts
    return old


# Payment intents


def payment_requires_action(intent: Object) -> Object:
    """The bank asks the customer to authenticate."""
    action = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
    return changed(intent, status="requires_action", next_action=action)


def payment_processing(intent: Object, charge: Object) -> Object:
    """A delayed method (a bank debit) is under way."""
    return changed(
        intent,
        status="processing",
        latest_charge=charge["id"],
        next_action=None,
        payment_method=charge["payment_method"],
        processing={"card": {}, "type": "card"},
    )


def payment_capturable(intent: Object, charge: Object) -> Object:
    """The amount is authorized and waits to be captured."""
    return changed(
        intent,
        status="requires_capture",
        amount_capturable=intent["amount"],
        last_payment_error=None,
        latest_charge=charge["id"],
        next_action=None,
        payment_method=charge["payment_method"],
    )


def payment_failed(intent: Object, charge: Object) -> Object:
    """The attempt was declined; another payment method is needed."""
    error = {
        **DECLINED,
        "charge": charge["id"],
        "payment_method": {"id": charge["payment_method"], "object": "payment_method", "type": "card"},
    }
    return changed(
        intent,
        status="requires_payment_method",
        last_payment_error=error,
        latest_charge=charge["id"],
        next_action=None,
        payment_method=None,
        processing=None,
    )


def payment_succeeded(intent: Object, charge: Object) -> Object:
    """The money is taken."""
    return changed(
        intent,
        status="succeeded",
        amount_capturable=0,
        amount_received=intent["amount"],
        last_payment_error=None,
        latest_charge=charge["id"],
        next_action=None,
        payment_method=charge["payment_method"],
        processing=None,
    )


def payment_partially_funded(intent: Object, amount: int) -> Object:
    """A bank transfer covered a part of the amount; the rest is awaited."""
    action = {
        "display_bank_transfer_instructions": {
            "amount_remaining": intent["amount"] - amount,
            "currency": intent["currency"],
            "type": "eu_bank_transfer",
        },
        "type": "display_bank_transfer_instructions",
    }
    return changed(intent, status="requires_action", next_action=action, payment_method_types=["customer_balance"])


def payment_canceled(intent: Object, at: int) -> Object:
    """The shop gave the payment up."""
    return changed(
        intent,
        status="canceled",
        amount_capturable=0,
        canceled_at=at,
        cancellation_reason="abandoned",
        next_action=None,
        payment_method=None,
    )


# Charges


def charge_failed(charge: Object) -> Object:
    """The bank declined."""
    return changed(
        charge,
        status="failed",
        failure_code=DECLINED["code"],
        failure_message=DECLINED["message"],
        outcome=dict(_DECLINED_OUTCOME),
    )


def charge_authorized(charge: Object) -> Object:
    """The bank holds the amount for a later capture."""
    return changed(charge, status="succeeded", paid=True, outcome=dict(_APPROVED_OUTCOME))


def charge_captured(charge: Object) -> Object:
    """The held amount is taken."""
    return changed(charge, amount_captured=charge["amount"], captured=True)


def charge_succeeded(charge: Object) -> Object:
    """Authorized and captured at once; its balance transaction follows later (asynchronous capture)."""
    return charge_captured(charge_authorized(charge))


def charge_settled(charge: Object, balance_transaction_id: str) -> Object:
    """The balance transaction is known."""
    return changed(charge, balance_transaction=balance_transaction_id)


def charge_expired(charge: Object) -> Object:
    """An authorization ran out and was let go: Stripe counts it as refunded."""
    return changed(charge, amount_refunded=charge["amount"], refunded=True)


def charge_refunded(charge: Object, amount: int) -> Object:
    """`amount` more of the charge went back."""
    refunded = charge["amount_refunded"] + amount
    return changed(charge, amount_refunded=refunded, refunded=refunded == charge["amount"])


def charge_disputed(charge: Object) -> Object:
    """The cardholder disputes the charge."""
    return changed(charge, disputed=True)


# Refunds


def refund_succeeded(refund: Object) -> Object:
    """The refund is on its way to the card, and counts."""
    return changed(refund, status="succeeded")


def refund_referenced(refund: Object, reference: str) -> Object:
    """The bank's reference for the refund is known; its status stays."""
    card = {**refund["destination_details"]["card"], "reference": reference, "reference_status": "available"}
    return changed(refund, destination_details={**refund["destination_details"], "card": card})


def refund_failed(refund: Object, failure_balance_transaction_id: str) -> Object:
    """The bank sent the money back, maybe after the refund had succeeded."""
    return changed(
        refund,
        status="failed",
        failure_balance_transaction=failure_balance_transaction_id,
        failure_reason="expired_or_canceled_card",
    )


# Disputes


def dispute_funds_withdrawn(dispute: Object, balance_transaction_id: str) -> Object:
    """The disputed amount was taken from the shop's balance."""
    return _dispute_moved(dispute, balance_transaction_id, -dispute["amount"])


def dispute_funds_reinstated(dispute: Object, balance_transaction_id: str) -> Object:
    """The disputed amount came back to the shop's balance."""
    return _dispute_moved(dispute, balance_transaction_id, dispute["amount"])


def dispute_answered(dispute: Object) -> Object:
    """The shop sent evidence; the bank looks at it."""
    details = {**dispute["evidence_details"], "has_evidence": True, "submission_count": 1}
    evidence = {**dispute["evidence"], "uncategorized_text": "Delivered on time."}
    return changed(dispute, status="under_review", evidence=evidence, evidence_details=details)


def dispute_won(dispute: Object) -> Object:
    """The bank decided for the shop."""
    return changed(dispute, status="won")


def _dispute_moved(dispute: Object, balance_transaction_id: str, amount: int) -> Object:
    moved = {
        "id": balance_transaction_id,
        "object": "balance_transaction",
        "amount": amount,
        "currency": dispute["currency"],
        "type": "adjustment",
    }
    return changed(dispute, balance_transactions=[*dispute["balance_transactions"], moved])


# Checkout sessions


def session_completed(session: Object, intent: Object, *, payment_status: str) -> Object:
    """The customer is through; `payment_status` is `unpaid` as long as a delayed method is under way."""
    details: Object = {
        "address": None,
        "business_name": None,
        "email": "checkout@example.com",
        "individual_name": None,
        "name": "Checkout Example",
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }
    return changed(
        session,
        status="complete",
        customer_details=details,
        payment_intent=intent["id"],
        payment_status=payment_status,
        url=None,
    )


def session_paid(session: Object) -> Object:
    """A delayed method came through."""
    return changed(session, payment_status="paid")


def session_expired(session: Object) -> Object:
    """Nobody bought in time."""
    return changed(session, status="expired", url=None)


# Subscriptions


def subscription_with(subscription: Object, status: str) -> Object:
    """The subscription in another status that sets no field besides."""
    return changed(subscription, status=status)


def subscription_invoiced(subscription: Object, invoice: Object) -> Object:
    """The subscription with its newest invoice."""
    return changed(subscription, latest_invoice=invoice["id"])


def subscription_renewed(subscription: Object, period_start: int, period_end: int) -> Object:
    """All items go on to their next period."""
    items = [
        changed(item, current_period_start=period_start, current_period_end=period_end)
        for item in subscription["items"]["data"]
    ]
    return changed(subscription, items={**subscription["items"], "data": items})


def subscription_cancel_scheduled(subscription: Object, at: int) -> Object:
    """The customer asks at `at` to stop at the period's end."""
    return changed(
        subscription,
        cancel_at=max(item["current_period_end"] for item in subscription["items"]["data"]),
        cancel_at_period_end=True,
        canceled_at=at,
        cancellation_details={"comment": None, "feedback": "unused", "reason": "cancellation_requested"},
    )


def subscription_ended(subscription: Object, at: int) -> Object:
    """It is over."""
    details = {**subscription["cancellation_details"], "reason": "cancellation_requested"}
    return changed(
        subscription,
        status="canceled",
        canceled_at=subscription["canceled_at"] or at,
        cancellation_details=details,
        ended_at=at,
    )


def subscription_paused(subscription: Object, at: int) -> Object:
    """A trial ended without a payment method."""
    paused = {
        "subscription": {"type": "trial_end_without_payment_method"},
        "transitioned_at": at,
        "type": "subscription",
    }
    return changed(subscription, status="paused", status_details={"paused": paused})


def subscription_resumed(subscription: Object) -> Object:
    """A paused subscription goes on."""
    return changed(subscription, status="active", status_details=None)


def subscription_trialing(subscription: Object, trial_start: int, trial_end: int) -> Object:
    """A subscription in its trial."""
    return changed(subscription, status="trialing", trial_start=trial_start, trial_end=trial_end)


def subscription_update_pending(subscription: Object, expires_at: int) -> Object:
    """A change of quantity waits for its invoice to be paid."""
    pending = {
        "billing_cycle_anchor": None,
        "discount": None,
        "discounts": None,
        "expires_at": expires_at,
        "metadata": None,
        "subscription_items": [changed(item, quantity=item["quantity"] + 1) for item in subscription["items"]["data"]],
        "trial_end": None,
        "trial_from_plan": None,
    }
    return changed(subscription, pending_update=pending)


def subscription_update_applied(subscription: Object) -> Object:
    """The pending change is in force."""
    items = {**subscription["items"], "data": subscription["pending_update"]["subscription_items"]}
    return changed(subscription, items=items, pending_update=None)


def subscription_update_expired(subscription: Object) -> Object:
    """The pending change was not paid in time."""
    return changed(subscription, pending_update=None)


# Invoices


def invoice_finalized(invoice: Object, at: int, number: str) -> Object:
    """A draft becomes open, with its number."""
    return changed(
        invoice,
        status="open",
        automatically_finalizes_at=None,
        effective_at=at,
        number=number,
        status_transitions={**invoice["status_transitions"], "finalized_at": at},
    )


def invoice_paid(invoice: Object, at: int) -> Object:
    """Everything due is paid."""
    return changed(
        invoice,
        status="paid",
        amount_paid=invoice["amount_due"],
        amount_remaining=0,
        attempt_count=invoice["attempt_count"] + 1,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status_transitions={**invoice["status_transitions"], "paid_at": at},
    )


def invoice_payment_failed(invoice: Object, next_attempt_at: int) -> Object:
    """An attempt to collect failed; Stripe tries again."""
    return changed(
        invoice,
        attempt_count=invoice["attempt_count"] + 1,
        attempted=True,
        next_payment_attempt=next_attempt_at,
    )


def invoice_voided(invoice: Object, at: int) -> Object:
    """The invoice was issued by mistake."""
    transitions = {**invoice["status_transitions"], "voided_at": at}
    return changed(
        invoice, status="void", auto_advance=False, next_payment_attempt=None, status_transitions=transitions
    )


def invoice_uncollectible(invoice: Object, at: int) -> Object:
    """The shop does not expect to be paid any more."""
    transitions = {**invoice["status_transitions"], "marked_uncollectible_at": at}
    return changed(invoice, status="uncollectible", next_payment_attempt=None, status_transitions=transitions)


def invoice_finalization_failed(invoice: Object) -> Object:
    """The draft could not be made an invoice."""
    error = {
        "code": "customer_tax_location_invalid",
        "message": "The customer's location isn't recognized.",
        "type": "invalid_request_error",
    }
    return changed(invoice, last_finalization_error=error)


def invoice_by_mail(invoice: Object, due_date: int) -> Object:
    """An invoice that is sent to the customer, who pays by `due_date`."""
    return changed(invoice, collection_method="send_invoice", due_date=due_date, next_payment_attempt=None)


def invoice_overpaid(invoice: Object, amount: int) -> Object:
    """A paid invoice for which `amount` too much arrived."""
    return changed(invoice, amount_overpaid=amount)


def invoice_preview(invoice: Object) -> Object:
    """The preview that `invoice.upcoming` carries: it has no id."""
    lines = {
        **invoice["lines"],
        "data": [changed(line, invoice=None) for line in invoice["lines"]["data"]],
        "url": "/v1/invoices/upcoming/lines",
    }
    preview = changed(invoice, billing_reason="upcoming", lines=lines)
    del preview["id"]
    return preview


def invoice_payment_paid(invoice_payment: Object, at: int) -> Object:
    """The payment intent behind it succeeded."""
    return changed(
        invoice_payment,
        status="paid",
        amount_paid=invoice_payment["amount_requested"],
        status_transitions={**invoice_payment["status_transitions"], "paid_at": at},
    )
