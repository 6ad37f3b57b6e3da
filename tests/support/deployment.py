"""The service as it is deployed, on the tests' own Kafka and Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from service.bootstrap import kafka as bootstrap_kafka
from service.bootstrap import migrations as bootstrap_migrations
from service.bootstrap.consumer import run_consumer
from service.bootstrap.receiver import receiver
from service.bootstrap.recovery import keep_reconciled
from service.config import (
    AdminConfig,
    Config,
    DatabaseConfig,
    DedupeConfig,
    EndpointConfig,
    KafkaConfig,
    ReceiverConfig,
)
from service.events import Secret
from service.projections import PROJECTIONS
from service.records import Topics

ROWS = {
    "payments": "payment_id",
    "refunds": "refund_id",
    "subscriptions": "subscription_id",
    "subscription_items": "subscription_item_id",
    "invoices": "invoice_id",
    "products": "product_id",
    "prices": "price_id",
}
"""Every table of rows, and the column with its id."""

LIVE_SECRET = Secret("whsec_live_0123456789abcdef")
TEST_SECRET = Secret("whsec_test_0123456789abcdef")
ENDPOINTS = (
    EndpointConfig(name="live", mode="live", secrets=(LIVE_SECRET,)),
    EndpointConfig(name="test", mode="test", secrets=(TEST_SECRET,)),
)


@dataclass(frozen=True)
class Deployment:
    """A configuration whose topics and tables are there."""

    config: Config

    @property
    def topics(self) -> Topics:
        return Topics(self.config.kafka.topic_prefix)

    async def records(self, *names: str) -> "list[ConsumerRecord[bytes, bytes]]":
        """All records of the topics (of all topics, where none is named), in each partition's order."""
        chosen = names or (*self.topics.data, self.topics.quarantine, self.topics.dead_letter)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.config.kafka.bootstrap_servers)
        await consumer.start()
        try:
            partitions = [
                TopicPartition(name, number) for name in chosen for number in range(self.config.kafka.partitions)
            ]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            unread = {partition for partition, end in ends.items() if end > 0}
            for partition in partitions:
                consumer.seek(partition, 0)
            read: list[ConsumerRecord[bytes, bytes]] = []
            async with asyncio.timeout(60):
                while unread:
                    for partition, batch in (await consumer.getmany(timeout_ms=500)).items():
                        read += batch
                        if batch[-1].offset + 1 >= ends[partition]:
                            unread.discard(partition)
            return read
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[str]:
        """A receiver in this process; its URL."""
        async with receiver(self.config, [keep_reconciled]) as url:
            yield url

    @asynccontextmanager
    async def consuming(self, *projections: str) -> AsyncIterator[None]:
        """The projections' consumers (all of them, where none is named) in this process."""
        stop = asyncio.Event()
        consumers = [
            asyncio.create_task(run_consumer(self.config, name, stop), name=name) for name in projections or PROJECTIONS
        ]
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(60):
                await asyncio.gather(*consumers)


async def deployment(
    bootstrap_servers: str,
    database_url: str,
    topic_prefix: str,
    *,
    endpoints: Sequence[EndpointConfig] = ENDPOINTS,
    partitions: int = 3,
    dedupe_timeout_seconds: float = 1.0,
) -> Deployment:
    """Topics applied, database migrated; the receiver and admin ports are free ones.

    The dedupe store gets more time than in production: on a busy test machine a bypass, harmless as it is, would put
    a second record where a test counts one.
    """
    config = Config(
        receiver=ReceiverConfig(host="127.0.0.1", port=0),
        admin=AdminConfig(port=0),
        kafka=KafkaConfig(
            bootstrap_servers=bootstrap_servers,
            topic_prefix=topic_prefix,
            partitions=partitions,
            replication_factor=1,
            min_insync_replicas=1,
        ),
        dedupe=DedupeConfig(timeout_seconds=dedupe_timeout_seconds),
        database=DatabaseConfig(url=Secret(database_url)),
        endpoints=tuple(endpoints),
    )
    await bootstrap_kafka.apply_topics(config)
    await asyncio.to_thread(bootstrap_migrations.migrate, config)
    return Deployment(config)
