"""What each published field means, in words: the descriptions in the schemas.

A sentence of a type's docstring that begins with names of fields describes those fields. What has the same meaning in
every type is said here, once. Whatever is in neither is Stripe's own field of that name.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Final

_BY_NAME: Final[Mapping[str, str]] = {
    # the envelope
    "schema_version": "The version of this contract. Within a version fields are only added.",
    "category": "The family of the event, which decides its topic.",
    "event_id": "Stripe's id of the event, `evt_…`: the same in every delivery of it. Skip what you have seen.",
    "event_type": "Stripe's event type, such as `payment_intent.succeeded`. An open set.",
    "livemode": "True for live mode, false for test mode and sandboxes.",
    "endpoint": "The name of the webhook endpoint that received the event.",
    "context": "The way to the account from whoever the endpoint belongs to, where the event says it.",
    "api_version": "The Stripe API version that rendered the event; null for a thin event. Nothing here depends on it.",
    "request_id": "The id of the API request that caused the event; null where Stripe acted by itself.",
    "idempotency_key": "The idempotency key of that request.",
    "object_type": "The type of the object that the event is about, in Stripe's spelling with `checkout_session` for"
    " `checkout.session`.",
    "object_id": "The id of the object that the event is about; null for the few that have none.",
    "data": "The object, normalized.",
    # what several objects have
    "created_at": "When Stripe created the object.",
    "updated_at": "When the object was last changed.",
    "status": "The object's status. An open set: a status that Stripe adds passes as it is.",
    "currency": "ISO 4217, three letters, lower case: the currency of the amounts beside it.",
    "metadata": "The merchant's own keys and values.",
    "description": "Free text for people.",
    "name": "The name for people.",
    "deleted": "True once the object is deleted.",
    "active": "Whether new purchases may use it.",
    "customer_account_id": "The id of the account that is the customer, where an account stands for a customer.",
    "on_behalf_of_id": "The id of the connected account on whose behalf the payment is made.",
    "canceled_at": "When it was canceled; for a subscription, when the cancellation was asked for.",
    "cancellation_reason": "Why it was canceled. An open set.",
    "expires_at": "When it expires unless it is completed before.",
    "collection_method": "`charge_automatically` or `send_invoice`. An open set.",
    "period_start": "The start of the period.",
    "period_end": "The end of the period.",
    "paid_at": "When it was paid.",
    "quantity": "How many units.",
    "interval": "The billing period's unit: `day`, `week`, `month` or `year`. An open set.",
    "interval_count": "How many intervals make one billing period.",
    # payments
    "amount_received_minor": "What has been collected.",
    "amount_capturable_minor": "What is authorized and can still be captured.",
    "amount_captured_minor": "What has been captured.",
    "amount_refunded_minor": "What has been refunded so far, as the charge itself says.",
    "application_fee_amount_minor": "The platform's fee on the payment.",
    "latest_charge_id": "The id of the newest charge that the payment intent made.",
    "payment_method_type": "What was paid with, such as `card` or `sepa_debit`. An open set.",
    "failure_code": "Stripe's code of the failure. An open set.",
    "decline_code": "The issuer's code of the decline. An open set.",
    "failure_message": "The failure in words, for people.",
    "captured": "Whether the funds are captured, not only authorized.",
    "paid": "Whether the charge went through (or its authorization did).",
    "refunded": "Whether the charge is refunded in full.",
    "disputed": "Whether the charge has been disputed.",
    "card_brand": "The brand of the card, such as `visa`. An open set.",
    "card_last4": "The last four digits of the card.",
    "outcome_type": "How the payment ended: `authorized`, `issuer_declined`, `blocked`, …. An open set.",
    "outcome_reason": "Why it ended so: the issuer's code, or Radar's. An open set.",
    "refunds": "The refunds that the payload embeds.",
    "balance_currency": "The currency of the balance, ISO 4217 in lower case.",
    "evidence_due_by": "Until when evidence may be submitted.",
    "is_charge_refundable": "Whether the charge can still be refunded instead.",
    "customer_email": "What the customer typed in, else what the session was prepared with.",
    "payment_type": "What paid: `payment_intent`, `charge`, `payment_record`, …. An open set.",
    "is_default": "Whether it is the invoice's default payment.",
    "mode": "`payment`, `subscription` or `setup`. An open set.",
    # subscriptions
    "current_period_start": "The start of the period that is paid for or being collected.",
    "current_period_end": "The end of that period.",
    "cancel_at": "When the subscription will be canceled, where that is scheduled.",
    "cancel_at_period_end": "Whether it ends with the current period.",
    "cancellation_feedback": "What the customer gave as the reason. An open set.",
    "ended_at": "When the subscription ended.",
    "start_date": "When the subscription started.",
    "trial_start": "The start of the trial.",
    "trial_end": "The end of the trial.",
    "billing_cycle_anchor": "The moment from which billing periods are counted.",
    "billing_mode": "`classic` or `flexible`. An open set.",
    "days_until_due": "Days that a customer has to pay an invoice sent by mail.",
    "pending_update": "Changes that wait for their invoice to be paid.",
    "items": "The prices subscribed to.",
    "coupon_ids": "The ids of the coupons of all discounts.",
    "schedule_id": "The id of the subscription schedule.",
    # invoices
    "number": "The invoice's number for people.",
    "lines": "The lines that the payload embeds.",
    "lines_have_more": "True where Stripe has cut the list off.",
    "amount_due_minor": "What is to be paid.",
    "amount_remaining_minor": "What is still to be paid.",
    "amount_overpaid_minor": "What was paid beyond the total.",
    "subtotal_minor": "The total before discounts and taxes.",
    "total_minor": "The total after discounts and taxes.",
    "tax_minor": "The sum of the taxes.",
    "discount_minor": "The sum of the discounts.",
    "attempt_count": "How many times payment was tried.",
    "next_payment_attempt": "When payment is tried next.",
    "due_date": "Until when an invoice sent by mail is to be paid.",
    "paid_out_of_band": "Whether it was marked as paid outside of Stripe.",
    "finalized_at": "When it was finalized.",
    "voided_at": "When it was voided.",
    "proration": "Whether the line is a proration.",
    # customers and the catalog
    "delinquent": "Whether the customer's latest invoice is overdue.",
    "balance_minor": "The customer's credit balance: negative is a credit, positive is owed.",
    "product_type": "`good` or `service`, of old API versions. An open set.",
    "price_type": "`one_time` or `recurring`. An open set.",
    "unit_amount_minor": "The price of one unit.",
    "trial_period_days": "Days of trial by default.",
}

_MONEY: Final = "Money: an integer in the minor unit of its currency (cents of `usd`, whole `jpy`)."
_TIME: Final = "RFC 3339, in UTC."
_SENTENCES: Final = re.compile(r"(?<=\.) (?=[A-Z`…])|; (?=`)")
_FIELD_NAMES: Final = re.compile(r"((?:`\w+`(?:, | and )?)+)")


def paragraphs(docstring: str) -> str:
    """A docstring as running text: one line a paragraph."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(docstring).split("\n\n"))


def meaning(field: str, *, docstring: str, is_time: bool) -> str:
    """The description of one field, with its unit."""
    said = list(_said_of(field, docstring)) or [_BY_NAME.get(field) or _by_convention(field)]
    if field.endswith("_minor"):
        said.append(_MONEY)
    if is_time:
        said.append(_TIME)
    return " ".join(said)


def _said_of(field: str, docstring: str) -> Iterable[str]:
    for paragraph in paragraphs(docstring).splitlines():
        for sentence in _SENTENCES.split(paragraph):
            subject = _FIELD_NAMES.match(sentence)
            if subject and f"`{field}`" in subject[1]:
                yield sentence if sentence.endswith(".") else f"{sentence}."


def _by_convention(field: str) -> str:
    if field.endswith("_id"):
        return f"The id of the {field.removesuffix('_id').replace('_', ' ')}: always bare, however Stripe rendered it."
    return f"Stripe's `{field.removesuffix('_minor')}`."
