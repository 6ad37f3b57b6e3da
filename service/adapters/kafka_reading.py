"""Reading topics with aiokafka from anywhere to anywhere, as nobody's group."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_source import consumed, dispose, partition_of, topic_partition
from service.adapters.kafka_topics import admin_client, describe_topics
from service.errors import BrokerUnavailable
from service.events import ConsumedRecord, Partition

T = TypeVar("T")

_FETCH_BYTES: Final = 5 * 1024 * 1024
"""Above any topic's `max.message.bytes`; one partition is read at a time, so no more than a few of these are held."""
_BATCH_RECORDS: Final = 500
_POLL_SECONDS: Final = 0.5
_PARTITIONS_SECONDS: Final = 30.0
"""For so long a topic's partitions are believed to be what they were: to ask takes a connection of its own, and hardly
ever are there more."""


@dataclass(frozen=True, slots=True)
class ReadingTiming:
    """The bounds of everything that a log does, in seconds."""

    request: float = 10.0
    silent: float = 30.0
    """How long nothing may come of a partition that has more: its leader is away, and somebody is told."""
    close: float = 5.0


class KafkaRecordLog:
    """The `RecordLog` port on a Kafka cluster. Made by `reading`."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        partitions_of: Callable[[str], Awaitable[Sequence[Partition]]],
        timing: ReadingTiming,
    ) -> None:
        self._consumer = consumer
        self._partitions_of = partitions_of
        self._timing = timing

    async def ranges(self, topic: str) -> Mapping[Partition, range]:
        """See `RecordLog.ranges`."""
        tps = [topic_partition(partition) for partition in await self._partitions_of(topic)]
        if not tps:
            return {}
        first = await self._ask(lambda: self._consumer.beginning_offsets(tps))
        # With `read_committed` the end is before the first transaction that is still open.
        end = await self._ask(lambda: self._consumer.end_offsets(tps))
        return {partition_of(tp): range(first[tp], end[tp]) for tp in tps}

    async def offsets_at(self, partitions: Collection[Partition], moment: datetime) -> Mapping[Partition, int]:
        """See `RecordLog.offsets_at`."""
        since_ms = max(0, int(moment.timestamp() * 1000))  # no record is older, and the driver takes no other
        wanted = {topic_partition(partition): since_ms for partition in partitions}
        if not wanted:
            return {}
        found = await self._ask(lambda: self._consumer.offsets_for_times(wanted))
        return {partition_of(tp): at.offset for tp, at in found.items() if at is not None}

    async def read(self, ranges: Mapping[Partition, range]) -> AsyncIterator[ConsumedRecord]:
        """See `RecordLog.read`."""
        for partition, wanted in sorted(ranges.items(), key=lambda item: item[0]):
            tp, position = topic_partition(partition), wanted.start
            self._consumer.assign([tp])
            self._consumer.seek(tp, position)
            while position < wanted.stop:
                batch, position = await self._next(tp, position)
                for record in batch:
                    if record.offset < wanted.stop:
                        yield record

    async def _next(self, tp: TopicPartition, position: int) -> tuple[Sequence[ConsumedRecord], int]:
        """Some records from `position` on, and where to go on: further than the last of them, or the log has moved.

        A log has offsets without records: compacted ones, deleted ones, those of transactions. So it is the consumer's
        position that tells how far we are.
        """
        deadline = asyncio.get_running_loop().time() + self._timing.silent
        while True:
            try:
                fetched = await self._consumer.getmany(
                    tp, timeout_ms=int(_POLL_SECONDS * 1000), max_records=_BATCH_RECORDS
                )
                reached = int(await self._ask(lambda: self._consumer.position(tp)))
            except OffsetOutOfRangeError:
                first = (await self._ask(lambda: self._consumer.beginning_offsets([tp])))[tp]
                self._consumer.seek(tp, first)
                # A log that begins before where we stood was made anew: nothing of what was asked for is left.
                return (), first if first > position else sys.maxsize
            except KafkaError as error:
                raise BrokerUnavailable(f"kafka does not give a topic's records ({type(error).__name__})") from error
            if reached > position:
                return [consumed(record) for record in fetched.get(tp, ())], reached
            if asyncio.get_running_loop().time() >= deadline:
                raise BrokerUnavailable(f"kafka gives no records of {tp.topic}, partition {tp.partition}")

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timing.request):
                return await question()
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(f"kafka does not tell a log's offsets ({type(error).__name__})") from error


@asynccontextmanager
async def reading(
    bootstrap_servers: str,
    *,
    security: KafkaSecurity | None = None,
    client_id: str = "stripe-ingest",
    timing: ReadingTiming | None = None,
) -> AsyncIterator[KafkaRecordLog]:
    """A log inside the block. Raises `BrokerUnavailable` where Kafka does not answer."""
    security = security or KafkaSecurity()
    timing = timing or ReadingTiming()

    known: dict[str, tuple[float, Sequence[Partition]]] = {}

    async def partitions_of(topic: str) -> Sequence[Partition]:
        now = asyncio.get_running_loop().time()
        asked_at, partitions = known.get(topic, (float("-inf"), ()))
        if not partitions or now - asked_at >= _PARTITIONS_SECONDS:
            partitions = await described_partitions(topic)
            known[topic] = (now, partitions)
        return partitions

    async def described_partitions(topic: str) -> Sequence[Partition]:
        async with admin_client(bootstrap_servers, security=security, request_timeout_seconds=timing.request) as admin:
            described = await describe_topics(admin, [topic])
        return [Partition(topic, number) for number in range(described[topic].partitions if topic in described else 0)]

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        client_id=client_id,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        request_timeout_ms=int(timing.request * 1000),
        max_partition_fetch_bytes=_FETCH_BYTES,
        **security.client_arguments(),
    )
    try:
        try:
            async with asyncio.timeout(timing.request * (1 + bootstrap_servers.count(","))):
                await consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"kafka is away ({type(error).__name__})") from error
        yield KafkaRecordLog(consumer, partitions_of, timing)
    finally:
        await dispose(consumer, timing.close)
