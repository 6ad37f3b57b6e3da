"""Signed deliveries to test with; every part of them can be made wrong."""

from datetime import UTC, datetime

from service.events import Delivery, Endpoint, Secret
from service.signature import sign

SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
SIGNED_AT = 1_763_700_000
NOW = datetime.fromtimestamp(SIGNED_AT, UTC)


def endpoint(*secrets: Secret, name: str = "shop") -> Endpoint:
    """An endpoint with these active secrets; with none given, the default one."""
    return Endpoint(name=name, path=f"/webhooks/{name}", secrets=secrets or (SECRET,))


def delivery(body: bytes, *headers: bytes | str, to: Endpoint | None = None) -> Delivery:
    """A delivery with exactly these Stripe-Signature headers."""
    return Delivery(
        endpoint=to or endpoint(),
        body=body,
        signature_headers=tuple(header.encode() if isinstance(header, str) else header for header in headers),
        received_at=NOW,
    )


def signed_delivery(
    body: bytes, *, to: Endpoint | None = None, secret: Secret = SECRET, signed_at: int = SIGNED_AT
) -> Delivery:
    """A delivery as Stripe sends it."""
    return delivery(body, sign(body, secret, signed_at), to=to)
