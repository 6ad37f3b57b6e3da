"""The loop between a real broker and a real database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import asyncpg

from service.adapters.kafka_publisher import KafkaPublisher
from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_source import KafkaRecordSource, SourceTiming
from service.adapters.kafka_topics import TopicSpec, admin_client, apply
from service.adapters.postgres_store import PostgresProjectionStore
from service.clock import SystemClock
from service.consumer.loop import Consumer, ConsumerLimits
from service.contract import Event
from service.events import Record
from service.local.kafka import LocalKafka
from service.projections import PROJECTIONS
from service.records import Topics, dead_letter, decode, encode
from tests.contracts.projection_store import event, intent, refund
from tests.support.histories import oracle_rows
from tests.support.memory_log import SeenByObserver
from tests.support.waiting import eventually

PROJECTION = PROJECTIONS["payments"]
PARTITIONS = 3


def history(begin: int, end: int) -> Sequence[Event]:
    return [
        e
        for n in range(begin, end)
        for e in (
            event(f"evt_{n}c", refund(n, f"ch_{n}"), at=n + 3),
            event(f"evt_{n}b", intent(n, charge=f"ch_{n}"), at=n + 2, kind="succeeded"),
            event(f"evt_{n}a", intent(n, "processing"), at=n, kind="created"),
        )
    ]


@asynccontextmanager
async def consuming(
    kafka: LocalKafka, database_url: str, topics: Topics, publisher: KafkaPublisher
) -> AsyncIterator[None]:
    """One member of the group, stopped in the regular way at the end."""
    group = topics.group(PROJECTION.name)
    stop = asyncio.Event()
    source = KafkaRecordSource(
        kafka.bootstrap_servers,
        group=group,
        topics=[topics.of(category) for category in PROJECTION.categories],
        timing=SourceTiming(request=3.0, heartbeat=0.2, session=10.0, commit=2.0, close=2.0),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(source.close)
        store = await PostgresProjectionStore.open(
            database_url, PROJECTION, consumer_group=group, cluster_id=await source.cluster_id()
        )
        stack.push_async_callback(store.close)
        consumer = Consumer(
            PROJECTION.name,
            source,
            store,
            publisher,
            decode=decode,
            build_dead_letter=partial(dead_letter, topics=topics, consumer_group=group),
            observer=SeenByObserver(),
            clock=SystemClock(),
            limits=ConsumerLimits(batch_records=20, fetch_wait=0.2, backoff_min=0.01, backoff_max=0.1),
        )
        running = asyncio.create_task(consumer.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)


async def test_members_that_come_and_go_apply_each_record_once_and_bury_the_poison(
    kafka: LocalKafka, database_url: str, topic_prefix: str
) -> None:
    topics = Topics(topic_prefix)
    names = [topics.of("payment"), topics.of("refund"), topics.dead_letter]
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [TopicSpec(name, PARTITIONS, 1) for name in names])
    publisher = KafkaPublisher(kafka.bootstrap_servers, topics=names)
    connection = await asyncpg.connect(database_url)

    async def publish(*records: Record) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        await asyncio.gather(*(publisher.publish(record, deadline=deadline) for record in records))

    async def applied(count: int) -> bool:
        return int(await connection.fetchval("SELECT count(*) FROM payment_events")) == count

    encoded = partial(encode, topics=topics, ingest_source="webhook", include_raw=False, traceparent="")
    first, second = history(0, 40), history(40, 80)
    try:
        await publisher.start()
        await publish(*(encoded(e) for e in first))
        async with consuming(kafka, database_url, topics, publisher):
            await eventually(lambda: applied(len(first)), timeout_seconds=60, what="the first half is applied")
            async with consuming(kafka, database_url, topics, publisher):
                await publish(Record(names[0], b"pi_0", b"not an event", ()), *(encoded(e) for e in second))
                await eventually(
                    lambda: applied(len(first) + len(second)), timeout_seconds=60, what="the second half is applied"
                )
        rows = {row["payment_id"]: row for row in await connection.fetch("SELECT * FROM payments")}
        passed = await connection.fetchval("SELECT sum(next_offset) FROM consumer_offsets")
    finally:
        await connection.close()
        await publisher.close()

    expected = oracle_rows(PROJECTION, [*first, *second])
    assert {key.object_id: columns["amount_refunded_minor"] for (_, key), columns in expected.items()} == {
        payment_id: row["amount_refunded_minor"] for payment_id, row in rows.items()
    }
    assert passed == len(first) + len(second) + 1
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        committed = await admin.list_consumer_group_offsets(topics.group(PROJECTION.name))
    assert sum(at.offset for at in committed.values()) <= passed
    buried = await all_records(kafka, topics)
    assert [dict(headers)["dead_letter_reason"] for headers in buried] == [b"not_json"]


async def all_records(kafka: LocalKafka, topics: Topics) -> list[tuple[tuple[str, bytes], ...]]:
    """The headers of all dead letters."""
    source = KafkaRecordSource(kafka.bootstrap_servers, group=f"{topics.prefix}.look", topics=[topics.dead_letter])
    try:
        await source.start()
        found: list[tuple[tuple[str, bytes], ...]] = []

        async def read_to_the_end() -> bool:
            for partition in source.unpositioned():
                source.seek(partition, 0)
            found.extend(r.headers for r in await source.fetch(max_records=100, timeout_seconds=0.2))
            ends = await source.ends()
            return len(ends) == PARTITIONS and sum(ends.values()) == len(found)

        await eventually(read_to_the_end, timeout_seconds=30, what="all dead letters are read")
        return found
    finally:
        await source.close()
