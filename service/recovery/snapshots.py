"""What a read of Stripe gives, as a record like any other: an event of our own that says what an object was like.

Its id is `snapshot:<object id>:<as_of>`, its type `<object>.snapshot`, its `created` the moment `as_of`: what was read
is not older than that. So it wins over all events before that second, and loses to those in it or later, which may tell
of something that the read has not seen.
"""

from typing import Final

import msgspec

from service.events import Endpoint, TrustedEvent
from service.ports import Clock, StripeList, StripeObject

LISTS: Final[dict[str, StripeList]] = {
    "product": "products",
    "price": "prices",
    "plan": "prices",
    "customer": "customers",
    "subscription": "subscriptions",
    "payment_intent": "payment_intents",
    "charge": "charges",
    "refund": "refunds",
    "invoice": "invoices",
    "dispute": "disputes",
    "checkout_session": "checkout_sessions",
    "invoice_payment": "invoice_payments",
}
"""Object type, as in the contract → the list of Stripe's API that it can be read from."""


class _Envelope(msgspec.Struct):
    """In Stripe's order of fields. `livemode` is the key's: a refund does not say its own."""

    id: str
    api_version: str | None
    created: int
    data: dict[str, msgspec.Raw]
    livemode: bool
    type: str
    object: str = "event"
    pending_webhooks: int = 0
    request: None = None


class _Named(msgspec.Struct):
    object: str = ""
    deleted: bool = False


def is_deleted(read: StripeObject) -> bool:
    """Whether the object is no more: Stripe then says its id, and nothing of what it was."""
    try:
        return msgspec.json.decode(read.body, type=_Named).deleted
    except msgspec.DecodeError:
        return False


def snapshot(read: StripeObject, endpoint: Endpoint, *, livemode: bool, clock: Clock) -> TrustedEvent:
    """An object's state as an event of the endpoint's account."""
    as_of = int(read.as_of.timestamp())
    try:
        name = msgspec.json.decode(read.body, type=_Named).object.replace(".", "_")
    except msgspec.DecodeError:
        name = ""  # `normalize` says what is wrong with it
    envelope = _Envelope(
        id=f"snapshot:{read.id}:{as_of}",
        api_version=read.api_version,
        created=as_of,
        data={"object": msgspec.Raw(read.body)},
        livemode=livemode,
        type=f"{name}.snapshot",
    )
    return TrustedEvent(endpoint, msgspec.json.encode(envelope), clock.now())
