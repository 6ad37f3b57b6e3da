"""The values that Stripe's enumerations are known to have, held against what arrives.

All of them are open: a value that is not here passes as it is. It is counted, so that somebody learns of it before a
service downstream meets a case that it has no branch for. Error and decline codes are no enumerations, but a list that
grows by the week; nobody could act on their count.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from service.contract import DATA_TYPES, Charge, Event, Subscription, SubscriptionItem
from service.redaction import HASHED

_INTERVALS: Final = frozenset({"day", "week", "month", "year"})
_COLLECTION_METHODS: Final = frozenset({"charge_automatically", "send_invoice"})

_PAYMENT_METHOD_TYPES: Final = frozenset({
    "ach_credit_transfer", "ach_debit", "acss_debit", "affirm", "afterpay_clearpay", "alipay", "alma", "amazon_pay",
    "au_becs_debit", "bacs_debit", "bancontact", "billie", "bizum", "blik", "boleto", "card", "card_present",
    "cashapp", "crypto", "custom", "customer_balance", "eps", "fpx", "giropay", "grabpay", "ideal", "interac_present",
    "kakao_pay", "klarna", "konbini", "kr_card", "link", "mb_way", "mobilepay", "multibanco", "naver_pay",
    "nz_bank_account", "oxxo", "p24", "pay_by_bank", "payco", "paynow", "paypal", "paypay", "payto", "pix",
    "promptpay", "revolut_pay", "samsung_pay", "satispay", "scalapay", "sepa_credit_transfer", "sepa_debit", "sequra",
    "sofort", "stripe_account", "sunbit", "swish", "twint", "upi", "us_bank_account", "wechat", "wechat_pay", "zip",
    # Of sources, which came before payment methods.
    "alipay_account", "bank_account", "bitcoin", "bitcoin_receiver", "paper_check", "three_d_secure",
})  # fmt: skip

VOCABULARY: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "payment_intent": {
        "status": frozenset({
            "requires_payment_method", "requires_confirmation", "requires_action", "processing", "requires_capture",
            "succeeded", "canceled",
            "requires_source", "requires_source_action",  # until 2019-02-11
        }),
        "capture_method": frozenset({"automatic", "automatic_async", "manual"}),
        "setup_future_usage": frozenset({"off_session", "on_session"}),
        "cancellation_reason": frozenset({
            "abandoned", "automatic", "duplicate", "expired", "failed_invoice", "fraudulent", "requested_by_customer",
            "void_invoice",
        }),
        "payment_method_type": _PAYMENT_METHOD_TYPES,
    },
    "charge": {
        "status": frozenset({"pending", "succeeded", "failed"}),
        "outcome_type": frozenset({"authorized", "manual_review", "issuer_declined", "blocked", "invalid"}),
        "network_status": frozenset({
            "approved_by_network", "declined_by_network", "not_sent_to_network", "reversed_after_approval",
        }),
        "payment_method_type": _PAYMENT_METHOD_TYPES,
        "card_brand": frozenset({
            "amex", "cartes_bancaires", "diners", "discover", "eftpos_au", "girocard", "interac", "jcb", "link",
            "mastercard", "unionpay", "unknown", "visa",
            # Of cards that are sources, as they are printed.
            "American Express", "Cartes Bancaires", "Diners Club", "Discover", "Eftpos Australia", "Girocard", "JCB",
            "MasterCard", "UnionPay", "Unknown", "Visa",
        }),
    },
    "refund": {
        "status": frozenset({"pending", "requires_action", "succeeded", "failed", "canceled"}),
        "reason": frozenset({"duplicate", "expired_uncaptured_charge", "fraudulent", "requested_by_customer"}),
        "failure_reason": frozenset({
            "charge_for_pending_refund_disputed", "declined", "expired_or_canceled_card", "insufficient_funds",
            "lost_or_stolen_card", "merchant_request", "unknown",
        }),
        "pending_reason": frozenset({"charge_pending", "insufficient_funds", "processing"}),
    },
    "dispute": {
        "status": frozenset({
            "warning_needs_response", "warning_under_review", "warning_closed", "needs_response", "under_review",
            "won", "lost", "prevented", "appeal_needs_response", "appeal_under_review",
            "charge_refunded",  # of long ago
        }),
        "reason": frozenset({
            "bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated",
            "debit_not_authorized", "duplicate", "fraudulent", "general", "incorrect_account_details",
            "insufficient_funds", "noncompliant", "product_not_received", "product_unacceptable",
            "subscription_canceled", "unrecognized",
        }),
    },
    "checkout_session": {
        "mode": frozenset({"payment", "setup", "subscription"}),
        "status": frozenset({"open", "complete", "expired"}),
        "payment_status": frozenset({"unpaid", "paid", "no_payment_required"}),
    },
    "invoice_payment": {
        "status": frozenset({"open", "paid", "canceled"}),
        "payment_type": frozenset({"charge", "payment_intent", "payment_record"}),
    },
    "subscription": {
        "status": frozenset({
            "incomplete", "incomplete_expired", "trialing", "active", "past_due", "unpaid", "paused", "canceled",
        }),
        "collection_method": _COLLECTION_METHODS,
        "billing_mode": frozenset({"classic", "flexible"}),
        "pause_behavior": frozenset({"keep_as_draft", "mark_uncollectible", "void"}),
        "paused_reason": frozenset({
            "final_payment_failure", "first_payment_failure", "pause_requested", "system",
            "trial_end_without_payment_method",
            "subscription",  # where the payload says no more
        }),
        "cancellation_reason": frozenset({
            "canceled_by_retention_policy", "cancellation_requested", "payment_disputed", "payment_failed",
        }),
        "cancellation_feedback": frozenset({
            "customer_service", "low_quality", "missing_features", "other", "switched_service", "too_complex",
            "too_expensive", "unused",
        }),
    },
    "subscription_item": {"interval": _INTERVALS},
    "invoice": {
        "status": frozenset({
            "draft", "open", "paid", "uncollectible", "void",
            "deleted",  # a draft's, in its last event
        }),
        "collection_method": _COLLECTION_METHODS,
        "billing_reason": frozenset({
            "automatic_pending_invoice_item_invoice", "manual", "quote_accept", "subscription", "subscription_create",
            "subscription_cycle", "subscription_threshold", "subscription_update", "upcoming",
        }),
    },
    "product": {"product_type": frozenset({"good", "service"})},
    "price": {
        "price_type": frozenset({"one_time", "recurring"}),
        "billing_scheme": frozenset({"per_unit", "tiered"}),
        "interval": _INTERVALS,
        "usage_type": frozenset({"licensed", "metered"}),
        "tiers_mode": frozenset({"graduated", "volume"}),
        "tax_behavior": frozenset({"exclusive", "inclusive", "unspecified"}),
    },
}  # fmt: skip
"""Object type → field → the values that it is known to have had in any API version."""

FIELDS: Final = tuple(f"{owner}.{field}" for owner, fields in VOCABULARY.items() for field in fields)
"""Everything that `unknown_values` may name."""

_TYPES: Final[Mapping[str, type[msgspec.Struct]]] = {**DATA_TYPES, "subscription_item": SubscriptionItem}

_CHECKS: Final[Mapping[type[msgspec.Struct], tuple[tuple[str, str, frozenset[str]], ...]]] = {
    _TYPES[owner]: tuple((field, f"{owner}.{field}", known) for field, known in fields.items())
    for owner, fields in VOCABULARY.items()
}


def unknown_values(event: Event) -> tuple[str, ...]:
    """The fields of an event's data whose value is news to this version, each once, such as `payment_intent.status`.

    Only their names, and those are a closed set (`FIELDS`): the values come from a payload. A redacted one is no news.
    """
    data = event.data
    found = _unknown((data,))
    if type(data) is Charge and data.refunds:
        found += _unknown(data.refunds)
    elif type(data) is Subscription and data.items:
        found += _unknown(data.items)
    return tuple(dict.fromkeys(found)) if found else ()


def _unknown(objects: Iterable[msgspec.Struct]) -> list[str]:
    return [
        label
        for item in objects
        for field, label, known in _CHECKS.get(type(item), ())
        if (value := getattr(item, field)) is not None and value not in known and not value.startswith(HASHED)
    ]
