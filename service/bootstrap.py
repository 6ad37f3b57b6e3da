"""Composition: the only module that names concrete adapters. Builds and runs the processes from a `Config`."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError

from service.adapters import kafka_topics
from service.adapters.dedupe_memory import MemoryDedupeStore
from service.adapters.dedupe_postgres import PostgresDedupeStore
from service.adapters.kafka_publisher import KafkaPublisher
from service.adapters.kafka_reading import reading
from service.adapters.kafka_security import KafkaSecurity, SaslCredentials, tls_context
from service.adapters.kafka_source import KafkaRecordSource
from service.adapters.kafka_topics import TopicChange, TopicSpec
from service.adapters.migrations import MigrationResult
from service.adapters.migrations import migrate as migrate_database
from service.adapters.postgres_rebuild import PostgresRebuild
from service.adapters.postgres_store import PostgresProjectionStore
from service.admin import build_admin, cannot_listen, serve_admin
from service.clock import SystemClock
from service.config import Config, allowed_networks
from service.consumer.dead_letter import DeadLetterLimit
from service.consumer.loop import Consumer
from service.errors import BrokerUnavailable, ConfigurationError, DedupeUnavailable, StoreUnavailable
from service.hangup import hangups
from service.ports import DedupeStore, Publisher, RecordLog
from service.projections import PROJECTIONS
from service.receiver.accepting import accepting, connections_max
from service.receiver.dedupe import Deduplicator
from service.receiver.http import RUNNER_OPTIONS, Limits, Receiver, build_app
from service.receiver.ingest import Ingest
from service.receiver.reloading import Load, Reloading, Trigger, warn_of_missing_secrets
from service.records import Topics, dead_letter, decode_for, quarantine_bytes_min, topic_configs
from service.telemetry.metrics import ConsumerMetrics, PublisherMetrics, ReceiverMetrics, registry
from service.telemetry.observers import ConsumerMetricsObserver, DedupeMetricsObserver, MeteredPublisher
from service.telemetry.traces import traced

if TYPE_CHECKING:
    from service.adapters.dedupe_redis import RedisDedupeStore

BACKLOG: Final = 1024
DEDUPE_MEMORY_ENTRIES_MAX: Final = 1_000_000
PRUNE_INTERVAL_SECONDS: Final = 60.0
PRUNE_BATCH: Final = 5_000
EVICTION_RETRY_SECONDS: Final = 60.0
START_RETRY_SECONDS: Final = 2.0
RECOVERY_DEDUPE_TIMEOUT_SECONDS: Final = 2.0
"""For a job the store may be slow: nobody waits for its answers as Stripe does."""
OPEN_FILES_UNBOUNDED: Final = 10_240
"""Taken where there is no hard limit: a kernel has a bound of its own, and refuses more than that."""

Companion: TypeAlias = Callable[[Callable[[], Config], CollectorRegistry], Coroutine[Any, Any, None]]
"""What runs in a receiver's process beside it, with metrics on the receiver's admin side.

It asks for the configuration whenever it needs it: endpoints, and what is theirs, change while it runs.
"""

_log: Final = structlog.get_logger("service.process")


async def receive(config: Config, beside: Sequence[Companion], load: Load) -> None:
    """Run a receiver until SIGTERM or SIGINT, then drain: answer what is in flight, take nothing new.

    On SIGHUP it loads its configuration anew, and takes the endpoints of it.
    """
    asked = asyncio.Event()
    async with stop_signals() as stop:
        with hangups(again=asked.set, end=stop.set):
            async with receiver(config, beside, load=load, asked=asked):
                _log.info("receiver.started", host=config.receiver.host, port=config.receiver.port)
                await stop.wait()
                _log.info("receiver.stopping")
    _log.info("receiver.stopped")


async def consume(config: Config, projection: str) -> None:
    """Run a projection's consumer until SIGTERM or SIGINT; the batch in hand is finished."""
    async with stop_signals() as stop:
        _log.info("consumer.started", projection=projection)
        await run_consumer(config, projection, stop)
    _log.info("consumer.stopped", projection=projection)


def worker(config: Config, index: int) -> Config:
    """The configuration of one of several workers: its admin side has a port of its own."""
    return msgspec.structs.replace(
        config, admin=msgspec.structs.replace(config.admin, port=config.admin.port + index if config.admin.port else 0)
    )


def migrate(config: Config) -> Mapping[str, MigrationResult]:
    """Migrate the database, and the dedupe store's where it is another Postgres."""
    urls = {"database": config.database_url}
    if config.dedupe_url != config.database_url and config.dedupe_url.startswith(("postgresql:", "postgres:")):
        urls["dedupe"] = config.dedupe_url
    try:
        return {store: migrate_database(url) for store, url in urls.items()}
    except OperationalError as error:
        raise StoreUnavailable("the database cannot be reached, or another migration holds it") from error


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


