"""Stripe's event types: the one table that decides an event's topic, and the catalogue of those that exist.

The catalogue has the API versions too, in which a webhook endpoint can have its events rendered.

An event is routed by rule, in the catalogue or not: Stripe adds types all the time, and what a new one is about is in
its name. The catalogue says which are news to this version.
"""

from functools import lru_cache
from importlib.resources import files
from typing import Final

from service.contract import Category

ROUTES: Final[tuple[tuple[str, Category], ...]] = (
    ("customer.subscription.", "subscription"),
    # A snapshot of ours is named after its object alone, which these three of Stripe's event types are not.
    ("checkout_session.snapshot", "payment"),
    ("subscription.snapshot", "subscription"),
    ("checkout.session.", "payment"),
    ("invoice_payment.", "payment"),
    ("dispute.snapshot", "payment"),
    ("charge.refunded", "refund"),
    ("payment_intent.", "payment"),
    ("charge.refund.", "refund"),
    ("customer.", "customer"),
    ("invoice.", "subscription"),
    ("product.", "catalog"),
    ("charge.", "payment"),
    ("refund.", "refund"),
    ("price.", "catalog"),
    ("plan.", "catalog"),
)
"""Prefix of the event type → category. The longest prefix wins; whatever has none is `other`, all thin events too."""

_LONGEST_FIRST: Final = tuple(sorted(ROUTES, key=lambda route: len(route[0]), reverse=True))

PING: Final = "v2.core.event_destination.ping"
"""What Stripe sends when somebody asks it to try a destination."""


def _catalogue(form: str) -> tuple[str, ...]:
    text = files("service.normalize").joinpath("catalogue", f"{form}.txt").read_text(encoding="ascii")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


SNAPSHOT_TYPES: Final = _catalogue("snapshot")
"""Stripe's types of events that carry their object, in alphabetical order."""

THIN_TYPES: Final = _catalogue("thin")
"""Stripe's types of events that only name their object, in alphabetical order."""

CATALOGUE: Final = frozenset((*SNAPSHOT_TYPES, *THIN_TYPES))
"""Every event type that Stripe is known to have."""

API_VERSIONS: Final = _catalogue("api_versions")
"""The API versions that Stripe makes webhook endpoints with, the oldest first."""

NEWEST_API_VERSION: Final = API_VERSIONS[-1]
"""The newest that this release knows."""


@lru_cache(maxsize=1024)
def category_of(event_type: str) -> Category:
    """The category of an event type, known or not: `other` takes what no family claims."""
    for prefix, category in _LONGEST_FIRST:
        if event_type.startswith(prefix):
            return category
    return "other"
