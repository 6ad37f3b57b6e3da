"""Every metric, declared once: name, help, unit and labels.

Label values come from closed sets (outcomes are error tags, endpoints and topics are configured), never from a
payload: an attacker who chose them could make a scrape take seconds.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.telemetry.lines import dropped_lines

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_AGE_SECONDS: Final = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400, 259_200)
"""Event ages: Stripe's resends go on for three days."""


def registry() -> CollectorRegistry:
    """A registry of this process's own, with what Python and the platform say of it."""
    created = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=created)
    PlatformCollector(registry=created)
    GCCollector(registry=created)
    Gauge("stripe_ingest_build_info", "The running version; always 1.", ["version"], registry=created).labels(
        version("stripe-ingest")
    ).set(1)
    created.register(_LogLines())
    return created


class _LogLines(Collector):
    """What became of this process's log lines."""

    def collect(self) -> Iterable[Metric]:
        dropped = CounterMetricFamily(
            "stripe_ingest_log_lines_dropped", "Log lines dropped, since stderr was not read fast enough or at all."
        )
        dropped.add_metric([], dropped_lines())
        return [dropped]


class ReceiverMetrics:
    """What the receiver counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "stripe_ingest_deliveries_total",
            "Deliveries answered, by endpoint and outcome (accepted, duplicate, quarantined, or an error's tag).",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "stripe_ingest_delivery_duration_seconds",
            "From the request's headers to its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.event_age = Histogram(
            "stripe_ingest_event_age_seconds",
            "Age of accepted events when they arrived: received minus Stripe's created.",
            ["endpoint"],
            buckets=_AGE_SECONDS,
            registry=registry,
        )
        self.last_event = Gauge(
            "stripe_ingest_last_event_timestamp_seconds",
            "When an endpoint last had an event accepted, in Unix time.",
            ["endpoint"],
            registry=registry,
        )
        self.clock_skew = Gauge(
            "stripe_ingest_clock_skew_seconds",
            "Of an endpoint's last rightly signed delivery, accepted or refused: when it was signed, minus now.",
            ["endpoint"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "stripe_ingest_in_flight_deliveries",
            "Deliveries that are being worked on, their body read.",
            registry=registry,
        )
        self.connections_refused = Counter(
            "stripe_ingest_connections_refused_total",
            "Connections closed at once, since too many were open.",
            registry=registry,
        )
        self.events = Counter(
            "stripe_ingest_events_total", "Events accepted, by category.", ["category"], registry=registry
        )
        self.unlisted_events = Counter(
            "stripe_ingest_unlisted_events_total",
            "Events accepted whose type is in no catalogue of Stripe's that this version knows.",
            ["endpoint"],
            registry=registry,
        )
        self.pings = Counter(
            "stripe_ingest_pings_total", "Pings of event destinations, accepted.", ["endpoint"], registry=registry
        )
        self.unknown_values = Counter(
            "stripe_ingest_unknown_values_total",
            "Events accepted in which a status or another enumeration had a value that is news to this version.",
            ["field"],
            registry=registry,
        )
        self.quarantined = Counter(
            "stripe_ingest_quarantined_total", "Bodies put into quarantine, by reason.", ["reason"], registry=registry
        )
        self.secret_used = Counter(
            "stripe_ingest_verified_total",
            "Deliveries verified, by endpoint and fingerprint of the first active secret that matched.",
            ["endpoint", "secret"],
            registry=registry,
        )
        self.active_secrets = Gauge(
            "stripe_ingest_active_secrets",
            "1 for each signing secret that deliveries are verified with, by endpoint and fingerprint; an endpoint that"
            " has none, and refuses every delivery, has 0 and no fingerprint.",
            ["endpoint", "secret"],
            registry=registry,
        )
        self.reloads = Counter(
            "stripe_ingest_reloads_total",
            "Times a receiver has read its configuration again, by outcome: done, unchanged, or the old one kept since"
            " the new one is wrong (refused) or could not be read (failed).",
            ["outcome"],
            registry=registry,
        )
        self.dedupe_claims = Counter(
            "stripe_ingest_dedupe_claims_total",
            "Claims, by what was known of the event (new, done, in_flight, recent, joined).",
            ["state"],
            registry=registry,
        )
        self.dedupe_duration = Histogram(
            "stripe_ingest_dedupe_duration_seconds",
            "Round trips to the dedupe store, by operation (claim, confirm, release) and outcome (ok, failed).",
            ["operation", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.dedupe_keys = Counter(
            "stripe_ingest_dedupe_keys_total",
            "Event ids in the round trips to the dedupe store.",
            ["operation"],
            registry=registry,
        )
        self.dedupe_bypassed = Counter(
            "stripe_ingest_dedupe_bypassed_total",
            "Events published without the dedupe store's word, since it did not answer in time.",
            registry=registry,
        )
        self.dedupe_unforeseen = Counter(
            "stripe_ingest_dedupe_unforeseen_total",
            "Round trips to the dedupe store that failed in a way nobody foresaw; taken for a store that is away.",
            ["operation"],
            registry=registry,
        )
        self.dedupe_confirms_lost = Counter(
            "stripe_ingest_dedupe_confirms_lost_total",
            "Confirmations that never reached the store; each may cost a duplicate record, never an event.",
            registry=registry,
        )


class PublisherMetrics:
    """What a publisher counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "stripe_ingest_publish_duration_seconds",
            "From handing a record to the producer to the answer of all in-sync replicas.",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.replaced = Counter(
            "stripe_ingest_producer_replacements_total",
            "Producers replaced by new ones, by reason.",
            ["reason"],
            registry=registry,
        )
        self.up = Gauge("stripe_ingest_producer_up", "1 while a producer is connected.", registry=registry)