@asynccontextmanager
async def receiver(
    config: Config, beside: Sequence[Companion] = (), *, load: Load | None = None, asked: asyncio.Event | None = None
) -> AsyncIterator[str]:
    """A receiver that serves inside the block, and drains at its end; its public URL. `beside` run as long as it.

    With `load` it takes new endpoints and secrets: whenever `asked` is set, and when the secret store's file changes.
    """
    endpoints = config.webhook_endpoints()
    metrics_registry = registry()
    metrics = ReceiverMetrics(metrics_registry)
    async with AsyncExitStack() as stack:
        ingest, publisher = await stack.enter_async_context(
            _ingest(config, metrics, PublisherMetrics(metrics_registry))
        )
        public = Receiver(
            endpoints={endpoint.path: endpoint for endpoint in endpoints},
            ingest=ingest,
            limits=Limits(
                max_body_bytes=config.receiver.max_body_bytes,
                max_in_flight=config.receiver.max_in_flight,
                answer_timeout_seconds=config.receiver.answer_timeout_seconds,
            ),
            metrics=metrics,
            allowed_networks=allowed_networks(config.receiver.allow_ips),
        )

        def problems() -> list[str]:
            found = ["shutting down"] if public.draining else []
            return found + ([publisher.problem] if publisher.problem else [])

        admin = await serve_admin(build_admin(metrics_registry, problems), config.admin.host, config.admin.port)
        stack.push_async_callback(admin.cleanup)
        reloading = Reloading(config, load or (lambda: config), public.serve, metrics)
        warn_of_missing_secrets(endpoints)
        if load is not None:
            # What it was started with may be old by now: Kafka has kept it waiting, or it succeeds another worker.
            await reloading.reload(Trigger.START)
        tasks = [asyncio.create_task(each(reloading.current, metrics_registry), name="beside") for each in beside]
        if load is not None:
            tasks.append(asyncio.create_task(reloading.run(asked or asyncio.Event()), name="reloading"))
        stack.push_async_callback(_end, tasks, config.receiver.shutdown_timeout_seconds)
        url = await stack.enter_async_context(_public_listener(public, config))
        try:
            yield url
        finally:
            for task in tasks:
                task.cancel()  # what it still has to tidy up must not keep the receiver from draining


async def _end(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    for task in tasks:
        if not task.cancelling():  # a second time would cut its tidying up short
            task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


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
    async with _ingest(
        msgspec.structs.replace(config, dedupe=patient),
        ReceiverMetrics(metrics_registry),
        PublisherMetrics(metrics_registry),
    ) as (ingest, _):
        yield ingest


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


def record_log(config: Config) -> AbstractAsyncContextManager[RecordLog]:
    """The logs of the configured cluster's topics, inside the block."""
    return reading(config.kafka.bootstrap_servers, security=kafka_security(config))


@asynccontextmanager
async def rebuild_store(config: Config, name: str, *, dry_run: bool) -> AsyncIterator[PostgresRebuild]:
    """A projection's tables, to be compared with their ledger and corrected, inside the block."""
    store = await PostgresRebuild.open(
        config.database_url,
        PROJECTIONS[name],
        consumer_group=Topics(config.kafka.topic_prefix).group(name),
        dry_run=dry_run,
    )
    try:
        yield store
    finally:
        await store.close()


def readers(config: Config) -> Mapping[str, Collection[str]]:
    """Consumer group → the topics it reads, of each projection."""
    topics = Topics(config.kafka.topic_prefix)
    return {
        topics.group(name): {topics.of(category) for category in projection.categories}
        for name, projection in PROJECTIONS.items()
    }


@asynccontextmanager
async def _ingest(
    config: Config, metrics: ReceiverMetrics, publisher_metrics: PublisherMetrics
) -> AsyncIterator[tuple[Ingest, KafkaPublisher]]:
    """The spine with what it needs, and its publisher for who wants to know how that one is."""
    check_dedupe(config)  # what is missing is said before anything is dialled
    redaction = config.redaction()
    topics = Topics(config.kafka.topic_prefix)
    async with AsyncExitStack() as stack:
        publisher = kafka_publisher(
            config,
            publisher_metrics,
            topics=(*topics.data, topics.quarantine),
            minimum_bytes={topics.quarantine: quarantine_bytes_min(config.receiver.max_body_bytes)},
        )
        await publisher.start()
        stack.push_async_callback(publisher.close)
        store = await stack.enter_async_context(_dedupe_store(config))
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
        )
        yield ingest, publisher


@asynccontextmanager
async def _public_listener(public: Receiver, config: Config) -> AsyncIterator[str]:
    timeout_seconds = config.receiver.shutdown_timeout_seconds
    most = connections_max(raise_open_files())
    runner = web.AppRunner(build_app(public), shutdown_timeout=timeout_seconds, **RUNNER_OPTIONS)
    await runner.setup()
    try:
        listener = await _listen(accepting(runner, most=most, refused=public.metrics.connections_refused.inc), config)
        try:
            host, port = listener.sockets[0].getsockname()[:2]
            yield f"http://{host}:{port}"
        finally:
            listener.close()
    finally:
        # Kept-alive connections get 503 from here on; the clean-up waits for the deliveries in flight.
        public.draining = True
        await runner.cleanup()


