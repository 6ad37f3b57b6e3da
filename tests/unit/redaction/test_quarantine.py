"""Quarantined bodies where fields are redacted: sealed, and named so that nobody can try out what they were."""

import hashlib
from base64 import b64encode
from datetime import UTC, datetime

import pytest

from service.config import ReceiverConfig
from service.events import ConsumedRecord, Partition, QuarantineReason, Record, Unprocessable
from service.records import Topics, quarantine, quarantine_bytes_min, quarantined_body
from service.redaction import CannotUnseal, RedactionKeys, Sealing
from tests.unit.normalize.building import endpoint

SEALING = Sealing(RedactionKeys.of(b64encode(bytes(range(32))).decode()))
BODY = b'{"email": "PLANTED@example.org"'


def quarantined(sealing: Sealing | None, event_id: str | None = None, body: bytes = BODY) -> Record:
    unprocessable = Unprocessable(
        reason=QuarantineReason.MALFORMED_JSON,
        detail="body",
        event_id=event_id,
        endpoint=endpoint(),
        body=body,
        received_at=datetime(2026, 11, 20, tzinfo=UTC),
    )
    return quarantine(
        unprocessable, topics=Topics("stripe"), ingest_source="webhook", traceparent="00-0-0-01", sealing=sealing
    )


def consumed(record: Record) -> ConsumedRecord:
    return ConsumedRecord(Partition(record.topic, 0), 0, record.key, record.value, record.headers, 0)


@pytest.mark.parametrize("event_id", ["evt_1", None])
def test_a_sealed_body_shows_nothing_and_can_be_read_with_the_key(event_id: str | None) -> None:
    record = quarantined(SEALING, event_id)

    assert not any(b"PLANTED" in part for part in (record.key, record.value, *dict(record.headers).values()))
    assert dict(record.headers)["encryption"] == b"aes-256-gcm"
    assert quarantined_body(consumed(record), SEALING) == BODY
    with pytest.raises(CannotUnseal, match="redact_key is needed"):
        quarantined_body(consumed(record), None)


def test_but_for_the_encryption_the_headers_are_the_same() -> None:
    plain, sealed = quarantined(None, "evt_1"), quarantined(SEALING, "evt_1")

    assert (sealed.topic, sealed.key, sealed.headers[:-1]) == (plain.topic, plain.key, plain.headers)
    assert quarantined_body(consumed(plain), None) == quarantined_body(consumed(plain), SEALING) == BODY


def test_a_body_without_an_event_id_is_named_by_a_keyed_hash() -> None:
    plain, sealed = quarantined(None), quarantined(SEALING)
    guess = hashlib.sha256(BODY).hexdigest().encode()

    assert plain.key == dict(plain.headers)["body_sha256"] == guess
    assert "body_sha256" not in dict(sealed.headers)
    assert sealed.key == dict(sealed.headers)["body_hmac_sha256"] == quarantined(SEALING).key
    assert guess not in (sealed.key, *dict(sealed.headers).values())


def test_a_sealed_body_moved_to_another_record_cannot_be_read() -> None:
    taken, other = quarantined(SEALING, "evt_1"), quarantined(SEALING, "evt_2")

    moved = Record(other.topic, other.key, taken.value, other.headers)

    with pytest.raises(CannotUnseal):
        quarantined_body(consumed(moved), SEALING)


def test_an_unknown_encryption_is_no_plain_body() -> None:
    record = quarantined(None)
    unknown = Record(record.topic, record.key, record.value, (*record.headers, ("encryption", b"rot13")))

    with pytest.raises(CannotUnseal):
        quarantined_body(consumed(unknown), SEALING)


def test_the_largest_body_fits_sealed() -> None:
    largest = ReceiverConfig().max_body_bytes

    record = quarantined(SEALING, "evt_" + 255 * "x", body=largest * b"x")

    size = len(record.key) + len(record.value) + sum(len(name) + len(value) for name, value in record.headers)
    assert size < quarantine_bytes_min(largest)
