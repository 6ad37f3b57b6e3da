"""Every metric, declared once: name, kind, help, unit, labels, and what values a label may have.

Label values come from closed sets (outcomes are error tags, endpoints and topics are configured), never from a
payload: an attacker who chose them could make a scrape take seconds.

`python -m service.telemetry.catalogue` prints the page for people, `deploy/prometheus/METRICS.md`.
"""

import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from service import errors
from service.errors import IngestError
from service.events import ClaimState, QuarantineReason
from service.normalize.event_types import CATALOGUE, ROUTES
from service.normalize.vocabulary import FIELDS
from service.projections import PROJECTIONS
from service.telemetry.metric import ANY, Declaring, Kind, Metric, Part, Unit, Values

UNLISTED: Final = "other"
"""The label of event types that this version does not know: an account could name any number of them."""

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ANSWER_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
"""With a bound at 300 ms, which 99 of 100 answers are to keep."""
AGE_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 259_200.0)
"""Event ages: Stripe's resends go on for three days."""
END_TO_END_SECONDS: Final = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
    86_400.0,
)


def _tags(kind: type[IngestError] = IngestError) -> Iterator[str]:
    """The tags of an error and of those below it; another module's are told of nowhere but there."""
    yield kind.tag
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tags(below)


def _once(*tags: str) -> Values:
    return tuple(dict.fromkeys(tags))


OUTCOMES: Final = _once(
    "accepted",
    "duplicate",
    "quarantined",
    *_tags(errors.DeliveryRefused),
    *_tags(errors.Unavailable),
    *_tags(errors.PublishRefused),
    IngestError.tag,
)
"""What may become of a delivery: the status table of `receiver/http.py`."""

_ERRORS: Final = _once("done", *_tags())
_MODES: Final = ("live", "test")
_EVENT_TYPES: Final = (*sorted(CATALOGUE), UNLISTED)
_CATEGORIES: Final = _once(*sorted(category for _, category in ROUTES), "other")
_DEDUPE_OPERATIONS: Final = ("claim", "look", "confirm", "release")
_PROJECTIONS: Final = tuple(PROJECTIONS)
_CONSUMER_PROBLEMS: Final = (
    "starting",
    errors.StoreUnavailable.tag,
    errors.BrokerUnavailable.tag,
    errors.FenceLost.tag,
    errors.OffsetOutOfRange.tag,
    "dead_letter_limit",
)

