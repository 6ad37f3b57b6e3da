from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stripe import WebhookSignature

from service.errors import SignatureRefused
from service.events import Endpoint, Secret
from service.signature import fingerprint, sign, verify
from tests.support.signing import NOW, SECRET, SIGNED_AT, delivery, endpoint, signed_delivery

TOLERANCE = 300

bodies = st.binary(max_size=300)
some_secrets = st.lists(st.text(min_size=1, max_size=40).map(Secret), unique=True, max_size=4)
real_secrets = st.from_regex(r"whsec_[A-Za-z0-9]{16,32}", fullmatch=True).map(Secret)
items = st.one_of(
    st.tuples(
        st.sampled_from(["t", "v1", "v0", " v1", "T", ""]),
        st.sampled_from(["=", "", "=="]),
        st.one_of(
            st.integers().map(str),
            st.sampled_from([str(SIGNED_AT), f"0{SIGNED_AT}", "9" * 5000, "٣", "1e9", "0" * 64, "f" * 64, "é" * 64]),
            st.text(max_size=70),
        ),
    ).map("".join),
    st.text(max_size=20),
)
headers = st.one_of(
    st.binary(max_size=200),
    st.lists(items, max_size=20).map(lambda parts: ",".join(parts).encode("utf-8", "surrogatepass")),
)


@given(
    body=bodies,
    sent=st.lists(headers, max_size=2),
    secrets=some_secrets,
    now=st.datetimes(timezones=st.just(UTC)),
)
@example(
    body=b"", sent=[b"t=" + b"9" * 11 + b",v1=" + b"0" * 64], secrets=[SECRET], now=datetime.max.replace(tzinfo=UTC)
)
def test_whatever_is_sent_nothing_but_a_refusal_comes_out(
    body: bytes, sent: list[bytes], secrets: list[Secret], now: datetime
) -> None:
    to = Endpoint(name="shop", path="/webhooks/shop", secrets=tuple(secrets))

    with pytest.raises(SignatureRefused):
        verify(delivery(body, *sent, to=to), now=now, tolerance_seconds=TOLERANCE)


@given(body=bodies, secret=real_secrets, age=st.integers(-2 * TOLERANCE, 2 * TOLERANCE))
def test_what_is_signed_is_accepted_within_the_tolerance_and_only_there(body: bytes, secret: Secret, age: int) -> None:
    signed = signed_delivery(body, to=endpoint(secret), secret=secret)
    now = NOW + timedelta(seconds=age)

    if abs(age) <= TOLERANCE:
        assert verify(signed, now=now, tolerance_seconds=TOLERANCE).body == body
    else:
        with pytest.raises(SignatureRefused):
            verify(signed, now=now, tolerance_seconds=TOLERANCE)


def flipped(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8) if index == bit // 8 else byte for index, byte in enumerate(data))


@given(body=st.binary(min_size=1, max_size=200), data=st.data())
def test_a_flipped_bit_of_the_body_is_refused(body: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, 8 * len(body) - 1))

    with pytest.raises(SignatureRefused):
        verify(delivery(flipped(body, bit), sign(body, SECRET, SIGNED_AT)), now=NOW, tolerance_seconds=TOLERANCE)


def test_a_flipped_bit_of_the_header_is_refused() -> None:
    header = sign(b"body", SECRET, SIGNED_AT).encode()

    assert is_accepted(header)
    assert not [bit for bit in range(8 * len(header)) if is_accepted(flipped(header, bit))]


def is_accepted(header: bytes) -> bool:
    try:
        return verify(delivery(b"body", header), now=NOW, tolerance_seconds=10**9).body == b"body"
    except SignatureRefused:
        return False


@given(
    body=bodies,
    active=st.lists(real_secrets, min_size=1, max_size=4, unique=True),
    signing=st.lists(real_secrets, min_size=1, max_size=4, unique=True),
)
def test_any_active_secret_times_any_signature_is_enough(
    body: bytes, active: list[Secret], signing: list[Secret]
) -> None:
    first, *others = (sign(body, secret, SIGNED_AT) for secret in signing)
    header = ",".join([first, *(other.partition(",")[2] for other in others)])
    common = [secret for secret in active if secret in signing]

    try:
        verified = verify(delivery(body, header, to=endpoint(*active)), now=NOW, tolerance_seconds=TOLERANCE)
    except SignatureRefused:
        assert not common
    else:
        assert verified.secret_fingerprint == fingerprint(common[0])


# The pieces are drawn so that a good part of the headers is accepted.
near_misses = st.lists(
    st.sampled_from(
        [
            f"t={SIGNED_AT}",
            f"t=0{SIGNED_AT}",
            f"t={SIGNED_AT} ",
            "t=1",
            sign(b"body", SECRET, SIGNED_AT).partition(",")[2],
            sign(b"body", SECRET, 1).partition(",")[2],
            " " + sign(b"body", SECRET, SIGNED_AT).partition(",")[2],
            f"v1={'0' * 64}",
            "v0=0",
            "v1",
            "t",
            "",
            "=",
            "x=y=z",
        ]
    ),
    min_size=1,
    max_size=5,
).map(",".join)


@given(header=near_misses)
@example(header=sign(b"body", SECRET, SIGNED_AT))
@example(header=sign(b"body", SECRET, SIGNED_AT) + ",v1")
def test_whatever_we_accept_stripe_python_accepts_too(header: str) -> None:
    with suppress(SignatureRefused):
        verify(delivery(b"body", header), now=NOW, tolerance_seconds=TOLERANCE)

        assert WebhookSignature.verify_header(b"body", header, SECRET.value)
