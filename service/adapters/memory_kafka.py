"""Kafka in this process: the twins of `Publisher` and `RecordSource`, for tests and simulations, with faults to order.

A `MemoryKafka` is the cluster; publishers and sources are its clients. Nothing here waits for anything but its own
other side, so a loop with virtual time runs it as well.
"""

import asyncio
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.errors import BrokerUnavailable, IngestError, OffsetOutOfRange, PublishOutcomeUnknown, RecordTooLarge
from service.events import ConsumedRecord, Offsets, Partition, Position, Record
from service.ports import Clock

_FRAME_BYTES = 82
_FIELD_BYTES = 5
"""What a record batch's frame and each length may take, rounded up."""


@dataclass(eq=False, slots=True)
class _Log:
    """A partition: records from `first` on."""

    first: int = 0
    records: list[ConsumedRecord] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.records)

    def since(self, offset: int, limit: int) -> Sequence[ConsumedRecord]:
        start = offset - self.first
        return self.records[start : start + limit]


@dataclass(frozen=True, slots=True)
class _Topic:
    logs: Sequence[_Log]
    max_message_bytes: int


class MemoryKafka:
    """A cluster of one process: topics, and consumer groups that rebalance at once when a member comes or goes."""

    def __init__(self, clock: Clock, *, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self.available = True
        """Set False to be away: publishing fails at once, fetching gives nothing, questions raise."""
        self.committed: dict[str, dict[Partition, int]] = defaultdict(dict)
        """What each group has told of its offsets."""
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._members: dict[str, list[MemoryRecordSource]] = defaultdict(list)
        self._appended = asyncio.Event()

    def create_topic(self, name: str, *, partitions: int = 1, max_message_bytes: int = 1_048_588) -> None:
        """Create a topic; the default limit is Kafka's own."""
        self._topics[name] = _Topic([_Log() for _ in range(partitions)], max_message_bytes)

    def append(self, record: Record) -> Position:
        """Put a record at the end of its key's partition, acknowledged."""
        partitions = len(self._topics[record.topic].logs)
        return self.append_to(Partition(record.topic, zlib.crc32(record.key) % partitions), record)

    def append_to(self, partition: Partition, record: Record) -> Position:
        """Put a record at the end of this partition, acknowledged."""
        log = self.log(partition)
        offset = log.end
        log.records.append(
            ConsumedRecord(
                partition=partition,
                offset=offset,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp_ms=int(self._clock.now().timestamp() * 1000),
            )
        )
        self.wake()
        return Position(partition.topic, partition.number, offset)

    def records(self, topic: str) -> Sequence[ConsumedRecord]:
        """All records of a topic, by partition and offset."""
        return [record for log in self._topics[topic].logs for record in log.records]

    def delete_records(self, partition: Partition, *, before: int) -> None:
        """Let the log start at `before`, as retention does."""
        log = self.log(partition)
        del log.records[: before - log.first]
        log.first = before

    def rebalance(self, group: str) -> None:
        """Deal the group's partitions out anew; each member's are unpositioned then."""
        members = self._members[group]
        dealt: dict[MemoryRecordSource, set[Partition]] = {member: set() for member in members}
        for topic, its in sorted(self._topics.items()):
            readers = [member for member in members if topic in member.topics]
            for number in range(len(its.logs) if readers else 0):
                dealt[readers[number % len(readers)]].add(Partition(topic, number))
        for member, partitions in dealt.items():
            member.assign(partitions)
        self.wake()

    def join(self, member: "MemoryRecordSource") -> None:
        """Take a source into its group."""
        self._members[member.group].append(member)
        self.rebalance(member.group)

    def leave(self, member: "MemoryRecordSource") -> None:
        """Let a source go from its group."""
        if member in self._members[member.group]:
            self._members[member.group].remove(member)
            self.rebalance(member.group)

    def has_topic(self, name: str) -> bool:
        """Whether the topic was created."""
        return name in self._topics

    def limit(self, topic: str) -> int | None:
        """The topic's `max.message.bytes`; None where there is no such topic."""
        return self._topics[topic].max_message_bytes if topic in self._topics else None

    def partitions(self, topic: str) -> Sequence[Partition]:
        """The topic's partitions; none where there is no such topic."""
        return [
            Partition(topic, number) for number in range(len(self._topics[topic].logs) if topic in self._topics else 0)
        ]

    def log(self, partition: Partition) -> _Log:
        """A partition's log."""
        return self._topics[partition.topic].logs[partition.number]

    def wake(self) -> None:
        """Let everyone who waits look again."""
        self._appended.set()
        self._appended = asyncio.Event()

    async def news(self) -> None:
        """Wait for the next `wake`."""
        await self._appended.wait()


class MemoryPublisher:
    """The `Publisher` port on a `MemoryKafka`.

    Faults to order: `fail_next` (the record is not appended), `lose_ack` (it is appended and nobody learns of it),
    and `hold` / `release` (records wait, appended when released, as those of a frozen broker).
    """

    def __init__(self, kafka: MemoryKafka, *, problem: str | None = None) -> None:
        self.problem = problem
        self._kafka = kafka
        self._failures: deque[IngestError] = deque()
        self._acks_to_lose = 0
        self._released = asyncio.Event()
        self._released.set()

    def fail_next(self, times: int, error: IngestError) -> None:
        """Let the next records fail with `error` instead of being appended."""
        self._failures.extend([error] * times)

    def lose_ack(self, times: int = 1) -> None:
        """Append the next records, but let their publishers run into the deadline."""
        self._acks_to_lose += times

    def hold(self) -> None:
        """Hold records back from now on."""
        self._released = asyncio.Event()

    def release(self) -> None:
        """Append what is held, in order, whether or not anyone still waits for it."""
        self._released.set()

    async def publish(self, record: Record, *, deadline: float) -> Position:
        """See `Publisher.publish`."""
        if not self._kafka.available:
            raise BrokerUnavailable("the broker is away")
        if not self._kafka.has_topic(record.topic):
            raise BrokerUnavailable(f"the topic {record.topic} is missing")
        if asyncio.get_running_loop().time() >= deadline:
            raise BrokerUnavailable("no producer took the record in time")
        if not self.fits(record):
            raise RecordTooLarge(f"the record is over the max.message.bytes of {record.topic}")
        if self._failures:
            raise self._failures.popleft()
        # A task of its own: the deadline ends the waiting, not the delivery.
        delivery = asyncio.create_task(self._deliver(record))
        done, _ = await asyncio.wait([delivery], timeout=deadline - asyncio.get_running_loop().time())
        if not done:
            raise PublishOutcomeUnknown("no answer in time; the record may be in the log")
        return delivery.result()

    async def _deliver(self, record: Record) -> Position:
        await self._released.wait()
        position = self._kafka.append(record)
        if self._acks_to_lose:
            self._acks_to_lose -= 1
            raise PublishOutcomeUnknown("the connection was lost before the answer")
        return position

    def fits(self, record: Record) -> bool:
        """See `Publisher.fits`."""
        limit = self._kafka.limit(record.topic)
        return limit is None or record_bytes(record) <= limit

    @property
    def available(self) -> bool:
        """See `Publisher.available`."""
        return self._kafka.available and self.problem is None


class MemoryRecordSource:
    """The `RecordSource` port on a `MemoryKafka`. It joins its group when it is made."""

    def __init__(self, kafka: MemoryKafka, *, group: str, topics: Collection[str]) -> None:
        self.group = group
        self.topics = frozenset(topics)
        self.commit_failures = 0
        """Commits that did not get through."""
        self._kafka = kafka
        self._assigned: frozenset[Partition] = frozenset()
        self._positions: dict[Partition, int] = {}
        self._changed = False
        kafka.join(self)

    def assign(self, partitions: Collection[Partition]) -> None:
        """The group's side: give this member its partitions, unpositioned."""
        self._assigned = frozenset(partitions)
        self._positions.clear()
        self._changed = True

    def unpositioned(self) -> Collection[Partition]:
        """See `RecordSource.unpositioned`."""
        return self._assigned - self._positions.keys()

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, tuple[int, int]]:
        """See `RecordSource.bounds`."""
        self._require_broker()
        logs = {partition: self._kafka.log(partition) for partition in partitions}
        return {partition: (log.first, log.end) for partition, log in logs.items()}

    def seek(self, partition: Partition, offset: int) -> None:
        """See `RecordSource.seek`."""
        if partition in self._assigned:
            self._positions[partition] = offset

    def unposition(self, partitions: Collection[Partition]) -> None:
        """See `RecordSource.unposition`."""
        for partition in partitions:
            self._positions.pop(partition, None)

    async def fetch(self, *, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        """See `RecordSource.fetch`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        self._changed = False
        # One turn of the loop at least, as with a broker: a caller that never yields would stop everyone else.
        await asyncio.sleep(0)
        while not (records := self._take(max_records)) and not self._changed:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._kafka.news()
            except TimeoutError:
                break
        return records

    def _take(self, max_records: int) -> Sequence[ConsumedRecord]:
        records: list[ConsumedRecord] = []
        if not self._kafka.available:
            return records
        for partition, offset in sorted(self._positions.items()):
            log = self._kafka.log(partition)
            if not log.first <= offset <= log.end:
                if records:
                    break
                self.unposition([partition])
                raise OffsetOutOfRange(f"offset {offset} of {partition.topic}, partition {partition.number}, is gone")
            records += log.since(offset, max_records - len(records))
        self._positions.update((record.partition, record.next_offset) for record in records)
        return records

    async def commit(self, offsets: Offsets) -> None:
        """See `RecordSource.commit`."""
        if not self._kafka.available:
            self.commit_failures += 1
            return
        self._kafka.committed[self.group].update({p: o for p, o in offsets.items() if p in self._assigned})

    async def ends(self) -> Offsets:
        """See `RecordSource.ends`."""
        self._require_broker()
        return {partition: self._kafka.log(partition).end for partition in self._assigned}

    async def close(self) -> None:
        """See `RecordSource.close`."""
        self._kafka.leave(self)
        self.assign(())

    def _require_broker(self) -> None:
        if not self._kafka.available:
            raise BrokerUnavailable("the broker is away")


class MemoryRecordLog:
    """The `RecordLog` port on a `MemoryKafka`."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka

    async def ranges(self, topic: str) -> Mapping[Partition, range]:
        """See `RecordLog.ranges`."""
        self._require_broker()
        logs = {partition: self._kafka.log(partition) for partition in self._kafka.partitions(topic)}
        return {partition: range(log.first, log.end) for partition, log in logs.items()}

    async def offsets_at(self, partitions: Collection[Partition], moment: datetime) -> Mapping[Partition, int]:
        """See `RecordLog.offsets_at`."""
        self._require_broker()
        since_ms = int(moment.timestamp() * 1000)
        found = {
            partition: next((r.offset for r in self._kafka.log(partition).records if r.timestamp_ms >= since_ms), None)
            for partition in partitions
        }
        return {partition: offset for partition, offset in found.items() if offset is not None}

    async def read(self, ranges: Mapping[Partition, range]) -> AsyncIterator[ConsumedRecord]:
        """See `RecordLog.read`."""
        for partition, wanted in sorted(ranges.items(), key=lambda item: item[0]):
            for record in tuple(self._kafka.log(partition).records):
                await asyncio.sleep(0)
                self._require_broker()
                if record.offset in wanted:
                    yield record

    def _require_broker(self) -> None:
        if not self._kafka.available:
            raise BrokerUnavailable("the broker is away")


def record_bytes(record: Record) -> int:
    """The size of a batch with this record alone, in bytes, rounded up."""
    fields = [record.key, record.value, *(part for name, value in record.headers for part in (name.encode(), value))]
    return _FRAME_BYTES + sum(len(part) + _FIELD_BYTES for part in fields)
