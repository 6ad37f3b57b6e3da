"""Composition of what recovers events: jobs on Stripe's API, with the receivers' own way into Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from service.adapters.postgres_jobs import PostgresJobStore
from service.adapters.postgres_undecided import PostgresUndecidedObjects
from service.bootstrap.ingest import recovery_ingest
from service.bootstrap.stripe import stripe_reader
from service.clock import SystemClock
from service.config import Config
from service.errors import ConfigurationError, IngestError, JobHeld
from service.normalize.event_types import CATALOGUE
from service.ports import JobStore, UndecidedObjects
from service.receiver.ingest import Ingest
from service.recovery.backfill import Backfill
from service.recovery.reconcile import PageReport, Reconciler, Report, is_due
from service.recovery.sources import Source
from service.recovery.ties import Ties
from service.stripe_account.api_keys import KeyedEndpoints, event_keys, stripe_keys
from service.telemetry.catalogue import UNLISTED
from service.telemetry.metrics import RecoveryMetrics
from service.telemetry.traces import traced

OVERLAP: Final = timedelta(hours=1)
"""How much of what was reconciled is looked at again: Stripe may list an event late."""

ONLY_CONNECTED: Final = (
    "endpoints: those with an api_key are all for connected accounts (connect = true), whose events and objects are not"
    " on their platform's lists"
)
"""Why there may be keys and no sources."""

_log: Final = structlog.get_logger("service.recovery")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What jobs need."""

    config: Config
    ingest: Ingest
    jobs: JobStore

    def reconciler(self, source: Source) -> Reconciler:
        """For one source."""
        return Reconciler(source, self.ingest, self.jobs, SystemClock(), grace=_grace(self.config))

    def backfill(self, source: Source) -> Backfill:
        """For one source."""
        return Backfill(source, self.ingest, self.jobs, SystemClock())


@asynccontextmanager
async def recovery(config: Config) -> AsyncIterator[Recovery]:
    """What jobs need, inside the block."""
    async with recovery_ingest(config) as ingest, _job_store(config) as jobs:
        yield Recovery(config, ingest, jobs)


@asynccontextmanager
async def _job_store(config: Config) -> AsyncIterator[JobStore]:
    jobs = await PostgresJobStore.open(config.database_url)
    try:
        yield jobs
    finally:
        await jobs.close()


@asynccontextmanager
async def event_sources(config: Config) -> AsyncIterator[Sequence[Source]]:
    """The accounts whose lists of events can be read."""
    async with _sources(config, event_keys(config)) as sources:
        yield sources


@asynccontextmanager
async def object_sources(config: Config) -> AsyncIterator[Sequence[Source]]:
    """The accounts whose objects can be read."""
    async with _sources(config, stripe_keys(config)) as sources:
        yield sources


@asynccontextmanager
async def _sources(config: Config, keys: Sequence[KeyedEndpoints]) -> AsyncIterator[Sequence[Source]]:
    async with AsyncExitStack() as stack:
        found: list[Source] = []
        for keyed in keys:
            if all(endpoint.connect for endpoint in keyed.endpoints):
                continue  # an account's lists do not have what happens in the accounts connected to it
            reader = stripe_reader(config, keyed.key)
            stack.push_async_callback(reader.close)
            found.append(Source(_name(keyed), keyed.mode == "live", reader, keyed.endpoints))
        yield found


def _name(keyed: KeyedEndpoints) -> str:
    """By the endpoints, of which each has one key in a mode: a key is replaced, and its jobs go on where they were.

    Not by the account alone: two keys may be of one, each for the types of its own endpoints, and two accounts may be
    read without the configuration saying so.
    """
    account = next((endpoint.account for endpoint in keyed.endpoints if endpoint.account), "default")
    return f"{account}/{keyed.mode}/{','.join(sorted(endpoint.name for endpoint in keyed.endpoints))}"


def _grace(config: Config) -> timedelta:
    return timedelta(seconds=config.reconcile.grace_seconds)


class _Watched:
    """What a scheduled run tells: metrics, and a line for each event that was missed."""

    def __init__(self, metrics: RecoveryMetrics) -> None:
        self._metrics = metrics

    def page(self, page: PageReport) -> None:
        """See `reconcile.Watcher.page`."""
        for each in page.missing:
            self._metrics.missed.labels(each.event_type if each.event_type in CATALOGUE else UNLISTED).inc()
            _log.warning("event.missed", event_id=each.event_id, endpoint=each.endpoint, pending=each.pending)


