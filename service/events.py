"""The frozen values that one event is on its way from the socket to the row; each type says what has been checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from service.contract import Event

IngestSource: TypeAlias = Literal["webhook", "reconcile", "backfill", "replay"]
"""How an event came to us; the record header `ingest_source`."""

DedupeMark: TypeAlias = Literal["checked", "unchecked"]
"""The record header `dedupe`: whether a dedupe store vouches for the record being the first of its event."""

Mode: TypeAlias = Literal["live", "test", "any"]
"""Which `livemode` an endpoint takes."""


class Secret:
    """A secret value that no log, error or repr shows. Not a dataclass: generic serializers look into those."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @property
    def value(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One webhook endpoint: whose events it takes and how they are signed."""

    name: str
    path: str
    secrets: tuple[Secret, ...]
    mode: Mode = "any"
    account: str | None = None
    connect: bool = False
    events: tuple[str, ...] = ()
    """The event types it is meant to be registered for; whatever is delivered is taken."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP attempt: bytes within the size bound, nothing more is known of them."""

    endpoint: Endpoint
    body: bytes = field(repr=False)
    signature_headers: tuple[bytes, ...] = field(repr=False)
    received_at: datetime


@dataclass(frozen=True, slots=True)
class VerifiedEvent:
    """Bytes that Stripe signed for this endpoint within the tolerance. Only `signature.verify` makes one."""

    endpoint: Endpoint
    body: bytes = field(repr=False)
    received_at: datetime
    signed_at: datetime
    secret_fingerprint: str
    """Of the first of the endpoint's secrets, in their order, that it was signed with."""


@dataclass(frozen=True, slots=True)
class TrustedEvent:
    """Bytes that need no signature: Stripe's API gave them to a key of this endpoint, or they were verified before.

    Made where a body is read from Stripe's API or from our own quarantine topic, and nowhere else.
    """

    endpoint: Endpoint
    body: bytes = field(repr=False)
    received_at: datetime


KnownEvent: TypeAlias = VerifiedEvent | TrustedEvent
"""Bytes that are certainly Stripe's, whatever they say."""


class QuarantineReason(StrEnum):
    """Why a verified body is kept on the quarantine topic instead of its own."""

    MALFORMED_JSON = "malformed_json"
    NESTED_TOO_DEEP = "nested_too_deep"
    TOO_MANY_CONTAINERS = "too_many_containers"
    NOT_AN_EVENT = "not_an_event"
    EVENT_ID_MISSING = "event_id_missing"
    EVENT_ID_MALFORMED = "event_id_malformed"
    EVENT_TYPE_MALFORMED = "event_type_malformed"
    CREATED_MALFORMED = "created_malformed"
    API_VERSION_MALFORMED = "api_version_malformed"
    LIVEMODE_MALFORMED = "livemode_malformed"
    ACCOUNT_MALFORMED = "account_malformed"
    MODE_MISMATCH = "mode_mismatch"
    ACCOUNT_MISMATCH = "account_mismatch"
    OBJECT_MISSING = "object_missing"
    OBJECT_MALFORMED = "object_malformed"
    RECORD_TOO_LARGE = "record_too_large"


@dataclass(frozen=True, slots=True)
class Unprocessable:
    """A verified body that cannot be normalized; its bytes go to quarantine unchanged.

    Where fields are redacted, they are sealed there. `detail` names a field, never a value. `event_id` and `event_type`
    are set where the body has well-formed ones.
    """

    reason: QuarantineReason
    detail: str
    event_id: str | None
    endpoint: Endpoint
    body: bytes = field(repr=False)
    received_at: datetime
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record ready to be published: bytes only, encoded before any I/O."""

    topic: str
    key: bytes
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where the broker has put a record, acknowledged by all in-sync replicas."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A topic's partition."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class ConsumedRecord:
    """A record as read from Kafka; it carries its own commit position."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int

    @property
    def next_offset(self) -> int:
        """The offset to commit once this record is done with."""
        return self.offset + 1


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A consumed record that can never be applied: poison. `reason` is a tag, `detail` never shows a value."""

    record: ConsumedRecord
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A consumed record that was replayed for another consumer group; whatever is in it is none of this one's."""

    record: ConsumedRecord


@dataclass(frozen=True, slots=True)
class ConsumedEvent:
    """A consumed record and the event decoded from it."""

    record: ConsumedRecord
    event: Event


@dataclass(frozen=True, slots=True, order=True)
class ClaimKey:
    """What a dedupe claim is about.

    The scope `event` is confirmed only by a record on the event's own topic; a quarantined delivery claims
    `quarantine:<endpoint>`, so that it never hides the event from its topic when the right endpoint sees it.
    """

    scope: str
    id: str


class ClaimState(StrEnum):
    """What a dedupe store knows of an event."""

    NEW = "new"
    """Nobody had it, or the lease of whoever had it ran out: it is the asker's now."""
    IN_FLIGHT = "in_flight"
    """Another owner holds a live lease."""
    DONE = "done"
    """A record of it was acknowledged within the retention."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Published and acknowledged."""

    tag: ClassVar[str] = "accepted"

    event_id: str
    position: Position


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Acknowledged before."""

    tag: ClassVar[str] = "duplicate"

    event_id: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Safe on the quarantine topic."""

    tag: ClassVar[str] = "quarantined"

    event_id: str | None
    reason: QuarantineReason
    position: Position | None
    """None where an earlier delivery of the same body put it there."""


IngestOutcome: TypeAlias = Accepted | Duplicate | Quarantined
"""What became of a body; each has a tag beside those of the errors."""


class Arrival(NamedTuple):
    """One time that a body of Stripe's came: a row of the event log, whose columns these are.

    A tuple, since it is made for every delivery and handed to the driver as it is. Nothing personal is in it: ids and
    tags, none of which a redaction may touch.
    """

    received_at: datetime
    ingest_source: IngestSource
    endpoint: str
    outcome: str
    """The tag of an outcome or of an error."""
    event_id: str | None
    event_type: str | None
    account: str | None
    livemode: bool | None
    object_type: str | None
    object_id: str | None
    customer_id: str | None
    created_at: datetime | None
    api_version: str | None
    signed_at: datetime | None
    secret: str | None
    """The fingerprint of the one it was signed with."""
    topic: str | None
    partition: int | None
    record_offset: int | None
    dedupe: DedupeMark | None
    reason: str | None
    """Why it was quarantined, or was to be."""
    trace_id: str


Offsets: TypeAlias = Mapping[Partition, int]