_receiver: Final = Declaring("receiver")
DELIVERIES: Final = _receiver.counter(
    "deliveries_total",
    "Deliveries answered, by endpoint and outcome (accepted, duplicate, quarantined, or an error's tag).",
    endpoint=ANY,
    outcome=OUTCOMES,
)
DELIVERY_DURATION: Final = _receiver.histogram(
    "delivery_duration_seconds",
    "From the request's headers to its answer, by what that was: safe (200), refused (4xx) or unavailable (503).",
    ANSWER_SECONDS,
    endpoint=ANY,
    result=("safe", "refused", "unavailable"),
    exemplars=True,
)
EVENT_AGE: Final = _receiver.histogram(
    "event_age_seconds",
    "Age of accepted events when they arrived: received minus Stripe's created.",
    AGE_SECONDS,
    endpoint=ANY,
    exemplars=True,
)
RESEND_AGE: Final = _receiver.histogram(
    "resend_age_seconds",
    "Age of events when Stripe signed the delivery that is safe now: seconds for a first attempt, minutes to"
    " days for a later one. Not affected by how long this side takes.",
    AGE_SECONDS,
    endpoint=ANY,
)
LAST_EVENT: Final = _receiver.gauge(
    "last_event_timestamp_seconds",
    "When an endpoint last had an event accepted, in Unix time; before its first, since when this process serves it.",
    endpoint=ANY,
)
CLOCK_SKEW: Final = _receiver.gauge(
    "clock_skew_seconds",
    "Of an endpoint's last rightly signed delivery, accepted or refused: when it was signed, minus now.",
    endpoint=ANY,
)
IN_FLIGHT: Final = _receiver.gauge("in_flight_deliveries", "Deliveries that are being worked on, their body read.")
IN_FLIGHT_LIMIT: Final = _receiver.gauge(
    "in_flight_limit", "How many deliveries may be worked on at once (receiver.max_in_flight); more are answered 503."
)
CONNECTIONS_REFUSED: Final = _receiver.counter(
    "connections_refused_total", "Connections closed at once, since too many were open."
)
EVENTS: Final = _receiver.counter(
    "events_total",
    "Events accepted, by category and type; a type that this version does not know is other.",
    category=_CATEGORIES,
    event_type=_EVENT_TYPES,
)
UNLISTED_EVENTS: Final = _receiver.counter(
    "unlisted_events_total",
    "Events accepted whose type is in no catalogue of Stripe's that this version knows.",
    endpoint=ANY,
)
PINGS: Final = _receiver.counter("pings_total", "Pings of event destinations, accepted.", endpoint=ANY)
UNKNOWN_VALUES: Final = _receiver.counter(
    "unknown_values_total",
    "Events accepted in which a status or another enumeration had a value that is news to this version.",
    field=FIELDS,
)
QUARANTINED: Final = _receiver.counter(
    "quarantined_total",
    "Bodies put into quarantine, by reason.",
    reason=tuple(reason.value for reason in QuarantineReason),
)
VERIFIED: Final = _receiver.counter(
    "verified_total",
    "Deliveries verified, by endpoint and fingerprint of the first active secret that matched.",
    endpoint=ANY,
    secret=ANY,
)
ACTIVE_SECRETS: Final = _receiver.flag(
    "active_secrets",
    "1 for each signing secret that deliveries are verified with, by endpoint and fingerprint; an endpoint that"
    " has none, and refuses every delivery, has 0 and no fingerprint.",
    endpoint=ANY,
    secret=ANY,
)
RELOADS: Final = _receiver.counter(
    "reloads_total",
    "Times a receiver has read its configuration again, by outcome: done, unchanged, or the old one kept since"
    " the new one is wrong (refused) or could not be read (failed).",
    outcome=("done", "unchanged", "refused", "failed"),
)
DEDUPE_CLAIMS: Final = _receiver.counter(
    "dedupe_claims_total",
    "Claims, by what was known of the event (new, done, in_flight, recent, joined).",
    state=(*(state.value for state in ClaimState), "recent", "joined"),
)
DEDUPE_DURATION: Final = _receiver.histogram(
    "dedupe_duration_seconds",
    "Round trips to the dedupe store, by operation and outcome.",
    SECONDS,
    operation=_DEDUPE_OPERATIONS,
    outcome=("ok", "failed"),
)
DEDUPE_KEYS: Final = _receiver.counter(
    "dedupe_keys_total", "Event ids in the round trips to the dedupe store.", operation=_DEDUPE_OPERATIONS
)
DEDUPE_BYPASSED: Final = _receiver.counter(
    "dedupe_bypassed_total", "Events published without the dedupe store's word, since it did not answer in time."
)
DEDUPE_UNFORESEEN: Final = _receiver.counter(
    "dedupe_unforeseen_total",
    "Round trips to the dedupe store that failed in a way nobody foresaw; taken for a store that is away.",
    operation=_DEDUPE_OPERATIONS,
)
DEDUPE_CONFIRMS_LOST: Final = _receiver.counter(
    "dedupe_confirms_lost_total",
    "Confirmations that never reached the store; each may cost a duplicate record, never an event.",
)
EVENT_LOG_ARRIVALS: Final = _receiver.counter(
    "event_log_arrivals_total",
    "Arrivals for the event log: written, or dropped since its queue was full or the database away. What is"
    " dropped is missing on the operator's page and nowhere else.",
    result=("written", "dropped"),
)

_page: Final = Declaring("page")
PAGE_SIGN_INS: Final = _page.counter(
    "page_sign_ins_total",
    "Attempts to sign in to the operator's page, by outcome.",
    outcome=("signed_in", "refused", "throttled"),
)
PAGE_REPLAYS: Final = _page.counter(
    "page_replays_total",
    "Parked records that were asked to be replayed from the operator's page, by where they were parked and outcome.",
    topic=("dead_letter", "quarantine"),
    outcome=ANY,
)

_recovery: Final = Declaring("recovery")
MISSED_EVENTS: Final = _recovery.counter(
    "missed_events_total",
    "Events that Stripe lists and nobody had received, by type; they are published now.",
    event_type=_EVENT_TYPES,
)
RECONCILE_RUNS: Final = _recovery.counter(
    "reconcile_runs_total",
    "Runs of reconciliation, by account and outcome (done, held by another process, or an error's tag).",
    account=ANY,
    mode=_MODES,
    outcome=_ERRORS,
)
RECONCILED_UNTIL: Final = _recovery.gauge(
    "reconciled_until_timestamp_seconds",
    "Up to when every event that Stripe lists is known to have been received.",
    account=ANY,
    mode=_MODES,
)
TIE_READS: Final = _recovery.counter(
    "tie_reads_total",
    "Objects read from Stripe because their events alone did not decide their state, by outcome.",
    outcome=("published", "duplicate", "unprocessable", "gone", "not_permitted"),
)