async def _listen(accept: Callable[[], asyncio.Protocol], config: Config) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            accept,
            config.receiver.host,
            config.receiver.port,
            backlog=BACKLOG,
            reuse_port=config.receiver.workers > 1,
        )
    except OSError as error:
        raise cannot_listen("receiver", error) from None


def raise_open_files() -> int:
    """Take as many descriptors as this process may have, which is seldom what it is started with; say how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_UNBOUNDED if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        _log.warning("process.open_files", limit=soft, wanted=wanted, reason=str(error))
        return soft
    _log.info("process.open_files", limit=wanted, before=soft)
    return wanted


async def run_consumer(config: Config, name: str, stop: asyncio.Event) -> None:
    """Run a projection's consumer until `stop` is set, then finish the batch in hand."""
    projection = PROJECTIONS[name]
    topics = Topics(config.kafka.topic_prefix)
    group = topics.group(name)
    metrics_registry = registry()
    observer = ConsumerMetricsObserver(name, ConsumerMetrics(metrics_registry))
    async with AsyncExitStack() as stack:
        admin = await serve_admin(
            build_admin(metrics_registry, observer.not_ready), config.admin.host, config.admin.port
        )
        stack.push_async_callback(admin.cleanup)
        publisher = kafka_publisher(config, PublisherMetrics(metrics_registry), topics=(topics.dead_letter,))
        await publisher.start()
        stack.push_async_callback(publisher.close)
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


def check_dedupe(config: Config) -> None:
    """Raise `ConfigurationError` where the dedupe store's URL is missing or wrong, or its driver is."""
    if _is_redis(config.dedupe_url):
        _redis_dedupe_store(config)


@asynccontextmanager
async def _dedupe_store(config: Config) -> AsyncIterator[DedupeStore]:
    if config.dedupe_url.startswith("memory:"):
        yield MemoryDedupeStore(
            SystemClock(),
            retention_seconds=config.dedupe.retention_days * 86_400,
            max_entries=DEDUPE_MEMORY_ENTRIES_MAX,
        )
        return
    store: RedisDedupeStore | PostgresDedupeStore
    if _is_redis(config.dedupe_url):
        store = _redis_dedupe_store(config)
        upkeep = asyncio.create_task(_warn_of_eviction(store), name="dedupe-eviction")
    else:
        store = await PostgresDedupeStore.connect(config.dedupe_url, retention_days=config.dedupe.retention_days)
        upkeep = asyncio.create_task(_prune(store), name="dedupe-prune")
    try:
        yield store
    finally:
        upkeep.cancel()
        await asyncio.gather(upkeep, return_exceptions=True)
        try:
            await store.close()
        except Exception as error:  # noqa: BLE001 -- nothing is lost by it, and what closes after it must be closed
            _log.error("dedupe.unforeseen", operation="close", **traced(error))


def _is_redis(url: str) -> bool:
    return url.startswith(("redis:", "rediss:"))


def _redis_dedupe_store(config: Config) -> "RedisDedupeStore":
    """A store whose keys begin with the topics' prefix, as what they mark is on those topics."""
    try:
        from service.adapters.dedupe_redis import RedisDedupeStore  # noqa: PLC0415 -- its driver is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"redis", "hiredis"}:
            raise
        raise ConfigurationError(
            'dedupe.url: redis:// needs a driver that is not installed: pip install "stripe-ingest[redis]"'
        ) from None
    return RedisDedupeStore.at(
        config.dedupe_url, key_prefix=config.kafka.topic_prefix, retention_days=config.dedupe.retention_days
    )


async def _warn_of_eviction(store: "RedisDedupeStore") -> None:
    """Say once, when the server first answers, that it may forget. That costs duplicates: no reason to be unready."""
    while True:
        try:
            policy = await store.evicting_policy()
        except Exception as error:  # noqa: BLE001 -- whatever it is, deliveries are received all the same
            if not isinstance(error, DedupeUnavailable):
                _log.error("dedupe.unforeseen", operation="upkeep", **traced(error))
            await asyncio.sleep(EVICTION_RETRY_SECONDS)
            continue
        if policy is not None:
            _log.warning("dedupe.may_forget", maxmemory_policy=policy, recommended="noeviction")
        return


async def _prune(store: PostgresDedupeStore) -> None:
    """Forget what is past its retention, in small batches, for as long as the process runs."""
    while True:
        await asyncio.sleep(PRUNE_INTERVAL_SECONDS)
        try:
            async with asyncio.timeout(PRUNE_INTERVAL_SECONDS):
                while await store.prune(PRUNE_BATCH) == PRUNE_BATCH:
                    pass
        except (DedupeUnavailable, TimeoutError) as error:
            _log.warning("dedupe.prune_failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 -- the next run may go well; without any, the table grows for ever
            _log.error("dedupe.unforeseen", operation="prune", **traced(error))


@asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, inside the block."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
