"""The record source on a real consumer group."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_source import KafkaRecordSource, SourceTiming
from service.adapters.kafka_topics import TopicSpec, admin_client, apply
from service.errors import BrokerUnavailable
from service.events import Partition
from service.local.kafka import LocalKafka
from service.local.ports import LOOPBACK, free_port
from tests.contracts.record_source import RecordSourceContract, assigned, fetch_until, nothing, values
from tests.support.waiting import eventually

FAST = SourceTiming(request=3.0, heartbeat=0.2, session=10.0, commit=1.0, close=2.0)


class KafkaSourceHarness:
    """A topic, a group that reads it, and a producer."""

    def __init__(self, kafka: LocalKafka, prefix: str, producer: AIOKafkaProducer) -> None:
        self.kafka = kafka
        self.topic = f"{prefix}.payments"
        self.group = f"{prefix}-ingest.payments"
        self.partitions = (Partition(self.topic, 0), Partition(self.topic, 1))
        self.recreated: list[str] = []
        self.commit_failures: list[str] = []
        self.rebalanced: list[int] = []
        """The source, by its number, each time that it was given partitions."""
        self.sources: list[KafkaRecordSource] = []
        self._producer = producer

    def new_source(self, timing: SourceTiming = FAST) -> KafkaRecordSource:
        source = KafkaRecordSource(
            self.kafka.bootstrap_servers,
            group=self.group,
            topics=[self.topic],
            timing=timing,
            on_commit_failed=self.commit_failures.append,
            on_recreated=self.recreated.append,
            on_rebalanced=lambda: self.rebalanced.append(self.sources.index(source)),
        )
        self.sources.append(source)
        return source

    async def source(self) -> KafkaRecordSource:
        source = self.new_source()
        await source.start()
        return source

    async def append(self, partition: Partition, *values: bytes) -> None:
        for value in values:
            await self._producer.send_and_wait(partition.topic, value, b"pi_1", partition.number)

    async def delete_records(self, partition: Partition, *, before: int) -> None:
        async with admin_client(self.kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
            await admin.delete_records(
                {TopicPartition(partition.topic, partition.number): RecordsToDelete(before_offset=before)}
            )

    async def values_again(self, source: KafkaRecordSource, *, offset: int = 0) -> Sequence[bytes | None]:
        """What the first partition has from an offset on, once the source has found its broker again."""
        records: list[bytes | None] = []

        async def came() -> bool:
            if self.partitions[0] in source.unpositioned():
                source.seek(self.partitions[0], offset)
            records.extend(record.value for record in await source.fetch(max_records=10, timeout_seconds=0.5))
            return bool(records)

        await eventually(came, timeout_seconds=60, what="the next record")
        return records

    async def committed(self, partition: Partition) -> int | None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers, group_id=self.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            offset: int | None = await consumer.committed(TopicPartition(partition.topic, partition.number))
            return offset
        finally:
            await consumer.stop()


@pytest.fixture
async def harness(kafka: LocalKafka, topic_prefix: str) -> AsyncIterator[KafkaSourceHarness]:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        made = KafkaSourceHarness(kafka, topic_prefix, producer)
        async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
            await apply(admin, [TopicSpec(made.topic, 2, 1)])
        yield made
        for source in made.sources:
            await source.close()


class TestKafkaRecordSource(RecordSourceContract):
    """The contract, on a real consumer group."""


async def test_a_record_comes_with_its_key_headers_and_time(harness: KafkaSourceHarness, kafka: LocalKafka) -> None:
    first, _ = harness.partitions
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(
            first.topic, b"v", b"k", 0, timestamp_ms=1_700_000_000_123, headers=[("a", b"1"), ("a", b"2"), ("b", None)]
        )
    source = await harness.source()
    await assigned(source, harness.partitions)
    source.seek(first, 0)

    (record,) = await fetch_until(source, len, what="the record")

    assert (record.partition, record.offset, record.next_offset) == (first, 0, 1)
    assert (record.key, record.value, record.timestamp_ms) == (b"k", b"v", 1_700_000_000_123)
    assert record.headers == (("a", b"1"), ("a", b"2"), ("b", b""))


async def test_whenever_the_group_gives_us_partitions_it_is_told(harness: KafkaSourceHarness) -> None:
    source = await harness.source()
    await assigned(source, harness.partitions)
    once = len(harness.rebalanced)
    assert once >= 1

    other = await harness.source()

    async def dealt_anew() -> bool:
        for each in (source, other):
            await each.fetch(max_records=1, timeout_seconds=0.1)
        return harness.rebalanced.count(0) > once and 1 in harness.rebalanced

    await eventually(dealt_anew, timeout_seconds=60, what="both were given partitions")


async def test_the_cluster_has_one_id_for_everyone(harness: KafkaSourceHarness) -> None:
    source, other = await harness.source(), harness.new_source()

    assert await source.cluster_id() == await other.cluster_id() != ""


async def test_a_seek_while_a_fetch_waits_loses_no_record(harness: KafkaSourceHarness) -> None:
    first, second = harness.partitions
    await harness.append(first, *(b"%d" % n for n in range(50)))
    source = await harness.source()
    await assigned(source, harness.partitions)
    source.seek(first, 50)
    source.seek(second, 0)

    for _ in range(5):
        waiting = asyncio.create_task(source.fetch(max_records=100, timeout_seconds=0.5))
        await asyncio.sleep(0)
        source.seek(first, 0)
        records = [*await waiting]
        while len(records) < 50:
            records += await source.fetch(max_records=100, timeout_seconds=1)
        assert [record.offset for record in records] == list(range(50))


async def test_a_broker_that_comes_back_goes_on_where_we_were(harness: KafkaSourceHarness) -> None:
    first, second = harness.partitions
    await harness.append(first, b"0", b"1")
    source = await harness.source()
    await assigned(source, harness.partitions)
    source.seek(first, 0)
    source.seek(second, 0)
    assert await values(source, 2) == [b"0", b"1"]

    harness.kafka.kill()
    assert await nothing(source)
    await source.commit({first: 2})
    assert len(harness.commit_failures) == 1
    with pytest.raises(BrokerUnavailable):
        await source.ends()
    with pytest.raises(BrokerUnavailable):
        await source.bounds([first])
    await harness.kafka.start()
    await harness.append(first, b"2")

    assert await harness.values_again(source, offset=2) == [b"2"]


async def test_a_broker_that_is_away_at_the_start_is_unavailable_and_found_later(harness: KafkaSourceHarness) -> None:
    harness.kafka.kill()
    source = harness.new_source()
    with pytest.raises(BrokerUnavailable):
        await source.start()
    with pytest.raises(BrokerUnavailable):
        await source.fetch(max_records=1, timeout_seconds=0.1)
    assert source.unpositioned() == ()

    await harness.kafka.start()

    await assigned(source, harness.partitions)


async def test_a_cluster_whose_addresses_have_all_changed_is_found_by_the_bootstrap_list(
    harness: KafkaSourceHarness,
) -> None:
    first, second = harness.partitions
    elsewhere = free_port()
    source = KafkaRecordSource(
        f"{harness.kafka.bootstrap_servers},{LOOPBACK}:{elsewhere}",
        group=harness.group,
        topics=[harness.topic],
        timing=SourceTiming(request=3.0, heartbeat=0.2, close=2.0, silent=2.0),
    )
    harness.sources.append(source)
    await assigned(source, harness.partitions)
    source.seek(first, 0)
    source.seek(second, 0)
    harness.kafka.kill()
    harness.kafka.port = elsewhere
    await harness.kafka.start()
    async with AIOKafkaProducer(bootstrap_servers=harness.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(first.topic, b"0", b"pi_1", first.number)

    assert await harness.values_again(source) == [b"0"]


async def test_closing_ends_while_the_broker_is_frozen(harness: KafkaSourceHarness) -> None:
    source = await harness.source()
    await assigned(source, harness.partitions)
    harness.kafka.pause()

    # Bounded by its own timing; the test's time-out would end one that is not.
    await source.close()

    assert source.unpositioned() == ()


async def test_a_consumer_that_fell_silent_is_replaced_and_starts_unpositioned(harness: KafkaSourceHarness) -> None:
    first, second = harness.partitions
    source = harness.new_source(SourceTiming(heartbeat=0.2, close=2.0, silent=0.5))
    await assigned(source, harness.partitions)
    source.seek(first, 0)
    source.seek(second, 0)
    assert source._member is not None
    # As after a lost wake-up: the fetcher lives, and asks for nothing.
    source._member.consumer.pause(*(TopicPartition(p.topic, p.number) for p in harness.partitions))
    await harness.append(first, b"0")

    await assigned(source, harness.partitions)

    assert harness.recreated == ["silent"]
    source.seek(first, 0)
    assert await values(source, 1) == [b"0"]


async def test_silence_without_lag_replaces_nothing(harness: KafkaSourceHarness) -> None:
    first, second = harness.partitions
    source = harness.new_source(SourceTiming(heartbeat=0.2, close=2.0, silent=0.1))
    await assigned(source, harness.partitions)
    source.seek(first, 0)
    source.seek(second, 0)

    assert await nothing(source)

    assert harness.recreated == []


async def test_offsets_without_records_at_the_end_of_a_log_are_nothing_to_wait_for(
    harness: KafkaSourceHarness,
) -> None:
    first, second = harness.partitions
    source = harness.new_source(SourceTiming(heartbeat=0.2, close=2.0, silent=0.1))
    await assigned(source, harness.partitions)
    source.seek(first, 0)
    source.seek(second, 0)
    async with (
        AIOKafkaProducer(bootstrap_servers=harness.kafka.bootstrap_servers, transactional_id=harness.group) as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(first.topic, b"0", b"pi_1", first.number)
    # After the record there is the transaction's marker, which nobody is ever given.
    assert await values(source, 1) == [b"0"]

    async def at_the_end() -> bool:
        await source.fetch(max_records=1, timeout_seconds=0.2)
        return await source.ends() == {first: 1, second: 0}

    await eventually(at_the_end, what="the log ends with its last record")
    assert await nothing(source)
    assert harness.recreated == []

    await harness.append(first, b"1")
    assert (await source.ends())[first] == 3
    assert await values(source, 1) == [b"1"]
    assert (await source.ends())[first] == 3


async def test_a_consumer_whose_fetcher_died_is_replaced(harness: KafkaSourceHarness) -> None:
    first, _ = harness.partitions
    await harness.append(first, b"0")
    source = await harness.source()
    await assigned(source, harness.partitions)
    assert source._member is not None
    source._member.consumer._fetcher._fetch_task.cancel()

    await eventually(
        lambda: source.fetch(max_records=1, timeout_seconds=0) if not harness.recreated else True, what="replaced"
    )
    await assigned(source, harness.partitions)
    source.seek(first, 0)

    assert await values(source, 1) == [b"0"]
    assert harness.recreated == ["fetcher_died"]
