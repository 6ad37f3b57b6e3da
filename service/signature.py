"""Stripe's signature: the only way from bytes that anybody may have sent to a `VerifiedEvent`.

`Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>…][,v0=<hex>]`, where each v1 is the HMAC-SHA256, under one of
the endpoint's active secrets, of `<t>.<body>`. Every other scheme is ignored: v0 is a decoy of test mode, and taking
a weaker one would be a downgrade. All of it is done on bytes, before anything is decoded or parsed.

Nothing but a `SignatureRefused` comes out of `verify`, whatever was sent.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from service.errors import SignatureMalformed, SignatureMismatch, SignatureMissing, TimestampOutsideTolerance
from service.events import Delivery, Secret, VerifiedEvent

HEADER_BYTES_MAX: Final = 4096
SIGNATURES_MAX: Final = 16
"""Stripe sends one v1 per active secret: two while a secret is being rolled."""

FINGERPRINT_DIGITS: Final = 12

# Stripe's own library reads t with int() and signs it rendered anew, so that "007", "+7" and "7" are one to it. Here
# the signed bytes are the sent bytes, and the form that Stripe sends is the only one there is. 11 digits reach the year
# 5138, which datetime still knows.
_TIMESTAMP: Final = re.compile(rb"0|[1-9][0-9]{0,10}")
_SCHEMES: Final = (b"t", b"v1")
_SIGNATURE: Final = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _SigningKey:
    """A secret made ready for use: its HMAC key, and the name under which metrics may show it."""

    key: bytes = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _SignatureHeader:
    """A well-formed header: the timestamp as it was sent, and every well-formed v1."""

    timestamp: bytes
    signatures: tuple[bytes, ...]


def verify(delivery: Delivery, *, now: datetime, tolerance_seconds: int) -> VerifiedEvent:
    """Show that Stripe signed this body for this endpoint, at most `tolerance_seconds` before or after `now`.

    Raises `SignatureMissing`, `SignatureMalformed`, `SignatureMismatch` or `TimestampOutsideTolerance`.
    """
    header = _parse(_only_header(delivery.signature_headers))
    fingerprint = _matching_fingerprint(header, delivery.body, delivery.endpoint.secrets)
    # Last of all: what an unsigned timestamp says is nobody's business, and "too old" would tell a forger nothing true.
    signed_at = _within_tolerance(int(header.timestamp), now, tolerance_seconds)
    return VerifiedEvent(
        endpoint=delivery.endpoint,
        body=delivery.body,
        received_at=delivery.received_at,
        signed_at=signed_at,
        secret_fingerprint=fingerprint,
    )


def sign(body: bytes, secret: Secret, timestamp: int) -> str:
    """Make the header that Stripe would send with `body`, signed at `timestamp` (Unix seconds)."""
    signature = _signature(secret.value.encode(), b"%d.%b" % (timestamp, body))
    return f"t={timestamp},v1={signature.decode()}"


def fingerprint(secret: Secret) -> str:
    """Name a secret without telling it: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(secret.value.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def _only_header(headers: tuple[bytes, ...]) -> bytes:
    if not headers:
        raise SignatureMissing("there is no Stripe-Signature header")
    if len(headers) > 1:
        # Which of them a proxy in front of us has looked at cannot be known.
        raise SignatureMalformed("there is more than one Stripe-Signature header")
    return headers[0]


def _parse(header: bytes) -> _SignatureHeader:
    if len(header) > HEADER_BYTES_MAX:
        raise SignatureMalformed(f"the Stripe-Signature header is longer than {HEADER_BYTES_MAX} bytes")
    timestamp: bytes | None = None
    signatures: list[bytes] = []
    for item in header.split(b","):
        scheme, equals, value = item.partition(b"=")
        if scheme in _SCHEMES and not equals:
            raise SignatureMalformed("the Stripe-Signature header has an item without a value")
        if scheme == b"v1":
            signatures.append(value)
        elif scheme == b"t" and timestamp is None:
            timestamp = value
    if timestamp is None or not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureMalformed("the Stripe-Signature header has no timestamp t=<seconds>")
    if len(signatures) > SIGNATURES_MAX:
        raise SignatureMalformed(f"the Stripe-Signature header has more than {SIGNATURES_MAX} signatures")
    well_formed = tuple(signature for signature in signatures if _SIGNATURE.fullmatch(signature))
    if not well_formed:
        raise SignatureMalformed("the Stripe-Signature header has no signature v1=<64 lower-case hex digits>")
    return _SignatureHeader(timestamp, well_formed)


def _matching_fingerprint(header: _SignatureHeader, body: bytes, secrets: tuple[Secret, ...]) -> str:
    payload = header.timestamp + b"." + body
    matching: str | None = None
    # No early exit: the time taken depends on how many secrets and signatures there are, never on which of them match.
    # The first secret in the endpoint's order is the one that is told: while one is being rolled, that is the newest.
    for signing_key in _signing_keys(secrets):
        expected = _signature(signing_key.key, payload)
        for signature in header.signatures:
            if hmac.compare_digest(expected, signature):
                matching = matching or signing_key.fingerprint
    if matching is None:
        raise SignatureMismatch("no active secret of the endpoint made this signature over this body")
    return matching


def _within_tolerance(timestamp: int, now: datetime, tolerance_seconds: int) -> datetime:
    age_seconds = now.timestamp() - timestamp
    if abs(age_seconds) > tolerance_seconds:
        side = "ago" if age_seconds > 0 else "in the future"
        raise TimestampOutsideTolerance(
            f"signed {abs(age_seconds):.0f} s {side}; the tolerance is {tolerance_seconds} s",
            skew_seconds=-age_seconds,
        )
    return datetime.fromtimestamp(timestamp, UTC)


def _signature(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha256").hex().encode()


@lru_cache(maxsize=1024)
def _signing_keys(secrets: tuple[Secret, ...]) -> tuple[_SigningKey, ...]:
    # A blank secret is an HMAC key that everybody knows: it verifies nothing, as if it were not there.
    return tuple(_SigningKey(secret.value.encode(), fingerprint(secret)) for secret in secrets if secret.value.strip())