class ConsumerMetrics:
    """What a consumer counts; each process runs one projection."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "stripe_ingest_records_total",
            "Records consumed, by outcome (applied, already_applied, ignored, dead_lettered).",
            ["projection", "outcome"],
            registry=registry,
        )
        self.batch_duration = Histogram(
            "stripe_ingest_batch_duration_seconds",
            "A batch's transaction, with its retries.",
            ["projection"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refolded = Counter(
            "stripe_ingest_refolds_total",
            "Objects folded again from their ledger, for a tie or a late event.",
            ["projection"],
            registry=registry,
        )
        self.undecided = Counter(
            "stripe_ingest_undecided_total",
            "Seconds of an object whose order the events do not decide.",
            ["projection"],
            registry=registry,
        )
        self.lag = Gauge(
            "stripe_ingest_consumer_lag_records",
            "Records between this consumer's position and the end of the partition.",
            ["projection", "topic", "partition"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "stripe_ingest_dead_letters_total",
            "Records put on the dead-letter topic, by reason.",
            ["projection", "reason"],
            registry=registry,
        )
        self.store_retries = Counter(
            "stripe_ingest_store_retries_total",
            "Batches tried again, by the SQLSTATE of the refusal.",
            ["projection", "sqlstate"],
            registry=registry,
        )
        self.fences_lost = Counter(
            "stripe_ingest_fences_lost_total",
            "Batches given up since another process had moved their offsets.",
            ["projection"],
            registry=registry,
        )
        self.ready = Gauge(
            "stripe_ingest_consumer_ready", "1 while batches go through.", ["projection"], registry=registry
        )
        self.last_progress = Gauge(
            "stripe_ingest_last_progress_timestamp_seconds",
            "When a batch was last applied, in Unix time.",
            ["projection"],
            registry=registry,
        )


class RecoveryMetrics:
    """What the job counts that finds what was missed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.missed = Counter(
            "stripe_ingest_missed_events_total",
            "Events that Stripe lists and nobody had received, by type; they are published now.",
            ["event_type"],
            registry=registry,
        )
        self.runs = Counter(
            "stripe_ingest_reconcile_runs_total",
            "Runs of reconciliation, by account and outcome (done, held by another process, or an error's tag).",
            ["account", "mode", "outcome"],
            registry=registry,
        )
        self.until = Gauge(
            "stripe_ingest_reconciled_until_timestamp_seconds",
            "Up to when every event that Stripe lists is known to have been received.",
            ["account", "mode"],
            registry=registry,
        )
        self.ties = Counter(
            "stripe_ingest_tie_reads_total",
            "Objects read from Stripe because their events alone did not decide their state, by outcome.",
            ["outcome"],
            registry=registry,
        )


class EndpointMetrics:
    """What a receiver sees of its webhook endpoints at Stripe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.problem = Gauge(
            "stripe_ingest_endpoint_problem",
            "1 for what was wrong with an endpoint when it was last looked at, 0 for what was not.",
            ["endpoint", "problem"],
            registry=registry,
        )
        self.undelivered = Gauge(
            "stripe_ingest_endpoint_undelivered_events",
            "Events of the last 24 hours for an endpoint that Stripe could not deliver to every endpoint of the account"
            " that gets them, and should have by now; of very many the first thousand are counted.",
            ["endpoint"],
            registry=registry,
        )
        self.runs = Counter(
            "stripe_ingest_endpoint_watch_runs_total",
            "Looks at an account's webhook endpoints, by outcome (done, or an error's tag).",
            ["account", "mode", "outcome"],
            registry=registry,
        )
        self.watched = Gauge(
            "stripe_ingest_endpoint_watched_timestamp_seconds",
            "When the endpoints of every account that there is an API key of were last looked at, in Unix time.",
            registry=registry,
        )
