"""Reading with aiokafka: positions come from the caller only, and a consumer that fell silent is replaced.

The rebalance listener does nothing but forget positions: what it raises is only logged, and `getmany` hands out
records while it runs. So a partition has a position here only after `seek` in the present assignment, and records
fetched for a position that is no longer the present one are dropped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from service.adapters.kafka_ending import bounded, end
from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import admin_client, cluster_id
from service.errors import BrokerUnavailable, OffsetOutOfRange
from service.events import ConsumedRecord, Offsets, Partition

Recreation: TypeAlias = Literal["silent", "stuck_rebalance", "fetcher_died", "error"]

_log: Final = logging.getLogger(__name__)

_FETCH_BYTES: Final = 5 * 1024 * 1024
"""Above the data topics' `max.message.bytes`."""
_FETCH_WAIT_MS: Final = 100
_POLL_SECONDS: Final = 0.2
"""The longest single `getmany`: it knows nothing of partitions that are positioned while it waits."""
_GRACE_SECONDS: Final = 0.1
_NOWHERE: Final = TopicPartition("", -1)
"""`getmany` without partitions means all of them; this one means none."""


@dataclass(frozen=True, slots=True)
class SourceTiming:
    """The bounds of everything that a source does, in seconds."""

    request: float = 10.0
    session: float = 10.0
    """A member that has sent no heartbeat for this long is out of its group, and the others take its partitions: the
    length of a gap after a crash. Short, since a wrong suspicion is harmless: the database's fence stops a zombie."""
    heartbeat: float = 3.0
    rebalance: float = 60.0
    """How long the group waits for its members to join again; aiokafka's own default would be `session`."""
    poll_interval: float = 600.0
    """A member that has not fetched for this long leaves its group."""
    commit: float = 5.0
    close: float = 10.0
    silent: float = 30.0
    """How long nothing may come, while there is lag, before the consumer is replaced."""


@dataclass(eq=False, slots=True)
class _Position:
    """Where one `seek` has led; another seek makes another object, so identity tells them apart."""

    next_offset: int
    passed: int
    """How far the driver has come: after `next_offset` there may be offsets without a record, as transactions and
    compaction leave them."""


@dataclass(frozen=True, slots=True)
class _Poll:
    """A running `getmany`, and the positions it was started for."""

    task: "asyncio.Task[Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]]"
    positions: Mapping[TopicPartition, _Position]


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """The partitions of this member and their positions; every rebalance forgets the positions."""

    def __init__(self, consumer: AIOKafkaConsumer, now: float, on_assigned: Callable[[], object]) -> None:
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.positions: dict[TopicPartition, _Position] = {}
        self.changed = False
        """Since `fetch` last looked."""
        self.revoked_at: float | None = now
        """Since when a rebalance is going on; None when none is."""
        self._consumer = consumer
        self._on_assigned = on_assigned

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002 - all are
        self._replace(frozenset())
        self.revoked_at = asyncio.get_running_loop().time()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._replace(frozenset(assigned))
        self.revoked_at = None
        # Or they would be fetched from wherever the group's committed offset says.
        self._consumer.pause(*assigned)
        self._on_assigned()

    def _replace(self, partitions: frozenset[TopicPartition]) -> None:
        self.partitions = partitions
        self.positions.clear()
        self.changed = True


@dataclass(eq=False, slots=True)
class _Member:
    """One membership in the group: a consumer, what it was assigned, and its running poll."""

    consumer: AIOKafkaConsumer
    assignment: _Assignment
    poll: _Poll | None = None

    def start_poll(self, max_records: int, timeout_seconds: float) -> _Poll:
        positions = dict(self.assignment.positions)
        polling = self.consumer.getmany(
            *(positions or [_NOWHERE]), timeout_ms=int(timeout_seconds * 1000), max_records=max_records
        )
        self.poll = _Poll(asyncio.create_task(polling), positions)
        return self.poll


