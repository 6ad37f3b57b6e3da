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

KEY, NEW_KEY = b64encode(bytes(range(32))).decode(), b64encode(b"n" * 32).decode()
KEYS = RedactionKeys.of(KEY)
SEALING = Sealing(KEYS)
ROTATED, NEW = Sealing(RedactionKeys.of(f"{NEW_KEY}\n{KEY}\n")), Sealing(RedactionKeys.of(NEW_KEY))
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
    assert dict(record.headers)["encryption_key"].decode() == KEYS.fingerprint
    assert quarantined_body(consumed(record), SEALING) == BODY
    with pytest.raises(CannotUnseal, match=f"redact_key {KEYS.fingerprint} is needed"):
        quarantined_body(consumed(record), None)


def test_but_for_the_encryption_the_headers_are_the_same() -> None:
    plain, sealed = quarantined(None, "evt_1"), quarantined(SEALING, "evt_1")

    assert (sealed.topic, sealed.key, sealed.headers[:-2]) == (plain.topic, plain.key, plain.headers)
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


def test_after_a_rotation_the_old_key_still_opens_and_the_new_one_seals() -> None:
    old, new = quarantined(SEALING), quarantined(ROTATED)

    assert quarantined_body(consumed(old), ROTATED) == quarantined_body(consumed(new), ROTATED) == BODY
    assert quarantined_body(consumed(new), NEW) == BODY
    with pytest.raises(CannotUnseal, match=f"with the redact_key {KEYS.fingerprint}; here is {NEW.keys.fingerprint}"):
        quarantined_body(consumed(old), NEW)
    with pytest.raises(CannotUnseal, match=NEW.keys.fingerprint):
        quarantined_body(consumed(new), SEALING)


def test_what_an_earlier_release_sealed_without_naming_the_key_opens_with_any_of_them() -> None:
    record = quarantined(SEALING)
    earlier = Record(record.topic, record.key, record.value, record.headers[:-1])

    assert dict(earlier.headers).keys() == dict(record.headers).keys() - {"encryption_key"}
    assert quarantined_body(consumed(earlier), ROTATED) == BODY
    with pytest.raises(CannotUnseal):
        quarantined_body(consumed(earlier), NEW)


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
