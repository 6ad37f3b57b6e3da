"""Composition of the way from a delivery to a record: what receivers and jobs that recover events have in common."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from service.adapters.kafka_publisher import KafkaPublisher
from service.bootstrap.dedupe import check_dedupe, dedupe_store
from service.bootstrap.event_log import event_log
from service.bootstrap.kafka import kafka_publisher
from service.bootstrap.tracing import check_tracing, tracing
from service.clock import SystemClock
from service.config import Config
from service.errors import ConfigurationError
from service.receiver.dedupe import Deduplicator
from service.receiver.ingest import Ingest
from service.records import Topics, quarantine_bytes_min
from service.telemetry.metrics import EventLogMetrics, PublisherMetrics, ReceiverMetrics, registry
from service.telemetry.observers import DedupeMetricsObserver, MeteredPublisher

RECOVERY_DEDUPE_TIMEOUT_SECONDS: Final = 2.0
"""For a job the store may be slow: nobody waits for its answers as Stripe does."""


@asynccontextmanager
async def composed_ingest(
    config: Config,
    metrics: ReceiverMetrics,
    publisher_metrics: PublisherMetrics,
    event_log_metrics: EventLogMetrics,
) -> AsyncIterator[tuple[Ingest, KafkaPublisher]]:
    """The spine with what it needs, and its publisher for who wants to know how that one is."""
    check_dedupe(config)  # what is missing is said before anything is dialled
    check_tracing(config)
    redaction = config.redaction()
    topics = Topics(config.kafka.topic_prefix)
    async with AsyncExitStack() as stack:
        # First of all, so that they end last: what the others do at their end is told of as well.
        traces = await stack.enter_async_context(tracing(config))
        log = await stack.enter_async_context(event_log(config, event_log_metrics))
        publisher = kafka_publisher(
            config,
            publisher_metrics,
            topics=(*topics.data, topics.quarantine),
            minimum_bytes={topics.quarantine: quarantine_bytes_min(config.receiver.max_body_bytes)},
        )
        await publisher.start()
        stack.push_async_callback(publisher.close)
        store = await stack.enter_async_context(dedupe_store(config))
        deduplicator = Deduplicator(
            store,
            DedupeMetricsObserver(metrics),
            on_error=config.dedupe.on_error,
            timeout_seconds=config.dedupe.timeout_seconds,
        )
        stack.push_async_callback(partial(deduplicator.close, timeout_seconds=config.receiver.shutdown_timeout_seconds))
        ingest = Ingest(
            publisher=MeteredPublisher(publisher, publisher_metrics),
            deduplicator=deduplicator,
            clock=SystemClock(),
            topics=topics,
            include_raw=config.kafka.include_raw,
            tolerance_seconds=config.receiver.tolerance_seconds,
            redaction=redaction,
            event_log=log,
            tracing=traces,
        )
        yield ingest, publisher


@asynccontextmanager
async def recovery_ingest(config: Config) -> AsyncIterator[Ingest]:
    """The receivers' own way into Kafka, for a job that recovers events; never past the dedupe store.

    Raises `ConfigurationError` where that store is a process's own memory, and `DedupeUnavailable` for an event while
    the store is away: a job has time, and is told what was published before by nothing else.
    """
    if config.dedupe_url.startswith("memory:"):
        raise ConfigurationError(
            "dedupe.url: memory:// is the receiver's own, and does not tell this process what was published before;"
            " recovering needs one that both can ask: postgresql:// or redis://"
        )
    patient = msgspec.structs.replace(config.dedupe, on_error="refuse", timeout_seconds=RECOVERY_DEDUPE_TIMEOUT_SECONDS)
    metrics_registry = registry()
    async with composed_ingest(
        msgspec.structs.replace(config, dedupe=patient),
        ReceiverMetrics(metrics_registry),
        PublisherMetrics(metrics_registry),
        EventLogMetrics(metrics_registry),
    ) as (ingest, _):
        yield ingest
