"""The publisher on a real broker that refuses, freezes and dies."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner, murmur2

from service.adapters.kafka_publisher import KafkaPublisher, PublisherTiming, _Generation, _Unanswered, record_bytes
from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import TopicSpec, admin_client, apply
from service.errors import BrokerUnavailable, ConfigurationError, PublishOutcomeUnknown, RecordTooLarge
from service.events import ConsumedRecord, Partition, Position, Record
from service.local.kafka import LocalKafka
from service.local.ports import LOOPBACK, free_port
from tests.contracts.publisher import PublisherContract, in_seconds, position_of, record
from tests.support.waiting import eventually

MAX_MESSAGE_BYTES = 20_000
FAST = PublisherTiming(request=2.0, stall=1.0, restart=0.2, check=0.5, close=1.0)
UNNOTICING = PublisherTiming(request=2.0, check=600.0)
"""Looks at the topics' limits when a producer is made, and not again."""


async def read(kafka: LocalKafka, topic: str) -> list[ConsumedRecord]:
    """All records of a topic, by partition and offset."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = sorted(consumer.assignment())
        assert partitions
        ends = await consumer.end_offsets(partitions)
        records: list[ConsumedRecord] = []
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                batch = await consumer.getmany(partition, timeout_ms=1000)
                records += [
                    ConsumedRecord(
                        Partition(topic, r.partition), r.offset, r.key, r.value, tuple(r.headers), r.timestamp
                    )
                    for r in batch.get(partition, ())
                ]
        return records
    finally:
        await consumer.stop()


async def set_topic(kafka: LocalKafka, name: str, *, partitions: int = 3, max_message_bytes: int) -> None:
    """Create the topic, or change its limit."""
    spec = TopicSpec(name, partitions, 1, {"max.message.bytes": str(max_message_bytes)})
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [spec])


@dataclass
class KafkaPublisherHarness:
    """A started publisher and its topic; what it told is in `replaced`."""

    kafka: LocalKafka
    publisher: KafkaPublisher
    topic: str
    replaced: list[str]
    max_message_bytes: int = MAX_MESSAGE_BYTES

    async def log(self) -> Sequence[ConsumedRecord]:
        return await read(self.kafka, self.topic)

    async def publish(self, value: bytes, *, key: bytes = b"pi_1", seconds: float = 10) -> Position:
        return await self.publisher.publish(record(self.topic, key=key, value=value), deadline=in_seconds(seconds))

    async def limit_is(self, max_message_bytes: int) -> None:
        """Change the topic's limit behind the publisher's back."""
        await set_topic(self.kafka, self.topic, max_message_bytes=max_message_bytes)

    async def fails_fast(self) -> None:
        """Wait until publishing fails without waiting for anything, though its deadline is far away."""

        async def refused() -> bool:
            try:
                await self.publish(b"down", seconds=60)
            except PublishOutcomeUnknown:
                return False
            except BrokerUnavailable:
                return not self.publisher.available
            return False

        await eventually(refused, timeout_seconds=30, what="the broker is known to be away")

    async def recovered(self) -> None:
        await eventually(lambda: self.publisher.available, timeout_seconds=60, what="available again")


@asynccontextmanager
async def publishing(
    kafka: LocalKafka,
    topic: str,
    *,
    timing: PublisherTiming = FAST,
    minimum_bytes: Mapping[str, int] | None = None,
    also_at: int | None = None,
) -> AsyncIterator[KafkaPublisherHarness]:
    """A publisher inside the block, which may know of a second port."""
    replaced: list[str] = []
    publisher = KafkaPublisher(
        kafka.bootstrap_servers if also_at is None else f"{kafka.bootstrap_servers},{LOOPBACK}:{also_at}",
        topics=[topic],
        minimum_bytes=minimum_bytes,
        timing=timing,
        on_replaced=replaced.append,
    )
    await publisher.start()
    try:
        yield KafkaPublisherHarness(kafka, publisher, topic, replaced)
    finally:
        await publisher.close(2)


@pytest.fixture
async def harness(kafka: LocalKafka, topic_prefix: str) -> AsyncIterator[KafkaPublisherHarness]:
    topic = f"{topic_prefix}.payments"
    await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
    async with publishing(kafka, topic) as made:
        yield made


class TestKafkaPublisher(PublisherContract):
    """The contract, on a real broker."""


async def test_the_partitioner_is_javas_murmur2() -> None:
    # The vectors of Kafka's own UtilsTest.
    signed = {key: murmur2(key) - (2**32 if murmur2(key) >= 2**31 else 0) for key in (b"21", b"foobar", b"abc")}

    assert signed == {b"21": -973932308, b"foobar": -790332482, b"abc": 479470107}


async def test_a_record_goes_to_the_partition_that_javas_client_would_choose(harness: KafkaPublisherHarness) -> None:
    for key in (b"21", b"foobar", b"abc", b"pi_1"):
        position = await harness.publish(b"{}", key=key)

        assert position.partition == DefaultPartitioner()(key, [0, 1, 2], [0, 1, 2])


async def test_a_limit_lowered_unnoticed_costs_the_record_only_and_not_the_partition(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.payments"
    await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
    async with publishing(kafka, topic, timing=UNNOTICING) as harness:
        await harness.publish(b"before")
        await harness.limit_is(5_000)

        with pytest.raises(RecordTooLarge):
            await harness.publish(b"v" * 15_000)
        await harness.publish(b"after")

        assert [consumed.value for consumed in await harness.log()] == [b"before", b"after"]
        assert harness.replaced == ["refused"]


async def test_a_record_too_large_for_any_batch_is_refused_though_no_limit_is_known(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.payments"
    await set_topic(kafka, topic, max_message_bytes=600_000)
    async with publishing(kafka, topic, timing=UNNOTICING) as harness:
        harness.publisher._described = {}  # as for a client that may not read the configs

        with pytest.raises(RecordTooLarge):
            await harness.publish(b"v" * 700_000)
        await harness.publish(b"after")

        assert [consumed.value for consumed in await harness.log()] == [b"after"]


async def test_records_that_shared_a_batch_with_too_much_are_all_delivered(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.payments"
    await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
    async with publishing(kafka, topic, timing=UNNOTICING) as harness:
        await harness.limit_is(2_000)
        values = {b"%d" % n + b"v" * 500 for n in range(30)}

        await asyncio.gather(*(harness.publish(value) for value in values))

        assert {consumed.value for consumed in await harness.log()} == values
        assert harness.replaced == ["refused"]


async def test_a_poisoned_producer_is_replaced_and_its_record_delivered(harness: KafkaPublisherHarness) -> None:
    await harness.publish(b"one")
    generation = harness.publisher._state.generation  # type: ignore[union-attr]
    partition = TopicPartition(harness.topic, (await harness.publish(b"two")).partition)
    # As after a batch that took its sequence number and never arrived.
    generation.producer._txn_manager.increment_sequence_number(partition, 7)

    await harness.publish(b"three")

    assert [consumed.value for consumed in await harness.log()] == [b"one", b"two", b"three"]
    assert harness.replaced == ["poisoned"]


async def test_the_other_partitions_of_a_poisoned_producer_lose_nothing(harness: KafkaPublisherHarness) -> None:
    first = await harness.publish(b"first", key=b"21")
    generation = harness.publisher._state.generation  # type: ignore[union-attr]
    generation.producer._txn_manager.increment_sequence_number(TopicPartition(harness.topic, first.partition), 7)
    values = {b"%d" % n for n in range(100)}

    positions = await asyncio.gather(*(harness.publish(value, key=value) for value in values))

    found = {position_of(consumed): consumed.value for consumed in await harness.log()}
    assert {found[position] for position in positions} == values


async def test_a_producer_whose_sender_died_is_replaced(harness: KafkaPublisherHarness) -> None:
    sender = harness.publisher._state.generation.producer._sender.sender_task  # type: ignore[union-attr]
    sender.cancel()
    await asyncio.wait([sender])

    await harness.publish(b"after")

    assert [consumed.value for consumed in await harness.log()] == [b"after"]
    assert harness.replaced == ["sender_died"]


async def test_kill_9_with_publishes_in_flight_loses_nothing_acknowledged(harness: KafkaPublisherHarness) -> None:
    acknowledged: dict[Position, bytes] = {}
    stop = asyncio.Event()

    async def client(name: int) -> None:
        for n in range(1_000_000):
            if stop.is_set():
                return
            value = b"%d-%d" % (name, n)
            with suppress(BrokerUnavailable):
                acknowledged[await harness.publish(value, key=b"%d" % name, seconds=5)] = value
            await asyncio.sleep(0)

    clients = [asyncio.create_task(client(n)) for n in range(20)]
    await eventually(lambda: len(acknowledged) > 200, timeout_seconds=30, what="200 records")
    harness.kafka.kill()
    before = len(acknowledged)

    await harness.fails_fast()
    await harness.kafka.start()
    await harness.recovered()
    await eventually(lambda: len(acknowledged) > before + 200, timeout_seconds=30, what="200 records more")
    stop.set()
    await asyncio.gather(*clients)

    found = {position_of(consumed): consumed.value for consumed in await harness.log()}
    lost = {position: value for position, value in acknowledged.items() if found.get(position) != value}
    assert lost == {}


async def test_publishes_in_flight_when_the_broker_dies_end_before_their_deadline(
    harness: KafkaPublisherHarness,
) -> None:
    await harness.publish(b"before")
    harness.kafka.pause()
    waiting = [asyncio.create_task(harness.publish(b"%d" % n, key=b"%d" % n, seconds=600)) for n in range(50)]
    await asyncio.wait(waiting, timeout=0.1)
    assert not any(task.done() for task in waiting)

    harness.kafka.kill()

    # Were they to wait for their deadlines, the test would run out of its own time.
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {PublishOutcomeUnknown}
    await harness.fails_fast()


async def test_a_frozen_broker_ends_no_publish_later_than_its_deadline_and_recovers(
    harness: KafkaPublisherHarness,
) -> None:
    await harness.publish(b"before")
    harness.kafka.pause()

    outcomes = await asyncio.gather(
        *(harness.publish(b"%d" % n, key=b"%d" % n, seconds=0.5) for n in range(20)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {PublishOutcomeUnknown}
    await harness.fails_fast()
    harness.kafka.resume()
    await harness.recovered()
    await harness.publish(b"after")

    values = [consumed.value for consumed in await harness.log()]
    assert {b"before", b"after"} <= set(values)
    assert "stalled" in harness.replaced


async def test_a_short_freeze_costs_no_publish_that_can_wait(harness: KafkaPublisherHarness) -> None:
    await harness.publish(b"before")
    harness.kafka.pause()
    values = {b"%d" % n for n in range(20)}
    waiting = [asyncio.create_task(harness.publish(value, key=value, seconds=60)) for value in values]

    await eventually(lambda: "stalled" in harness.replaced, timeout_seconds=30, what="the producer is replaced")
    harness.kafka.resume()
    outcomes = await asyncio.gather(*waiting)

    found = {position_of(consumed): consumed.value for consumed in await harness.log()}
    assert {found[position] for position in outcomes} == values


async def test_a_broker_that_goes_away_while_nothing_is_sent_is_noticed(harness: KafkaPublisherHarness) -> None:
    harness.kafka.kill()

    await eventually(lambda: not harness.publisher.available, timeout_seconds=30, what="not available")
    assert harness.replaced == ["unreachable"]


async def test_starting_without_a_broker_succeeds_and_the_broker_is_found_later(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.payments"
    await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
    kafka.kill()
    async with publishing(kafka, topic) as harness:
        assert not harness.publisher.available
        with pytest.raises(BrokerUnavailable):
            await harness.publish(b"too early", seconds=600)

        await kafka.start()
        await harness.recovered()
        await harness.publish(b"now")

        assert [consumed.value for consumed in await harness.log()] == [b"now"]


async def test_a_cluster_whose_addresses_have_all_changed_is_found_by_the_bootstrap_list(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.payments"
    await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
    elsewhere = free_port()
    async with publishing(kafka, topic, also_at=elsewhere) as harness:
        await harness.publish(b"before")
        kafka.kill()
        kafka.port = elsewhere
        await kafka.start()
        await harness.recovered()

        await harness.publish(b"after")

        # A producer that is given up while a record waits for its ack sends it again by the next one: once at least.
        assert list(dict.fromkeys(consumed.value for consumed in await harness.log())) == [b"before", b"after"]


async def test_closing_lets_what_is_on_its_way_arrive_and_takes_nothing_more(harness: KafkaPublisherHarness) -> None:
    values = {b"%d" % n for n in range(100)}
    waiting = [asyncio.create_task(harness.publish(value, key=value)) for value in values]
    await asyncio.sleep(0)

    await harness.publisher.close(5)

    await asyncio.gather(*waiting)
    assert {consumed.value for consumed in await harness.log()} == values
    with pytest.raises(BrokerUnavailable):
        await harness.publish(b"late")


async def test_closing_ends_in_time_while_the_broker_is_frozen(harness: KafkaPublisherHarness) -> None:
    harness.kafka.pause()
    waiting = asyncio.create_task(harness.publish(b"stuck", seconds=600))
    await asyncio.sleep(0)

    await harness.publisher.close(0.5)

    with pytest.raises(BrokerUnavailable):
        await waiting


async def test_a_missing_topic_is_named_and_found_once_it_is_there(kafka: LocalKafka, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.payments"
    async with publishing(kafka, topic) as harness:
        assert topic in (harness.publisher.problem or "")
        assert "stripe-ingest topics apply" in (harness.publisher.problem or "")

        await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
        await harness.recovered()
        await harness.publish(b"now")

        assert harness.publisher.topic_limits == {topic: MAX_MESSAGE_BYTES}
        assert harness.replaced == []


async def test_a_topic_that_takes_too_little_is_a_problem_until_it_is_repaired(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.quarantine"
    await set_topic(kafka, topic, max_message_bytes=MAX_MESSAGE_BYTES)
    async with publishing(kafka, topic, minimum_bytes={topic: 2 * MAX_MESSAGE_BYTES}) as harness:
        assert not harness.publisher.available
        assert "stripe-ingest topics apply" in (harness.publisher.problem or "")

        await harness.limit_is(2 * MAX_MESSAGE_BYTES)

        await harness.recovered()


async def test_the_size_of_a_record_is_never_underestimated_and_hardly_overestimated(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}.payments"
    sent = Record(topic, b"k" * 70, b"v" * 300, tuple((f"h{n}", b"x" * n) for n in range(20)))

    async def taken_with(limit: int) -> bool:
        await set_topic(kafka, topic, max_message_bytes=limit)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            try:
                await producer.send_and_wait(topic, sent.value, sent.key, headers=list(sent.headers))
            except MessageSizeTooLargeError:
                return False
        return True

    assert await taken_with(record_bytes(sent))
    assert not await taken_with(record_bytes(sent) - 21)


async def test_giving_up_at_the_very_moment_of_a_deadline_ends_the_publish_once() -> None:
    loop = asyncio.get_running_loop()

    class Unanswering:
        async def send(self, *_: object, **__: object) -> asyncio.Future[None]:
            return loop.create_future()

    generation = _Generation(Unanswering(), 0, loop.create_future())
    deadline = loop.time() + 0.01
    publishing = asyncio.create_task(generation.publish(record("t"), deadline=deadline))
    raised: list[object] = []

    def give_up() -> None:
        try:
            generation.give_up()
        except RuntimeError as error:
            raised.append(error)

    await asyncio.sleep(0)
    # Both timers are due in one turn of the loop, the deadline's first.
    loop.call_at(deadline, give_up)
    time.sleep(0.02)  # noqa: ASYNC251 - nothing may run in between

    with pytest.raises(_Unanswered):
        await publishing
    assert generation.given_up
    assert raised == []


async def test_a_compression_whose_library_is_missing_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiokafka.codec.has_zstd", lambda: False)

    with pytest.raises(ConfigurationError, match="compression"):
        KafkaPublisher("127.0.0.1:1", topics=[], compression="zstd")
