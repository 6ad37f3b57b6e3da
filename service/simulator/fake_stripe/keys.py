"""API keys: whose they are, of which mode, and what they may do."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from service.simulator.fake_stripe.refusals import Refusal
from service.simulator.objects import Ids

KeyMode: TypeAlias = Literal["test", "live"]
Permissions: TypeAlias = frozenset[str]

LABELS: Final[Mapping[str, str]] = MappingProxyType({
    "accounts_kyc_basic": "Basic Business Contact Information",
    "charge": "Charges and Refunds",
    "checkout_session": "Checkout Sessions",
    "customer": "Customers",
    "customer_portal": "Customer portal",
    "dispute": "Disputes",
    "event": "Events",
    "invoice": "Invoices",
    "payment_intent": "PaymentIntents",
    "plan": "Prices",
    "product": "Products",
    "refund": "Charges and Refunds",
    "subscription": "Subscriptions",
    "webhook": "Webhook Endpoints, Event Destinations",
})  # fmt: skip
"""What a permission is for → how the dashboard calls it."""
PERMISSIONS: Final = frozenset(f"{resource}_{access}" for resource in LABELS for access in ("read", "write"))
"""Every permission that a restricted key can have here."""
_SHOWN: Final = 6
"""How many of a key's last characters an error message shows."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secret key (`permissions` is None: it may do everything) or a restricted one."""

    value: str = field(repr=False)
    account: str
    livemode: bool
    permissions: Permissions | None = None
    expired: bool = False

    @property
    def mode(self) -> KeyMode:
        """Which objects it sees."""
        return "live" if self.livemode else "test"

    def allows(self, permission: str) -> bool:
        """Whether it may do what needs `permission`; to write is to read."""
        if self.permissions is None:
            return True
        resource, _, access = permission.rpartition("_")
        return permission in self.permissions or (access == "read" and f"{resource}_write" in self.permissions)

    def require(self, permission: str) -> None:
        """Raise Stripe's 403 where the key does not have the permission."""
        if self.allows(permission):
            return
        resource, _, access = permission.rpartition("_")
        raise Refusal(
            403,
            f"Permission denied. The provided key '{masked(self.value)}' does not have the required permissions for"
            f" this endpoint on account '{self.account}'. Enabling {LABELS[resource]} {access.capitalize()}"
            f" ('{permission}') permissions on this key would allow this request to continue. You can edit permissions"
            f" at https://dashboard.stripe.com/b/{self.account}?destination=%2Fapikeys",
            code="more_permissions_required",
        )


class Keys:
    """Every key there is."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._keys: dict[str, Key] = {}

    def new(self, account: str, mode: KeyMode, permissions: Permissions | None) -> str:
        """Make a key. Raises `ValueError` for a permission that there is not."""
        if unknown := (permissions or frozenset()) - PERMISSIONS:
            raise ValueError(f"there is no permission {', '.join(sorted(unknown))}")
        value = self._ids.new(f"{'sk' if permissions is None else 'rk'}_{mode}")
        self._keys[value] = Key(value, account, mode == "live", permissions)
        return value

    def expire(self, value: str) -> None:
        """From now on the key is refused as expired."""
        self._keys[value] = replace(self._keys[value], expired=True)

    def of(self, authorization: str | None) -> Key:
        """The key of a request, by its Authorization header. Raises Stripe's 401."""
        value = _presented(authorization)
        if not value:
            raise Refusal(
                401,
                "You did not provide an API key. You need to provide your API key in the Authorization header, using"
                " Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See"
                " https://stripe.com/docs/api#authentication for details, or we can help at"
                " https://support.stripe.com/.",
                headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
            )
        key = self._keys.get(value)
        if key is None:
            raise Refusal(401, f"Invalid API Key provided: {masked(value)}")
        if key.expired:
            raise Refusal(401, f"Expired API Key provided: {masked(value)}", code="api_key_expired")
        return key


def masked(value: str) -> str:
    """A key as an error message may show it: what kind it is, and its end."""
    kind = "_".join(value.split("_", 2)[:2]) + "_" if value.count("_") >= 2 else ""
    hidden = max(0, len(value) - len(kind) - _SHOWN)
    return kind + "*" * hidden + value[len(kind) + hidden :] if hidden else "*" * len(value)


def _presented(authorization: str | None) -> str:
    scheme, _, value = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("ascii").partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
