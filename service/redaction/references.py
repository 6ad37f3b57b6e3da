"""What stands in a field, for an object that does not say itself what it is.

Stripe's own objects say it, but what an event tells of before is in pieces, and long ago some objects did not. Where a
field has held several types they are all named here: the paths of each then apply.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from service.redaction.object_types import OBJECT_TYPES
from service.redaction.protected import PROTECTED

Types: TypeAlias = tuple[str, ...]

_MEANS_OF_PAYMENT: Final = "source|card|bank_account|alipay_account|bitcoin_receiver"

_ANYWHERE: Final = f"""
    account active_card:card application application_fee balance_transaction balance_transactions:balance_transaction
    bank_account bank_accounts:bank_account cards:card cardholder:issuing.cardholder cash_balance charge charges:charge
    coupon credit_note customer default_card:card default_payment_method:payment_method default_price:price
    default_source:{_MEANS_OF_PAYMENT} default_tax_rates:tax_rate destination:account|bank_account|card discount
    discounts:discount dispute disputes:dispute external_account:bank_account|card external_accounts:bank_account|card
    invoice invoice_item:invoiceitem invoiceitem latest_attempt:setup_attempt latest_charge:charge
    latest_invoice:invoice line_items:item lines:line_item mandate order payment_intent payment_intents:payment_intent
    payment_method payment_methods:payment_method payment_record payments:invoice_payment payout person persons:person
    plan plans:plan price prices:price product products:product promotion_code quote recipient refund refunds:refund
    released_subscription:subscription reversals:transfer_reversal review schedule:subscription_schedule setup_attempt
    setup_intent shipping_rate source:{_MEANS_OF_PAYMENT} sources:{_MEANS_OF_PAYMENT} source_transaction:charge
    subscription subscription_item subscription_items:subscription_item subscriptions:subscription tax_id
    tax_ids:tax_id tax_rate tax_rates:tax_rate test_clock:test_helpers.test_clock transfer transfers:transfer
"""

_ISSUING: Final = """
    authorization:issuing.authorization card:issuing.card dispute:issuing.dispute token:issuing.token
    transaction:issuing.transaction transactions:issuing.transaction
"""

_OF_TYPE: Final[Mapping[str, str]] = {
    "application_fee": "refunds:fee_refund",
    "balance_transaction": "source:charge|refund|dispute|payout|transfer|topup|application_fee|issuing.transaction",
    "credit_note": "lines:credit_note_line_item",
    "discount": "source:",  # names a coupon, and is no source
    "order": "items:order_item",
    "tax.calculation": "line_items:tax.calculation_line_item",
    "tax.transaction": "line_items:tax.transaction_line_item",
    "token": "card",
    **{name: _ISSUING for name in OBJECT_TYPES if name.startswith("issuing.")},
}
"""Object type → its fields in which something else stands than elsewhere, beside those that `PROTECTED` names."""


def _types(written: str) -> Types:
    return tuple((_MEANS_OF_PAYMENT if written == "source" else written).split("|")) if written else ()


def _references(fields: str) -> dict[str, Types]:
    named = (field.partition(":") for field in fields.split())
    return {name: _types(types if separator else name) for name, separator, types in named}


_GENERAL: Final = _references(_ANYWHERE)

_FIELDS: Final[Mapping[str, Mapping[str, Types]]] = {
    object_type: {
        **_GENERAL,
        **{
            name: _types(below)
            for name, below in PROTECTED.get(object_type, {}).items()
            if isinstance(below, str) and below in OBJECT_TYPES
        },
        **_references(_OF_TYPE.get(object_type, "")),
    }
    for object_type in {*PROTECTED, *_OF_TYPE}
}

_NAMED: Final[Mapping[str, Types]] = {
    **{name: (name,) for name in OBJECT_TYPES},
    **{name.replace(".", "_"): (name,) for name in OBJECT_TYPES if "." in name},
    "source": _types("source"),
}

_EVENT_TYPE_CHARACTERS_MAX: Final = 100


def referred(object_types: Types, field: str) -> Types:
    """What an object in this field, of an object of one of these types, may be."""
    if len(object_types) < 2:  # almost always
        return _FIELDS.get(object_types[0] if object_types else "", _GENERAL).get(field, ())
    # Each name once: in sources within sources they would be many times as many with every level.
    found = (name for object_type in object_types for name in _FIELDS.get(object_type, _GENERAL).get(field, ()))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=1024)
def types_of_event(event_type: str) -> Types:
    """What the object of an event of this type may be: `issuing_card.created` is about an `issuing.card`, or a `card`.

    Empty for what is too long for an event type: that is never read, and splitting it would take long.
    """
    if len(event_type) > _EVENT_TYPE_CHARACTERS_MAX:
        return ()
    resource = re.sub(r"\[.*\]", "", event_type).rpartition(".")[0] or event_type
    parts = re.split(r"[._]", resource)
    names = ["_".join(parts[start:]) for start in range(len(parts))]
    named = [*(_NAMED.get(name, ()) for name in names), *(_GENERAL.get(name, ()) for name in names)]
    return tuple(dict.fromkeys(object_type for types in named for object_type in types))