_endpoints: Final = Declaring("endpoints")
ENDPOINT_PROBLEM: Final = _endpoints.flag(
    "endpoint_problem",
    "1 for what was wrong with an endpoint when it was last looked at, 0 for what was not.",
    endpoint=ANY,
    problem=(
        "missing",
        "disabled",
        "doubled",
        "url_differs",
        "events_missing",
        "api_version_differs",
        "mixed_versions",
        "secret_unknown",
        "creation_unfinished",
        "redirects",
        "foreign_answer",
        "not_served",
        "undelivered",
    ),
)
ENDPOINT_UNDELIVERED: Final = _endpoints.gauge(
    "endpoint_undelivered_events",
    "Events of the last 24 hours for an endpoint that Stripe could not deliver to every endpoint of the account"
    " that gets them, and should have by now; of very many the first thousand are counted.",
    endpoint=ANY,
)
ENDPOINT_WATCH_RUNS: Final = _endpoints.counter(
    "endpoint_watch_runs_total",
    "Looks at an account's webhook endpoints, by outcome (done, or an error's tag).",
    account=ANY,
    mode=_MODES,
    outcome=_ERRORS,
)
ENDPOINT_WATCHED: Final = _endpoints.gauge(
    "endpoint_watched_timestamp_seconds",
    "When the endpoints of every account that there is an API key of were last looked at, in Unix time.",
)

_publisher: Final = Declaring("publisher")
PUBLISH_DURATION: Final = _publisher.histogram(
    "publish_duration_seconds",
    "From handing a record to the producer to the answer of all in-sync replicas, by outcome (acknowledged, or"
    " an error's tag).",
    SECONDS,
    outcome=("acknowledged", errors.BrokerUnavailable.tag, *_tags(errors.PublishRefused), "failed"),
    exemplars=True,
)
PRODUCER_REPLACEMENTS: Final = _publisher.counter(
    "producer_replacements_total",
    "Producers replaced by new ones, by reason.",
    reason=("refused", "poisoned", "sender_died", "stalled", "unreachable"),
)
PRODUCER_UP: Final = _publisher.flag("producer_up", "1 while a producer is connected.")

_consumer: Final = Declaring("consumer")
RECORDS: Final = _consumer.counter(
    "records_total",
    "Records consumed, by outcome (applied, already_applied, ignored, dead_lettered).",
    projection=_PROJECTIONS,
    outcome=("applied", "already_applied", "ignored", "dead_lettered"),
)
BATCH_DURATION: Final = _consumer.histogram(
    "batch_duration_seconds", "A batch's transaction, with its retries.", SECONDS, projection=_PROJECTIONS
)
REFOLDS: Final = _consumer.counter(
    "refolds_total", "Objects folded again from their ledger, for a tie or a late event.", projection=_PROJECTIONS
)
UNDECIDED: Final = _consumer.counter(
    "undecided_total", "Seconds of an object whose order the events do not decide.", projection=_PROJECTIONS
)
LAG_RECORDS: Final = _consumer.gauge(
    "consumer_lag_records",
    "Records between what this consumer has applied and the end of the partition.",
    projection=_PROJECTIONS,
    topic=ANY,
    partition=ANY,
)
LAG_SECONDS: Final = _consumer.gauge(
    "consumer_lag_seconds",
    "How long the oldest record that is not applied has been on the partition; 0 where there is none.",
    projection=_PROJECTIONS,
    topic=ANY,
    partition=ANY,
)
DEAD_LETTERS: Final = _consumer.counter(
    "dead_letters_total",
    "Records put on the dead-letter topic, by reason.",
    projection=_PROJECTIONS,
    reason=("empty_value", "not_json", "schema_mismatch", "row_refused"),
)
STORE_RETRIES: Final = _consumer.counter(
    "store_retries_total",
    "Batches tried again, by the SQLSTATE of the refusal; none where the database gave no answer.",
    projection=_PROJECTIONS,
    sqlstate=ANY,
)
FENCES_LOST: Final = _consumer.counter(
    "fences_lost_total", "Batches given up since another process had moved their offsets.", projection=_PROJECTIONS
)
REBALANCES: Final = _consumer.counter(
    "rebalances_total",
    "Times the consumer group has given this consumer its partitions, the first time included.",
    projection=_PROJECTIONS,
)
CONSUMER_READY: Final = _consumer.flag("consumer_ready", "1 while batches go through.", projection=_PROJECTIONS)
CONSUMER_PROBLEM: Final = _consumer.flag(
    "consumer_problem",
    "1 for what keeps a consumer from being ready, 0 for what does not.",
    projection=_PROJECTIONS,
    problem=_CONSUMER_PROBLEMS,
)
LAST_PROGRESS: Final = _consumer.gauge(
    "last_progress_timestamp_seconds", "When a batch was last applied, in Unix time.", projection=_PROJECTIONS
)
END_TO_END: Final = _consumer.histogram(
    "end_to_end_seconds",
    "From an event's reception by a receiver to the commit of what it says; webhooks' events only, when first applied.",
    END_TO_END_SECONDS,
    projection=_PROJECTIONS,
    exemplars=True,
)

