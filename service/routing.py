"""Where each of Stripe's event types goes, for people and scripts: what `stripe-ingest events list` shows.

Nothing is decided here: categories, topics and keys are those of the rules that events are routed by.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from service.contract import Category
from service.normalize.event_types import CATALOGUE, SNAPSHOT_TYPES, THIN_TYPES, category_of
from service.normalize.objects import spelled
from service.records import Topics, key_rule

Form: TypeAlias = Literal["snapshot", "thin"]
"""Whether an event carries its object or only names it."""

SUGGESTIONS_MAX: Final = 3

_THIN: Final = re.compile(r"v[12]\.")
_TWIN_PREFIX: Final = "v1."

_OBJECTS: Final[tuple[tuple[str, str], ...]] = (
    ("v2.commerce.product_catalog.imports.", "v2.commerce.product_catalog_import"),
    ("account.external_account.", "bank_account or card"),
    ("application_fee.refund.", "fee_refund"),
    ("customer.subscription.", "subscription"),
    ("account.application.", "application"),
    ("source.transaction.", "source_transaction"),
    # The snapshot carries the alarm, the thin event names what raised it.
    ("v1.billing.alert.", "billing.alert"),
    ("customer.discount.", "discount"),
    ("customer.source.", "card or source"),
    ("customer.tax_id.", "tax_id"),
    ("charge.dispute.", "dispute"),
    ("billing.alert.", "billing.alert_triggered"),
    ("charge.refund.", "refund"),
    ("sigma.", "scheduled_query_run"),
)
"""Prefix of an event type → its object, where that is not what stands before the last dot."""

_MISNOMERS: Final[Mapping[str, tuple[str, ...]]] = {
    "charge.created": ("charge.succeeded", "charge.pending"),
    "charge.dispute.lost": ("charge.dispute.closed",),
    "charge.dispute.won": ("charge.dispute.closed",),
    "charge.disputed": ("charge.dispute.created",),
    "charge.refund.created": ("refund.created",),
    "charge.refund.failed": ("refund.failed",),
    "checkout.session.canceled": ("checkout.session.expired",),
    "checkout.session.created": ("checkout.session.completed",),
    "checkout_sessions.completed": ("checkout.session.completed",),
    "customer.subscription.canceled": ("customer.subscription.deleted",),
    "customer.subscription.cancelled": ("customer.subscription.deleted",),
    "customer.subscription.expired": ("customer.subscription.deleted",),
    "customer.subscription.renewed": ("invoice.paid", "customer.subscription.updated"),
    "invoice.payment.failed": ("invoice.payment_failed",),
    "invoice.payment.paid": ("invoice_payment.paid", "invoice.paid"),
    "invoice.payment_paid": ("invoice_payment.paid", "invoice.paid"),
    "invoice_payment.failed": ("invoice.payment_failed",),
    "invoiceitem.updated": (),
    "payment_intent.failed": ("payment_intent.payment_failed",),
    "payment_intent.requires_capture": ("payment_intent.amount_capturable_updated",),
    "payment_intent.requires_confirmation": ("payment_intent.created",),
    "payment_intent.requires_payment_method": ("payment_intent.payment_failed",),
    "payment_intent.updated": ("payment_intent.processing", "payment_intent.succeeded"),
    "payment_method.card_automatically_updated": ("payment_method.automatically_updated",),
    "ping": ("v2.core.event_destination.ping",),
    "refund.succeeded": ("refund.updated",),
    "subscription.created": ("customer.subscription.created",),
    "subscription.deleted": ("customer.subscription.deleted",),
    "subscription.updated": ("customer.subscription.updated",),
}
"""Names that are often used and never sent → those that say what was meant; some have none."""


@dataclass(frozen=True, slots=True)
class EventRoute:
    """One event type's way.

    `key` is its record's key in words. `twin` is the type of the other form that tells the same fact. An unlisted type
    goes its way all the same, about whatever object it has; `suggestions` are the listed ones that may have been meant.
    """

    event_type: str
    form: Form
    category: Category
    topic: str
    key: str
    object_type: str | None
    twin: str | None
    listed: bool
    suggestions: tuple[str, ...]

    def columns(self) -> tuple[str, ...]:
        """The route as a line of words."""
        return (
            self.event_type,
            self.form,
            self.category,
            self.topic,
            self.key,
            self.object_type or "-",
            self.twin or "-",
            "listed" if self.listed else "unlisted",
        )


def route(event_type: str, topics: Topics) -> EventRoute:
    """The way of an event type, listed or not."""
    category = category_of(event_type)
    listed = event_type in CATALOGUE
    return EventRoute(
        event_type=event_type,
        form=_form(event_type),
        category=category,
        topic=topics.of(category),
        key=key_rule(category),
        object_type=object_of(event_type) if listed else None,
        twin=_twin(event_type),
        listed=listed,
        suggestions=suggestions(event_type),
    )


def routes(topics: Topics) -> Iterator[EventRoute]:
    """The way of every event type of the catalogue, snapshot events first."""
    return (route(event_type, topics) for event_type in (*SNAPSHOT_TYPES, *THIN_TYPES))


def object_of(event_type: str) -> str:
    """The type of the object that an event is about, as its record has it where the event carries or names one."""
    # A part of the object in brackets: v2.core.account[requirements].updated.
    name = re.sub(r"\[.*?\]", "", event_type.removeprefix(_TWIN_PREFIX))
    for prefix, object_type in _OBJECTS:
        if event_type.startswith(prefix) or name.startswith(prefix):
            return object_type
    resource = name.rpartition(".")[0] or name
    return spelled(resource.replace("issuing_", "issuing.", 1))


def _form(event_type: str) -> Form:
    return "thin" if _THIN.match(event_type) else "snapshot"


def _twin(event_type: str) -> str | None:
    other = event_type.removeprefix(_TWIN_PREFIX) if _form(event_type) == "thin" else f"{_TWIN_PREFIX}{event_type}"
    return other if other != event_type and {event_type, other} <= CATALOGUE else None


def suggestions(event_type: str) -> tuple[str, ...]:
    """The listed event types that may have been meant by an unlisted one, the likeliest first."""
    if event_type in CATALOGUE:
        return ()
    if event_type in _MISNOMERS:
        return _MISNOMERS[event_type]
    return tuple(difflib.get_close_matches(event_type, _candidates(_form(event_type)), n=SUGGESTIONS_MAX, cutoff=0.8))


@cache
def _candidates(form: Form) -> tuple[str, ...]:
    """What may be meant by a name of this form: its own types, and those of the other form that have no twin in it."""
    return tuple(each for each in (*SNAPSHOT_TYPES, *THIN_TYPES) if _form(each) == form or _twin(each) is None)


def advice(event_type: str) -> str:
    """What to tell somebody who named an unlisted event type."""
    meant = suggestions(event_type)
    return "is no event type of Stripe's that this version knows" + (f"; is it {' or '.join(meant)}?" if meant else "")
