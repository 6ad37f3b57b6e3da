"""Events as Kafka records: topics, keys, headers, values. The published contract's wire form, both ways.

Everything here is pure: a record's bytes are final before anything touches the network.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from service import contract
from service.contract import NO_RAW, Category, Event, Other
from service.contract.schema import schema_id, schema_name
from service.events import (
    ConsumedEvent,
    ConsumedRecord,
    DedupeMark,
    IngestSource,
    InvalidRecord,
    Partition,
    PassedOver,
    Record,
    Unprocessable,
)
from service.redaction import ALGORITHM, CannotUnseal, Sealing

_FAMILIES: Final[Mapping[Category, str]] = {
    "payment": "payments",
    "refund": "refunds",
    "subscription": "subscriptions",
    "customer": "customers",
    "catalog": "catalog",
    "other": "other",
}

KEYS: Final[Mapping[Category, tuple[str, ...]]] = {
    "payment": ("payment_intent_id", "charge_id", "checkout_session_id"),
    "refund": ("payment_intent_id", "charge_id"),
    "subscription": ("subscription_id", "invoice_id"),
    "customer": ("customer_id",),
    "catalog": ("product_id",),
    "other": (),
}
"""Category → the ids that make a record's key, the first known one: what most of an aggregate's events know."""

DATA_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
HEADROOM_BYTES: Final = 64 * 1024
"""What key, headers and framing may add to a body on a side topic."""

_DAY_MS: Final = 24 * 60 * 60 * 1000
DATA_RETENTION_MS: Final = 35 * _DAY_MS
SIDE_RETENTION_MS: Final = 90 * _DAY_MS


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics' names under a prefix."""

    prefix: str

    def of(self, category: Category) -> str:
        """The one topic that takes a category's events."""
        return f"{self.prefix}.{_FAMILIES[category]}"

    @property
    def quarantine(self) -> str:
        """Verified bodies that could not be normalized, byte for byte; sealed where fields are redacted."""
        return f"{self.prefix}.quarantine"

    @property
    def dead_letter(self) -> str:
        """Records that a consumer could never apply."""
        return f"{self.prefix}.dead-letter"

    @property
    def data(self) -> tuple[str, ...]:
        """The topics of normalized events."""
        return tuple(f"{self.prefix}.{family}" for family in _FAMILIES.values())

    def group(self, projection: str) -> str:
        """A projection's consumer group."""
        return f"{self.prefix}-ingest.{projection}"


def topic_configs(topics: Topics, *, max_body_bytes: int) -> Mapping[str, Mapping[str, int]]:
    """What each topic needs of the broker: `max.message.bytes` and `retention.ms`."""
    data = {"max.message.bytes": DATA_MAX_MESSAGE_BYTES, "retention.ms": DATA_RETENTION_MS}
    return {
        **dict.fromkeys(topics.data, data),
        topics.quarantine: {
            "max.message.bytes": max(DATA_MAX_MESSAGE_BYTES, quarantine_bytes_min(max_body_bytes)),
            "retention.ms": SIDE_RETENTION_MS,
        },
        # A dead letter is a data record with headers more.
        topics.dead_letter: {
            "max.message.bytes": DATA_MAX_MESSAGE_BYTES + HEADROOM_BYTES,
            "retention.ms": SIDE_RETENTION_MS,
        },
    }


def quarantine_bytes_min(max_body_bytes: int) -> int:
    """The smallest `max.message.bytes` of the quarantine topic with which every accepted body can be kept."""
    return max_body_bytes + HEADROOM_BYTES


def key_rule(category: Category) -> str:
    """A category's key in words: `payment intent, else charge, else checkout session`.

    Where an event knows none of these it is what every category comes to in the end, as `other` does at once.
    """
    ids = tuple(name.removesuffix("_id").replace("_", " ") for name in KEYS[category])
    return ", else ".join(ids or ("object", "customer", "account"))


def key_of(event: Event) -> str:
    """The record's key: all events of an aggregate share it where they know it, so Kafka keeps their arrival order."""
    for name in KEYS[event.category]:
        if value := getattr(event.data, name, None):
            return str(value)
    return event.object_id or getattr(event.data, "customer_id", None) or event.account


_encoder: Final = msgspec.json.Encoder()


