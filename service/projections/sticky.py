"""Which nulls are news: what becomes of a value when a later event does not have it.

Two endpoints of one account may take events in different API versions, and some fields are known to some versions
only. A null of a field that Stripe never takes back says no more than that this rendering does not know it: the value
stays. The nulls below do say something: a failure is over, a cancellation was called off.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from service.contract import DATA_TYPES, Data

TAKEN_BACK: Final[Mapping[str, frozenset[str]]] = {
    "payment_intent": frozenset(
        {
            "payment_method_type",
            "application_fee_amount_minor",
            "decline_code",
            "description",
            "failure_code",
            "failure_message",
            "payment_method_id",
            "setup_future_usage",
        }
    ),
    "charge": frozenset({"description", "outcome_reason"}),
    "refund": frozenset({"pending_reason"}),
    "dispute": frozenset({"evidence_due_by"}),
    "checkout_session": frozenset(),
    "invoice_payment": frozenset(),
    "subscription": frozenset(
        {
            "cancel_at",
            "canceled_at",
            "cancellation_feedback",
            "cancellation_reason",
            "coupon_ids",
            "days_until_due",
            "default_payment_method_id",
            "pause_behavior",
            "pause_resumes_at",
            "paused_reason",
            "pending_update",
            "schedule_id",
            "trial_end",
            "trial_start",
        }
    ),
    "invoice": frozenset({"discount_minor", "due_date", "next_payment_attempt", "tax_minor"}),
    "product": frozenset({"default_price_id", "description"}),
    "price": frozenset({"lookup_key", "nickname", "trial_period_days"}),
    "plan": frozenset({"nickname", "trial_period_days"}),  # it knows nothing of lookup keys
}
"""`object_type` → the fields that Stripe takes back: a null erases the value."""

STICKY_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    object_type: tuple(
        field.name
        for field in msgspec.structs.fields(DATA_TYPES[object_type])
        if field.default is None and field.name not in taken_back
    )
    for object_type, taken_back in TAKEN_BACK.items()
}
"""`object_type` → the fields that, once known, stay known."""


def merge(object_type: str, old: Data, new: Data) -> Data:
    """`new` with the values of `old` that it does not know and cannot have taken back."""
    if getattr(new, "deleted", False):
        return _deleted(old, new)
    kept = {
        name: value
        for name in STICKY_FIELDS.get(object_type, ())
        if getattr(new, name) is None and (value := getattr(old, name)) is not None
    }
    return msgspec.structs.replace(new, **kept) if kept else new


def _deleted(old: Data, new: Data) -> Data:
    """What Stripe says of a deleted object may be its id and nothing more: all else is as it was last."""
    kept = {name: getattr(old, name) for name in new.__struct_fields__ if getattr(new, name) in (None, {})}
    return msgspec.structs.replace(new, **kept) if kept else new
