"""Composition of what recovers events: jobs on Stripe's API, with the receivers' own way into Kafka."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from service.adapters.kafka_reading import reading
from service.adapters.postgres_jobs import PostgresJobStore
from service.adapters.postgres_undecided import PostgresUndecidedObjects
from service.bootstrap import kafka_security, recovery_ingest
from service.clock import SystemClock
from service.config import Config
from service.errors import IngestError, JobHeld
from service.normalize.event_types import CATALOGUE
from service.ports import JobStore, RecordLog
from service.receiver.ingest import Ingest
from service.recovery.backfill import Backfill
from service.recovery.reconcile import PageReport, Reconciler, Report
from service.recovery.sources import Source
from service.recovery.ties import settle_ties
from service.stripe_account.api_keys import KeyedEndpoints, event_keys, stripe_keys
from service.stripe_account.client import StripeApiReader
from service.stripe_account.observer import StripeCounts
from service.telemetry.metrics import RecoveryMetrics
from service.telemetry.traces import traced

OVERLAP: Final = timedelta(hours=1)
"""How much of what was reconciled is looked at again: Stripe may list an event late."""

UNLISTED: Final = "other"
"""The label of event types that this version does not know."""

_log: Final = structlog.get_logger("service.recovery")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What jobs need."""

    config: Config
    ingest: Ingest
    jobs: JobStore
    requests: StripeCounts

    def reconciler(self, source: Source) -> Reconciler:
        """For one source."""
        grace = timedelta(seconds=self.config.reconcile.grace_seconds)
        return Reconciler(source, self.ingest, self.jobs, SystemClock(), grace=grace)

    def backfill(self, source: Source) -> Backfill:
        """For one source."""
        return Backfill(source, self.ingest, self.jobs, SystemClock())

    @asynccontextmanager
    async def log(self) -> AsyncIterator[RecordLog]:
        """The topics, to be read from anywhere."""
        servers = self.config.kafka.bootstrap_servers
        async with reading(servers, security=kafka_security(self.config)) as log:
            yield log

    @asynccontextmanager
    async def event_sources(self) -> AsyncIterator[Sequence[Source]]:
        """The accounts whose lists of events can be read."""
        async with self._sources(event_keys(self.config)) as sources:
            yield sources

    @asynccontextmanager
    async def object_sources(self) -> AsyncIterator[Sequence[Source]]:
        """The accounts whose objects can be read."""
        async with self._sources(stripe_keys(self.config)) as sources:
            yield sources

    @asynccontextmanager
    async def _sources(self, keys: Sequence[KeyedEndpoints]) -> AsyncIterator[Sequence[Source]]:
        async with AsyncExitStack() as stack:
            found: list[Source] = []
            for keyed in keys:
                reader = StripeApiReader(
                    keyed.key,
                    api_base=self.config.stripe.api_base,
                    requests_per_second=self.config.stripe.requests_per_second,
                    clock=SystemClock(),
                    observer=self.requests,
                )
                stack.push_async_callback(reader.close)
                found.append(Source(_name(keyed), keyed.mode == "live", reader, keyed.endpoints))
            # An account's lists do not have what happens in the accounts connected to it.
            yield [source for source in found if source.own_endpoints]


def _name(keyed: KeyedEndpoints) -> str:
    """Two keys may be of one account without the configuration saying so: each has jobs of its own."""
    account = next((endpoint.account for endpoint in keyed.endpoints if endpoint.account), "default")
    return f"{account}/{keyed.mode}/{hashlib.sha256(keyed.key.value.encode()).hexdigest()[:8]}"


@asynccontextmanager
async def recovery(config: Config) -> AsyncIterator[Recovery]:
    """What jobs need, inside the block."""
    async with AsyncExitStack() as stack:
        ingest = await stack.enter_async_context(recovery_ingest(config))
        jobs = await PostgresJobStore.open(config.database_url)
        stack.push_async_callback(jobs.close)
        yield Recovery(config, ingest, jobs, StripeCounts())


class _Watched:
    """What a scheduled run tells: metrics, and a line for each event that was missed."""

    def __init__(self, metrics: RecoveryMetrics) -> None:
        self._metrics = metrics

    def page(self, page: PageReport) -> None:
        """See `reconcile.Watcher.page`."""
        for each in page.missing:
            self._metrics.missed.labels(each.event_type if each.event_type in CATALOGUE else UNLISTED).inc()
            _log.warning("event.missed", event_id=each.event_id, endpoint=each.endpoint, pending=each.pending)


async def keep_reconciled(config: Config, registry: CollectorRegistry) -> None:
    """Reconcile, and settle ties, again and again, until cancelled; where there is nothing to do it with, end.

    Every replica runs this; of all of them one does it at a time, and once in an interval.
    """
    if not config.reconcile.interval_seconds or not event_keys(config) or config.dedupe_url.startswith("memory:"):
        return
    metrics = RecoveryMetrics(registry)
    while True:
        try:
            async with recovery(config) as made, made.event_sources() as sources:
                for source in sources:
                    await _round(made, source, metrics)
        except Exception as error:  # noqa: BLE001 -- whatever it is, deliveries are received, and the next round comes
            _log.error("reconcile.failed", **traced(error))
        await asyncio.sleep(config.reconcile.interval_seconds)


async def _round(made: Recovery, source: Source, metrics: RecoveryMetrics) -> None:
    labels = (source.account, "live" if source.livemode else "test")
    lookback = timedelta(hours=made.config.reconcile.lookback_hours)
    outcome = "done"
    try:
        every = timedelta(seconds=made.config.reconcile.interval_seconds)
        report = await made.reconciler(source).catch_up(lookback, OVERLAP, _Watched(metrics), every=every)
        if report is None:
            return
        metrics.until.labels(*labels).set(report.end.timestamp())
        await _settle(made, source, metrics)
        _log.info("reconcile.done", account=labels[0], mode=labels[1], **_figures(report))
    except JobHeld:
        outcome = JobHeld.tag  # another replica does it
    except IngestError as error:
        outcome = error.tag
        _log.warning("reconcile.failed", account=labels[0], mode=labels[1], reason=error.tag, detail=str(error))
    metrics.runs.labels(*labels, outcome).inc()


async def _settle(made: Recovery, source: Source, metrics: RecoveryMetrics) -> None:
    objects = await PostgresUndecidedObjects.open(made.config.database_url)
    try:
        counts = await settle_ties(source, made.backfill(source), objects, SystemClock())
    finally:
        await objects.close()
    metrics.ties.labels("published").inc(counts.published)
    metrics.ties.labels("gone").inc(counts.gone)


def _figures(report: Report) -> dict[str, int]:
    return {
        "listed": report.listed,
        "known": report.known,
        "missing": report.missing.total(),
        "pending": report.pending,
        "unprocessable": report.unprocessable,
    }
