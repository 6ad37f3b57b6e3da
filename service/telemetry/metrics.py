"""The metrics of the catalogue, as instruments of a registry: a class for whoever counts."""

import platform
from collections.abc import Collection, Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.telemetry import catalogue
from service.telemetry.instruments import at_zero, counter, gauge, histogram
from service.telemetry.lines import dropped_lines


class ProcessRegistry(CollectorRegistry):
    """A process's registry, with what every process is measured by, and what Python and the platform say of it."""

    def __init__(self) -> None:
        super().__init__(auto_describe=True)
        ProcessCollector(registry=self)
        PlatformCollector(registry=self)
        GCCollector(registry=self)
        gauge(catalogue.BUILD_INFO, self).labels(version("stripe-ingest"), platform.python_version()).set(1)
        self.register(_LogLines())
        self.loop_lag = histogram(catalogue.EVENT_LOOP_LAG, self)
        self.certificate_not_after = gauge(catalogue.CERTIFICATE_NOT_AFTER, self)


def registry() -> ProcessRegistry:
    """A registry of this process's own."""
    return ProcessRegistry()


class _LogLines(Collector):
    """What became of this process's log lines."""

    def collect(self) -> Iterable[Metric]:
        declared = catalogue.LOG_LINES_DROPPED
        dropped = CounterMetricFamily(declared.name, declared.help)
        dropped.add_metric([], dropped_lines())
        return [dropped]


class ReceiverMetrics:
    """What the receiver counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = counter(catalogue.DELIVERIES, registry)
        self.duration = histogram(catalogue.DELIVERY_DURATION, registry)
        self.event_age = histogram(catalogue.EVENT_AGE, registry)
        self.resend_age = histogram(catalogue.RESEND_AGE, registry)
        self.last_event = gauge(catalogue.LAST_EVENT, registry)
        self.clock_skew = gauge(catalogue.CLOCK_SKEW, registry)
        self.in_flight = gauge(catalogue.IN_FLIGHT, registry)
        self.in_flight_limit = gauge(catalogue.IN_FLIGHT_LIMIT, registry)
        self.connections_refused = counter(catalogue.CONNECTIONS_REFUSED, registry)
        self.events = counter(catalogue.EVENTS, registry)
        self.unlisted_events = counter(catalogue.UNLISTED_EVENTS, registry)
        self.pings = counter(catalogue.PINGS, registry)
        self.unknown_values = counter(catalogue.UNKNOWN_VALUES, registry)
        self.quarantined = counter(catalogue.QUARANTINED, registry)
        self.secret_used = counter(catalogue.VERIFIED, registry)
        self.active_secrets = gauge(catalogue.ACTIVE_SECRETS, registry)
        self.reloads = counter(catalogue.RELOADS, registry)
        self.dedupe_claims = counter(catalogue.DEDUPE_CLAIMS, registry)
        self.dedupe_duration = histogram(catalogue.DEDUPE_DURATION, registry)
        self.dedupe_keys = counter(catalogue.DEDUPE_KEYS, registry)
        self.dedupe_bypassed = counter(catalogue.DEDUPE_BYPASSED, registry)
        self.dedupe_unforeseen = counter(catalogue.DEDUPE_UNFORESEEN, registry)
        self.dedupe_confirms_lost = counter(catalogue.DEDUPE_CONFIRMS_LOST, registry)
        self._served: frozenset[str] = frozenset()

    def serve(self, endpoints: Collection[str]) -> None:
        """These are the endpoints that are served from now on, by name."""
        for name in self._served.difference(endpoints):
            # Or it would go on as an endpoint that gets no events.
            self.last_event.remove(name)
            self.clock_skew.remove(name)
        for name in set(endpoints) - self._served:
            at_zero(self.deliveries, catalogue.DELIVERIES, endpoint=name)
            at_zero(self.unlisted_events, catalogue.UNLISTED_EVENTS, endpoint=name)
            self.last_event.labels(name).set_to_current_time()
        self._served = frozenset(endpoints)

    def event_accepted(self, endpoint: str) -> None:
        """Now, where it is served still: a delivery that ends later must not bring back what `serve` has removed."""
        if endpoint in self._served:
            self.last_event.labels(endpoint).set_to_current_time()

    def skew_measured(self, endpoint: str, skew_seconds: float) -> None:
        """Of a rightly signed delivery, where its endpoint is served still."""
        if endpoint in self._served:
            self.clock_skew.labels(endpoint).set(skew_seconds)


class EventLogMetrics:
    """What the event log counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.arrivals = counter(catalogue.EVENT_LOG_ARRIVALS, registry)


class PageMetrics:
    """What the operator's page counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sign_ins = counter(catalogue.PAGE_SIGN_INS, registry)
        self.replays = counter(catalogue.PAGE_REPLAYS, registry)


class PublisherMetrics:
    """What a publisher counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = histogram(catalogue.PUBLISH_DURATION, registry)
        self.replaced = counter(catalogue.PRODUCER_REPLACEMENTS, registry)
        self.up = gauge(catalogue.PRODUCER_UP, registry)


class ConsumerMetrics:
    """What a consumer counts; each process runs one projection."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = counter(catalogue.RECORDS, registry)
        self.batch_duration = histogram(catalogue.BATCH_DURATION, registry)
        self.refolded = counter(catalogue.REFOLDS, registry)
        self.undecided = counter(catalogue.UNDECIDED, registry)
        self.lag = gauge(catalogue.LAG_RECORDS, registry)
        self.lag_seconds = gauge(catalogue.LAG_SECONDS, registry)
        self.dead_letters = counter(catalogue.DEAD_LETTERS, registry)
        self.store_retries = counter(catalogue.STORE_RETRIES, registry)
        self.fences_lost = counter(catalogue.FENCES_LOST, registry)
        self.rebalances = counter(catalogue.REBALANCES, registry)
        self.ready = gauge(catalogue.CONSUMER_READY, registry)
        self.problem = gauge(catalogue.CONSUMER_PROBLEM, registry)
        self.last_progress = gauge(catalogue.LAST_PROGRESS, registry)
        self.end_to_end = histogram(catalogue.END_TO_END, registry)


class RecoveryMetrics:
    """What the job counts that finds what was missed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.missed = counter(catalogue.MISSED_EVENTS, registry)
        self.runs = counter(catalogue.RECONCILE_RUNS, registry)
        self.until = gauge(catalogue.RECONCILED_UNTIL, registry)
        self.ties = counter(catalogue.TIE_READS, registry)


class EndpointMetrics:
    """What a receiver sees of its webhook endpoints at Stripe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.problem = gauge(catalogue.ENDPOINT_PROBLEM, registry)
        self.undelivered = gauge(catalogue.ENDPOINT_UNDELIVERED, registry)
        self.runs = counter(catalogue.ENDPOINT_WATCH_RUNS, registry)
        self.watched = gauge(catalogue.ENDPOINT_WATCHED, registry)

    def withdraw(self) -> None:
        """Show none of them any more: nobody looks, and what was seen last would grow old for ever."""
        for instrument in (self.problem, self.undelivered, self.runs, self.watched):
            self._registry.unregister(instrument)