def encode(
    event: Event,
    *,
    topics: Topics,
    ingest_source: IngestSource,
    include_raw: bool,
    traceparent: str,
) -> Record:
    """An event as the record of its topic, `dedupe` header still to come (`marked`).

    With `include_raw` false the Stripe event is left out where `data` says what it says; an `Other` keeps it always.
    """
    if not include_raw and not isinstance(event.data, Other):
        event = msgspec.structs.replace(event, raw=NO_RAW)
    mode = "live" if event.livemode else "test"
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_source", f"/stripe/{event.account}/{mode}".encode()),
        ("ce_type", f"com.stripe.{event.event_type}".encode()),
        ("ce_time", _timestamp(event.created_at).encode()),
        ("ce_dataschema", schema_id(schema_name(event)).encode()),
        ("content-type", b"application/json"),
        ("endpoint", event.endpoint.encode()),
        ("ingest_source", ingest_source.encode()),
        ("traceparent", traceparent.encode()),
    ]
    if event.object_id is not None:
        headers.append(("ce_subject", event.object_id.encode()))
    if event.api_version is not None:
        headers.append(("stripe_api_version", event.api_version.encode()))
    if event.context is not None:
        headers.append(("stripe_context", event.context.encode()))
    if event.snapshot_event is not None:
        headers.append(("snapshot_event", event.snapshot_event.encode()))
    return Record(
        topic=topics.of(event.category),
        key=key_of(event).encode(),
        value=_encoder.encode(event),
        headers=tuple(headers),
    )


def quarantine(
    unprocessable: Unprocessable,
    *,
    topics: Topics,
    ingest_source: IngestSource,
    traceparent: str,
    sealing: Sealing | None = None,
) -> Record:
    """A body that could not be normalized, unchanged or sealed, as a record of the quarantine topic."""
    identity = _identity(unprocessable, sealing)
    headers = {
        "reason": unprocessable.reason.value,
        "detail": unprocessable.detail,
        "endpoint": unprocessable.endpoint.name,
        identity[0]: identity[1],
        "received_at": _timestamp(unprocessable.received_at),
        "ingest_source": ingest_source,
        "traceparent": traceparent,
    }
    if unprocessable.event_type is not None:
        headers["event_type"] = unprocessable.event_type
    record = Record(
        topic=topics.quarantine,
        key=identity[1].encode(),
        value=unprocessable.body,
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )
    return record if sealing is None else _sealed(record, sealing)


def _identity(unprocessable: Unprocessable, sealing: Sealing | None) -> tuple[str, str]:
    """What a quarantined body goes by, as a header."""
    if unprocessable.event_id is not None:
        return "event_id", unprocessable.event_id
    if sealing is None:
        return "body_sha256", hashlib.sha256(unprocessable.body).hexdigest()
    # Whoever guesses a short body could tell by its plain hash, here and in the dedupe store, that the guess is right.
    return "body_hmac_sha256", sealing.name(unprocessable.body)


def _sealed(record: Record, sealing: Sealing) -> Record:
    value = sealing.seal(record.value, record_key=record.key)
    encryption = (("encryption", ALGORITHM.encode()), ("encryption_key", sealing.keys.fingerprint.encode()))
    return Record(record.topic, record.key, value, (*record.headers, *encryption))


def quarantined_body(record: ConsumedRecord, sealing: Sealing | None) -> bytes:
    """The body as Stripe sent it, of a record of the quarantine topic.

    Raises `CannotUnseal` where it is sealed and there is no key, or another one: the message says which is needed.
    """
    value, headers = record.value or b"", dict(record.headers)
    encryption = headers.get("encryption")
    if encryption is None:
        return value
    # Not there where an earlier release has sealed it.
    fingerprint = headers["encryption_key"].decode(errors="replace") if "encryption_key" in headers else None
    if encryption != ALGORITHM.encode() or sealing is None:
        needed = f" {fingerprint}" if fingerprint else ""
        raise CannotUnseal(f"this body is sealed: the kafka.redact_key{needed} is needed")
    return sealing.unseal(value, record_key=record.key or b"", fingerprint=fingerprint)


def marked(record: Record, dedupe: DedupeMark) -> Record:
    """The record with its `dedupe` header."""
    return Record(record.topic, record.key, record.value, (*record.headers, ("dedupe", dedupe.encode())))


