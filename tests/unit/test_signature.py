import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from stripe import SignatureVerificationError, WebhookSignature

from service.errors import (
    SignatureMalformed,
    SignatureMismatch,
    SignatureMissing,
    SignatureRefused,
    TimestampOutsideTolerance,
)
from service.events import Endpoint, Secret
from service.signature import HEADER_BYTES_MAX, SIGNATURES_MAX, fingerprint, sign, verify
from tests.support.signing import NOW, SECRET, SIGNED_AT, delivery, endpoint, signed_delivery

BODY: Final = '{"id": "evt_1", "object": "event", "amount": "12 €"}'.encode()
OTHER: Final = Secret("whsec_the_one_after_rolling")
TOLERANCE: Final = 300

ACCEPTED: Final = "accepted"
REFUSED: Final = "SignatureVerificationError"


def v1(body: bytes = BODY, *, t: str = str(SIGNED_AT), secret: str = SECRET.value) -> str:
    """The signature as Stripe defines it, made without the code under test."""
    return hmac.new(secret.encode(), t.encode() + b"." + body, hashlib.sha256).hexdigest()


def t(age_seconds: int = 0) -> str:
    return str(SIGNED_AT - age_seconds)


def signed(age_seconds: int) -> str:
    return f"t={t(age_seconds)},v1={v1(t=t(age_seconds))}"


@dataclass(frozen=True)
class Vector:
    """One header (and body, and secret), and what each library makes of it."""

    name: str
    header: str
    ours: str
    stripes: str
    body: bytes = BODY
    secret: str = SECRET.value


NUL: Final = b"a\0b"
NOT_UTF_8: Final = b"\xff"
GOOD: Final = f"t={t()},v1={v1()}"
BAD: Final = "0" * 64

