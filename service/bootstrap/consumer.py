"""Composition of a projection's consumer."""

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final

import structlog

from service.adapters import kafka_topics
from service.adapters.kafka_source import KafkaRecordSource
from service.adapters.postgres_store import PostgresProjectionStore
from service.admin import build_admin, serve_admin
from service.bootstrap.certificates import show_kafka_certificates
from service.bootstrap.kafka import kafka_publisher, kafka_security
from service.bootstrap.tracing import tracing
from service.clock import SystemClock
from service.config import Config
from service.consumer.dead_letter import DeadLetterLimit
from service.consumer.loop import Consumer
from service.consumer.spans import BatchSpans
from service.errors import BrokerUnavailable
from service.projections import PROJECTIONS
from service.records import Topics, dead_letter, decode_for
from service.stopping import stop_signals
from service.telemetry.loop_lag import measure_loop_lag
from service.telemetry.metrics import ConsumerMetrics, PublisherMetrics, registry
from service.telemetry.observers import ConsumerMetricsObserver

START_RETRY_SECONDS: Final = 2.0

_log: Final = structlog.get_logger("service.process")


async def consume_until_told(config: Config, projection: str) -> None:
    """Run a projection's consumer until SIGTERM or SIGINT; the batch in hand is finished."""
    async with stop_signals() as stop:
        _log.info("consumer.started", projection=projection)
        await run_consumer(config, projection, stop)
    _log.info("consumer.stopped", projection=projection)


async def run_consumer(config: Config, name: str, stop: asyncio.Event) -> None:
    """Run a projection's consumer until `stop` is set, then finish the batch in hand."""
    projection = PROJECTIONS[name]
    topics = Topics(config.kafka.topic_prefix)
    group = topics.group(name)
    metrics_registry = registry()
    observer = ConsumerMetricsObserver(name, ConsumerMetrics(metrics_registry))
    async with AsyncExitStack() as stack:
        traces = await stack.enter_async_context(tracing(config))
        admin = await serve_admin(
            build_admin(metrics_registry, observer.not_ready), config.admin.host, config.admin.port
        )
        stack.push_async_callback(admin.cleanup)
        publisher = kafka_publisher(config, PublisherMetrics(metrics_registry), topics=(topics.dead_letter,))
        show_kafka_certificates(config, metrics_registry)
        await publisher.start()
        stack.push_async_callback(publisher.close)
        lag = asyncio.create_task(measure_loop_lag(metrics_registry.loop_lag), name="loop lag")
        stack.callback(lag.cancel)
        cluster_id = await _cluster_id(config, stop)
        if cluster_id is None:
            return
        store = await PostgresProjectionStore.open(
            config.database_url, projection, consumer_group=group, cluster_id=cluster_id
        )
        stack.push_async_callback(store.close)
        source = KafkaRecordSource(
            config.kafka.bootstrap_servers,
            topics=[topics.of(category) for category in projection.categories],
            group=group,
            security=kafka_security(config),
            on_rebalanced=observer.rebalanced,
        )
        await source.start()
        stack.push_async_callback(source.close)
        consumer = Consumer(
            name,
            source,
            store,
            publisher,
            decode=partial(decode_for, consumer_group=group),
            build_dead_letter=partial(dead_letter, topics=topics, consumer_group=group),
            observer=observer,
            clock=SystemClock(),
            limit=DeadLetterLimit(consecutive=config.consumer.dead_letter_limit),
            spans=BatchSpans(traces, group),
        )
        await consumer.run(stop)


async def _cluster_id(config: Config, stop: asyncio.Event) -> str | None:
    """The cluster's id, however long Kafka takes to answer; None when told to stop before."""
    while not stop.is_set():
        try:
            async with kafka_topics.admin_client(
                config.kafka.bootstrap_servers, security=kafka_security(config)
            ) as admin:
                return await kafka_topics.cluster_id(admin)
        except BrokerUnavailable as error:
            _log.warning("consumer.waiting", reason=str(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), START_RETRY_SECONDS)
    return None