async def keep_reconciled(current: Callable[[], Config], registry: CollectorRegistry) -> None:
    """Reconcile, and settle ties, again and again, until cancelled; where there is nothing to do it with, end.

    Every replica runs this; of all of them one does it at a time, and once in an interval. Each round asks for the
    configuration: keys come and go.
    """
    config = current()
    try:
        if not config.reconcile.interval_seconds or config.dedupe_url.startswith("memory:"):
            return
        _ = config.database_url  # where the jobs are
    except ConfigurationError as wrong:
        _log.error("reconcile.off", detail=str(wrong))
        return
    rounds = Rounds(RecoveryMetrics(registry))
    while True:
        with _surviving("reconcile.failed"):
            await rounds.one(current())
        await asyncio.sleep(config.reconcile.interval_seconds)


class Rounds:
    """What a replica does in each interval. What needs Kafka is opened only by the one that has something to do."""

    def __init__(self, metrics: RecoveryMetrics) -> None:
        self._metrics = metrics
        self._ties: defaultdict[str, Ties] = defaultdict(lambda: Ties(SystemClock()))

    async def one(self, config: Config) -> None:
        """Reconcile each account that it is time for, then settle ties. No failure of one is in the way of another."""
        if not event_keys(config):
            return
        for event_type in {each for endpoint in config.endpoints for each in endpoint.events} & CATALOGUE:
            self._metrics.missed.labels(event_type)  # 0: the first that is missed must be seen to be one more
        async with _job_store(config) as jobs, event_sources(config) as sources:
            done = [await self._reconcile(config, source, jobs) for source in sources]
        if any(done):
            await self._settle(config)

    async def _reconcile(self, config: Config, source: Source, jobs: JobStore) -> bool:
        """Whether it was done, and here."""
        labels = (source.account, source.mode)
        done = False

        def ended(outcome: str) -> None:
            self._metrics.runs.labels(*labels, outcome).inc()

        with _surviving("reconcile.failed", ended, account=source.account, mode=source.mode):
            report = await self._caught_up(config, source, jobs)
            if report is not None:
                done = True
                ended("done")
                self._metrics.until.labels(*labels).set(report.end.timestamp())
                _log.info("reconcile.done", account=source.account, mode=source.mode, **_figures(report))
        return done

    async def _caught_up(self, config: Config, source: Source, jobs: JobStore) -> Report | None:
        lookback = timedelta(hours=config.reconcile.lookback_hours)
        every = timedelta(seconds=config.reconcile.interval_seconds)
        if not await is_due(source, jobs, SystemClock(), grace=_grace(config), every=every):
            return None
        async with recovery(config) as made:
            return await made.reconciler(source).catch_up(lookback, OVERLAP, _Watched(self._metrics), every=every)

    async def _settle(self, config: Config) -> None:
        async with _undecided_objects(config) as objects, object_sources(config) as sources:
            for source in sources:
                with _surviving("ties.failed", account=source.account, mode=source.mode):
                    await self._settle_its(config, source, objects)

    async def _settle_its(self, config: Config, source: Source, objects: UndecidedObjects) -> None:
        ties = self._ties[source.name]
        found = await ties.found(source, objects)
        if not found:
            return
        async with recovery(config) as made:
            outcomes = await ties.settle(found, made.backfill(source))
        for outcome, count in outcomes.items():
            self._metrics.ties.labels(outcome).inc(count)


@asynccontextmanager
async def _undecided_objects(config: Config) -> AsyncIterator[UndecidedObjects]:
    objects = await PostgresUndecidedObjects.open(config.database_url)
    try:
        yield objects
    finally:
        await objects.close()


@contextmanager
def _surviving(event: str, ended: Callable[[str], None] = lambda _: None, **fields: str) -> Iterator[None]:
    """Go on after whatever fails inside: it is logged, and `ended` is told its tag."""
    try:
        yield
    except IngestError as error:
        if not isinstance(error, JobHeld):  # then another replica does it
            _log.warning(event, reason=error.tag, detail=str(error), **fields)
        ended(error.tag)
    except Exception as error:  # noqa: BLE001 -- whatever it is, deliveries are received, and the next round comes
        _log.error(event, **traced(error), **fields)
        ended(IngestError.tag)


def _figures(report: Report) -> dict[str, int]:
    return {
        "listed": report.listed,
        "known": report.known,
        "missing": report.missing.total(),
        "pending": report.pending,
        "unprocessable": report.unprocessable,
    }
