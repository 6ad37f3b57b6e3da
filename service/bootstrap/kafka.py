"""Composition of what reads, writes and administers the Kafka topics."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from service.adapters import kafka_topics
from service.adapters.kafka_publisher import KafkaPublisher
from service.adapters.kafka_reading import reading
from service.adapters.kafka_security import KafkaSecurity, SaslCredentials, tls_context
from service.adapters.kafka_topics import TopicChange, TopicSpec
from service.config import Config
from service.ports import Publisher, RecordLog
from service.projections import PROJECTIONS
from service.records import Topics, topic_configs
from service.telemetry.metrics import PublisherMetrics, registry


async def apply_topics(config: Config, *, add_partitions: bool = False) -> list[TopicChange]:
    """Create the topics, bring the settings of those that exist into line, say what differs."""
    specs = topic_specs(config)
    async with kafka_topics.admin_client(config.kafka.bootstrap_servers, security=kafka_security(config)) as admin:
        changes = await kafka_topics.apply(admin, specs)
        if add_partitions:
            changes += await kafka_topics.add_partitions(admin, specs)
    return changes


def topic_specs(config: Config) -> list[TopicSpec]:
    """The topics as they should be."""
    configs = topic_configs(Topics(config.kafka.topic_prefix), max_body_bytes=config.receiver.max_body_bytes)
    return [
        TopicSpec(
            name=name,
            partitions=config.kafka.partitions,
            replication_factor=config.kafka.replication_factor,
            configs={
                "min.insync.replicas": str(config.kafka.min_insync_replicas),
                **{key: str(value) for key, value in values.items()},
            },
        )
        for name, values in configs.items()
    ]


def record_log(config: Config) -> AbstractAsyncContextManager[RecordLog]:
    """The logs of the configured cluster's topics, inside the block."""
    return reading(config.kafka.bootstrap_servers, security=kafka_security(config))


@asynccontextmanager
async def replay_publisher(config: Config) -> AsyncIterator[Publisher]:
    """What puts records back onto the topics of events."""
    metrics = PublisherMetrics(registry())
    publisher = kafka_publisher(config, metrics, topics=Topics(config.kafka.topic_prefix).data)
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.close()


def readers(config: Config) -> Mapping[str, Collection[str]]:
    """Consumer group → the topics it reads, of each projection."""
    topics = Topics(config.kafka.topic_prefix)
    return {
        topics.group(name): {topics.of(category) for category in projection.categories}
        for name, projection in PROJECTIONS.items()
    }


def kafka_publisher(
    config: Config,
    metrics: PublisherMetrics,
    *,
    topics: tuple[str, ...],
    minimum_bytes: Mapping[str, int] | None = None,
) -> KafkaPublisher:
    """A publisher on the configured cluster."""
    return KafkaPublisher(
        config.kafka.bootstrap_servers,
        topics=topics,
        minimum_bytes=minimum_bytes,
        security=kafka_security(config),
        compression=config.kafka.compression,
        on_replaced=lambda reason: metrics.replaced.labels(reason).inc(),
        on_up=metrics.up.set,
    )


def kafka_security(config: Config) -> KafkaSecurity:
    """TLS and SASL as configured."""
    given = config.kafka.security
    return KafkaSecurity(
        protocol=given.protocol,
        tls=tls_context(ca_file=given.ca_file, certificate_file=given.certificate_file, key_file=given.key_file)
        if given.protocol.endswith("SSL")
        else None,
        sasl=SaslCredentials(given.sasl_mechanism, given.username, given.password)
        if given.protocol.startswith("SASL") and given.username and given.password
        else None,
    )
