"""What the use cases need of the world, in their own words. Each port has one contract suite in tests/contracts."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol, TypeAlias

from service.credentials.book import Credentials, WebhookEndpointParams
from service.events import (
    Arrival,
    ClaimKey,
    ClaimState,
    ConsumedEvent,
    ConsumedRecord,
    Offsets,
    Partition,
    Position,
    Record,
    Secret,
)
from service.projections.differences import Difference
from service.projections.model import ObjectKey


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never going back; deadlines are made of these."""
        ...


class Publisher(Protocol):
    """Puts records on topics, durably."""

    async def publish(self, record: Record, *, deadline: float) -> Position:
        """Return once all in-sync replicas have the record.

        `deadline` is on the event loop's own clock (`loop.time()`).

        Raises `BrokerUnavailable` at once while the broker is known to be away (the record was not sent),
        `PublishOutcomeUnknown` when the deadline passes or the connection is lost in between (it may be in the log),
        `PublishRefused` / `RecordTooLarge` when the broker refused it for good (it is not in the log).
        """
        ...

    def fits(self, record: Record) -> bool:
        """Whether the record is within its topic's `max.message.bytes`, as far as it is known."""
        ...

    @property
    def available(self) -> bool:
        """False while the broker is known to be away, or a topic cannot take what is promised (see `problem`)."""
        ...


class DedupeStore(Protocol):
    """Remembers which events are published. Every call is one round trip for all its keys.

    Errors of the driver or the server come out as `DedupeUnavailable`; time-outs are the caller's.
    """

    async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
        """Claim each key for `owner` unless it is done or leased by another owner; say what was found.

        A key that `owner` itself holds is IN_FLIGHT as for anybody else. The lease length is the store's setting.
        """
        ...

    async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
        """Say what `claim` would find, and claim nothing."""
        ...

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        """Mark the keys DONE, whoever holds them: an ack is an ack. Starts their retention."""
        ...

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        """Forget the claims that `owner` still holds and that are not DONE; leave every other alone."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class EventLog(Protocol):
    """Remembers what came, for people who ask. Best effort: nothing that happens to it is a delivery's concern."""

    def note(self, arrival: Arrival) -> None:
        """Have it written soon, or dropped and counted. Takes no time, and never raises."""
        ...


class RecordSource(Protocol):
    """The records of a consumer group's assigned partitions, positioned by the caller.

    A partition newly assigned is *unpositioned*: none of its records comes out of `fetch` until `seek` was called
    for it in this assignment. Offsets committed to Kafka are for lag metrics only; they never position anything.
    """

    def unpositioned(self) -> Collection[Partition]:
        """Assigned partitions that wait for a `seek`."""
        ...

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, tuple[int, int]]:
        """Of each partition's log, the first offset and the one after the last.

        Asked for all at once: behind a fetch that waits for records each question would take as long as that.
        """
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Position an assigned partition; anything buffered for it is dropped."""
        ...

    async def fetch(self, *, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        """The next records of the positioned partitions, in offset order within each; empty on the time-out."""
        ...

    def unposition(self, partitions: Collection[Partition]) -> None:
        """Drop what is buffered for the partitions and mark them unpositioned again."""
        ...

    async def commit(self, offsets: Offsets) -> None:
        """Tell Kafka how far the group is. Best effort and bounded: a failure is counted, never raised."""
        ...

    async def ends(self) -> Offsets:
        """The offset after the last record, of every assigned partition's log, positioned or not.

        Raises `BrokerUnavailable`.
        """
        ...

    async def close(self) -> None:
        """Leave the group, bounded in time."""
        ...


class RecordLog(Protocol):
    """The logs of topics, read by nobody's group: nothing is committed, and nobody is rebalanced.

    All calls raise `BrokerUnavailable`, also where the next record does not come in time.
    """

    async def ranges(self, topic: str) -> Mapping[Partition, range]:
        """The offsets of each of the topic's partitions as they are now; nothing where there is no such topic."""
        ...

    async def offsets_at(self, partitions: Collection[Partition], moment: datetime) -> Mapping[Partition, int]:
        """Of each partition, the offset of its first record that is not older than `moment`.

        A partition without one is left out. Times are the records' own: what lies behind may yet be older.
        """
        ...

    def read(self, ranges: Mapping[Partition, range]) -> AsyncIterator[ConsumedRecord]:
        """The records in the ranges, one partition after the other, each in offset order.

        Those that were deleted meanwhile are passed over. One reading at a time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded events and the offsets they move: applied together or not at all.

    `events` may be fewer than the offsets passed over: invalid records are dead-lettered before. `stored` is what the
    caller believes the database to have, None for nothing yet: the fence compares it with what is there.
    """

    events: Sequence[ConsumedEvent]
    stored: Mapping[Partition, int | None]
    next_offsets: Offsets


