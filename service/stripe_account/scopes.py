"""What an API key may be allowed, as Stripe's dashboard calls it, and where a harmless call shows whether it is.

A scope is a resource and an access, such as `webhook_write`. Writing is tried on an id that nothing can have: a path
without an id would make something.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

PROBE: Final = "stripe_ingest_probe"
"""The end of the ids that nothing has."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What scopes are for: its name in the dashboard, its list, and one of it that cannot exist."""

    label: str
    list_path: str
    missing_path: str


def _resource(label: str, path: str, prefix: str, *, action: str = "") -> Resource:
    return Resource(label, f"/v1/{path}", f"/v1/{path}/{prefix}_{PROBE}{action}")


RESOURCES: Final[Mapping[str, Resource]] = MappingProxyType({
    "charge": _resource("Charges and Refunds", "charges", "ch"),
    "checkout_session": _resource("Checkout Sessions", "checkout/sessions", "cs"),
    "customer": _resource("Customers", "customers", "cus"),
    "customer_portal": _resource("Customer portal", "billing_portal/configurations", "bpc"),
    "dispute": _resource("Disputes", "disputes", "dp"),
    # Nothing of an event can be changed: what is written is that it is sent once more.
    "event": _resource("Events", "events", "evt", action="/retry"),
    "invoice": _resource("Invoices", "invoices", "in"),
    "payment_intent": _resource("PaymentIntents", "payment_intents", "pi"),
    "plan": _resource("Prices", "prices", "price"),
    "product": _resource("Products", "products", "prod"),
    "refund": _resource("Charges and Refunds", "refunds", "re"),
    "subscription": _resource("Subscriptions", "subscriptions", "sub"),
    "webhook": _resource("Webhook Endpoints, Event Destinations", "webhook_endpoints", "we"),
})  # fmt: skip
"""By the names that scopes begin with."""

SCOPES: Final = tuple(f"{resource}_{access}" for resource in RESOURCES for access in ("read", "write"))
"""Every scope that is known here."""


def labelled(scope: str) -> str:
    """The scope as people find it in the dashboard: "event_read (Events Read)"; one that is not known, as it is."""
    resource, _, access = scope.rpartition("_")
    return f"{scope} ({RESOURCES[resource].label} {access.capitalize()})" if resource in RESOURCES else scope
