"""One delivery through the whole pure path, and everything that must hold of it, whatever its bytes were.

verify → normalize → encode (or quarantine) → decode → every projection's observe, links, fold and rows.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from service import contract
from service.contract import DATA_TYPES, Data, Event, Other
from service.errors import SignatureRefused
from service.events import (
    ConsumedEvent,
    ConsumedRecord,
    Delivery,
    Endpoint,
    InvalidRecord,
    Partition,
    QuarantineReason,
    Record,
    Secret,
    Unprocessable,
    VerifiedEvent,
)
from service.normalize import normalize
from service.projections import PROJECTIONS
from service.projections.model import ObjectKey, Observation
from service.projections.ordering import fold
from service.records import HEADROOM_BYTES, Topics, dead_letter, decode, encode, quarantine, topic_configs
from service.redaction import Redaction
from service.signature import sign, verify

SECRET: Final = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
SIGNED_AT: Final = 1_763_700_000
NOW: Final = datetime.fromtimestamp(SIGNED_AT, UTC)
TOLERANCE_SECONDS: Final = 300
TRACEPARENT: Final = f"00-{'0' * 31}1-{'0' * 15}1-01"

ENDPOINTS: Final = (
    Endpoint("shop", "/webhooks/shop", (SECRET,)),
    Endpoint("live", "/webhooks/live", (SECRET,), mode="live", account="acct_1"),
    Endpoint("connect", "/webhooks/connect", (SECRET,), mode="test", account="acct_1", connect=True),
)

BODY_BYTES_MAX: Final = 3 * 1024 * 1024
"""The most that `max_body_bytes` may be set to."""
TOPICS: Final = Topics("stripe")
LIMITS: Final = {
    topic: config["max.message.bytes"] for topic, config in topic_configs(TOPICS, max_body_bytes=BODY_BYTES_MAX).items()
}
RECORD_OVERHEAD_BYTES: Final = 128
"""More than Kafka adds to a batch of one record."""

KEY_BYTES_MAX: Final = 2000
"""500 characters of an id: below what Postgres can index, and far below what a key may be."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_NOT_IN_AN_ATTRIBUTE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""What CloudEvents forbids in a string attribute."""
_URI_REFERENCE: Final = re.compile(r"[A-Za-z0-9\-._~:/?#@!$&'()*+,;=%]+")
_JSON_SPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery. `cpu_ns` is the process CPU time of the path alone, without the checks.

    `unstorable` says that a text of the event holds a NUL: Postgres refuses such a row, and it is dead-lettered.
    """

    kind: str
    detail: str
    cpu_ns: int
    unstorable: bool = False


def signed(body: bytes, to: Endpoint = ENDPOINTS[0]) -> Delivery:
    """A delivery of this body as Stripe signs it."""
    return Delivery(
        endpoint=to, body=body, signature_headers=(sign(body, SECRET, SIGNED_AT).encode(),), received_at=NOW
    )


def settle(delivery: Delivery, redaction: Redaction | None = None) -> Outcome:
    """Take a delivery as far as it goes. Raises `AssertionError` where something does not hold that must.

    Any other exception that comes out is the path's own, and a fault.
    """
    started = time.process_time_ns()
    try:
        verified = verify(delivery, now=NOW, tolerance_seconds=TOLERANCE_SECONDS)
    except SignatureRefused as refused:
        return Outcome("refused", refused.tag, time.process_time_ns() - started)
    outcome = normalize(verified, redaction)
    if isinstance(outcome, Unprocessable):
        record = _quarantined(outcome)
        cpu_ns = time.process_time_ns() - started
        check_accepted(delivery, verified)
        check_unprocessable(outcome, record, verified)
        return Outcome("unprocessable", outcome.reason.value, cpu_ns)
    record = encode(outcome, topics=TOPICS, ingest_source="webhook", include_raw=True, traceparent=TRACEPARENT)
    if record_bytes(record) > LIMITS[record.topic]:
        too_large = _too_large(outcome, verified)
        quarantined = _quarantined(too_large)
        cpu_ns = time.process_time_ns() - started
        check_unprocessable(too_large, quarantined, verified)
        return Outcome("unprocessable", too_large.reason.value, cpu_ns)
    decoded = decode(_consumed(record))
    observations = () if not isinstance(decoded, ConsumedEvent) else tuple(_project(decoded.event))
    cpu_ns = time.process_time_ns() - started
    check_accepted(delivery, verified)
    check_event(outcome)
    assert redaction is not None or bytes(outcome.raw) == delivery.body
    assert outcome.endpoint == delivery.endpoint.name
    check_record(record, outcome)
    assert isinstance(decoded, ConsumedEvent), f"the record cannot be decoded: {decoded.reason}, {decoded.detail}"
    check_decoded(decoded.event, outcome)
    for observation in observations:
        check_storable(observation)
    return Outcome("event", outcome.category, cpu_ns, unstorable=b"\\u0000" in msgspec.json.encode(outcome.data))


def _project(event: Event) -> Iterator[Observation]:
    """Everything that the projections do with an event that comes alone."""
    for projection in PROJECTIONS.values():
        for observation in projection.observe(event):
            links = projection.links(observation)
            state = fold([observation], after=None).state
            for root in links.roots or {observation.key.object_id}:
                projection.rows(ObjectKey(event.account, event.livemode, root), [state])
            yield observation


def _quarantined(unprocessable: Unprocessable) -> Record:
    return quarantine(unprocessable, topics=TOPICS, ingest_source="webhook", traceparent=TRACEPARENT)


def _too_large(event: Event, verified: VerifiedEvent) -> Unprocessable:
    return Unprocessable(
        reason=QuarantineReason.RECORD_TOO_LARGE,
        detail="record",
        event_id=event.event_id,
        endpoint=verified.endpoint,
        body=verified.body,
        received_at=verified.received_at,
    )


def _consumed(record: Record) -> ConsumedRecord:
    return ConsumedRecord(Partition(record.topic, 0), 0, record.key, record.value, record.headers, 0)


def record_bytes(record: Record) -> int:
    """An upper bound of what the broker counts."""
    headers = sum(len(name.encode()) + len(value) + 10 for name, value in record.headers)
    return RECORD_OVERHEAD_BYTES + len(record.key) + len(record.value) + headers


# What must hold ------------------------------------------------------------------------------------------------------


def check_accepted(delivery: Delivery, verified: VerifiedEvent) -> None:
    """What was accepted carries the HMAC of its own timestamp and body."""
    (header,) = delivery.signature_headers
    items = [item.partition(b"=") for item in header.split(b",")]
    stamp = next(value for scheme, _, value in items if scheme == b"t")
    expected = hmac.new(SECRET.value.encode(), stamp + b"." + delivery.body, hashlib.sha256).hexdigest().encode()
    assert any(scheme == b"v1" and value == expected for scheme, _, value in items)
    assert abs(int(stamp) - SIGNED_AT) <= TOLERANCE_SECONDS
    assert (verified.body, verified.endpoint) == (delivery.body, delivery.endpoint)


def check_unprocessable(unprocessable: Unprocessable, record: Record, verified: VerifiedEvent) -> None:
    """It is kept byte for byte, fits, and says nothing of its content but the name of a field."""
    assert record.value == unprocessable.body == verified.body
    assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", unprocessable.detail), unprocessable.detail
    assert 0 < len(record.key) <= KEY_BYTES_MAX
    assert record_bytes(record) - len(record.value) < HEADROOM_BYTES
    assert record_bytes(record) <= LIMITS[record.topic]
    check_headers(record)


def check_event(event: Event) -> None:
    """Its data is of its type."""
    if event.category == "other":
        assert type(event.data) is Other
    else:
        assert type(event.data) is DATA_TYPES.get(event.object_type, Other)
    assert event.object_id is None or event.object_id


def check_record(record: Record, event: Event) -> None:
    """A key that can be indexed, headers that CloudEvents allows, a size within the limit, as a dead letter too."""
    assert record.topic == TOPICS.of(event.category)
    assert 0 < len(record.key) <= KEY_BYTES_MAX
    assert record_bytes(record) <= LIMITS[record.topic]
    check_headers(record)
    letter = dead_letter(
        InvalidRecord(_consumed(record), "row_refused", "SQLSTATE 22P05"), topics=TOPICS, consumer_group="g" * 255
    )
    assert record_bytes(letter) <= LIMITS[letter.topic]


def check_headers(record: Record) -> None:
    """Every value is UTF-8 that CloudEvents allows in an attribute, and all of them are short."""
    for name, value in record.headers:
        text = value.decode()
        assert not _NOT_IN_AN_ATTRIBUTE.search(text), f"the header {name} has a character that no attribute may have"
        assert len(value) <= KEY_BYTES_MAX, f"the header {name} has {len(value)} bytes"
        assert name not in ("ce_source", "ce_dataschema") or _URI_REFERENCE.fullmatch(text), f"{name} is no URI"
    assert len({name for name, _ in record.headers}) == len(record.headers)


def check_decoded(decoded: Event, event: Event) -> None:
    """A consumer reads what was published, field by field."""
    for name in event.__struct_fields__:
        ours, theirs = getattr(event, name), getattr(decoded, name)
        if name == "raw":
            assert bytes(theirs) == bytes(ours).strip(_JSON_SPACE)
        else:
            assert theirs == ours, f"{name} does not come back as it was"
    assert contract.decode(msgspec.json.encode(decoded)) == decoded


def check_storable(observation: Observation) -> None:
    """Whatever a row may be refused for is a text; a number over 64 bits would be none of the contract's either."""
    assert 0 < len(observation.key.object_id.encode()) <= KEY_BYTES_MAX
    check_numbers(observation.data)


def check_numbers(data: Data | Any) -> None:
    """Every integer is within int64."""
    for value in (getattr(data, name) for name in data.__struct_fields__):
        if type(value) is int:
            assert INT64_MIN <= value <= INT64_MAX, "an integer over 64 bits"
        elif type(value) is tuple:
            for item in value:
                if isinstance(item, msgspec.Struct):
                    check_numbers(item)