@dataclass(frozen=True, slots=True)
class Applied:
    """What one batch came to, in events: new to the ledger or there before; and how the folds went."""

    applied: int
    already_applied: int
    refolded: int
    undecided: int
    new_events: Collection[str] = field(default=frozenset(), compare=False)
    """The ids of those that are new."""


class ProjectionStore(Protocol):
    """A projection's ledger, rows and offsets in one database."""

    async def check(self) -> None:
        """Return when the database answers and has the tables. Raises `StoreUnavailable`."""
        ...

    async def next_offset(self, partition: Partition) -> int | None:
        """Where the partition is to be read from; None before its first batch.

        Raises `ForeignCluster` when the stored offset belongs to another Kafka cluster, `StoreUnavailable`.
        """
        ...

    async def apply(self, batch: Batch) -> Applied:
        """Apply a batch in one transaction, the offset fence included.

        Raises `FenceLost` where another process has moved a partition's offset (nothing was applied), `RowRefused`
        where the database refuses the data (SQLSTATE classes 22 and 23), `StoreUnavailable` where trying again
        later may help (08, 40, 53, 55, 57, 25006, connection errors). Anything else passes through.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


StripeList: TypeAlias = Literal[
    "products", "prices", "customers", "subscriptions", "payment_intents", "charges", "refunds", "invoices",
    "disputes", "checkout_sessions", "invoice_payments",
]  # fmt: skip
"""Stripe's lists of objects, by their names in its API."""

EVENT_TYPES_MAX: Final = 20
"""How many event types Stripe lets one ask for at once."""


@dataclass(frozen=True, slots=True)
class StripeObject:
    """An object as a read of Stripe gave it; of a list, one member."""

    id: str
    created: datetime | None
    """None where Stripe does not say: a deleted object's."""
    body: bytes = field(repr=False)
    """The JSON text, exactly as Stripe wrote it."""
    as_of: datetime
    """In whole seconds. What was read is not older than this: Stripe's `Date` less the duration of the request."""
    api_version: str | None
    """The version the answer is rendered in. An event says its own: it is rendered as at its creation."""


@dataclass(frozen=True, slots=True)
class StripePage:
    """A page of a list, the newest object first. A page may be empty and yet have one after it."""

    objects: Sequence[StripeObject]
    next_after: str | None
    """What to hand in as `after` for the next page; None where there is none. To be kept, not to be read."""