SAME: Final = [
    Vector("signed now", GOOD, ACCEPTED, ACCEPTED),
    Vector("signed 300 s ago", signed(300), ACCEPTED, ACCEPTED),
    Vector("signed 301 s ago", signed(301), "timestamp_outside_tolerance", REFUSED),
    Vector("signed 299 s in the future", signed(-299), ACCEPTED, ACCEPTED),
    Vector("signed a year ago", signed(31_536_000), "timestamp_outside_tolerance", REFUSED),
    Vector("t = 0", f"t=0,v1={v1(t='0')}", "timestamp_outside_tolerance", REFUSED),
    Vector("v1 before t", f"v1={v1()},t={t()}", ACCEPTED, ACCEPTED),
    Vector("the second v1 is the one", f"t={t()},v1={BAD},v1={v1()}", ACCEPTED, ACCEPTED),
    Vector("the first v1 is the one", f"t={t()},v1={v1()},v1={BAD}", ACCEPTED, ACCEPTED),
    Vector("an ill-formed v1 beside the one", f"t={t()},v1=zz,v1={v1()}", ACCEPTED, ACCEPTED),
    Vector("a v0 beside it", f"t={t()},v1={v1()},v0={BAD}", ACCEPTED, ACCEPTED),
    Vector("an unknown scheme beside it", f"t={t()},v2=x,v1={v1()}", ACCEPTED, ACCEPTED),
    Vector("items that are nothing", f",,x,t={t()},=,v1={v1()},", ACCEPTED, ACCEPTED),
    Vector("two t, the first is signed", f"t={t()},t=1,v1={v1()}", ACCEPTED, ACCEPTED),
    Vector("two t, the second is signed", f"t=1,t={t()},v1={v1()}", "signature_mismatch", REFUSED),
    Vector("two t, the first is no number", f"t=x,t={t()},v1={v1()}", "signature_malformed", REFUSED),
    Vector("an empty body", f"t={t()},v1={v1(b'')}", ACCEPTED, ACCEPTED, body=b""),
    Vector("a body that is not JSON", f"t={t()},v1={v1(b'[] x')}", ACCEPTED, ACCEPTED, body=b"[] x"),
    Vector("a body with a NUL", f"t={t()},v1={v1(NUL)}", ACCEPTED, ACCEPTED, body=NUL),
    Vector("only a v0", f"t={t()},v0={v1()}", "signature_malformed", REFUSED),
    Vector("v1's value under a later scheme", f"t={t()},v2={v1()}", "signature_malformed", REFUSED),
    Vector("another body", GOOD, "signature_mismatch", REFUSED, body=BODY + b" "),
    Vector("another secret", GOOD, "signature_mismatch", REFUSED, secret=OTHER.value),
    Vector("a secret with a trailing newline", GOOD, "signature_mismatch", REFUSED, secret=SECRET.value + "\n"),
    Vector("signed over the body alone", f"t={t()},v1={v1(t='')}", "signature_mismatch", REFUSED),
    Vector("an empty header", "", "signature_malformed", REFUSED),
    Vector("a blank header", "  ", "signature_malformed", REFUSED),
    Vector("a header of something else", "Bearer abc", "signature_malformed", REFUSED),
    Vector("no t", f"v1={v1()}", "signature_malformed", REFUSED),
    Vector("no v1", f"t={t()}", "signature_malformed", REFUSED),
    Vector("t without a value", f"t,v1={v1()}", "signature_malformed", REFUSED),
    Vector("t with an empty value", f"t=,v1={v1(t='')}", "signature_malformed", REFUSED),
    Vector("v1 without a value", f"t={t()},v1", "signature_malformed", REFUSED),
    Vector("a v1 without a value beside the one", f"{GOOD},v1", "signature_malformed", REFUSED),
    Vector("a second t without a value", f"{GOOD},t", "signature_malformed", REFUSED),
    Vector("a second t with an empty value", f"{GOOD},t=", ACCEPTED, ACCEPTED),
    Vector("v1 with an empty value", f"t={t()},v1=", "signature_malformed", REFUSED),
    Vector("t is a fraction", f"t={t()}.0,v1={v1()}", "signature_malformed", REFUSED),
    Vector("t of 5000 digits", f"t={'9' * 5000},v1={v1()}", "signature_malformed", REFUSED),
    Vector("t with a leading zero, signed so", f"t=0{t()},v1={v1(t='0' + t())}", "signature_malformed", REFUSED),
    Vector("upper-case hex", f"t={t()},v1={v1().upper()}", "signature_malformed", REFUSED),
    Vector("upper-case schemes", f"T={t()},V1={v1()}", "signature_malformed", REFUSED),
    Vector("a signature cut short", f"t={t()},v1={v1()[:63]}", "signature_malformed", REFUSED),
    Vector("a signature and a digit more", f"t={t()},v1={v1()}0", "signature_malformed", REFUSED),
    Vector("a space after the comma", f"t={t()}, v1={v1()}", "signature_malformed", REFUSED),
    Vector("a space before t", f" t={t()},v1={v1()}", "signature_malformed", REFUSED),
    Vector("a space after the signature", f"t={t()},v1={v1()} ", "signature_malformed", REFUSED),
    Vector("semicolons", f"t={t()};v1={v1()}", "signature_malformed", REFUSED),
    Vector("quotes", f't="{t()}",v1="{v1()}"', "signature_malformed", REFUSED),
    Vector("an empty secret", f"t={t()},v1={v1(secret='')}", "signature_mismatch", REFUSED, secret=""),
    Vector("a blank secret", f"t={t()},v1={v1(secret=' ')}", "signature_mismatch", REFUSED, secret=" "),
]

DIFFERENT: Final = [
    # stripe-python lets the future pass: whoever once gets a signature dated far ahead can replay it until then.
    Vector("signed 301 s in the future", signed(-301), "timestamp_outside_tolerance", ACCEPTED),
    Vector("signed a day in the future", signed(-86_400), "timestamp_outside_tolerance", ACCEPTED),
    Vector(
        "signed in the year 5138",
        f"t={'9' * 11},v1={v1(t='9' * 11)}",
        "timestamp_outside_tolerance",
        ACCEPTED,
    ),
    Vector("signed in the year 33658", f"t={'9' * 12},v1={v1(t='9' * 12)}", "signature_malformed", ACCEPTED),
    # It reads t with int() and signs it rendered anew: bytes that Stripe has never sent.
    Vector("a leading zero, signed without", f"t=0{t()},v1={v1()}", "signature_malformed", ACCEPTED),
    Vector("a plus sign", f"t=+{t()},v1={v1()}", "signature_malformed", ACCEPTED),
    Vector("a space in front of the number", f"t= {t()},v1={v1()}", "signature_malformed", ACCEPTED),
    Vector("an underscore", f"t={t()[:3]}_{t()[3:]},v1={v1()}", "signature_malformed", ACCEPTED),
    Vector(
        "Arabic digits",
        f"t={t().translate({ord(str(n)): 0x660 + n for n in range(10)})},v1={v1()}",
        "signature_malformed",
        ACCEPTED,
    ),
    # It splits an item at its first two "=" and forgets the rest.
    Vector("something after the signature", f"t={t()},v1={v1()}=x", "signature_malformed", ACCEPTED),
    Vector("something after t", f"t={t()}=x,v1={v1()}", "signature_malformed", ACCEPTED),
    # It has no bounds.
    Vector("more v1 than any rolling makes", f"t={t()}{f',v1={BAD}' * 16},v1={v1()}", "signature_malformed", ACCEPTED),
    Vector("a header of 5 KB", f"{GOOD},v0={'0' * 5000}", "signature_malformed", ACCEPTED),
    # It leaks what is not a SignatureVerificationError, so that an attacker's request becomes a 500.
    Vector("a v1 that is not ASCII", f"t={t()},v1=é", "signature_malformed", "TypeError"),
    Vector("a body that is not UTF-8", f"t={t()},v1={v1(NOT_UTF_8)}", ACCEPTED, "UnicodeDecodeError", body=NOT_UTF_8),
    Vector("such a body, unsigned", GOOD, "signature_mismatch", "UnicodeDecodeError", body=NOT_UTF_8),
]