_process: Final = Declaring("process")
EVENT_LOOP_LAG: Final = _process.histogram(
    "event_loop_lag_seconds", "How late the event loop came to something that was due, measured all the time.", SECONDS
)
BUILD_INFO: Final = _process.flag("build_info", "The running version, and Python's; always 1.", version=ANY, python=ANY)
LOG_LINES_DROPPED: Final = _process.counter(
    "log_lines_dropped_total", "Log lines dropped, since stderr was not read fast enough or at all."
)
CERTIFICATE_NOT_AFTER: Final = _process.gauge(
    "certificate_not_after_timestamp_seconds",
    "When a certificate expires, in Unix time: endpoint/<name> as the look at an endpoint's URL saw it,"
    " kafka/ca and kafka/client as this process has loaded them (renewed files count after a restart).",
    certificate=ANY,
)

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {each.name: each for each in tuple(globals().values()) if isinstance(each, Metric)}
)
"""All of them, by name."""


def _python(name: str, kind: Kind, unit: Unit, *labels: str) -> Metric:
    return Metric(
        name, kind, "process", unit, "What the client library tells of every process.", dict.fromkeys(labels, ANY)
    )


PYTHON_METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        each.name: each
        for each in (
            _python("python_info", "gauge", "flag", "implementation", "major", "minor", "patchlevel", "version"),
            _python("python_gc_objects_collected_total", "counter", "count", "generation"),
            _python("python_gc_objects_uncollectable_total", "counter", "count", "generation"),
            _python("python_gc_collections_total", "counter", "count", "generation"),
            _python("process_virtual_memory_bytes", "gauge", "bytes"),
            _python("process_resident_memory_bytes", "gauge", "bytes"),
            _python("process_start_time_seconds", "gauge", "timestamp"),
            _python("process_cpu_seconds_total", "counter", "seconds"),
            _python("process_open_fds", "gauge", "count"),
            _python("process_max_fds", "gauge", "count"),
        )
    }
)
"""What the client library tells of Python and the process, beside ours."""

_UNITS: Final[Mapping[Unit, str]] = {
    "seconds": "s",
    "timestamp": "Unix time, s",
    "bytes": "B",
    "count": "",
    "flag": "1 or 0",
}
_TITLES: Final[Mapping[Part, str]] = {
    "receiver": "Receivers",
    "recovery": "Receivers: what finds missed events",
    "endpoints": "Receivers: the look at the webhook endpoints at Stripe",
    "page": "Receivers: the operator's page",
    "publisher": "Receivers and consumers: what writes to Kafka",
    "consumer": "Consumers",
    "process": "Every process",
}
_VALUES_SHOWN_MAX: Final = 40
"""Of a label: there are hundreds of event types."""

_ABOUT: Final = """\
# Metrics

All metrics of stripe-ingest, as `/metrics` on the admin port exposes them. `python -m service.telemetry.catalogue`
prints this page: change a metric there.

A label's values are listed where the code knows all of them. Other labels have configured names (endpoints, topics,
accounts), or values that are few: partitions, SQLSTATEs, fingerprints of secrets. None comes from a payload. A
histogram *with exemplars* names the trace of one observation in a bucket, where it is asked for as OpenMetrics. Beside
these there are the `process_…` and `python_…` metrics of the client library.
"""


def page() -> str:
    """The catalogue for people, as Markdown."""
    lines = [_ABOUT]
    for part, title in _TITLES.items():
        lines += [f"## {title}", "", "| name | type | unit | labels | meaning |", "|---|---|---|---|---|"]
        lines += [*(_row(each) for each in METRICS.values() if each.part == part), ""]
    return "\n".join(lines)


def _row(metric: Metric) -> str:
    kind = f"{metric.kind}, with exemplars" if metric.exemplars else metric.kind
    labels = "<br>".join(_label(name, values) for name, values in metric.values.items())
    return f"| `{metric.name}` | {kind} | {_UNITS[metric.unit]} | {labels} | {metric.help} |"


def _label(name: str, values: Values) -> str:
    if not values:
        return f"`{name}`"
    if len(values) > _VALUES_SHOWN_MAX:
        return f"`{name}`: one of {len(values)}"
    return f"`{name}`: " + ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    sys.stdout.write(page())
