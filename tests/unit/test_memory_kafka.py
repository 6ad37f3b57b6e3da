"""The twins keep the ports' contracts, and their faults are the ones that a broker has."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from service.adapters.memory_kafka import MemoryKafka, MemoryPublisher, MemoryRecordSource
from service.clock import SystemClock
from service.errors import BrokerUnavailable, PublishOutcomeUnknown, PublishRefused
from service.events import ConsumedRecord, Partition, Record
from tests.contracts.publisher import PublisherContract, in_seconds, record
from tests.contracts.record_source import RecordSourceContract, assigned

TOPIC = "t.payments"


@pytest.fixture
def memory_kafka() -> MemoryKafka:
    return MemoryKafka(SystemClock())


@dataclass(frozen=True)
class MemoryPublisherHarness:
    """A publisher on a cluster of this process."""

    kafka: MemoryKafka
    publisher: MemoryPublisher
    topic: str = TOPIC
    max_message_bytes: int = 20_000

    async def log(self) -> Sequence[ConsumedRecord]:
        return self.kafka.records(self.topic)


class TestMemoryPublisher(PublisherContract):
    """The contract, and the faults to order."""

    @pytest.fixture
    def harness(self, memory_kafka: MemoryKafka) -> MemoryPublisherHarness:
        memory_kafka.create_topic(TOPIC, partitions=3, max_message_bytes=20_000)
        return MemoryPublisherHarness(memory_kafka, MemoryPublisher(memory_kafka))

    async def test_an_ordered_failure_is_raised_and_nothing_is_appended(self, harness: MemoryPublisherHarness) -> None:
        harness.publisher.fail_next(1, PublishRefused("no"))

        with pytest.raises(PublishRefused):
            await harness.publisher.publish(record(TOPIC), deadline=in_seconds(1))
        assert await harness.log() == []

        await harness.publisher.publish(record(TOPIC), deadline=in_seconds(1))
        assert len(await harness.log()) == 1

    async def test_a_record_whose_ack_is_lost_is_in_the_log(self, harness: MemoryPublisherHarness) -> None:
        harness.publisher.lose_ack()

        with pytest.raises(PublishOutcomeUnknown):
            await harness.publisher.publish(record(TOPIC), deadline=in_seconds(1))

        assert len(await harness.log()) == 1

    async def test_a_held_record_is_appended_after_its_publisher_has_gone(
        self, harness: MemoryPublisherHarness
    ) -> None:
        harness.publisher.hold()
        with pytest.raises(PublishOutcomeUnknown):
            await harness.publisher.publish(record(TOPIC), deadline=in_seconds(0.01))
        assert await harness.log() == []

        harness.publisher.release()
        await harness.publisher.publish(record(TOPIC, value=b"later"), deadline=in_seconds(1))

        assert [consumed.value for consumed in await harness.log()] == [b"{}", b"later"]

    async def test_a_broker_that_is_away_is_known_to_be(self, harness: MemoryPublisherHarness) -> None:
        harness.kafka.available = False

        assert not harness.publisher.available
        with pytest.raises(BrokerUnavailable):
            await harness.publisher.publish(record(TOPIC), deadline=in_seconds(1))
        assert await harness.log() == []


class MemorySourceHarness:
    """Sources on a cluster of this process."""

    partitions = (Partition(TOPIC, 0), Partition(TOPIC, 1))

    def __init__(self, kafka: MemoryKafka) -> None:
        self.kafka = kafka
        kafka.create_topic(TOPIC, partitions=2)

    async def source(self) -> MemoryRecordSource:
        return MemoryRecordSource(self.kafka, group="g", topics=[TOPIC])

    async def append(self, partition: Partition, *values: bytes) -> None:
        for value in values:
            self.kafka.append_to(partition, Record(partition.topic, b"pi_1", value, ()))

    async def delete_records(self, partition: Partition, *, before: int) -> None:
        self.kafka.delete_records(partition, before=before)

    async def committed(self, partition: Partition) -> int | None:
        return self.kafka.committed["g"].get(partition)


class TestMemoryRecordSource(RecordSourceContract):
    """The contract, and what a test can do to it."""

    @pytest.fixture
    def harness(self, memory_kafka: MemoryKafka) -> MemorySourceHarness:
        return MemorySourceHarness(memory_kafka)

    async def test_a_source_of_a_broker_that_is_away_gives_nothing_and_counts_commits(
        self, harness: MemorySourceHarness
    ) -> None:
        first, _ = harness.partitions
        source = await harness.source()
        await assigned(source, harness.partitions)
        source.seek(first, 0)
        await harness.append(first, b"0")
        harness.kafka.available = False

        assert await source.fetch(max_records=1, timeout_seconds=0.01) == []
        await source.commit({first: 1})
        with pytest.raises(BrokerUnavailable):
            await source.ends()

        assert source.commit_failures == 1
        assert await harness.committed(first) is None

    async def test_a_rebalance_during_a_fetch_ends_it(self, harness: MemorySourceHarness) -> None:
        source = await harness.source()
        await assigned(source, harness.partitions)
        for partition in harness.partitions:
            source.seek(partition, 0)

        waiting = asyncio.create_task(source.fetch(max_records=1, timeout_seconds=60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        harness.kafka.rebalance("g")

        assert await asyncio.wait_for(waiting, 5) == []
        assert set(source.unpositioned()) == set(harness.partitions)
