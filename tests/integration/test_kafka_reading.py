"""The log on a real broker."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from service.adapters.kafka_reading import _BATCH_RECORDS, _FETCH_BYTES, KafkaRecordLog, ReadingTiming, reading
from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import TopicSpec, admin_client, apply
from service.errors import BrokerUnavailable
from service.events import Partition
from service.local.kafka import LocalKafka
from service.local.ports import LOOPBACK, free_port
from tests.contracts.record_log import NOON, RecordLogContract, values

FAST = ReadingTiming(request=3.0, silent=2.0, close=2.0)


@dataclass(frozen=True)
class KafkaLogHarness:
    """A topic, a log, and a producer."""

    kafka: LocalKafka
    log: KafkaRecordLog
    partitions: tuple[Partition, Partition]
    producer: AIOKafkaProducer

    async def append(self, partition: Partition, *given: bytes, at: datetime = NOON) -> None:
        for value in given:
            await self.producer.send_and_wait(
                partition.topic, value, b"k", partition.number, timestamp_ms=int(at.timestamp() * 1000)
            )

    async def delete_records(self, partition: Partition, *, before: int) -> None:
        async with admin_client(self.kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
            await admin.delete_records(
                {TopicPartition(partition.topic, partition.number): RecordsToDelete(before_offset=before)}
            )


@pytest.fixture
async def harness(kafka: LocalKafka, topic_prefix: str) -> AsyncIterator[KafkaLogHarness]:
    topic = f"{topic_prefix}.quarantine"
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [TopicSpec(topic, 2, 1)])
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_batch_size=512 * 1024) as producer,
        reading(kafka.bootstrap_servers, timing=FAST) as log,
    ):
        yield KafkaLogHarness(kafka, log, (Partition(topic, 0), Partition(topic, 1)), producer)


class TestKafkaRecordLog(RecordLogContract):
    """The contract, on a real broker."""


async def test_offsets_without_records_are_passed_over(harness: KafkaLogHarness) -> None:
    """Transactions leave markers, and what they took back, in the log: also as its very end."""
    first, second = harness.partitions
    await harness.append(first, b"a")
    await harness.append(second, b"c")
    async with AIOKafkaProducer(
        bootstrap_servers=harness.kafka.bootstrap_servers, transactional_id=first.topic
    ) as transactional:
        async with transactional.transaction():
            await transactional.send_and_wait(first.topic, b"b", b"k", first.number)
        await transactional.begin_transaction()
        await transactional.send_and_wait(first.topic, b"taken back", b"k", first.number)
        await transactional.abort_transaction()

    ranges = await harness.log.ranges(first.topic)

    assert ranges[first] == range(5)
    assert await asyncio.wait_for(values(harness.log.read(ranges)), 20) == [b"a", b"b", b"c"]


async def test_more_than_one_fetch_gives_is_read_to_its_end(harness: KafkaLogHarness) -> None:
    """In bytes and in records."""
    first, _ = harness.partitions
    bodies = [b"%d" % n + b"x" * 10_000 for n in range(_BATCH_RECORDS + 100)]
    assert sum(map(len, bodies)) > _FETCH_BYTES
    await asyncio.gather(*(harness.producer.send(first.topic, body, b"k", first.number) for body in bodies))
    await harness.producer.flush()

    ranges = await harness.log.ranges(first.topic)

    assert sorted(await values(harness.log.read(ranges)), key=str) == sorted(bodies, key=str)


async def test_a_topic_that_was_made_anew_has_nothing_of_what_was_asked_for(harness: KafkaLogHarness) -> None:
    first, second = harness.partitions
    await harness.append(first, b"new")
    await harness.append(second, b"there")

    read = await asyncio.wait_for(values(harness.log.read({first: range(40, 50), second: range(1)})), 20)

    assert read == [b"there"]


async def test_a_broker_that_falls_silent_ends_the_reading(harness: KafkaLogHarness) -> None:
    first, _ = harness.partitions
    await harness.append(first, b"a")
    ranges = await harness.log.ranges(first.topic)
    harness.kafka.pause()
    try:
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(values(harness.log.read(ranges)), 30)
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(harness.log.ranges(first.topic), 30)
    finally:
        harness.kafka.resume()


async def test_where_there_is_no_broker_that_is_told() -> None:
    with pytest.raises(BrokerUnavailable):
        async with reading(f"{LOOPBACK}:{free_port()}", timing=FAST):
            pytest.fail("there is nothing to read")