def dead_letter(invalid: InvalidRecord, *, topics: Topics, consumer_group: str) -> Record:
    """A consumed record as it was, with where it stood and why it could not be applied.

    (consumer group, topic, partition, offset) identify it: written twice after a crash, it is still one.
    """
    origin = invalid.record
    provenance = {
        "dead_letter_reason": invalid.reason,
        "dead_letter_detail": invalid.detail,
        "consumer_group": consumer_group,
        "original_topic": origin.partition.topic,
        "original_partition": str(origin.partition.number),
        "original_offset": str(origin.offset),
    }
    return Record(
        topic=topics.dead_letter,
        key=origin.key or b"",
        value=origin.value or b"",
        headers=(*origin.headers, *((name, value.encode()) for name, value in provenance.items())),
    )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a record of the dead-letter topic says of itself.

    `partition` and `offset` are where its record stood first: one that was replayed and could not be applied again is
    still the same dead letter.
    """

    record: ConsumedRecord
    consumer_group: str
    partition: Partition
    offset: int
    reason: str
    detail: str


_PROVENANCE: Final = frozenset(
    (
        "dead_letter_reason",
        "dead_letter_detail",
        "consumer_group",
        "original_topic",
        "original_partition",
        "original_offset",
    )
)
_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")
REPLAY_GROUP: Final = "replay_group"
_REPLAY_OF: Final = "replay_of"


def read_dead_letter(record: ConsumedRecord) -> DeadLetter | None:
    """A record of the dead-letter topic as `dead_letter` made it; None where its headers do not say what is needed."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    replay_of = headers.get(_REPLAY_OF, "").rsplit("/", 2)
    origin = [headers.get(f"original_{part}", "") for part in ("topic", "partition", "offset")]
    topic, number, offset = replay_of if len(replay_of) == len(origin) else origin
    if not (headers.keys() >= _PROVENANCE and number.isdecimal() and offset.isdecimal()):
        return None
    return DeadLetter(
        record,
        headers["consumer_group"],
        Partition(topic, int(number)),
        int(offset),
        headers["dead_letter_reason"],
        headers["dead_letter_detail"],
    )


def replayed(letter: DeadLetter) -> Record:
    """The record that a dead letter was, for the consumer group that could not apply it, and no other."""
    ours = {
        "ingest_source": "replay",
        REPLAY_GROUP: letter.consumer_group,
        _REPLAY_OF: f"{letter.partition.topic}/{letter.partition.number}/{letter.offset}",
    }
    kept = [(name, value) for name, value in letter.record.headers if name not in _PROVENANCE | ours.keys()]
    return Record(
        topic=letter.partition.topic,
        key=letter.record.key or b"",
        value=letter.record.value or b"",
        headers=(*kept, *((name, value.encode()) for name, value in ours.items())),
    )


def header(record: Record | ConsumedRecord, name: str) -> bytes | None:
    """The first header of this name."""
    return next((value for each, value in record.headers if each == name), None)


def trace_id(record: Record | ConsumedRecord) -> str | None:
    """The trace that a record is part of; None where it names none, or not as W3C's header does."""
    found = _TRACEPARENT.match(header(record, "traceparent") or b"")
    return found[1].decode() if found else None


def was_replayed(record: ConsumedRecord) -> bool:
    """Whether a record is a dead letter that was put back onto its topic."""
    return any(name == REPLAY_GROUP for name, _ in record.headers)


def decode_for(record: ConsumedRecord, *, consumer_group: str) -> ConsumedEvent | InvalidRecord | PassedOver:
    """What a record is to a consumer group: one that was replayed for another has been applied here before."""
    group = consumer_group.encode()
    if any(name == REPLAY_GROUP and value != group for name, value in record.headers):
        return PassedOver(record)
    return decode(record)


def decode(record: ConsumedRecord) -> ConsumedEvent | InvalidRecord:
    """The typed event of a record, or why it is none."""
    if not record.value:
        return InvalidRecord(record, "empty_value", "the record has no value")
    try:
        return ConsumedEvent(record, contract.decode(record.value))
    except contract.ContractError as error:
        return InvalidRecord(record, error.reason, str(error))


def _timestamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