class StripeReader(Protocol):
    """Reads one Stripe account in one mode, with one API key.

    Each call makes one request, and more only where Stripe is to be asked again; the waits in between are bounded.
    A list comes newest first, by `created`, from `created_from` (itself included) until `created_to` (itself not), in
    whole seconds; None leaves a side open. `after` is the `next_after` of the page before.

    All calls raise `StripeUnavailable` where trying later may help, `StripeKeyRefused`, `StripePermissionMissing` for
    a key that may not read this, `StripeObjectMissing` for an id that Stripe does not know (also an `after` whose
    object was deleted meanwhile, or is older than Stripe keeps it: go on by `created_to`), `StripeRequestRefused` for
    the rest.
    """

    async def events(
        self,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        types: Sequence[str] = (),
        delivery_success: bool | None = None,
        after: str | None = None,
    ) -> StripePage:
        """A page of the events of the last 30 days.

        `types` are at most `EVENT_TYPES_MAX` names, or one group such as `charge.*`; none means all.
        `delivery_success` False gives those that are pending or have failed at some webhook endpoint, True the others.
        """
        ...

    async def objects(
        self,
        name: StripeList,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        after: str | None = None,
    ) -> StripePage:
        """A page of a list: subscriptions in every status, products and prices whether active or not.

        Of prices the active ones come first, as Stripe has no list of both. No list has the objects of a test clock.
        """
        ...

    async def object(self, name: StripeList, object_id: str) -> StripeObject:
        """The present state of one object. A deleted customer is given as `{"id": …, "deleted": true}`."""
        ...

    async def event(self, event_id: str) -> StripeObject:
        """One event of the last 30 days."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class JobStore(Protocol):
    """How far jobs are, and whose they are: of several processes that want to do one, one does it at a time.

    A lease that ran out may be another's by now; what its former holder still does must be harmless when done twice.
    Errors of the driver or the server come out as `StoreUnavailable`.
    """

    async def begin(self, job: str, *, owner: str, lease_seconds: float) -> bytes | None:
        """Get the lease on a job, and how far it is: what `save` was told last, None before that.

        Raises `JobHeld` while another owner has it.
        """
        ...

    async def save(self, job: str, progress: bytes, *, owner: str, lease_seconds: float) -> None:
        """Remember how far it is, and keep the lease. Raises `JobHeld` and remembers nothing where it is another's."""
        ...

    async def end(self, job: str, *, owner: str) -> None:
        """Give the lease back, where it is still the owner's."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class UndecidedObjects(Protocol):
    """The objects of which the events alone do not say what came last."""

    async def undecided(
        self, *, account: str, livemode: bool, before: datetime, limit: int
    ) -> Sequence[tuple[str, str]]:
        """At most so many, as (object type, object id), whose last event is from before this moment, oldest first.

        Raises `StoreUnavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class RebuildPage:
    """What one transaction of a rebuild looked at, and found; without `dry_run` it has corrected all of that.

    `looked_at` counts records (`topic`), objects (`objects`) and what rows are made for (`rows`); none is the end.
    """

    walk: Literal["topic", "objects", "rows"]
    looked_at: int
    differences: Sequence[Difference] = ()
    reached: ObjectKey | None = None
    """The last key; the next page begins after it."""
    invalid: Mapping[str, int] = field(default_factory=dict)
    ahead: int = 0
    """Events of which the ledger has nothing since no consumer has come to them: they are left to it."""


class RebuildStore(Protocol):
    """A projection's tables and ledger, to be compared, and corrected, a page at a time, while consumers go on.

    All calls raise `StoreUnavailable` as `ProjectionStore` does, and `LedgerUnreadable`.
    """

    async def totals(self) -> Mapping[str, int]:
        """How much the walks `objects` and `rows` will look at, about."""
        ...

    async def stage(self, events: Sequence[ConsumedEvent]) -> int:
        """Lay beside the ledger, for the rest of this run, what it lacks or has otherwise; how many are `ahead`.

        Of an event that comes several times, the first counts that is in the ledger's own API version. Raises
        `RowRefused` where the database refuses something, and nothing was laid there.
        """
        ...

    async def objects(self, after: ObjectKey | None) -> RebuildPage:
        """The ledger entries, marks and states of the next objects."""
        ...

    async def rows(self, after: ObjectKey | None) -> RebuildPage:
        """The links and rows of the next roots, and the rows that nothing stands behind."""
        ...

    async def close(self) -> None:
        """Give back the connection."""
        ...


@dataclass(frozen=True, slots=True)
class LoggedArrival:
    """A row of the event log. Ids grow with the time of writing, which is nearly that of coming."""

    arrival_id: int
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class NamedRow:
    """A row of a public table, by its id, and how it stands, where rows of its table say such a thing."""

    table: str
    id: str
    status: str | None


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What a ledger has of one event and one object; `data` and `previous` as they stand there."""

    account: str
    livemode: bool
    object_type: str
    object_id: str
    """Stripe's own, also where the ledger has something before it."""
    event_id: str
    event_type: str
    created_at: datetime
    applied_at: datetime
    no_op: bool
    data: Mapping[str, Any] = field(repr=False)
    previous: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class EventEffect:
    """What an event has done in one projection to one object, and the rows that the object belongs to."""

    projection: str
    line: LedgerLine
    rows: Sequence[NamedRow]


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object, and what is known of it.

    `kind` says what its `row` is of: `payment` also where the id is that of a charge, a session or a dispute. `lines`
    are the newest of the object, or of all objects of its payment; `cut` is whether there are more of anything.
    """

    kind: str
    row: Mapping[str, Any] | None = field(repr=False)
    rows: Sequence[NamedRow]
    lines: Sequence[LedgerLine]
    arrivals: Sequence[LoggedArrival]
    """Of what has no ledger: a customer, and whatever only the event log knows."""
    cut: bool


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """How far a consumer group has come on a partition, by the database."""

    next_offset: int
    updated_at: datetime


class OperatorReader(Protocol):
    """What the database tells an operator. Nothing is changed, and every answer is bounded in size and in time.

    All calls raise `StoreUnavailable`, and `ConfigurationError` where the database is not as this version needs it.
    """

    async def arrivals(
        self, *, of: str | None = None, before: int | None = None, limit: int
    ) -> Sequence[LoggedArrival]:
        """The newest arrivals: of all, or of what has this id (an event, an object or a customer).

        `before` is the last of the page before.
        """
        ...

    async def arrivals_of_event(self, event_id: str, *, limit: int) -> Sequence[LoggedArrival]:
        """The arrivals of one event, the first one first."""
        ...

    async def effects(self, event_id: str, *, limit: int) -> Sequence[EventEffect]:
        """What an event has done; at most so many in each projection."""
        ...

    async def whose(self, object_id: str, *, limit: int) -> Sequence[tuple[str, bool]]:
        """The accounts and modes in which this id is known, in order: most often one."""
        ...

    async def found(self, key: ObjectKey, *, limit: int) -> FoundObject | None:
        """The object of this id, with at most so many lines; None where nothing is known of it."""
        ...

    async def offsets(self, groups: Collection[str]) -> Mapping[tuple[str, Partition], StoredOffset]:
        """How far the groups have come, by group and partition."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A webhook endpoint as Stripe has it. Whether it takes connected accounts' events Stripe does not show."""

    id: str
    url: str
    enabled_events: tuple[str, ...]
    api_version: str | None
    """What its events are rendered in; None follows the account's default."""
    enabled: bool
    created_at: datetime
    description: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CreatedWebhookEndpoint:
    """A webhook endpoint that has just been made, with what Stripe shows once."""

    endpoint: WebhookEndpoint
    secret: Secret


class WebhookEndpoints(Protocol):
    """The webhook endpoints of one Stripe account in one mode, with one API key.

    All calls raise as those of `StripeReader` do; what Stripe says of a refused request is in the message of
    `StripeRequestRefused`, since it quotes nothing but what we sent.
    """

    async def all(self) -> Sequence[WebhookEndpoint]:
        """Every one of them, the newest first: 16 at most, by Stripe's limit."""
        ...

    async def create(self, params: WebhookEndpointParams, *, idempotency_key: str) -> CreatedWebhookEndpoint:
        """Make one; the same call with the same key gives the same one again, its secret too.

        Raises `WebhookEndpointsFull` where Stripe's limit is reached, `SecretNotTold` where the answer has no secret.
        """
        ...

    async def update(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
        enabled_events: Sequence[str] | None = None,
        enabled: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> WebhookEndpoint:
        """Change what is given, and leave the rest: of metadata the names that are not given; an empty value goes away.

        The API version cannot be changed.
        """
        ...

    async def delete(self, endpoint_id: str) -> None:
        """Remove one for good; one that is gone already is."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What answered at a URL: nothing where `status` is None, and `why` says how that came."""

    status: int | None
    body: bytes = field(default=b"", repr=False)
    """Its beginning; of a redirect nothing."""
    location: str | None = field(default=None, repr=False)
    why: str | None = None
    certificate_ends: datetime | None = None
    """When the certificate expires that was shown there, good or not; None where none was."""


class UrlProbe(Protocol):
    """Asks who answers at a URL."""

    async def ask(self, url: str) -> ProbeAnswer:
        """What is answered there to a delivery that nobody has signed. Bounded, follows no redirect, never raises."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class CredentialStore(Protocol):
    """Where the credentials of endpoints are kept. Raises `ConfigurationError` for what cannot be used."""

    def read(self) -> Credentials:
        """What is kept."""
        ...

    def write(self, credentials: Credentials) -> None:
        """Keep this instead; it is safe when this returns."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Be the only one to change it. Raises `JobHeld` where somebody else is."""
        ...
