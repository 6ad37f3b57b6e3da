"""What use cases and adapters tell, as metrics: each class is the metrics side of an observer, or of a port."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

import structlog

from service.consumer.lag import Lag
from service.consumer.observer import BatchReport
from service.errors import IngestError
from service.events import Partition, Position, Record
from service.ports import Publisher
from service.records import trace_id
from service.telemetry import catalogue
from service.telemetry.instruments import at_zero, exemplar
from service.telemetry.metrics import ConsumerMetrics, PublisherMetrics, ReceiverMetrics
from service.telemetry.seldom import Seldom
from service.telemetry.traces import traced

_log: Final = structlog.get_logger("service.receiver")


class DedupeMetricsObserver:
    """The deduplicator's observer."""

    def __init__(self, metrics: ReceiverMetrics, *, seldom: Seldom | None = None) -> None:
        self._metrics = metrics
        self._seldom = seldom or Seldom()

    def found(self, finding: str) -> None:
        """One delivery met this."""
        self._metrics.dedupe_claims.labels(finding).inc()

    def bypassed(self) -> None:
        """An event is published unchecked."""
        self._metrics.dedupe_bypassed.inc()

    def round_trip(self, operation: str, *, keys: int, seconds: float, succeeded: bool) -> None:
        """One call to the store."""
        self._metrics.dedupe_duration.labels(operation, "ok" if succeeded else "failed").observe(seconds)
        self._metrics.dedupe_keys.labels(operation).inc(keys)

    def unforeseen(self, operation: str, error: Exception) -> None:
        """A call failed in a way nobody foresaw. Its type and no message: that may quote a key, or a password."""
        self._metrics.dedupe_unforeseen.labels(operation).inc()
        if (unsaid := self._seldom.due()) is not None:
            _log.error("dedupe.unforeseen", operation=operation, unsaid=unsaid, **traced(error))

    def confirms_lost(self, count: int) -> None:
        """So many confirms were given up."""
        self._metrics.dedupe_confirms_lost.inc(count)


class MeteredPublisher:
    """A publisher that is measured: the port around the port."""

    def __init__(self, publisher: Publisher, metrics: PublisherMetrics) -> None:
        self._publisher = publisher
        self._metrics = metrics

    async def publish(self, record: Record, *, deadline: float) -> Position:
        """See `Publisher.publish`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome = "failed"
        try:
            position = await self._publisher.publish(record, deadline=deadline)
            outcome = "acknowledged"
        except IngestError as error:
            outcome = error.tag
            raise
        finally:
            self._metrics.duration.labels(outcome).observe(loop.time() - started, exemplar(trace_id(record)))
        return position

    def fits(self, record: Record) -> bool:
        """See `Publisher.fits`."""
        return self._publisher.fits(record)

    @property
    def available(self) -> bool:
        """See `Publisher.available`."""
        return self._publisher.available


class ConsumerMetricsObserver:
    """A consumer's observer; it also knows whether the consumer is ready."""

    def __init__(self, projection: str, metrics: ConsumerMetrics, *, now: Callable[[], float] = time.time) -> None:
        self._projection = projection
        self._metrics = metrics
        self._now = now
        self._problems: tuple[str, ...] = ()
        self._lags: Mapping[Partition, Lag] = {}
        for declared, counter in (
            (catalogue.RECORDS, metrics.records),
            (catalogue.REFOLDS, metrics.refolded),
            (catalogue.UNDECIDED, metrics.undecided),
            (catalogue.DEAD_LETTERS, metrics.dead_letters),
            (catalogue.FENCES_LOST, metrics.fences_lost),
            (catalogue.REBALANCES, metrics.rebalances),
        ):
            at_zero(counter, declared, projection=projection)
        self.problems(("starting",))

    def not_ready(self) -> tuple[str, ...]:
        """Why the consumer is not ready; empty when it is."""
        return self._problems

    def batch_applied(self, report: BatchReport) -> None:
        """A transaction has committed events."""
        records = self._metrics.records
        records.labels(self._projection, "applied").inc(report.applied.applied)
        records.labels(self._projection, "already_applied").inc(report.applied.already_applied)
        records.labels(self._projection, "ignored").inc(report.ignored)
        self._metrics.refolded.labels(self._projection).inc(report.applied.refolded)
        self._metrics.undecided.labels(self._projection).inc(report.applied.undecided)
        self._metrics.batch_duration.labels(self._projection).observe(report.apply_seconds)
        self._metrics.last_progress.labels(self._projection).set_to_current_time()
        end_to_end = self._metrics.end_to_end.labels(self._projection)
        for latency in report.latencies:
            end_to_end.observe(latency.seconds, exemplar(latency.trace_id))

    def dead_lettered(self, reason: str) -> None:
        """A record is on the dead-letter topic."""
        self._metrics.records.labels(self._projection, "dead_lettered").inc()
        self._metrics.dead_letters.labels(self._projection, reason).inc()

    def store_retry(self, sqlstate: str | None) -> None:
        """The database could not take a batch now."""
        self._metrics.store_retries.labels(self._projection, sqlstate or "none").inc()

    def fence_lost(self) -> None:
        """Another process had moved a partition's offset."""
        self._metrics.fences_lost.labels(self._projection).inc()

    def rebalanced(self) -> None:
        """The group has dealt its partitions."""
        self._metrics.rebalances.labels(self._projection).inc()

    def lag(self, lags: Mapping[Partition, Lag]) -> None:
        """What waits; a partition that is no longer ours must not go on showing what it had."""
        before, self._lags = self._lags, lags
        for partition in before.keys() - lags.keys():
            labels = (self._projection, partition.topic, str(partition.number))
            self._metrics.lag.remove(*labels)
            self._metrics.lag_seconds.remove(*labels)
        for partition, lag in lags.items():
            labels = (self._projection, partition.topic, str(partition.number))
            self._metrics.lag.labels(*labels).set(lag.records)
            if partition not in before:
                self._metrics.lag_seconds.labels(*labels).set_function(partial(self._lag_seconds, partition))

    def _lag_seconds(self, partition: Partition) -> float:
        """At the time of the scrape: where nothing moves any more, nothing else would let it grow."""
        lag = self._lags.get(partition)
        return 0.0 if lag is None or lag.since is None else max(0.0, self._now() - lag.since)

    def problems(self, tags: Collection[str]) -> None:
        """What keeps the consumer from being ready."""
        self._problems = tuple(sorted(tags))
        self._metrics.ready.labels(self._projection).set(not self._problems)
        for tag in catalogue.CONSUMER_PROBLEM.values["problem"]:
            self._metrics.problem.labels(self._projection, tag).set(tag in self._problems)
