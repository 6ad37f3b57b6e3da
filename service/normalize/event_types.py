"""Which family an event belongs to: the one table that decides its topic."""

from functools import lru_cache
from typing import Final

from service.contract import Category

ROUTES: Final[tuple[tuple[str, Category], ...]] = (
    ("customer.subscription.", "subscription"),
    ("checkout.session.", "payment"),
    ("invoice_payment.", "payment"),
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
"""Prefix of the event type → category. The longest prefix wins; whatever has none is `other`."""

_LONGEST_FIRST: Final = tuple(sorted(ROUTES, key=lambda route: len(route[0]), reverse=True))


@lru_cache(maxsize=1024)
def category_of(event_type: str) -> Category:
    """The category of an event type, known or not: `other` takes what no family claims."""
    for prefix, category in _LONGEST_FIRST:
        if event_type.startswith(prefix):
            return category
    return "other"
