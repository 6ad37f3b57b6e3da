"""What the use cases need of the world, in their own words. Each port has one contract suite in tests/contracts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.events import (
    ClaimKey,
    ClaimState,
    ConsumedEvent,
    ConsumedRecord,
    Offsets,
    Partition,
    Position,
    Record,
)


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

    async def confirm(self, keys: Collection[ClaimKey]) -> None:
        """Mark the keys DONE, whoever holds them: an ack is an ack. Starts their retention."""
        ...

    async def release(self, keys: Collection[ClaimKey], *, owner: str) -> None:
        """Forget the claims that `owner` still holds and that are not DONE; leave every other alone."""
        ...

    async def close(self) -> None:
        """Give back connections."""
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

    async def lag(self) -> Mapping[Partition, int]:
        """Records between our position and the end, by assigned and positioned partition."""
        ...

    async def close(self) -> None:
        """Leave the group, bounded in time."""
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