def our_verdict(vector: Vector) -> str:
    to = Endpoint(name="shop", path="/webhooks/shop", secrets=(Secret(vector.secret),))
    try:
        verify(delivery(vector.body, vector.header, to=to), now=NOW, tolerance_seconds=TOLERANCE)
    except SignatureRefused as refusal:
        return refusal.tag
    return ACCEPTED


def stripes_verdict(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("stripe._webhook.time.time", lambda: float(SIGNED_AT))
    try:
        WebhookSignature.verify_header(vector.body, vector.header, vector.secret, TOLERANCE)
    except (SignatureVerificationError, TypeError, UnicodeDecodeError) as error:
        return type(error).__name__
    return ACCEPTED


@pytest.mark.parametrize("vector", SAME, ids=lambda vector: vector.name)
def test_the_verdict_is_that_of_stripe_python(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    assert our_verdict(vector) == vector.ours
    assert stripes_verdict(vector, monkeypatch) == vector.stripes
    assert (vector.ours == ACCEPTED) == (vector.stripes == ACCEPTED)


@pytest.mark.parametrize("vector", DIFFERENT, ids=lambda vector: vector.name)
def test_the_verdict_differs_from_stripe_python_on_purpose(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    assert our_verdict(vector) == vector.ours
    assert stripes_verdict(vector, monkeypatch) == vector.stripes
    assert (vector.ours == ACCEPTED) != (vector.stripes == ACCEPTED) or vector.stripes not in {ACCEPTED, REFUSED}


def test_a_verified_event_says_what_was_signed_when_and_with_which_secret() -> None:
    verified = verify(signed_delivery(BODY), now=NOW + timedelta(seconds=7), tolerance_seconds=TOLERANCE)

    assert verified.body == BODY
    assert verified.endpoint == endpoint()
    assert verified.received_at == NOW
    assert verified.signed_at == datetime.fromtimestamp(SIGNED_AT, UTC)
    assert verified.secret_fingerprint == hashlib.sha256(SECRET.value.encode()).hexdigest()[:12]


def test_our_header_is_the_one_that_stripe_python_makes() -> None:
    theirs = WebhookSignature.generate_signature_header(BODY.decode(), SECRET.value, SIGNED_AT)

    assert sign(BODY, SECRET, SIGNED_AT) == theirs


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_while_a_secret_is_rolled_either_verifies_and_the_fingerprint_says_which(secret: Secret) -> None:
    rolling = endpoint(SECRET, OTHER)

    verified = verify(signed_delivery(BODY, to=rolling, secret=secret), now=NOW, tolerance_seconds=TOLERANCE)

    assert verified.secret_fingerprint == fingerprint(secret)


@pytest.mark.parametrize("active", [SECRET, OTHER])
def test_a_header_signed_with_both_secrets_verifies_before_during_and_after_the_rolling(active: Secret) -> None:
    both = f"t={t()},v1={v1()},v1={v1(secret=OTHER.value)}"

    verified = verify(delivery(BODY, both, to=endpoint(active)), now=NOW, tolerance_seconds=TOLERANCE)

    assert verified.secret_fingerprint == fingerprint(active)


@pytest.mark.parametrize("active", [(SECRET, OTHER), (OTHER, SECRET)])
@pytest.mark.parametrize("signed_with", [(SECRET, OTHER), (OTHER, SECRET)])
def test_of_several_secrets_that_signed_it_the_first_active_one_is_told(
    active: tuple[Secret, ...], signed_with: tuple[Secret, ...]
) -> None:
    header = f"t={t()}" + "".join(f",v1={v1(secret=secret.value)}" for secret in signed_with)

    verified = verify(delivery(BODY, header, to=endpoint(*active)), now=NOW, tolerance_seconds=TOLERANCE)

    assert verified.secret_fingerprint == fingerprint(active[0])


def test_a_secret_that_is_no_longer_active_is_refused() -> None:
    with pytest.raises(SignatureMismatch):
        verify(signed_delivery(BODY, to=endpoint(OTHER)), now=NOW, tolerance_seconds=TOLERANCE)


def test_an_endpoint_without_secrets_verifies_nothing() -> None:
    none = Endpoint(name="shop", path="/webhooks/shop", secrets=())

    with pytest.raises(SignatureMismatch):
        verify(signed_delivery(BODY, to=none), now=NOW, tolerance_seconds=TOLERANCE)


def test_no_header_is_missing() -> None:
    with pytest.raises(SignatureMissing):
        verify(delivery(BODY), now=NOW, tolerance_seconds=TOLERANCE)


def test_two_headers_are_malformed_although_both_are_right() -> None:
    with pytest.raises(SignatureMalformed):
        verify(delivery(BODY, GOOD, GOOD), now=NOW, tolerance_seconds=TOLERANCE)


def test_the_bounds_themselves_are_within() -> None:
    longest = f"{GOOD},v0=".ljust(HEADER_BYTES_MAX, "0")
    most = f"t={t()}{f',v1={BAD}' * (SIGNATURES_MAX - 1)},v1={v1()}"

    for header in (longest, most):
        assert verify(delivery(BODY, header), now=NOW, tolerance_seconds=TOLERANCE).body == BODY
    with pytest.raises(SignatureMalformed):
        verify(delivery(BODY, longest + "0"), now=NOW, tolerance_seconds=TOLERANCE)


@pytest.mark.parametrize("side", [-1, 1])
def test_the_tolerance_is_inclusive_on_both_sides_and_not_a_microsecond_more(side: int) -> None:
    edge = NOW + side * timedelta(seconds=TOLERANCE)

    verify(signed_delivery(BODY), now=edge, tolerance_seconds=TOLERANCE)
    with pytest.raises(TimestampOutsideTolerance) as refused:
        verify(signed_delivery(BODY), now=edge + side * timedelta(microseconds=1), tolerance_seconds=TOLERANCE)
    assert refused.value.skew_seconds == pytest.approx(-side * TOLERANCE, abs=0.01)


def test_a_forged_stale_header_is_a_mismatch_so_that_the_timestamp_is_checked_after_the_signature() -> None:
    with pytest.raises(SignatureMismatch):
        verify(delivery(BODY, f"t=1,v1={BAD}"), now=NOW, tolerance_seconds=TOLERANCE)


def test_every_secret_is_compared_with_every_signature_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare_digest = hmac.compare_digest

    def spy(expected: bytes, sent: bytes) -> bool:
        compared.append((expected, sent))
        return compare_digest(expected, sent)

    monkeypatch.setattr("service.signature.hmac.compare_digest", spy)
    to = endpoint(SECRET, OTHER)
    for first, second in [(v1(), BAD), (BAD, v1()), (v1(secret=OTHER.value), v1())]:
        compared.clear()
        verify(delivery(BODY, f"t={t()},v1={first},v1={second}", to=to), now=NOW, tolerance_seconds=TOLERANCE)

        assert compared == [
            (own.encode(), sent.encode()) for own in (v1(), v1(secret=OTHER.value)) for sent in (first, second)
        ]


@pytest.mark.parametrize("vector", [v for v in (*SAME, *DIFFERENT) if v.ours != ACCEPTED], ids=lambda v: v.name)
def test_a_refusal_tells_nothing_of_what_was_sent_or_expected(vector: Vector) -> None:
    to = Endpoint(name="shop", path="/webhooks/shop", secrets=(Secret(vector.secret),))

    with pytest.raises(SignatureRefused) as refusal:
        verify(delivery(vector.body, vector.header, to=to), now=NOW, tolerance_seconds=TOLERANCE)

    for telling in (v1(), "evt_1", "whsec", BAD):
        assert telling not in str(refusal.value)