class KafkaRecordSource:
    """The `RecordSource` port on a consumer group.

    `on_commit_failed` is told the kind of each failure to commit, `on_recreated` why a consumer was replaced, and
    `on_rebalanced` each time that the group has given us partitions, or none.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group: str,
        topics: Collection[str],
        security: KafkaSecurity | None = None,
        client_id: str = "stripe-ingest",
        timing: SourceTiming | None = None,
        on_commit_failed: Callable[[str], object] = lambda _: None,
        on_recreated: Callable[[Recreation], object] = lambda _: None,
        on_rebalanced: Callable[[], object] = lambda: None,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._group = group
        self._topics = frozenset(topics)
        self._security = security or KafkaSecurity()
        self._client_id = client_id
        self._timing = timing or SourceTiming()
        self._on_commit_failed = on_commit_failed
        self._on_recreated = on_recreated
        self._on_rebalanced = on_rebalanced
        self._member: _Member | None = None
        self._waited = 0.0

    async def start(self) -> None:
        """Connect and join the group, without waiting for an assignment. `fetch` does it, too, where it is needed.

        Raises `BrokerUnavailable`.
        """
        await self._open()

    async def close(self) -> None:
        """See `RecordSource.close`."""
        member, self._member = self._member, None
        if member is not None:
            await self._leave(member)

    async def cluster_id(self) -> str:
        """The cluster's own id. Raises `BrokerUnavailable`."""
        async with admin_client(
            self._bootstrap_servers, security=self._security, request_timeout_seconds=self._timing.request
        ) as admin:
            return await cluster_id(admin)

    def unpositioned(self) -> Collection[Partition]:
        """See `RecordSource.unpositioned`."""
        if self._member is None:
            return ()
        assignment = self._member.assignment
        return {partition_of(tp) for tp in assignment.partitions - assignment.positions.keys()}

    async def bounds(self, partitions: Collection[Partition]) -> Mapping[Partition, tuple[int, int]]:
        """See `RecordSource.bounds`. Raises `BrokerUnavailable`."""
        tps = [topic_partition(partition) for partition in partitions]
        first = await self._ask(lambda consumer: consumer.beginning_offsets(tps))
        end = await self._ask(lambda consumer: consumer.end_offsets(tps))
        return {partition_of(tp): (first[tp], end[tp]) for tp in tps}

    def seek(self, partition: Partition, offset: int) -> None:
        """See `RecordSource.seek`. Does nothing for a partition that was revoked meanwhile."""
        tp = topic_partition(partition)
        if self._member is None or tp not in self._member.assignment.partitions:
            return
        self._member.consumer.seek(tp, offset)
        self._member.consumer.resume(tp)
        self._member.assignment.positions[tp] = _Position(offset, passed=offset)
        self._waited = 0.0

    def unposition(self, partitions: Collection[Partition]) -> None:
        """See `RecordSource.unposition`."""
        if self._member is None:
            return
        for tp in map(topic_partition, partitions):
            if self._member.assignment.positions.pop(tp, None) is not None:
                self._member.consumer.pause(tp)

    async def fetch(self, *, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        """See `RecordSource.fetch`.

        Raises `OffsetOutOfRange` for a position that the log no longer has (that partition is unpositioned then, the
        others go on), `BrokerUnavailable` when the consumer failed; the next call makes a new one.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        member = await self._open()
        try:
            records = await self._next(member, max_records, timeout_seconds)
        except OffsetOutOfRangeError as error:
            raise self._out_of_range(error) from error
        except KafkaError as error:
            await self._give_up(member, "error")
            raise BrokerUnavailable(f"the consumer failed ({type(error).__name__})") from error
        if records:
            self._waited = 0.0
            return records
        self._waited += loop.time() - started
        if reason := await self._silence(member):
            await self._give_up(member, reason)
        return ()

    async def commit(self, offsets: Offsets) -> None:
        """See `RecordSource.commit`."""
        if self._member is None:
            return
        assigned = self._member.assignment.partitions
        ours = {tp: offset for p, offset in offsets.items() if (tp := topic_partition(p)) in assigned}
        if not ours:
            return
        try:
            # aiokafka goes on trying for as long as the coordinator is away.
            async with asyncio.timeout(self._timing.commit):
                await self._member.consumer.commit(ours)
        except (KafkaError, TimeoutError) as error:
            self._on_commit_failed(type(error).__name__)

    async def ends(self) -> Offsets:
        """See `RecordSource.ends`. Raises `BrokerUnavailable`."""
        assigned = list(self._member.assignment.partitions) if self._member is not None else []
        if not assigned:
            return {}
        ends = await self._ask(lambda consumer: consumer.end_offsets(assigned))
        positions = self._member.assignment.positions if self._member is not None else {}
        return {partition_of(tp): _end_of_records(positions.get(tp), ends[tp]) for tp in assigned}

    async def _open(self) -> _Member:
        if self._member is None:
            consumer = self._new_consumer(group=self._group)
            await self._connect(consumer)
            assignment = _Assignment(consumer, asyncio.get_running_loop().time(), self._on_rebalanced)
            # Subscribed only now: with a subscription the consumer's start would wait for the group without an end.
            consumer.subscribe(topics=sorted(self._topics), listener=assignment)
            self._member = _Member(consumer, assignment)
            self._waited = 0.0
        return self._member

    def _new_consumer(self, *, group: str | None) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            client_id=self._client_id,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=int(self._timing.session * 1000),
            heartbeat_interval_ms=int(self._timing.heartbeat * 1000),
            rebalance_timeout_ms=int(self._timing.rebalance * 1000),
            max_poll_interval_ms=int(self._timing.poll_interval * 1000),
            request_timeout_ms=int(self._timing.request * 1000),
            max_partition_fetch_bytes=_FETCH_BYTES,
            # A question about the log's end waits behind a fetch on the same connection: this long at most.
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            metadata_max_age_ms=60_000,
            **self._security.client_arguments(),
        )

    async def _connect(self, consumer: AIOKafkaConsumer) -> None:
        """Start a consumer. Raises `BrokerUnavailable`."""
        try:
            # A frozen server costs one request's time-out before the next of the list is tried.
            async with asyncio.timeout(self._timing.request * (1 + self._bootstrap_servers.count(","))):
                await consumer.start()
        except BaseException as error:
            await dispose(consumer, self._timing.close)
            if isinstance(error, KafkaError | OSError | TimeoutError):
                raise BrokerUnavailable(f"kafka is away ({type(error).__name__})") from error
            raise

    async def _next(self, member: _Member, max_records: int, timeout_seconds: float) -> Sequence[ConsumedRecord]:
        """The next records of the positioned partitions; nothing when the time is up or the assignment changes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        member.assignment.changed = False
        while True:
            remaining = max(0.0, deadline - loop.time())
            poll = member.poll or member.start_poll(max_records, min(remaining, _POLL_SECONDS))
            await asyncio.wait([poll.task], timeout=remaining + _GRACE_SECONDS)
            if not poll.task.done():
                # During a rebalance `getmany` waits for its end. It is left running: cancelling it would leave the
                # consumer believing for ever that somebody polls.
                return ()
            member.poll = None
            try:
                records = _taken(member, poll)
            except NoOffsetForPartitionError:
                # About a partition that waits for its `seek`: it has no position, as it should.
                records = []
            if records or member.assignment.changed or loop.time() >= deadline:
                return records

    def _out_of_range(self, error: OffsetOutOfRangeError) -> OffsetOutOfRange:
        outside: Mapping[TopicPartition, int] = error.args[0]
        self.unposition([partition_of(tp) for tp in outside])
        where = ", ".join(f"offset {offset} of {tp.topic}, partition {tp.partition}" for tp, offset in outside.items())
        return OffsetOutOfRange(
            f"{where}, is outside the log: records were deleted before they were read, or the topic was made anew. "
            "Other partitions go on. To go on with what is there, delete the partition's row from consumer_offsets."
        )

    async def _silence(self, member: _Member) -> Recreation | None:
        """Whether nothing comes because the consumer is broken, and how."""
        now = asyncio.get_running_loop().time()
        revoked_at = member.assignment.revoked_at
        if member.consumer._fetcher._fetch_task.done():  # noqa: SLF001 - nothing else tells
            return "fetcher_died"
        if revoked_at is not None and now - revoked_at > self._timing.rebalance + self._timing.session:
            return "stuck_rebalance"
        if self._waited >= self._timing.silent:
            self._waited = 0.0
            if await self._behind():
                return "silent"
        return None

    async def _behind(self) -> bool:
        """Whether there are records that we have not got, asked of a consumer of its own: ours may be what is broken.

        False where that one gets no answer either: the broker is away, and replacing anything would not help.
        """
        positions = self._passed()
        if not positions:
            return False
        consumer = self._new_consumer(group=None)
        try:
            await self._connect(consumer)
            async with asyncio.timeout(self._timing.request):
                ends = await consumer.end_offsets(list(positions))
        except (BrokerUnavailable, KafkaError, TimeoutError):
            return False
        finally:
            await dispose(consumer, self._timing.close)
        return any(ends[tp] > offset for tp, offset in positions.items())

    def _passed(self) -> Mapping[TopicPartition, int]:
        if self._member is None:
            return {}
        return {tp: position.passed for tp, position in self._member.assignment.positions.items()}

    async def _ask(
        self, question: Callable[[AIOKafkaConsumer], Awaitable[Mapping[TopicPartition, int]]]
    ) -> Mapping[TopicPartition, int]:
        member = await self._open()
        try:
            async with asyncio.timeout(self._timing.request):
                return await question(member.consumer)
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(f"kafka does not tell a log's offsets ({type(error).__name__})") from error

    async def _give_up(self, member: _Member, reason: Recreation) -> None:
        """Leave, so that the next call makes a new consumer, of which every partition is unpositioned."""
        _log.warning("kafka.consumer_replaced", extra={"reason": reason})
        self._on_recreated(reason)
        self._member = None
        await self._leave(member)

    async def _leave(self, member: _Member) -> None:
        await dispose(member.consumer, self._timing.close)
        if member.poll is not None:
            await end(member.poll.task)


def _taken(member: _Member, poll: _Poll) -> list[ConsumedRecord]:
    """What a poll gave for positions that are still the present ones. Raises what it raised."""
    records: list[ConsumedRecord] = []
    polled = poll.task.result()
    for tp, idle in poll.positions.items():
        if tp not in polled and member.assignment.positions.get(tp) is idle:
            idle.passed = _reached(member.consumer, tp) or idle.passed
    for tp, batch in polled.items():
        position = member.assignment.positions.get(tp)
        if position is None:
            continue
        if position is not poll.positions.get(tp):
            # Sought while the poll ran: what it took may have come after that, and would be missing.
            member.consumer.seek(tp, position.next_offset)
            continue
        position.next_offset = position.passed = batch[-1].offset + 1
        records += map(consumed, batch)
    return records


def _reached(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int | None:
    """The driver's own position, at once: its `position` waits where there is none."""
    assignment = consumer._subscription.subscription.assignment  # noqa: SLF001 - see above
    if assignment is None or tp not in assignment.tps:
        return None
    state = assignment.state_value(tp)
    return int(state.position) if state.has_valid_position else None


def _end_of_records(position: _Position | None, end: int) -> int:
    """Where a log ends for who wants records: what follows our position and is passed has none."""
    return position.next_offset if position is not None and position.passed >= end else end


def consumed(record: "ConsumerRecord[bytes, bytes]") -> ConsumedRecord:
    """A record as the driver gives it, as ours."""
    return ConsumedRecord(
        partition=Partition(record.topic, record.partition),
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=tuple((name, value or b"") for name, value in record.headers),
        timestamp_ms=record.timestamp,
    )


def partition_of(tp: TopicPartition) -> Partition:
    """Ours, of the driver's."""
    return Partition(tp.topic, tp.partition)


def topic_partition(partition: Partition) -> TopicPartition:
    """The driver's, of ours."""
    return TopicPartition(partition.topic, partition.number)


async def dispose(consumer: AIOKafkaConsumer, seconds: float) -> None:
    """Stop a consumer, by force where its own `stop` does not end: leaving the group asks a broker that may be away."""
    await bounded(consumer.stop, seconds)
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001 - what a hanging `stop` leaves
    names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")
    tasks = [getattr(coordinator, name, None) for name in names] + [getattr(fetcher, "_fetch_task", None)]
    for task in tasks:
        if task is not None:
            await end(task)
    await bounded(consumer._client.close, seconds)  # noqa: SLF001 - see above
